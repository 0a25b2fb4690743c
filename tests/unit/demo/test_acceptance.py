"""The acceptance test of the demo, over rows made by hand."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl

from position_sync_dagster.demo.run import (
    CurrentLegs,
    count_coverage,
    evaluate,
    expect_paths,
    is_complete,
)
from position_sync_dagster.domain.update import Source
from position_sync_dagster.sync.reports.confirmations import CONFIRMED
from tests.support.legs import leg

START = datetime(2026, 1, 2, 15, 0, tzinfo=UTC)
ACCOUNT = "DUSIM0001"
HELD = frozenset((ACCOUNT, conid) for conid in range(1, 11))


def row(conid, source, *, seconds=5.0, confirmed=None):
    at = START + timedelta(seconds=seconds)
    return (ACCOUNT, conid, 1.0, source.value, at, confirmed)


def counted(rows):
    schema = {
        "account": pl.String,
        "conid": pl.Int64,
        "position": pl.Float64,
        "source": pl.String,
        "timestamp": pl.Datetime("us", "UTC"),
        CONFIRMED: pl.Datetime("us", "UTC"),
    }
    return count_coverage(EXPECTED, pl.DataFrame(rows, schema, orient="row"), since=START)


EXPECTED = expect_paths(HELD, [leg(1), leg(2), leg(2, "b"), leg(99)])
COUNTS = {"peak_lines": 3, "orders_received": []}
ROWS = [row(c, Source.STREAM if c <= 2 else Source.QUEUE) for c in range(1, 11)]


def test_a_leg_that_is_not_held_is_not_expected_to_stream():
    assert (EXPECTED.legs, len(EXPECTED.streamed), EXPECTED.lines) == (10, 2, 2)


def test_a_leg_that_was_removed_is_expected_from_the_queue():
    assert not expect_paths(HELD, [leg(1).ended(START)]).streamed


def test_one_line_serves_a_conid_in_two_accounts():
    twice = expect_paths({("A", 1), ("B", 1)}, [leg(1)])
    assert (len(twice.streamed), twice.lines) == (2, 1)


def test_each_leg_current_by_its_own_path_is_complete():
    coverage = counted(ROWS)
    assert coverage == CurrentLegs(legs=10, streamed=2, queued=8)
    assert is_complete(EXPECTED, coverage)


def test_a_row_of_an_earlier_run_is_not_current():
    coverage = counted([*ROWS[:-1], row(10, Source.QUEUE, seconds=-1)])
    assert coverage.legs == 9
    assert not is_complete(EXPECTED, coverage)


def test_an_active_leg_valued_by_the_queue_is_misrouted():
    coverage = counted([row(1, Source.QUEUE), *ROWS[1:]])
    assert coverage == CurrentLegs(legs=10, streamed=1, queued=8)
    assert not is_complete(EXPECTED, coverage)


def test_the_row_of_something_not_held_does_not_count():
    assert counted([*ROWS, row(50, Source.QUEUE)]).legs == 10


def figures_met(**changes):
    arguments = {
        "coverage": counted(ROWS),
        "complete_after_s": 20.0,
        "limit_s": 60.0,
        "underlyings": 1,
        "counts": COUNTS,
    } | changes
    coverage = arguments.pop("coverage")
    return {f.name.strip(): f.met for f in evaluate(EXPECTED, coverage, **arguments)}


def test_all_figures_are_met():
    assert all(figures_met().values())


def test_each_figure_can_be_missed_alone():
    full = counted(ROWS)
    assert missed(complete_after_s=61.0) == ["all current after"]
    assert missed(complete_after_s=None) == ["all current after"]
    assert missed(counts={"peak_lines": 4, "orders_received": []}) == ["peak of market data lines"]
    assert missed(counts={"peak_lines": 3, "orders_received": ["BUY"]}) == [
        "order messages at the broker"
    ]
    assert missed(coverage=replace(full, legs=9, queued=7)) == [
        "legs with a current row",
        "by QUEUE",
    ]
    assert missed(coverage=replace(full, streamed=1)) == ["by STREAM"]


def test_a_line_of_an_underlying_that_is_still_to_come_is_no_miss():
    assert not missed(counts={"peak_lines": 2, "orders_received": []})
    assert missed(counts={"peak_lines": 1, "orders_received": []})


def missed(**changes):
    return [name for name, met in figures_met(**changes).items() if not met]


def test_a_row_of_an_earlier_run_counts_once_the_broker_has_confirmed_it():
    times = {3: START + timedelta(seconds=1), 4: START - timedelta(seconds=1)}
    old = [
        row(conid, Source.QUEUE, seconds=-600.0, confirmed=times.get(conid))
        for conid in range(3, 11)
    ]
    assert counted(old) == CurrentLegs(legs=1, streamed=0, queued=1)
