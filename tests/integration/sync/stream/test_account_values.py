"""Net liquidation and profit of the accounts, from a real ib_async connection into the table."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from ib_gateway_simulator import load_book
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.errors import LakeNotWritableError
from position_sync_dagster.lake.broker_positions import AccountValuesTable
from position_sync_dagster.sync.reports.status import read_status
from position_sync_dagster.sync.stream import ownership
from position_sync_dagster.sync.stream.streamer import stream
from position_sync_dagster.terminal.board import describe
from tests.support.booked_legs import STOCK, A, B
from tests.support.streams import eventually, offline, settings_for, simulate

PNL_S = 0.05
OFTEN = {"line_silence_s": 0.2}


@pytest.fixture
def one_account():
    """Return the small book with its first account only: its subscription stays open."""
    book = load_book("small")
    openings = tuple(opening for opening in book.openings if opening.account == A)
    return replace(book, accounts=book.accounts[:1], openings=openings)


@pytest.fixture
def recording(streaming, lake):
    """Record the accounts of a simulator of their own; a market without steps changes nothing."""

    @asynccontextmanager
    async def run(book="small", *, prepare=lambda sim: None, settings=None, **simulator):
        options = {"pnl_interval_s": PNL_S, "refresh_interval_s": 0.1} | simulator
        async with simulate(book, **options) as sim:
            prepare(sim)
            more = OFTEN | (settings or {})
            async with streaming(sim, account_values=lake.account_values, **more) as (streamer, _):
                yield sim, streamer

    return run


@pytest.fixture
def newest(lake):
    """Return the newest row of an account, or None."""

    async def read(account=A):
        rows = {row.account: row for row in lake.account_values.latest_summaries()}
        return rows.get(account)

    return read


@pytest.fixture
def arrives(newest):
    """Wait until the newest row of an account fulfils a condition, and return it."""

    async def wait(condition, account=A):
        async def found():
            row = await newest(account)
            return row if row is not None and condition(row) else None

        return await eventually(found)

    return wait


async def messages(number):
    """Wait as long as so many messages of the profits and so many flushes take."""
    await asyncio.sleep(number * 2 * PNL_S)


def is_whole(row):
    return None not in row.amounts


async def test_the_first_row_of_each_account_is_whole_and_agrees_with_its_book(
    recording, lake, arrives
):
    async with recording(autostep=True, tick_interval_s=3600.0) as (sim, _):
        for account, cash in ((A, 100_000.0), (B, 50_000.0)):
            row = await arrives(is_whole, account)
            assert (row.currency, row.cash, row.source) == ("USD", cash, "GATEWAY")
            assert row.trading_mode == "SIMULATED"
            assert row.values_received_at <= row.timestamp
            assert row.pnl_received_at <= row.timestamp
            assert row.unrealized_pnl != 0
        assert sim.stats()["account_pnl_subscriptions"] == {A: 1, B: 1}
        assert sim.stats()["lines_in_use"] == 0
    rows = lake.account_values.latest()
    first = rows.filter(rows["account"] == A).row(0, named=True)
    assert first["net_liquidation"] > first["available_funds"] > 0
    assert first["maintenance_margin"] > 0


async def test_the_exchange_rates_of_an_account_are_recorded_and_an_unknown_one_is_left_out(
    recording, arrives, one_account
):
    in_euro = replace(one_account.accounts[0], currency="EUR")
    book = replace(one_account, accounts=(in_euro,))

    def prepare(sim):
        sim.exchange_rate("USD", 0.9218736)

    async with recording(book, prepare=prepare) as (sim, _):
        row = await arrives(lambda row: row.exchange_rates is not None)
        assert row.rates == {"EUR": 1.0, "USD": 0.9218736}
        assert row.rates_received_at <= row.timestamp
        sim.exchange_rate("USD", 0.0)
        sim.silence_account(A)  # it is downloaded again
        row = await arrives(lambda row: "USD" not in row.rates)
        assert row.net_liquidation is not None


async def test_a_change_is_a_row_and_silence_is_none(recording, lake, arrives, one_account):
    still = {"autostep": True, "tick_interval_s": 3600.0}
    async with recording(one_account, **still) as (sim, _):
        before = await arrives(is_whole)
        version = lake.account_values.table.version()
        await messages(10)
        assert lake.account_values.table.version() == version
        sim.fill(A, STOCK, -100, 250.0)
        after = await arrives(lambda row: row.cash == before.cash + 25_000)
        # The profit comes by another message, maybe in another row.
        after = await arrives(lambda row: row.realized_pnl != before.realized_pnl)
        assert after.realized_pnl == pytest.approx(100 * (250 - 201.88))
        assert after.timestamp > before.timestamp


@pytest.mark.parametrize("answer", ["unset", "refused", "silent"])
async def test_profits_that_do_not_come_are_null_harm_nothing_else_and_are_requested_again(
    recording, arrives, answer
):
    def requests(sim):
        return sim.stats()["requests"]["17"]["reqPnL"]

    settings = {"gateway_timeout_s": 2.0}
    prepare = lambda sim: sim.account_pnl(A, answer)  # noqa: E731
    async with recording(prepare=prepare, settings=settings) as (sim, streamer):
        row = await arrives(lambda row: row.net_liquidation is not None)
        assert (row.daily_pnl, row.unrealized_pnl, row.realized_pnl) == (None, None, None)
        assert (row.pnl_received_at is None) == (answer != "unset")
        assert is_whole(await arrives(is_whole, B))
        assert streamer.state is SessionState.LIVE
        if answer != "unset":
            await eventually(lambda: requests(sim) >= 4)
        sim.account_pnl(A, "values")
        await arrives(is_whole)
        if answer != "silent":
            sim.account_pnl(A, answer)
            row = await arrives(lambda row: row.daily_pnl is None)
            assert row.net_liquidation is not None
            sim.account_pnl(A, "values")
            await arrives(is_whole)
        await eventually(lambda: sim.stats()["account_pnl_subscriptions"] == {A: 1, B: 1})


@pytest.mark.parametrize("state", ["restored_data_lost", "restored_data_kept"])
async def test_the_profits_come_again_after_the_gateway_was_offline(recording, arrives, state):
    async with recording() as (sim, streamer):
        before = await arrives(is_whole)
        await offline(sim, streamer, state)
        after = await arrives(lambda row: row.timestamp > before.timestamp and is_whole(row))
        await arrives(lambda row: row.pnl_received_at > after.pnl_received_at)
        # Those of the other account may be requested again a moment later.
        await eventually(lambda: sim.stats()["account_pnl_subscriptions"] == {A: 1, B: 1})


async def test_a_new_connection_subscribes_again_and_writes_no_row_without_its_values(
    recording, lake, arrives
):
    async with recording() as (sim, streamer):
        before = await arrives(is_whole)
        sim.disconnect()
        await eventually(lambda: streamer.counts.reconnects == 1)
        await arrives(lambda row: row.timestamp > before.timestamp)
        await arrives(lambda row: row.values_received_at > before.timestamp)
        rows = lake.account_values.between(before.timestamp, utc_now())
        assert rows.get_column("net_liquidation").null_count() == 0
        assert rows.get_column("daily_pnl").null_count() == 0
        await eventually(lambda: sim.stats()["account_pnl_subscriptions"] == {A: 1, B: 1})


async def test_a_new_stream_writes_no_row_for_what_the_last_one_wrote(
    recording, lake, arrives, one_account
):
    still = {"autostep": True, "tick_interval_s": 3600.0}
    async with recording(one_account, **still):
        await arrives(is_whole)
    version = lake.account_values.table.version()
    async with recording(one_account, **still) as (sim, _):
        await messages(20)
        assert lake.account_values.table.version() == version
        sim.fill(A, STOCK, -100, 250.0)
        await arrives(lambda row: row.cash == 125_000.0)


async def test_a_table_that_cannot_be_written_harms_no_position_and_loses_no_change(
    recording, lake, arrives, monkeypatch
):
    monkeypatch.setattr(ownership, "AGAIN_S", 0.1)
    failures = iter([LakeNotWritableError("The disk is full.", remedy="Make room.")] * 3)
    append = AccountValuesTable.append

    def full(table, rows):
        for error in failures:
            raise error
        return append(table, rows)

    monkeypatch.setattr(AccountValuesTable, "append", full)
    async with recording() as (_sim, streamer):
        await arrives(is_whole)
        assert streamer.state is SessionState.LIVE
        assert next(failures, None) is None


async def test_a_stream_as_a_service_fences_its_rows_and_status_shows_them(lake, arrives):
    async with simulate(pnl_interval_s=PNL_S) as sim:
        settings = settings_for(sim, **OFTEN)
        stop = asyncio.Event()
        task = asyncio.create_task(stream(lake, settings, run_id="run-1", stop=stop))
        row = await arrives(is_whole)
        session = lake.sessions.current(settings.gateway_id)
        assert (row.session_id, row.run_id) == (session.session_id, "run-1")
        assert row.fencing_token == session.fencing_token
        await arrives(is_whole, B)
        stop.set()
        await task
    status = read_status(lake, settings, utc_now())
    lines = dict(describe(status))
    first = status.accounts[0]
    assert f"net liquidation {first.net_liquidation:,.2f} USD (" in lines[A]
    assert f"daily P&L {first.daily_pnl:,.2f} USD (" in lines[A]
    assert status.to_dict()["accounts"][1]["account"] == B
    unknown = replace(status, accounts=(replace(first, daily_pnl=None),))
    assert dict(describe(unknown))[A].endswith(", daily P&L –")
