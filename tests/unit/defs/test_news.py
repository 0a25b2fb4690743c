"""Which results of checks are stored."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import dagster as dg
import pytest

from position_sync_dagster.defs.assets.table_asset import check_evaluation
from position_sync_dagster.defs.checks import evaluation

NOW = datetime(2026, 3, 9, 15, 30, tzinfo=UTC)
KEY = dg.AssetCheckKey(dg.AssetKey("strategy_exposure"), "limit_x")
WARN = dg.AssetCheckSeverity.WARN
ERROR = dg.AssetCheckSeverity.ERROR


def result(*, passed: bool, text: str = "", severity: dg.AssetCheckSeverity = ERROR):
    return dg.AssetCheckResult(passed=passed, description=text, severity=severity)


HOLDS = result(passed=True, text="1")
BROKEN = result(passed=False, text="daily profit -100")


@pytest.mark.parametrize(
    ("before", "after_s", "found", "is_news"),
    [
        (HOLDS, 0, BROKEN, True),
        (BROKEN, 0, HOLDS, True),
        (HOLDS, 600, result(passed=True, text="2"), False),
        (HOLDS, 10_900, HOLDS, True),
        (BROKEN, 600, BROKEN, False),
        (BROKEN, 299, result(passed=False, text="daily profit -101"), False),
        (BROKEN, 301, result(passed=False, text="daily profit -101"), True),
        (BROKEN, 0, result(passed=False, severity=WARN), True),
        (BROKEN, 0, evaluation.unknown_result("no price"), True),
    ],
)
def test_a_result_is_stored_when_it_changed_and_other_words_alone_after_a_while(
    before, after_s, found, is_news
) -> None:
    record = SimpleNamespace(
        evaluation=check_evaluation(KEY, before),
        create_timestamp=(NOW - timedelta(seconds=after_s)).timestamp(),
    )
    assert evaluation.is_news(record, found, NOW) is is_news
