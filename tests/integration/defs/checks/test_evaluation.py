"""The checks that a drain evaluates right after its rows."""

import dagster as dg
import pytest

from position_sync_dagster.definitions import defs as definitions
from position_sync_dagster.defs.assets import position_updates
from position_sync_dagster.defs.checks import check_results
from position_sync_dagster.defs.checks.evaluation import KEYS, evaluated
from position_sync_dagster.defs.runs import DRAIN_JOB
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.settings import Settings


def test_after_its_time_limit_a_drain_begins_no_further_check(
    lake: Lake, settings: Settings, instance: dg.DagsterInstance, caplog
) -> None:
    every = list(evaluated(lake, settings, instance, run_id="r1"))
    assert [one.asset_check_key for one in every] == list(KEYS)
    assert list(evaluated(lake, settings, instance, run_id="r1", time_limit_s=0.0)) == []
    assert KEYS[0].name in caplog.text


def test_a_result_is_none_of_a_materialization_that_came_after_its_check_had_read_the_tables(
    lake: Lake, settings: Settings, instance: dg.DagsterInstance, monkeypatch
) -> None:
    """Else Dagster would show the check as passed for rows that it has not seen."""
    key = KEYS[0]

    def materialized() -> int:
        instance.report_runless_asset_event(dg.AssetMaterialization(key.asset_key))
        return instance.fetch_materializations(key.asset_key, limit=1).records[0].storage_id

    def meanwhile(*_: object) -> dg.AssetCheckResult:
        materialized()
        return dg.AssetCheckResult(passed=True)

    monkeypatch.setitem(check_results.EVALUATE, key, meanwhile)
    seen = materialized()
    (found,) = evaluated(lake, settings, instance, run_id="r1", checks=[key])
    assert found.target_materialization_data.storage_id == seen


@pytest.mark.parametrize("came", [True, False])
def test_slow_checks_of_a_drain_give_way_to_requests_that_came_meanwhile(
    instance, enqueue, own_login, write_holdings, monkeypatch, came
) -> None:
    write_holdings(own_login(), 1, 2)
    enqueue(1)

    def and_a_request(*args, **more):
        for number, event in enumerate(evaluated(*args, **more), 1):
            if came and number == 3:
                enqueue(2)
            yield event

    monkeypatch.setattr(position_updates, "evaluated", and_a_request)
    monkeypatch.setattr(position_updates, "CHECKS_FIRST_S", 0.0)
    monkeypatch.setattr(position_updates, "LOOK_AGAIN_S", 0.0)
    job = definitions().resolve_job_def(DRAIN_JOB)
    result = job.execute_in_process(
        instance=instance, asset_selection=[dg.AssetKey("position_updates")]
    )
    found = [
        event
        for event in result.all_events
        if event.event_type_value == "ASSET_CHECK_EVALUATION"
        and event.step_key == "position_updates"
    ]
    assert len(found) == (3 if came else len(KEYS))
