"""Net liquidation and profit of the accounts, from a real ib_async connection into the table."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.errors import LakeNotWritableError
from position_sync_dagster.lake.account_values import AccountValuesTable
from position_sync_dagster.lake.schema import records_of
from tests.support.booked_legs import STOCK, A, B, book_of_one_account
from tests.support.streams import (
    AT_ONCE,
    eventually,
    offline,
    requests,
)

PNL_S = 0.1
OFTEN = {"line_silence_s": 0.2, "work_again_s": 0.1, "account_again": AT_ONCE}
STILL = {"autostep": True, "tick_interval_s": 3600.0}


@pytest.fixture
def recording(stream_legs, lake):
    """Record the accounts of a simulator of their own; a market without steps changes nothing."""

    @asynccontextmanager
    async def run(book="small", *, prepare=None, gateway_timeout_s=10.0, **simulator):
        simulator = {"pnl_interval_s": PNL_S, "refresh_interval_s": 0.1} | simulator
        async with stream_legs(
            book=book, prepare=prepare, simulator=simulator, account_values=lake.account_values,
            gateway_timeout_s=gateway_timeout_s, **OFTEN,
        ) as (sim, streamer, _received):  # fmt: skip
            yield sim, streamer

    return run


@pytest.fixture
def arrives(lake):
    """Wait until the newest row of an account fulfils a condition, and return it."""

    async def wait(condition, account=A):
        def found():
            newest = records_of(AccountSummary, lake.account_values.latest())
            rows = {row.account: row for row in newest}
            row = rows.get(account)
            if row is not None and condition(row):
                return row

            return None

        return await eventually(found)

    return wait


async def messages(number):
    """Wait as long as so many messages of the profits and so many flushes take."""
    await asyncio.sleep(number * 2 * PNL_S)


def is_whole(row):
    return None not in (row.currency, row.exchange_rates, *row.amounts)


async def test_the_first_row_of_each_account_is_whole_and_agrees_with_its_book(
    recording, lake, arrives
):
    async with recording(**STILL) as (sim, _):
        for account, cash in ((A, 100_000.0), (B, 50_000.0)):
            row = await arrives(is_whole, account)
            assert row.currency == "USD"
            assert row.cash == cash
            assert row.source == "GATEWAY"
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
    recording, arrives
):
    book = book_of_one_account()
    book = replace(book, accounts=(replace(book.accounts[0], currency="EUR"),))

    known = lambda sim: sim.exchange_rate("USD", 0.9218736)  # noqa: E731
    async with recording(book, prepare=known) as (sim, _):
        row = await arrives(lambda row: row.exchange_rates is not None)
        assert row.rates == {"EUR": 1.0, "USD": 0.9218736}
        assert row.rates_received_at <= row.timestamp
        sim.exchange_rate("USD", 0.0)
        sim.silence_account(A)  # it is downloaded again
        row = await arrives(lambda row: "USD" not in row.rates)
        assert row.net_liquidation is not None


async def test_a_change_is_a_row_and_silence_is_none(recording, lake, arrives):
    async with recording(book_of_one_account(), **STILL) as (sim, _):
        before = await arrives(is_whole)
        version = lake.account_values.table.version()
        await messages(10)
        assert lake.account_values.table.version() == version
        sim.fill(A, STOCK, -100, 250.0)
        after = await arrives(lambda row: row.cash == pytest.approx(before.cash + 25_000 - 65))
        # The profit comes by another message, maybe in another row.
        after = await arrives(lambda row: row.realized_pnl != before.realized_pnl)
        assert after.realized_pnl == pytest.approx(100 * (250 - 0.65 - 201.88))
        assert after.timestamp > before.timestamp


@pytest.mark.parametrize("answer", ["unset", "refused", "silent"])
async def test_profits_that_do_not_come_are_null_harm_nothing_else_and_are_requested_again(
    recording, arrives, answer
):
    prepare = lambda sim: sim.account_pnl(A, answer)  # noqa: E731
    async with recording(prepare=prepare, gateway_timeout_s=2.0) as (sim, streamer):
        row = await arrives(lambda row: row.net_liquidation is not None)
        assert row.daily_pnl is None
        assert row.unrealized_pnl is None
        assert row.realized_pnl is None
        assert (row.pnl_received_at is None) == (answer != "unset")
        assert is_whole(await arrives(is_whole, B))
        assert streamer.state is SessionState.LIVE

        if answer != "unset":
            await eventually(lambda: requests(sim, "reqPnL") >= 4)
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


async def test_a_table_that_cannot_be_written_harms_no_position_and_loses_no_change(
    recording, lake, arrives, monkeypatch
):
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
