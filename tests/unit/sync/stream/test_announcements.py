"""What was announced of each holding: a close has exactly one zero row."""

from dataclasses import replace
from datetime import UTC, datetime

import polars as pl
import pytest

from position_sync_dagster.sync.stream.publisher import Announcements
from tests.support.holdings import make_holding

NOW = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)


def holding(conid, position, *, market_value=None):
    return make_holding(conid, NOW, position=position, market_value=market_value)


class Ledger:
    """The newest rows of some conids."""

    def __init__(self, positions):
        self.positions = positions

    async def latest(self):
        return pl.DataFrame(
            [("A", conid, position) for conid, position in self.positions.items()],
            schema={"account": pl.String, "conid": pl.Int64, "position": pl.Float64},
            orient="row",
        )


def test_a_quantity_or_a_value_that_becomes_known_needs_a_row_and_another_value_does_not():
    announced, held = Announcements(), holding(1, 2.0)
    assert not announced.is_current(held)
    announced.record([held])
    assert announced.is_current(held)
    valued = replace(held, market_value=5.0)
    assert not announced.is_current(valued)
    announced.record([valued])
    assert announced.is_current(replace(valued, market_value=6.0))
    assert not announced.is_current(replace(valued, position=3.0))


def test_a_fill_is_another_quantity_than_the_one_that_was_announced():
    announced, key = Announcements(), ("A", 1)
    assert not announced.is_held(key, 2.0)
    announced.record([holding(1, 2.0)])
    assert announced.is_held(key, 2.0)
    assert not announced.is_held(key, 3.0)


def test_a_close_has_its_zero_row_once_it_was_recorded():
    announced, key = Announcements(), ("A", 1)
    announced.record([holding(1, 2.0)])
    assert announced.lacks_zero_row(holding(1, 0.0))
    assert not announced.is_held(key, 0.0)
    announced.record([holding(1, 0.0)])
    assert not announced.lacks_zero_row(holding(1, 0.0))
    assert announced.is_held(key, 0.0)


def test_a_closed_holding_that_was_never_announced_needs_no_zero_row():
    assert not Announcements().lacks_zero_row(holding(1, 0.0))


@pytest.mark.parametrize(("row", "lacks"), [(0.0, False), (2.0, True), (None, True)])
async def test_after_a_restart_a_close_lacks_its_zero_row_unless_the_ledger_has_it(row, lacks):
    announced = Announcements(Ledger({} if row is None else {1: row}))
    await announced.restore([holding(1, 0.0), holding(2, 4.0)])
    assert announced.lacks_zero_row(holding(1, 0.0)) is lacks
    assert announced.is_held(("A", 1), 0.0) is not lacks
    assert announced.lacks_zero_row(holding(2, 0.0))
    announced.record([holding(1, 0.0)])
    assert not announced.lacks_zero_row(holding(1, 0.0))
