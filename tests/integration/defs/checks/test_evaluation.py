"""The checks that a drain evaluates right after its rows."""

import dagster as dg

from position_sync_dagster.defs.checks.evaluation import CHECKS, evaluated
from position_sync_dagster.lake import Lake
from position_sync_dagster.settings import Settings


def test_after_its_time_limit_a_drain_begins_no_further_check(
    lake: Lake, settings: Settings, instance: dg.DagsterInstance, caplog
) -> None:
    every = list(evaluated(lake, settings, instance, run_id="r1"))
    assert [(e.asset_key.to_user_string(), e.check_name) for e in every] == list(CHECKS)
    assert list(evaluated(lake, settings, instance, run_id="r1", time_limit_s=0.0)) == []
    assert CHECKS[0][1] in caplog.text
