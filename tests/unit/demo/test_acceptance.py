"""The acceptance test of the demo, over rows made by hand."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from position_sync_dagster.demo.run import current_paths, evaluate, expect_paths, is_complete
from position_sync_dagster.domain.update import Source
from position_sync_dagster.sync.reports.confirmations import CONFIRMED
from tests.support.legs import leg

START = datetime(2026, 1, 2, 15, 0, tzinfo=UTC)
ACCOUNT = "DUSIM0001"
HELD = frozenset((ACCOUNT, conid) for conid in range(1, 11))


def row(conid, source, *, seconds=5.0, confirmed=None):
    at = START + timedelta(seconds=seconds)
    return (ACCOUNT, conid, 1.0, source.value, at, confirmed)


def current(rows):
    schema = {
        "account": pl.String,
        "conid": pl.Int64,
        "position": pl.Float64,
        "source": pl.String,
        "timestamp": pl.Datetime("us", "UTC"),
        CONFIRMED: pl.Datetime("us", "UTC"),
    }
    return current_paths(pl.DataFrame(rows, schema, orient="row"), since=START)


EXPECTED = expect_paths(HELD, [leg(1), leg(2), leg(2, "b"), leg(99)])
ROWS = [row(c, Source.STREAM if c <= 2 else Source.QUEUE) for c in range(1, 11)]


def missed(rows=ROWS, *, expected=EXPECTED, lines=3, orders=(), **changes):
    arguments = {"complete_after_s": 20.0, "limit_s": 60.0, "underlyings": 1} | changes
    counts = {"peak_lines": lines, "orders_received": orders}
    results = evaluate(expected, current(rows), counts=counts, **arguments)
    return [one.name.strip() for one in results if not one.met]


def test_a_leg_streams_while_a_strategy_has_it_and_it_is_held():
    streamed = [conid for (_, conid), path in EXPECTED.items() if path is Source.STREAM]
    assert (len(EXPECTED), sorted(streamed)) == (10, [1, 2])
    ended = expect_paths(HELD, [leg(1).ended(START)])
    assert set(ended.values()) == {Source.QUEUE}


def test_one_line_serves_a_conid_in_two_accounts():
    twice = expect_paths({("A", 1), ("B", 1)}, [leg(1)])
    [peak] = [one for one in missed([], expected=twice, lines=2, underlyings=0) if "peak" in one]
    assert peak == "peak of market data lines"
    assert "peak of market data lines" not in missed([], expected=twice, lines=1, underlyings=0)


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        (ROWS, []),
        ([*ROWS, row(50, Source.QUEUE)], []),  # it is not held
        ([*ROWS[:-1], row(10, Source.QUEUE, seconds=-1)], ["legs with a current row", "by QUEUE"]),
        ([row(1, Source.QUEUE), *ROWS[1:]], ["by STREAM"]),
    ],
)
def test_each_leg_needs_a_row_of_this_run_by_its_own_path(rows, names):
    assert missed(rows) == names
    assert is_complete(EXPECTED, current(rows)) is not bool(names)


def test_each_other_figure_can_be_missed_alone():
    assert missed(complete_after_s=61.0) == ["all current after"]
    assert missed(complete_after_s=None) == ["all current after"]
    assert missed(lines=4) == ["peak of market data lines"]
    assert missed(orders=["BUY"]) == ["order messages at the broker"]


def test_a_line_of_an_underlying_that_is_still_to_come_is_no_miss():
    assert not missed(lines=2)
    assert missed(lines=1)


def test_a_row_of_an_earlier_run_counts_once_the_broker_has_confirmed_it():
    times = {3: START + timedelta(seconds=1), 4: START - timedelta(seconds=1)}
    old = [
        row(conid, Source.QUEUE, seconds=-600.0, confirmed=times.get(conid))
        for conid in range(3, 11)
    ]
    assert current(old) == {(ACCOUNT, 3): Source.QUEUE}
