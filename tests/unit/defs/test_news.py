"""Which results of checks are stored."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace
from unittest.mock import Mock

import dagster as dg
import pytest

from position_sync_dagster.defs.assets.table_asset import check_evaluation
from position_sync_dagster.defs.checks import evaluation
from position_sync_dagster.lake.lake import Lake

NOW = datetime(2026, 3, 9, 15, 30, tzinfo=UTC)
KEY = dg.AssetCheckKey(dg.AssetKey("strategy_exposure"), "limit_x")
WARN = dg.AssetCheckSeverity.WARN
ERROR = dg.AssetCheckSeverity.ERROR


def result(*, passed: bool, text: str = "", severity: dg.AssetCheckSeverity = ERROR):
    return dg.AssetCheckResult(passed=passed, description=text, severity=severity)


HOLDS = result(passed=True, text="1")
BROKEN = result(passed=False, text="daily profit -100")
NAMING = evaluation.passed("1", **{evaluation.NAMED: "a request of what never was"})


@pytest.mark.parametrize(
    ("before", "after_s", "found", "is_news"),
    [
        (HOLDS, 0, BROKEN, True),
        (BROKEN, 0, HOLDS, True),
        (HOLDS, 600, result(passed=True, text="2"), False),
        (HOLDS, 10_900, HOLDS, True),
        (HOLDS, 0, NAMING, True),
        (NAMING, 600, NAMING, False),
        (NAMING, 0, HOLDS, True),
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


def test_the_checks_take_turns_and_none_waits_longer_than_a_minute_and_a_tick(monkeypatch):
    """All in one tick would keep the drain from what waits."""
    now = 1_000.0
    monkeypatch.setattr(evaluation, "time", SimpleNamespace(monotonic=lambda: now))
    judged = Mock(return_value=evaluation.passed("fine"))
    checks = [
        evaluation.table_check("a_table", f"check_{n}", description="-", driven=True)(judged)
        for n in range(12)
    ]
    driver = evaluation.CheckDriver(checks)
    at = defaultdict(list)
    for tick in range(60):
        # A drain of twenty seconds makes several due at once; their turns are apart again after it.
        now += 20.0 if tick == 30 else 5.0
        evaluated = [key for key, _result in driver.results(None, None)]
        assert len(evaluated) <= (12 if tick == 0 else 5 if tick == 30 else 1)
        for key in evaluated:
            at[key].append(now)

    assert len(at) == len(checks)
    for times in at.values():
        gaps = [after - before for before, after in pairwise(times)]
        assert max(gaps) <= evaluation.ALL_EVERY_S + 20.0
        assert sorted(gaps)[-2] <= evaluation.ALL_EVERY_S + 5.0


def test_a_failure_that_is_not_evaluated_again_counts_no_more_after_a_while(monkeypatch) -> None:
    """As that of a limit which was removed from its file: no result follows."""
    now = 0.0
    monkeypatch.setattr(evaluation, "time", SimpleNamespace(monotonic=lambda: now))
    driver = evaluation.CheckDriver[Lake]([])
    lasting = KEY._replace(name="limit_y")
    driver.failing({KEY: BROKEN, lasting: BROKEN})

    now = evaluation.COUNTS_S
    assert len(driver.failing({lasting: BROKEN})) == 2
    now += 1.0
    (failing,) = driver.failing({})
    assert failing.name == "strategy_exposure: limit_y"
