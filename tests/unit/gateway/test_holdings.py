"""The book of holdings: three feeds merged, and nothing closed by accident."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from position_sync_dagster.domain.holding import Completeness
from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.domain.position_update import ValueOrigin
from position_sync_dagster.gateway import holdings
from position_sync_dagster.gateway.codes import Connectivity, GatewayCode
from position_sync_dagster.gateway.holdings import PnlValues
from position_sync_dagster.gateway.translate import UNSET
from tests.support.clock import HandClock
from tests.support.holdings import make_book

START = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)
ACCOUNT = "DU1"
LISTED = Instrument(conid=7, symbol="SPY", sec_type="STK", currency="USD", exchange="ARCA")
OTHER = Instrument(conid=8, symbol="QQQ", sec_type="STK", currency="USD")
UNLISTED = Instrument(conid=7, symbol="SPY", sec_type="STK", currency="USD")
KEY = (ACCOUNT, 7)
VALUES = dict(
    average_cost=600.0, market_price=620.0, market_value=6200.0, unrealized_pnl=200.0,
    realized_pnl=0.0,
)  # fmt: skip


def pnl(value, position=10.0, realized=UNSET):
    return PnlValues(position, 5.0, UNSET, realized, value)


def downloaded(book):
    """Let the account be as after a whole list of positions, and a whole download."""
    book.states.listed_at = START
    book.states[ACCOUNT].is_covered = True


def followed_until(book):
    return book.confirmations()[ACCOUNT].followed_until


@pytest.fixture
def clock():
    return HandClock(START)


@pytest.fixture
def connectivity():
    return Connectivity()


@pytest.fixture
def book(clock, connectivity):
    return make_book(clock, account=ACCOUNT, connectivity=connectivity)


@pytest.fixture
def held(book):
    """A book with ten shares."""
    book.put_position(ACCOUNT, LISTED, 10.0, 600.0)
    return book


def test_a_watcher_that_nobody_holds_is_dropped_and_the_others_get_every_change(book):
    first = book.changes.watch()
    book.changes.watch()
    last = book.changes.watch()
    book.put_position(ACCOUNT, LISTED, 1.0, None)
    assert list(book.changes) == [first, last]
    assert first.take() == {KEY}
    assert last.take() == {KEY}


def test_a_profit_of_another_quantity_than_the_newest_that_counts_is_left_out(held, clock):
    assert held.put_pnl(KEY, pnl(6600.0))
    clock.now += timedelta(seconds=1)
    assert not held.put_pnl(KEY, pnl(5.0, position=9.0))
    assert held.profits[KEY].at == START
    assert held.get(KEY).market_value == 6600.0

    held.put_position(ACCOUNT, LISTED, 9.0, None)
    assert not held.put_pnl(KEY, pnl(6600.0))
    assert held.put_pnl(KEY, pnl(5940.0, position=9.0))


def test_a_position_row_knows_no_value_and_keeps_those_of_the_portfolio(held):
    assert held.get(KEY).market_value is None
    held.put_portfolio(KEY, UNLISTED, 10.0, VALUES)
    held.put_position(ACCOUNT, UNLISTED, 10.0, 601.0)
    holding = held.get(KEY)
    assert holding.market_value == 6200.0
    assert holding.average_cost == 601.0
    assert holding.value_source == ValueOrigin.PORTFOLIO
    assert holding.instrument.exchange == "ARCA"


def test_a_followed_holding_is_copied_once_when_it_is_read(held, clock, monkeypatch):
    """Thousands are read at each publication."""
    held.put_portfolio(KEY, LISTED, 10.0, VALUES)  # while the account is not complete
    downloaded(held)
    held.put_pnl(KEY, pnl(6300.0))
    clock.advance(seconds=1)
    held.confirm(ACCOUNT)
    copies = []

    def counted(row, **changes):
        copies.append(row)
        return replace(row, **changes)

    monkeypatch.setattr(holdings, "replace", counted)
    holding = held.get(KEY)
    assert len(copies) == 1
    assert holding.market_value == 6300.0
    assert holding.completeness == Completeness.COMPLETE
    assert holding.confirmed_at == clock.now


def test_the_time_of_the_position_moves_with_the_quantity_alone(held, clock):
    clock.advance(minutes=1)
    held.put_portfolio(KEY, LISTED, 10.0, VALUES)
    assert held.get(KEY).position_time == START
    assert held.get(KEY).received_at == clock.now
    held.put_portfolio(KEY, LISTED, 12.0, VALUES)
    assert held.get(KEY).position_time == clock.now


def test_a_changed_quantity_is_urgent_and_a_changed_value_is_not(book):
    changes = book.changes.watch()
    book.put_position(ACCOUNT, LISTED, 10.0, 600.0)
    assert changes.urgent.is_set()
    changes.take()
    book.put_portfolio(KEY, LISTED, 10.0, VALUES)
    assert not changes.urgent.is_set()
    assert set(changes.take()) == {KEY}


def test_a_whole_list_closes_what_it_does_not_name(held):
    held.put_portfolio(KEY, LISTED, 10.0, VALUES)
    held.close_absent({KEY})
    assert held.get(KEY).position == 10.0
    held.close_absent(set())
    closed = held.get(KEY)
    assert closed.position == 0.0
    assert closed.market_value is None
    assert closed.realized_pnl == 0.0


def test_what_is_remembered_of_an_account_that_is_not_managed_is_kept_apart(book, clock):
    earlier = make_book(clock, account="DU2")
    earlier.put_position("DU2", LISTED, 10.0, 600.0)
    book.remember(earlier.holdings)
    assert book.holdings == ()
    assert book.get(("DU2", 7)) is None
    assert list(book.of_conid(7)) == []
    book.close_absent(set())
    reported = book.reported()["DU2", 7]
    assert reported.position == 10.0
    assert reported.completeness == Completeness.UNKNOWN
    assert book.reported([]) == {}


def test_a_closed_holding_that_was_never_held_is_left_out(book):
    book.put_position(ACCOUNT, LISTED, 0.0, None)
    book.put_portfolio(KEY, LISTED, 0.0, VALUES)
    assert book.holdings == ()


def test_only_messages_confirm_and_an_interruption_takes_it_back(held, clock):
    downloaded(held)
    assert held.get(KEY).completeness == "COMPLETE"
    assert held.get(KEY).confirmed_at is None
    held.confirm(ACCOUNT)
    assert held.get(KEY).confirmed_at == START
    clock.advance(minutes=1)
    held.states[ACCOUNT].is_covered = False
    assert [(h.completeness, h.confirmed_at) for h in held.holdings] == [("PARTIAL", START)]
    held.put_pnl(KEY, pnl(6300.0))
    held.invalidate()
    assert held.get(KEY).completeness == "UNKNOWN"
    assert held.get(KEY).confirmed_at is None
    assert held.get(KEY).market_value == 6300.0
    assert held.get(KEY).daily_pnl is None


@pytest.mark.parametrize(("position", "merged"), [(10.0, True), (11.0, False)])
def test_a_profit_message_is_merged_if_it_belongs_to_the_quantity_held(held, position, merged):
    held.put_pnl(KEY, pnl(6300.0, position=position))
    assert held.get(KEY).daily_pnl == (5.0 if merged else None)
    held.forget_pnl(KEY)
    assert held.get(KEY).daily_pnl is None


def test_a_portfolio_row_gives_the_value_once_the_profit_messages_have_ended(held, clock):
    held.put_pnl(KEY, pnl(6300.0))
    clock.advance(seconds=5)
    held.put_portfolio(KEY, LISTED, 10.0, VALUES)
    holding = held.get(KEY)
    assert holding.market_value == 6300.0
    assert holding.daily_pnl == 5.0
    assert holding.followed is True
    assert holding.average_cost == 600.0

    clock.advance(seconds=1)
    assert held.get(KEY).market_value == 6300.0
    assert held.get(KEY).followed is False
    assert not held.missed.take()
    held.put_portfolio(KEY, LISTED, 10.0, VALUES)
    holding = held.get(KEY)
    assert holding.market_value == 6200.0
    assert holding.daily_pnl is None
    assert held.missed.take() == {KEY}
    assert held.missed.take() == set()


def test_a_daily_profit_stays_while_the_account_feed_gives_the_same_value(held, clock):
    held.put_pnl(KEY, pnl(6200.004))
    clock.advance(hours=1)
    held.put_portfolio(KEY, LISTED, 10.0, VALUES)
    holding = held.get(KEY)
    assert holding.value_source == ValueOrigin.PORTFOLIO
    assert holding.daily_pnl == 5.0
    assert not held.missed.take()


def test_a_value_that_stands_still_while_portfolio_rows_move_does_not_count(book, clock):
    def row(value):
        clock.advance(minutes=3)
        assert book.put_pnl(KEY, pnl(6300.0)) or book.get(KEY).market_value != 6300.0
        book.put_portfolio(KEY, LISTED, 10.0, VALUES | {"market_value": value})
        return book.get(KEY)

    book.put_position(ACCOUNT, LISTED, 10.0, 600.0)
    book.put_portfolio(KEY, LISTED, 10.0, VALUES)
    assert row(6250.0).market_value == 6300.0  # it may have been 6,250 three minutes ago
    assert row(6250.0).market_value == 6300.0
    assert row(6290.0).market_value == 6300.0  # within the band
    holding = row(7000.0)
    assert holding.market_value == 7000.0
    assert holding.daily_pnl is None
    assert book.missed.take() == {KEY}
    assert row(7100.0).market_value == 7100.0
    assert book.put_pnl(KEY, pnl(7120.0))
    assert book.get(KEY).market_value == 7120.0


def test_a_daily_profit_that_stands_still_while_the_value_moves_does_not_count(held):
    held.put_pnl(KEY, pnl(6300.0))
    held.put_pnl(KEY, pnl(6400.0))
    assert held.get(KEY).daily_pnl == 5.0  # within the band
    held.put_pnl(KEY, pnl(6600.0))
    assert held.get(KEY).market_value == 6600.0
    assert held.get(KEY).daily_pnl is None
    held.put_pnl(KEY, PnlValues(10.0, 305.0, UNSET, UNSET, 6600.0))
    assert held.get(KEY).daily_pnl == 305.0


def test_followed_holdings_are_confirmed_until_the_oldest_of_their_messages(book, clock):
    other = (ACCOUNT, 8)
    for contract in (LISTED, OTHER):
        book.put_position(ACCOUNT, contract, 10.0, 600.0)
    assert followed_until(book) is None
    book.put_pnl(KEY, pnl(6300.0))
    clock.advance(seconds=2)
    book.put_pnl(other, pnl(10.0))
    assert followed_until(book) == START
    clock.advance(seconds=4)
    assert followed_until(book) == START + timedelta(seconds=2)
    clock.advance(seconds=4)
    assert followed_until(book) is None


def test_a_profit_message_is_as_old_as_its_arrival(held, clock):
    changes = held.all_changes.watch()
    changes.take()
    clock.advance(seconds=1)
    held.put_pnl(KEY, pnl(6300.0, realized=7.0))
    clock.advance(seconds=1)
    held.put_pnl(KEY, pnl(6310.0, realized=7.0))
    arrived = clock.now
    clock.advance(minutes=1)
    held.confirm(ACCOUNT)
    assert list(changes.take()) == []
    assert list(held.profits) == [KEY]

    (listed,) = held.holdings
    (of_conid,) = held.of_conid(7)
    holding = held.get(KEY)
    assert listed == holding
    assert of_conid == holding
    assert holding.received_at == arrived
    assert holding.confirmed_at == clock.now
    assert holding.market_value == 6310.0
    assert holding.realized_pnl == 7.0
    assert holding.value_source == ValueOrigin.PNL_SINGLE
    assert holding.instrument == LISTED


@pytest.mark.parametrize(
    "change",
    [
        lambda book: book.put_position(ACCOUNT, LISTED, 11.0, 600.0),
        lambda book: book.put_position(ACCOUNT, LISTED, 0.0, None),
        lambda book: book.put_portfolio(KEY, LISTED, 11.0, VALUES),
        lambda book: book.close_absent(set()),
    ],
)
def test_a_profit_message_is_forgotten_with_what_it_valued(held, change):
    held.put_pnl(KEY, pnl(6300.0))
    change(held)
    assert held.get(KEY).value_source is not ValueOrigin.PNL_SINGLE
    assert held.get(KEY).market_value != 6300.0
    assert held.holdings == (held.get(KEY),)


def test_the_realized_profit_of_yesterday_is_not_that_of_today(book):
    """It is unset again until the position trades: recorded of positions not traded on a day."""
    book.put_portfolio(KEY, LISTED, 10.0, VALUES)
    for sent, realized in ((7.0, 7.0), (UNSET, VALUES["realized_pnl"])):
        book.put_pnl(KEY, pnl(6300.0, realized=sent))
        assert book.get(KEY).realized_pnl == realized


def test_the_realized_profit_of_a_closed_holding_is_that_of_its_last_profit_message(held):
    held.put_pnl(KEY, pnl(6300.0, realized=7.0))
    held.close_absent(set())
    assert held.get(KEY).position == 0.0
    assert held.get(KEY).realized_pnl == 7.0


def test_a_value_confirms_its_own_holding_alone(book, clock):
    for instrument in (LISTED, OTHER):
        book.put_position(ACCOUNT, instrument, 10.0, 600.0)
    book.put_portfolio(KEY, LISTED, 10.0, VALUES)
    clock.advance(minutes=1)
    book.put_pnl((ACCOUNT, 8), pnl(6300.0))
    assert book.get(KEY).confirmed_at == START
    assert book.get((ACCOUNT, 8)).confirmed_at == clock.now


def test_what_a_gateway_sends_without_ib_confirms_nothing(held, connectivity):
    connectivity.take(GatewayCode.CONNECTIVITY_LOST, "lost")
    held.put_portfolio(KEY, LISTED, 10.0, VALUES)
    held.confirm(ACCOUNT)
    assert held.get(KEY).confirmed_at is None


def test_a_profit_message_confirms_as_of_its_arrival_while_the_gateway_has_ib(
    held, clock, connectivity
):
    held.put_pnl(KEY, pnl(6300.0))
    clock.advance(seconds=5)
    connectivity.take(GatewayCode.CONNECTIVITY_LOST, "lost")
    assert not held.put_pnl(KEY, pnl(6400.0))
    assert held.get(KEY).market_value == 6300.0
    assert held.get(KEY).confirmed_at == START
    connectivity.take(GatewayCode.RESTORED_DATA_KEPT, "restored")
    assert held.get(KEY).confirmed_at == START


def test_an_account_confirms_no_value_of_an_earlier_connection_without_a_row(book, clock):
    earlier = make_book(clock, account=ACCOUNT)
    earlier.put_portfolio(KEY, LISTED, 10.0, VALUES)
    book.remember(earlier.holdings)
    clock.advance(days=3)
    book.put_position(ACCOUNT, LISTED, 10.0, 600.0)
    book.confirm(ACCOUNT)
    assert book.get(KEY).market_value == 6200.0
    assert book.get(KEY).confirmed_at is None
    book.put_portfolio(KEY, LISTED, 10.0, VALUES)
    clock.advance(minutes=3)
    book.confirm(ACCOUNT)
    assert book.get(KEY).confirmed_at == clock.now


def test_what_confirms_the_account_is_no_new_copy_of_what_was_reported(book, clock):
    book.put_portfolio(KEY, LISTED, 10.0, VALUES)
    (before,) = book.reported().values()
    clock.advance(minutes=3)
    book.confirm(ACCOUNT)
    assert book.reported()[KEY] is before
    assert before.confirmed_at == START
    assert book.get(KEY).confirmed_at == clock.now
    assert book.states[ACCOUNT].confirmed_at == clock.now


def test_what_was_reported_has_the_completeness_of_its_account_and_no_lost_confirmation(
    book, clock
):
    book.put_portfolio(KEY, LISTED, 10.0, VALUES)
    downloaded(book)
    assert [row.completeness for row in book.reported([KEY]).values()] == [Completeness.COMPLETE]
    book.get(KEY)
    book.invalidate()
    (row,) = book.reported([KEY]).values()
    assert row.completeness == Completeness.UNKNOWN
    assert row.confirmed_at is None


def test_what_was_reported_has_no_confirmation_from_before_the_clock_was_set_back(book, clock):
    book.confirm(ACCOUNT)
    book.put_position(ACCOUNT, LISTED, 10.0, 600.0)
    clock.advance(hours=-1)
    book.confirm(ACCOUNT)
    assert [row.confirmed_at for row in book.reported().values()] == [None]
    assert book.get(KEY).confirmed_at == clock.now


def test_open_holdings_are_counted_by_their_type_through_opens_moves_and_closes(held):
    option = Instrument(conid=9, symbol="SPY", sec_type="OPT", currency="USD", multiplier=100.0)
    assert held.open_in(ACCOUNT) == 1
    held.put_position(ACCOUNT, option, 2.0, 1.0)
    held.put_position(ACCOUNT, option, -3.0, 1.0)
    held.put_portfolio((ACCOUNT, 9), option, -3.0, VALUES)
    assert held.open_in(ACCOUNT) == 2
    assert held.open_in(ACCOUNT, {"OPT"}) == 1

    held.put_position(ACCOUNT, option, 0.0, None)
    held.close_absent([KEY])
    assert held.open_in(ACCOUNT) == 1
    assert held.open_in(ACCOUNT, {"OPT"}) == 0
    assert held.open_in("DU2") == 0


def test_the_profits_of_an_account_are_those_of_its_subscriptions_of_valued_types(held):
    held.put_position(ACCOUNT, OTHER, 1.0, 500.0)
    assert not [*held.daily_profits(ACCOUNT, {"STK"})]
    held.put_pnl(KEY, pnl(6300.0))
    assert [*held.daily_profits(ACCOUNT, {"STK"})] == [("USD", 5.0)]
    assert not [*held.daily_profits(ACCOUNT, {"OPT"}), *held.daily_profits("DU2", {"STK"})]
    held.put_position(ACCOUNT, LISTED, 0.0, None)
    assert not [*held.daily_profits(ACCOUNT, {"STK"})]


def test_what_is_held_is_read_without_the_newest_values(held):
    held.put_pnl(KEY, pnl(6300.0))
    assert [(row.key, row.position, row.market_value) for row in held.rows] == [(KEY, 10.0, None)]
    assert [holding.market_value for holding in held.holdings] == [6300.0]


def test_all_copies_of_a_holding_have_one_instrument_until_its_terms_change(held):
    first = held.get(KEY).instrument
    held.put_position(ACCOUNT, Instrument(**{**first.terms, "exchange": ""}), 10.0, 600.0)
    held.put_portfolio(KEY, UNLISTED, 12.0, VALUES)
    assert held.get(KEY).instrument is first
    held.put_position(ACCOUNT, Instrument(**first.terms | {"symbol": "NEW"}), 12.0, 600.0)
    assert held.get(KEY).instrument.symbol == "NEW"
    assert held.get(KEY).instrument.exchange == "ARCA"


def test_a_row_that_cannot_be_read_is_not_confirmed_by_an_old_message_of_the_profit(held, clock):
    downloaded(held)
    held.put_pnl(KEY, pnl(6300.0))
    clock.advance(hours=2)
    held.doubt(KEY)
    held.confirm(ACCOUNT)
    assert held.get(KEY).market_value == 6300.0
    assert held.get(KEY).confirmed_at is None
    assert held.reported([KEY])[KEY].confirmed_at is None
