"""Ages and agreement decided in columns are those that the rules of the domain decide."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from position_sync_dagster.domain.broker_position import BrokerPosition
from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.domain.pricing.confirmation import confirmed_time
from position_sync_dagster.domain.pricing.valuation import Provenance, from_portfolio
from position_sync_dagster.domain.reconciliation import compare
from position_sync_dagster.domain.update import PositionUpdate, Source, ValueOrigin
from position_sync_dagster.lake.schema.codec import update_rows
from position_sync_dagster.sync.reports.confirmations import CONFIRMED, said_of, with_confirmed
from position_sync_dagster.sync.reports.reconciliation import agreeing_rows

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
        )  # fmt: skip
        held += [holding] * draw(st.integers(0, 1))
        rows += [row] * draw(st.integers(0, 1))
    return held, rows


def key_of(row: PositionUpdate) -> tuple[str, int]:
    return row.account, row.conid


@given(book=books())
@settings(max_examples=300, deadline=None)
def test_the_confirmation_of_rows_in_columns_is_that_of_the_rule(book):
    held, rows = book
    by_key = {holding.key: holding for holding in held}
    found = with_confirmed(update_rows(rows), said_of(held), NOW)
    assert found.get_column(CONFIRMED).to_list() == [
        confirmed_time(row, by_key.get(key_of(row)), NOW) for row in rows
    ]


@given(book=books(), complete=st.booleans())
@settings(max_examples=300, deadline=None)
def test_rows_that_agree_in_columns_are_those_without_a_discrepancy(book, complete):
    held, rows = book
    given = {"complete": complete, "now": NOW, "stale_after": STALE_AFTER}
    whole = compare(held, rows, [], **given)
    agreeing = agreeing_rows(held, update_rows(rows), now=NOW, stale_after=STALE_AFTER)
    agreed = frozenset(agreeing.select("account", "conid").iter_rows())
    others = [row for row in rows if key_of(row) not in agreed]
    assert compare(held, others, [], **given, agreed=agreed) == whole
    differ = {(one.account, one.conid) for one in whole.discrepancies}
    assert not agreed & differ
