"""Values are confirmed by messages of the broker, never by a socket that is open."""

from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from ib_gateway_simulator.protocol import account_messages, wire
from position_sync_dagster.domain.clock import Backoff
from position_sync_dagster.domain.holding import Completeness
from position_sync_dagster.errors import BrokerUnavailableError
from position_sync_dagster.gateway import account_feed
from position_sync_dagster.gateway.connection import connect

ACCOUNT, CONID = "DUSIM0001", 930000001
KEY = (ACCOUNT, CONID)
NOW, LONG = timedelta(0), timedelta(hours=1)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(account_feed, "AGAIN", Backoff(first_s=0.05, longest_s=0.05))


@pytest.fixture
def following(simulate, settings_for, one_account):
    """Connect to a login with one account, and download it."""

    @asynccontextmanager
    async def run(*, refresh_interval_s=180.0, **more):
        async with simulate(one_account, refresh_interval_s=refresh_interval_s) as sim:
            connection = await connect(settings_for(sim, **more))
            await connection.feed.ensure(LONG)
            yield sim, connection
            await connection.close()

    return run


async def test_an_open_socket_confirms_nothing(following):
    async with following() as (_sim, connection):
        feed = connection.feed
        confirmed = feed.get(KEY).confirmed_at
        await feed.ensure(NOW)
        await connection.ib.reqCurrentTimeAsync()
        assert feed.get(KEY).confirmed_at == confirmed
        assert feed.is_complete


async def test_each_message_of_an_open_subscription_confirms_its_account(following, eventually):
    async with following(refresh_interval_s=0.05) as (sim, connection):
        feed = connection.feed
        confirmed = feed.get(KEY).confirmed_at
        await eventually(lambda: feed.get(KEY).confirmed_at > confirmed)
        await feed.ensure(NOW)
        assert sim.stats()["requests"]["17"]["reqAccountUpdates"] == 1


@pytest.mark.parametrize("notice", [True, False], ids=["2100", "without a word"])
async def test_a_feed_that_ended_is_partial_and_keeps_its_age_until_it_is_subscribed_again(
    following, eventually, notice
):
    interval_s = 180.0 if notice else 0.3
    async with following(refresh_interval_s=0.1, account_interval_s=interval_s) as (
        sim,
        connection,
    ):
        feed = connection.feed
        sim.silence_account(ACCOUNT, notice=notice)
        await connection.ib.reqCurrentTimeAsync()
        confirmed = feed.get(KEY).confirmed_at
        await eventually(lambda: feed.lapse() or not feed.is_complete)
        assert feed.completeness[ACCOUNT] is Completeness.PARTIAL
        assert feed.get(KEY).confirmed_at == confirmed
        assert len(feed.problems) == 1
        await eventually(lambda: feed.overdue == [ACCOUNT])
        await feed.ensure(LONG)
        assert feed.is_complete
        assert feed.get(KEY).confirmed_at > confirmed
        assert feed.problems == []


async def test_values_that_ib_calls_not_ready_confirm_nothing_until_they_are(following, eventually):
    async with following(refresh_interval_s=0.05) as (sim, connection):
        feed, summaries = connection.feed, connection.summaries
        summaries.subscribe()
        await eventually(summaries.current)
        sim.account_ready(ACCOUNT)
        await eventually(lambda: not feed.is_complete)
        (problem,) = feed.problems
        assert problem.startswith(f"account {ACCOUNT}: IB's server is being reset")
        confirmed = feed.get(KEY).confirmed_at
        await feed.download()
        assert feed.completeness[ACCOUNT] is Completeness.PARTIAL
        assert feed.get(KEY).confirmed_at == confirmed
        assert summaries.current()[0].net_liquidation > 0
        sim.account_ready(ACCOUNT, ready=True)
        await eventually(lambda: feed.overdue == [ACCOUNT])
        await feed.ensure(LONG)
        assert feed.is_complete
        assert feed.problems == []


async def test_a_download_confirms_no_value_of_which_it_has_no_row(following, eventually):
    async with following() as (sim, connection):
        feed = connection.feed
        sim.portfolio_rows(ACCOUNT, sent=False)
        await feed.download()
        held = feed.get(KEY)
        assert feed.is_complete
        assert held.market_value is not None
        assert held.confirmed_at is None
        sim.portfolio_rows(ACCOUNT)
        await feed.download()
        assert feed.get(KEY).confirmed_at > held.received_at


async def test_rows_that_stop_while_times_go_on_are_requested_anew(following, eventually):
    async with following(refresh_interval_s=0.05, account_interval_s=0.6) as (sim, connection):
        feed = connection.feed
        sim.portfolio_rows(ACCOUNT, sent=False)
        await eventually(lambda: feed.lapse() or feed.overdue)
        assert feed.is_complete
        await feed.ensure(LONG)
        assert feed.get(KEY).confirmed_at is None
        sim.portfolio_rows(ACCOUNT)
        await eventually(lambda: feed.get(KEY).confirmed_at is not None)


async def test_an_account_that_is_ready_again_is_overdue_at_once(
    following, eventually, monkeypatch
):
    monkeypatch.setattr(account_feed, "AGAIN", Backoff(first_s=3600.0, longest_s=3600.0))
    async with following(refresh_interval_s=0.05) as (sim, connection):
        feed = connection.feed
        sim.account_ready(ACCOUNT)
        await eventually(lambda: not feed.is_complete)
        await feed.download()
        assert not feed.overdue
        sim.account_ready(ACCOUNT, ready=True)
        await eventually(lambda: feed.overdue == [ACCOUNT])
        await feed.ensure(LONG)
        assert feed.is_complete


async def test_a_row_that_is_too_short_to_name_its_holding_confirms_nothing(
    following, eventually, monkeypatch
):
    async with following(refresh_interval_s=0.05) as (_sim, connection):
        feed, decoder = connection.feed, connection.ib.client.decoder
        usual = decoder.interpret
        with monkeypatch.context() as patched:
            patched.setattr(
                decoder, "interpret", lambda sent: usual(sent[:10] if sent[0] == "7" else sent)
            )
            await eventually(lambda: not feed.is_complete)
            await feed.download()
            assert feed.completeness[ACCOUNT] is Completeness.PARTIAL
            assert feed.problems == [f"account {ACCOUNT}: a row that cannot be read"]
        await eventually(lambda: feed.overdue == [ACCOUNT])
        await feed.ensure(LONG)
        assert feed.is_complete


async def test_an_account_that_another_program_holds_is_named_with_2101(simulate, settings_for):
    async with simulate() as sim:
        other = await connect(settings_for(sim, gateway_client_id=50))
        other.ib.client.reqAccountUpdates(True, "DUSIM0002")
        await other.ib.reqCurrentTimeAsync()
        connection = await connect(settings_for(sim))
        await connection.feed.ensure(LONG)
        (problem,) = connection.feed.problems
        assert problem.startswith("account DUSIM0001: ")
        assert "2101" in problem
        assert connection.feed.completeness["DUSIM0001"] is Completeness.PARTIAL
        assert {h.position for h in connection.feed.holdings} != {0.0}
        await connection.close()
        await other.close()


async def test_what_a_gateway_answers_from_its_cache_without_ib_is_refused(opened, eventually):
    sim, connection = opened
    feed = connection.feed
    sim.connectivity("lost")
    await eventually(lambda: connection.connectivity.lost)
    with pytest.raises(BrokerUnavailableError, match="has been lost"):
        await feed.snapshot()
    assert feed.snapshot_at is None
    await feed.download()
    assert not feed.is_complete
    assert {h.confirmed_at for h in feed.holdings} == {None}


async def test_after_a_restore_an_open_subscription_confirms_nothing_until_its_next_download(
    following, eventually
):
    async with following() as (sim, connection):
        feed = connection.feed
        confirmed = feed.get(KEY).confirmed_at
        sim.connectivity("reported_lost")
        await eventually(lambda: connection.connectivity.lost)
        sim.connectivity("restored_data_kept")
        sim.send_raw(wire.frame(account_messages.account_time("00:07")))
        await eventually(lambda: feed.account_time == "00:07")
        assert feed.get(KEY).confirmed_at == confirmed
        await feed.ensure(LONG)
        assert feed.get(KEY).confirmed_at > confirmed
        assert feed.is_complete


async def test_positions_are_due_after_a_restore_and_after_their_interval(following, eventually):
    async with following(positions_interval_s=3600.0) as (sim, connection):
        feed = connection.feed
        assert not feed.positions_due
        sim.connectivity("lost")
        sim.connectivity("restored_data_kept")
        await eventually(lambda: feed.positions_due)
        sent = sim.stats()["requests"]["17"]["reqPositions"]
        await feed.ensure(LONG)
        assert sim.stats()["requests"]["17"]["reqPositions"] == sent + 1
        assert not feed.positions_due
        assert feed.get(KEY).market_value is not None
    async with following(positions_interval_s=0.05) as (_sim, connection):
        await eventually(lambda: connection.feed.positions_due)
