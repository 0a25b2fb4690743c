"""The account feed: whole downloads, one account at a time; only messages of the broker confirm."""

import asyncio
import time
from datetime import timedelta
from functools import partial

import pytest

from ib_gateway_simulator.protocol import account_messages, wire
from position_sync_dagster.domain.holding import Completeness
from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.errors import BrokerUnavailableError, GatewayLostError
from position_sync_dagster.gateway.connection import connect
from tests.support.streams import AT_ONCE

ACCOUNT, OTHER = BOTH = ("DUSIM0001", "DUSIM0002")
KEY = (ACCOUNT, 930000001)
# An option whose portfolio row is at 0: its value comes with PnLSingle alone.
WORTHLESS = (ACCOUNT, 921000003)


def without_value(feed):
    return {holding.key for holding in feed.book.holdings if holding.market_value is None}


async def test_a_snapshot_knows_every_holding_and_no_value(opened):
    _sim, connection = opened
    await connection.feed.snapshot()
    held = {h.key: h.position for h in connection.feed.book.holdings}
    assert held[("DUSIM0001", 921000001)] == 5.0
    assert held[("DUSIM0002", 921000001)] == -1.0
    assert len(held) == 9
    assert all(h.market_value is None for h in connection.feed.book.holdings)
    assert not connection.feed.is_complete


@pytest.mark.parametrize(
    ("before_h", "gateway_h", "here_h", "dated"),
    [(2, 1, 1, True), (2, 1, 2, False), (2, 3, 2, False), (0, 1, 0, False)],
    ids=["daylight saving ends", "our clock runs ahead", "our clock is behind", "behind, in UTC"],
)
async def test_the_time_of_a_later_row_is_read_anew_or_left_unknown(
    connected, eventually, set_zone, one_account, before_h, gateway_h, here_h, dated
):
    """The simulator sends UTC, so its clock is set to what another zone's clocks show."""
    shown_h = before_h
    set_zone(f"XXX-{before_h}")
    sim, connection = await connected(one_account, {"now": lambda: time.time() + shown_h * 3600})
    feed = connection.feed
    await feed.ensure(timedelta(seconds=60))
    assert feed.book.get(KEY).received_at - feed.book.get(KEY).value_time < timedelta(minutes=2)

    shown_h = gateway_h
    set_zone(f"XXX-{here_h}")
    sim.fill(*KEY, 5)
    await eventually(lambda: feed.book.get(KEY).position == 15 and feed.book.get(KEY).market_value)
    await connection.ib.reqCurrentTimeAsync()
    row = feed.book.get(KEY)
    if dated:
        assert row.received_at - row.value_time < timedelta(minutes=2)
    else:
        assert row.value_time is None


async def test_the_times_of_a_gateway_in_another_zone_are_unknown(connected, one_account):
    _sim, connection = await connected(one_account, {"now": lambda: time.time() + 5.5 * 3600})
    for _ in range(2):
        await connection.feed.download()
    row = connection.feed.book.get(KEY)
    assert row.market_value is not None
    assert row.value_time is None


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
async def test_a_download_brings_the_values_of_each_account(connected, eventually, set_zone, zone):
    set_zone(zone)
    sim, connection = await connected()
    feed = connection.feed
    await feed.ensure(timedelta(seconds=60))
    assert feed.completeness == dict.fromkeys(BOTH, Completeness.COMPLETE)
    assert feed.is_complete

    held = {(p["account"], p["conid"]): p for p in sim.positions() if p["quantity"]}
    assert len(feed.book.holdings) == len(held)
    assert connection.ib.positions() == []
    assert connection.ib.portfolio() == []
    assert without_value(feed) == {WORTHLESS}
    for holding in feed.book.holdings:
        assert holding.position == held[holding.key]["quantity"]
        assert holding.value_time is not None
        assert holding.received_at - holding.value_time < timedelta(minutes=2)
    on_and_off_for_two = 4
    await eventually(
        lambda: sim.stats()["requests"]["17"]["reqAccountUpdates"] == on_and_off_for_two
    )


async def test_a_second_ensure_requests_nothing_while_the_values_are_recent(opened):
    sim, connection = opened
    await connection.feed.ensure(timedelta(seconds=60))
    await connection.ib.reqCurrentTimeAsync()
    (before,) = sim.stats()["requests"].values()
    await connection.feed.ensure(timedelta(seconds=60))
    await connection.ib.reqCurrentTimeAsync()
    (after,) = sim.stats()["requests"].values()
    assert after == before | {"reqCurrentTime": 2}


async def test_a_fill_and_a_close_are_reported_at_once(opened, eventually):
    sim, connection = opened
    feed = connection.feed
    await feed.ensure(timedelta(seconds=60))
    changes = feed.book.changes.watch()
    opened_key = ("DUSIM0001", 921000007)
    closed_key = ("DUSIM0001", 921000002)
    sim.fill(*opened_key, 4)
    sim.close_position(*closed_key)
    await eventually(lambda: feed.book.get(opened_key) and feed.book.get(closed_key).position == 0)
    assert feed.overdue == ["DUSIM0001"]  # it sends no values by itself
    assert feed.book.get(opened_key).position == 4.0
    assert {opened_key, closed_key} <= set(changes.take())


async def test_a_holding_closed_while_disconnected_is_found_by_the_next_snapshot(
    opened, settings_for
):
    sim, first = opened
    await first.feed.snapshot()
    await first.close()
    sim.close_position("DUSIM0001", 921000002)
    second = await connect(settings_for(sim, gateway_client_id=30))
    second.feed.book.remember(first.feed.book.holdings)
    await second.feed.snapshot()
    assert second.feed.book.get(("DUSIM0001", 921000002)).position == 0.0
    await second.close()


async def test_a_lost_connection_closes_no_holding(opened, eventually):
    sim, connection = opened
    await connection.feed.snapshot()
    held = connection.feed.book.holdings
    sim.disconnect()
    await eventually(lambda: not connection.is_connected)
    with pytest.raises((GatewayLostError, ConnectionError)):
        await connection.feed.snapshot()
    assert connection.feed.book.holdings == held


NOW = timedelta(0)
LONG = timedelta(hours=1)


@pytest.fixture
def connected(connected):
    """Connect to gateways whose accounts are requested again at once."""
    return partial(connected, account_again=AT_ONCE)


@pytest.fixture
def following(connected, one_account):
    """Return a function that connects to a login with one account, and downloads it."""

    async def run(*, refresh_interval_s=180.0, **more):
        options = {"refresh_interval_s": refresh_interval_s}
        sim, connection = await connected(one_account, options, **more)
        await connection.feed.ensure(LONG)
        return sim, connection, connection.feed

    return run


async def test_an_open_socket_and_messages_of_anything_else_confirm_nothing_and_end_nothing(
    following,
):
    sim, connection, feed = await following()
    confirmed = feed.book.get(KEY).confirmed_at
    sim.send_error(2104)  # its market data farm is connected
    await connection.ib.reqCurrentTimeAsync()
    await feed.ensure(NOW)
    assert feed.book.get(KEY).confirmed_at == confirmed
    assert feed.is_complete
    assert sim.stats()["requests"]["17"]["reqAccountUpdates"] == 1


async def test_each_message_of_an_open_subscription_confirms_its_account(following, eventually):
    sim, _connection, feed = await following(refresh_interval_s=0.05)
    confirmed = feed.book.get(KEY).confirmed_at
    await eventually(lambda: feed.book.get(KEY).confirmed_at > confirmed)
    await feed.ensure(NOW)
    assert sim.stats()["requests"]["17"]["reqAccountUpdates"] == 1


@pytest.mark.parametrize("notice", [True, False], ids=["2100", "without a word"])
async def test_a_feed_that_ended_is_partial_and_keeps_its_age_until_it_is_subscribed_again(
    following, eventually, notice
):
    sim, connection, feed = await following(refresh_interval_s=0.1)
    sim.silence_account(ACCOUNT, notice=notice)
    await connection.ib.reqCurrentTimeAsync()
    confirmed = feed.book.get(KEY).confirmed_at

    if notice:
        await eventually(lambda: not feed.is_complete)
    else:  # as if nothing had come for so long
        assert not feed.take_demoted()
        feed.values._subscription.heard_s -= feed.values._silence_s
        await feed.ensure(LONG)  # it ends the subscription, and does not hide that it did
        assert feed.take_demoted()
    assert feed.completeness[ACCOUNT] is Completeness.PARTIAL
    assert feed.book.get(KEY).confirmed_at == confirmed
    assert len(feed.problems) == 1
    await eventually(lambda: feed.overdue == [ACCOUNT])
    await feed.ensure(LONG)
    assert feed.is_complete
    assert feed.book.get(KEY).confirmed_at > confirmed
    assert feed.problems == []


async def test_values_that_ib_calls_not_ready_confirm_nothing_and_are_overdue_once_they_are(
    following, eventually
):
    an_hour = Backoff(first_s=3600.0, longest_s=3600.0)
    sim, connection, feed = await following(refresh_interval_s=0.05, account_again=an_hour)
    summaries = connection.summaries
    summaries.subscribe()
    await eventually(summaries.current)
    sim.account_ready(ACCOUNT)
    await eventually(lambda: not feed.is_complete)
    (problem,) = feed.problems
    assert problem.startswith(f"account {ACCOUNT}: IB's server is being reset")

    confirmed = feed.book.get(KEY).confirmed_at
    await feed.download()
    assert feed.completeness[ACCOUNT] is Completeness.PARTIAL
    assert feed.book.get(KEY).confirmed_at == confirmed
    assert not feed.overdue
    assert summaries.current()[0].net_liquidation > 0
    sim.account_ready(ACCOUNT, ready=True)
    await eventually(lambda: feed.overdue == [ACCOUNT])
    await feed.ensure(LONG)
    assert feed.is_complete
    assert feed.problems == []


async def test_a_download_confirms_no_value_of_which_it_has_no_row(following, eventually):
    sim, _connection, feed = await following()
    sim.portfolio_rows(ACCOUNT, sent=False)
    await feed.download()
    held = feed.book.get(KEY)
    assert feed.is_complete
    assert held.market_value is not None
    assert held.confirmed_at is None
    sim.portfolio_rows(ACCOUNT)
    await feed.download()
    assert feed.book.get(KEY).confirmed_at > held.received_at


@pytest.mark.parametrize("price", [0.0, -1.0])
async def test_a_row_at_a_price_that_stands_for_none_has_no_value(following, eventually, price):
    sim, _connection, feed = await following()
    sim.holding(*KEY, 10, price=price)
    await eventually(lambda: feed.book.get(KEY).market_value is None)
    assert feed.book.get(KEY).position == 10
    assert feed.book.get(KEY).unrealized_pnl is None
    assert feed.is_complete


async def test_rows_that_stop_while_times_go_on_are_requested_anew(following, eventually):
    sim, connection, feed = await following(refresh_interval_s=0.05)
    sim.portfolio_rows(ACCOUNT, sent=False)
    await connection.ib.reqCurrentTimeAsync()
    # As if no row had come for so long.
    feed.values._subscription.row_s -= feed.values._silence_s
    feed.values.end_silent()
    assert feed.overdue == [ACCOUNT]
    assert feed.is_complete
    await feed.ensure(LONG)
    assert feed.book.get(KEY).confirmed_at is None
    sim.portfolio_rows(ACCOUNT)
    await eventually(lambda: feed.book.get(KEY).confirmed_at is not None)


async def test_a_row_that_is_too_short_to_name_its_holding_confirms_nothing(
    following, eventually, monkeypatch
):
    _sim, connection, feed = await following(refresh_interval_s=0.05)
    decoder = connection.ib.client.decoder
    usual = decoder.interpret
    with monkeypatch.context() as patched:

        def interpret(sent: list[str]) -> object:
            return usual(sent[:10] if sent[0] == "7" else sent)

        patched.setattr(decoder, "interpret", interpret)
        await eventually(lambda: not feed.is_complete)
        await feed.download()
        assert feed.completeness[ACCOUNT] is Completeness.PARTIAL
        assert feed.problems == [f"account {ACCOUNT}: a row that cannot be read"]
    await eventually(lambda: feed.overdue == [ACCOUNT])
    await feed.ensure(LONG)
    assert feed.is_complete


async def test_an_account_that_another_program_holds_is_named_with_2101(connected, settings_for):
    sim, other = await connected(gateway_client_id=50)
    other.ib.client.reqAccountUpdates(True, "DUSIM0002")
    await other.ib.reqCurrentTimeAsync()
    connection = await connect(settings_for(sim))
    await connection.feed.ensure(LONG)
    (problem,) = connection.feed.problems
    assert problem.startswith("account DUSIM0001: ")
    assert "2101" in problem
    assert connection.feed.completeness["DUSIM0001"] is Completeness.PARTIAL
    assert {h.position for h in connection.feed.book.holdings} != {0.0}
    await connection.close()


async def test_what_a_gateway_answers_from_its_cache_without_ib_is_refused(opened, eventually):
    sim, connection = opened
    feed = connection.feed
    sim.connectivity("lost")
    await eventually(lambda: connection.connectivity.lost)
    with pytest.raises(BrokerUnavailableError, match="has been lost"):
        await feed.snapshot()
    assert feed.states.listed_at is None
    await feed.download()
    assert not feed.is_complete
    assert {h.confirmed_at for h in feed.book.holdings} == {None}


async def test_after_a_restore_an_open_subscription_confirms_nothing_until_its_next_download(
    following, eventually
):
    sim, connection, feed = await following()
    confirmed = feed.book.get(KEY).confirmed_at
    sim.connectivity("reported_lost")
    await eventually(lambda: connection.connectivity.lost)
    sim.connectivity("restored_data_kept")
    sim.send_raw(wire.frame(account_messages.account_time("00:07")))
    await eventually(lambda: feed.values.account_time == "00:07")
    assert feed.book.get(KEY).confirmed_at == confirmed
    await feed.ensure(LONG)
    assert feed.book.get(KEY).confirmed_at > confirmed
    assert feed.is_complete


async def test_positions_are_due_after_a_restore_and_after_their_interval(following, eventually):
    sim, _connection, feed = await following(positions_interval_s=3600.0)
    assert not feed.positions_due
    sim.connectivity("lost")
    sim.connectivity("restored_data_kept")
    await eventually(lambda: feed.positions_due)
    sent = sim.stats()["requests"]["17"]["reqPositions"]
    await feed.ensure(LONG)
    assert sim.stats()["requests"]["17"]["reqPositions"] == sent + 1
    assert not feed.positions_due
    assert feed.book.get(KEY).market_value is not None
    _sim, _connection, feed = await following(positions_interval_s=0.05)
    await eventually(lambda: feed.positions_due)


COMPLETE = Completeness.COMPLETE
PARTIAL = Completeness.PARTIAL
# A test that waits for a time limit instead of a quiet period does not end.
HANGS_S = 600.0


@pytest.fixture
async def downloading(request, connected):
    quiet_s = getattr(request, "param", 0.3)
    sim, connection = await connected(gateway_timeout_s=HANGS_S, account_quiet_s=quiet_s)
    return sim, connection.feed


async def test_an_account_whose_end_never_comes_is_partial_and_the_others_complete(
    downloading, eventually
):
    sim, feed = downloading
    sim.download_end(ACCOUNT, delay_s=None)
    await feed.ensure(LONG)
    assert feed.completeness == {ACCOUNT: PARTIAL, OTHER: COMPLETE}
    assert feed.problems == [f"account {ACCOUNT}: its download did not end"]
    assert without_value(feed) == {WORTHLESS}
    sim.download_end(ACCOUNT)
    await eventually(lambda: feed.overdue == [ACCOUNT])
    await feed.ensure(LONG)
    assert feed.completeness == {ACCOUNT: COMPLETE, OTHER: COMPLETE}
    assert feed.problems == []


async def test_a_download_that_begins_while_the_gateway_has_lost_ib_is_not_whole(
    downloading, eventually
):
    sim, feed = downloading
    await feed.ensure(LONG)
    sim.connectivity("reported_lost")
    await eventually(lambda: feed.connectivity.lost is not None)
    await feed.download()
    assert feed.completeness == {ACCOUNT: PARTIAL, OTHER: PARTIAL}
    assert feed.problems == [f"account {name}: the gateway had lost IB" for name in BOTH]


async def test_the_late_end_of_one_account_does_not_end_the_download_of_another(
    downloading, eventually
):
    sim, feed = downloading
    for account in BOTH:
        sim.download_end(account, delay_s=None)
    download = asyncio.create_task(feed.ensure(LONG))
    await eventually(lambda: sim.stats()["account_feed"] == {"account": OTHER, "clients": [17]})
    sim.send_raw(wire.frame(account_messages.account_download_end(ACCOUNT)))
    await download
    assert feed.completeness == {ACCOUNT: PARTIAL, OTHER: PARTIAL}


@pytest.mark.parametrize("lost", [False, True])
async def test_a_late_end_of_an_open_subscription_counts_unless_ib_was_lost(
    connected, one_account, lost
):
    settings = {"gateway_timeout_s": HANGS_S, "account_quiet_s": 0.3}
    sim, connection = await connected(one_account, **settings)
    feed = connection.feed
    sim.download_end(ACCOUNT, delay_s=None)
    await feed.snapshot()
    await feed.download()
    assert feed.completeness == {ACCOUNT: PARTIAL}
    if lost:
        sim.connectivity("reported_lost")
        sim.connectivity("restored_data_kept")
    sim.send_raw(wire.frame(account_messages.account_download_end(ACCOUNT)))
    await connection.ib.reqCurrentTimeAsync()
    assert feed.completeness == {ACCOUNT: PARTIAL if lost else COMPLETE}
    assert (feed.states[ACCOUNT].confirmed_at is None) == lost


@pytest.mark.parametrize("downloading", [HANGS_S], indirect=True)
async def test_an_account_whose_download_was_cancelled_is_downloaded_again(downloading, eventually):
    sim, feed = downloading
    await feed.ensure(LONG)
    sim.download_end(ACCOUNT, delay_s=None)
    sent = sim.stats()["requests"]["17"]["reqAccountUpdates"]
    download = asyncio.create_task(feed.download([ACCOUNT]))
    await eventually(lambda: sim.stats()["requests"]["17"]["reqAccountUpdates"] > sent)
    download.cancel()
    await asyncio.gather(download, return_exceptions=True)
    assert feed.completeness[ACCOUNT] is PARTIAL
    sim.download_end(ACCOUNT)
    await feed.ensure(LONG)
    assert feed.is_complete


async def test_an_end_without_a_name_ends_the_download_unless_it_may_be_of_another_account(
    downloading, eventually
):
    sim, feed = downloading
    sim.download_end(ACCOUNT, delay_s=None)
    sim.download_end(OTHER, blank=True)
    await feed.ensure(LONG)
    assert feed.completeness == {ACCOUNT: PARTIAL, OTHER: PARTIAL}
    sim.download_end(ACCOUNT, blank=True)
    for state in feed.states.values():  # as if the requests were minutes ago
        state.requested_at -= LONG
    await eventually(lambda: feed.overdue == [ACCOUNT, OTHER])
    await feed.ensure(LONG)
    assert feed.completeness == {ACCOUNT: COMPLETE, OTHER: COMPLETE}
