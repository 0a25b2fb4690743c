"""When the derived tables need a run."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from position_sync_dagster.sync.drain_plan import (
    LEFT_BEHIND,
    LONGEST_AGE,
    SHORTEST_GAP,
    Derivation,
    plan_derivation,
)
from position_sync_dagster.sync.supervision import JobRun, RunState

NOW = datetime(2026, 3, 9, 15, 0, tzinfo=UTC)

SECOND = timedelta(seconds=1)

RUN = JobRun(run_id="a" * 32, state=RunState.RUNNING, since=NOW - SECOND)

UP_TO_DATE = {
    "active_strategies": NOW - 60 * SECOND,
    "position_updates": NOW - 60 * SECOND,
    "latest_positions": NOW - 59 * SECOND,
    "strategy_exposure": NOW - 58 * SECOND,
    "statement_events": NOW - 60 * SECOND,
    "closures": NOW - 59 * SECOND,
}


def plan(in_progress: JobRun | None = None, last_run: JobRun | None = None, **at) -> Derivation:
    return plan_derivation(UP_TO_DATE | at, now=NOW, in_progress=in_progress, last_run=last_run)


def test_what_is_up_to_date_is_left_alone() -> None:
    assert not plan().start


@pytest.mark.parametrize("source", ["position_updates", "active_strategies"])
def test_a_newer_source_starts_a_run_and_is_named(source) -> None:
    found = plan(**{source: NOW - 58.5 * SECOND})
    assert (found.start, found.reason) == (True, f"{source} is newer than latest_positions")


def test_imported_statements_start_a_run_that_judges_the_closes() -> None:
    found = plan(statement_events=NOW - 58 * SECOND)
    assert (found.start, found.reason) == (True, "statement_events is newer than closures")
    never_imported = {name: at for name, at in UP_TO_DATE.items() if name != "statement_events"}
    assert not plan_derivation(never_imported, now=NOW, in_progress=None, last_run=None).start


def test_tables_that_are_a_quarter_of_an_hour_old_are_derived_again() -> None:
    old = dict.fromkeys(UP_TO_DATE, NOW - LONGEST_AGE)
    assert plan(**old).start


def test_a_run_in_progress_is_waited_for_unless_a_crash_left_it_behind() -> None:
    newer = {"position_updates": NOW}
    assert not plan(RUN, **newer).start
    assert plan(replace(RUN, since=NOW - LEFT_BEHIND), **newer).start


def test_a_clock_that_was_set_back_keeps_no_table_from_being_derived() -> None:
    hour = timedelta(hours=1)
    derived = dict.fromkeys(UP_TO_DATE, NOW + hour)
    assert plan(**derived).start
    assert not plan(active_strategies=NOW + hour).start, "it was derived after the clock was set"
    assert plan(replace(RUN, since=NOW + hour), position_updates=NOW).start


def test_a_gateway_that_comes_and_goes_starts_no_run_each_time() -> None:
    ended = replace(RUN, state=RunState.ENDED)
    newer = {"position_updates": NOW}
    assert "less than 15 s ago" in plan(last_run=ended, **newer).reason
    assert plan(last_run=replace(ended, since=NOW - SHORTEST_GAP), **newer).start


def test_without_a_ledger_there_is_nothing_to_derive() -> None:
    found = plan_derivation({}, now=NOW, in_progress=None, last_run=None)
    assert (found.start, found.reason) == (False, "the ledger was never materialized")
