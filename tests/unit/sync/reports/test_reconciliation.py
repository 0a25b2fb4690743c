"""Ages and agreement decided in columns are those that the rules of the domain decide."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from position_sync_dagster.domain.broker_position import BrokerPosition
from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.domain.leg import make_leg
from position_sync_dagster.domain.reconciliation import Pair, Scope, compare, compare_pairs
from position_sync_dagster.domain.streamed_holding import OUTSIDE_SESSION, confirmed_time
from position_sync_dagster.domain.update import PositionUpdate, Source, ValueOrigin
from position_sync_dagster.domain.valuation import Provenance, from_portfolio
from position_sync_dagster.lake.schema.codec import update_rows, updates_of
from position_sync_dagster.sync.reports.confirmations import (
    CONFIRMED,
    holdings_frame,
    with_confirmed,
)
from position_sync_dagster.sync.reports.reconciliation import held_of, pairs_of, undecided
from tests.support.extent import examples

NOW = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)
STALE_AFTER = timedelta(minutes=10)

times = st.sampled_from([0, 0.5, 5, 9.99, 10, 10.1, 11, 60, -1, -5, -5.1, -600]).map(
    lambda minutes: NOW - timedelta(minutes=minutes)
)
maybe_times = st.none() | times
origins = st.sampled_from(ValueOrigin)
prices = st.sampled_from([None, 1.5, 2.0])
quantities = st.sampled_from([0.0, 1.0, -2.0])


@st.composite
def holdings(draw, conid):
    return BrokerPosition(
        gateway_id="g", account="A", position=draw(quantities), market_price=draw(prices),
        market_value=draw(prices), value_source=draw(origins), value_time=draw(maybe_times),
        received_at=draw(times), position_time=NOW, confirmed_at=draw(maybe_times), snapshot_id="s",
        instrument=Instrument(conid=conid, symbol="SPY", sec_type="OPT", currency="USD"),
    )  # fmt: skip


@st.composite
def books(draw):
    """Return holdings and rows of a few contracts; some of each lack their other one."""
    held, rows = [], []
    for conid in range(1, draw(st.integers(1, 5)) + 1):
        holding = draw(holdings(conid))
        row = replace(
            from_portfolio(holding, source=Source.QUEUE, now=draw(times), by=Provenance()),
            position=draw(quantities | st.just(holding.position)),
            market_value=draw(prices | st.just(holding.market_value)),
            value_source=draw(origins), value_time=draw(maybe_times),
            note=draw(st.sampled_from([None, "why", OUTSIDE_SESSION, f"{OUTSIDE_SESSION}; why"])),
        )  # fmt: skip
        held += [holding] * draw(st.integers(0, 1))
        rows += [row] * draw(st.integers(0, 1))
    return held, rows


def key_of(row: PositionUpdate) -> tuple[str, int]:
    return row.account, row.conid


@given(book=books(), unknown=st.booleans())
@settings(max_examples=examples(300), deadline=None)
def test_the_confirmation_of_rows_in_columns_is_that_of_the_rule(book, unknown):
    held, rows = book
    by_key = {holding.key: holding for holding in held}
    frame = update_rows(rows)
    if unknown:  # as a later release may write it
        frame = frame.with_columns(value_source=pl.col("value_source").replace("PORTFOLIO", "NEW"))
    found = with_confirmed(frame, holdings_frame(held), NOW)
    assert found.get_column(CONFIRMED).to_list() == [
        confirmed_time(row, by_key.get(key_of(row)), NOW) for row in updates_of(frame)
    ]


def legs_of(conids, quantity):
    return [
        make_leg(
            conid=conid, symbol="SPY", right="C", strike=1, expiry="20261218", strategy_id="s",
            added_at=NOW, account=account, quantity=quantity,
        )
        for conid in conids
        for account in ("A", None)
    ]  # fmt: skip


def compared(holdings, latest, legs, complete):
    """Compare frames as the service does."""
    pairs = pairs_of(holdings, latest, NOW)
    waiting = undecided(pairs, now=NOW, stale_after=STALE_AFTER)
    return waiting, compare_pairs(
        map(Pair._make, waiting.iter_rows()),
        legs,
        Scope(complete=complete, now=NOW, stale_after=STALE_AFTER),
        held=held_of(pairs, {leg.conid for leg in legs}),
        checked=pairs.height,
    )


@given(book=books(), complete=st.booleans(), quantity=st.sampled_from([None, 1.0, -1.0, 3.0]))
@settings(max_examples=examples(300), deadline=None)
def test_books_compared_in_columns_differ_as_the_rule_says(book, complete, quantity):
    held, rows = book
    legs = legs_of({holding.instrument.conid for holding in held}, quantity)
    scope = Scope(complete=complete, now=NOW, stale_after=STALE_AFTER)
    waiting, found = compared(holdings_frame(held), update_rows(rows), legs, complete)
    assert found == compare(held, rows, legs, scope)
    surely = {(d.account, d.conid) for d in compare(held, rows, [], scope).discrepancies}
    assert surely <= set(waiting.select("account", "conid").iter_rows())


HELD = BrokerPosition(
    gateway_id="g", account="A", position=2.0, received_at=NOW, position_time=NOW,
    confirmed_at=NOW, snapshot_id="s",
    instrument=Instrument(conid=1, symbol="SPY", sec_type="OPT", currency="USD"),
)  # fmt: skip
ROW = from_portfolio(HELD, source=Source.QUEUE, now=NOW, by=Provenance())


@pytest.mark.parametrize("quantity", [None, math.nan])
def test_a_quantity_that_is_not_known_agrees_with_nothing_and_is_no_close(quantity):
    odd = holdings_frame([HELD]).with_columns(position=pl.lit(quantity, pl.Float64))
    row = update_rows([ROW])
    no_number = row.with_columns(position=pl.lit(quantity, pl.Float64))
    for holdings, latest in [(odd, row), (holdings_frame([HELD]), no_number), (odd, no_number)]:
        _, result = compared(holdings, latest, [], complete=True)
        assert [d.type for d in result.discrepancies] == ["QUANTITY"]
    _, result = compared(odd, row.clear(), [], complete=True)
    assert [d.type for d in result.discrepancies] == ["MISSING"]


def test_a_row_of_a_source_that_is_not_known_is_confirmed_as_one_without_a_value():
    before = NOW - timedelta(hours=1)
    old = update_rows([replace(ROW, timestamp=before)])
    unknown = old.with_columns(value_source=pl.lit("NEW"))
    found = with_confirmed(unknown, holdings_frame([HELD]), NOW).get_column(CONFIRMED).to_list()
    assert found == [confirmed_time(updates_of(unknown)[0], HELD, NOW)] == [NOW]


def test_of_rows_that_agree_none_is_looked_at_one_by_one():
    waiting, result = compared(holdings_frame([HELD]), update_rows([ROW]), [], complete=True)
    assert waiting.is_empty()
    assert result.ok
    assert result.checked == 1
