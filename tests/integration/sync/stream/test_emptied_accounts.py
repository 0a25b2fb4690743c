"""A list that empties an account, and another login behind the port: nothing is flat by that."""

from collections import Counter
from typing import Any

import polars as pl
import pytest

from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.domain.holding import Completeness
from position_sync_dagster.gateway.connection import IBConnectionManager
from position_sync_dagster.sync.broker_view import ConnectionValues
from position_sync_dagster.sync.drain import drain
from tests.support.booked_legs import CALL, PUT, A, B, leg
from tests.support.streams import eventually, offline, published, simulate

# No second list comes within a test.
NEVER_S = 3600.0

UNKNOWN = Completeness.UNKNOWN
COMPLETE = Completeness.COMPLETE


async def emptied_by_restart(sim, streamer, *accounts):
    """Restart the gateway under a stream; after that its lists are empty."""
    for account in accounts:
        sim.empty_lists(account)
    await sim.restart(down_s=0.05)
    await eventually(lambda: streamer.counts.reconnects)
    await eventually(lambda: streamer.state is SessionState.LIVE)


def open_keys(sim, account):
    rows = [row for row in sim.positions() if row["account"] == account and row["quantity"]]
    return {(account, row["conid"]) for row in rows}


def rated_and_held(lake, settings):
    """Return the completeness of each account, and how many open holdings it has."""
    rated: dict[Any, Any] = {}
    held: Counter[Any] = Counter()
    for row in published(lake, settings).values():
        rated.setdefault(row.account, set()).add(row.completeness)
        held[row.account] += row.position != 0
    return {account: found.pop() for account, found in rated.items() if len(found) == 1}, held


async def publishes(lake, settings, rated, held):
    await eventually(lambda: rated_and_held(lake, settings) == (rated, held))


async def zero_rows(lake, settings):
    await drain(lake, settings)
    return {(u.account, u.conid) for u in await lake.updates.latest_updates() if u.position == 0}


async def all_valued(lake, settings):
    await drain(lake, settings)
    return len(await lake.updates.latest_updates()) == 9


@pytest.mark.parametrize("accounts", [(A,), (A, B)], ids=["one of two", "all"])
async def test_an_empty_list_after_a_restart_closes_nothing_until_one_names_the_holdings(
    stream_legs, lake, accounts
):
    async with stream_legs(PUT, second_list_s=NEVER_S) as (sim, streamer, received):
        settings = streamer.settings
        await eventually(lambda: all_valued(lake, settings))
        _, held = rated_and_held(lake, settings)
        await emptied_by_restart(sim, streamer, *accounts)
        rated = {A: UNKNOWN, B: UNKNOWN if B in accounts else COMPLETE}
        await publishes(lake, settings, rated, held)
        for account in accounts:
            assert f"account {account} has none of its holdings in the list" in streamer.detail
        assert (B in streamer.detail) == (B in accounts)

        shown = len(received.updates)
        await offline(sim, streamer)  # its list comes too early to be a second one
        await publishes(lake, settings, rated, held)
        assert [u for u in received.updates[shown:] if u.account in accounts] == []
        assert await zero_rows(lake, settings) == set()

        for account in accounts:
            sim.empty_lists(account, empty=False)
        await offline(sim, streamer)
        await publishes(lake, settings, {A: COMPLETE, B: COMPLETE}, held)
        await eventually(lambda: streamer.detail is None)
        await eventually(lambda: len(received.updates) > shown)
        assert await zero_rows(lake, settings) == set()


async def test_an_account_that_was_emptied_while_nobody_saw_it_closes_with_the_second_list(
    stream_legs, lake
):
    async with stream_legs(PUT, second_list_s=0.3) as (sim, streamer, _received):
        settings = streamer.settings
        await eventually(lambda: all_valued(lake, settings))
        keys = open_keys(sim, A)
        sim.connectivity("lost")  # what is traded now is told to nobody
        await eventually(lambda: streamer.state is SessionState.BLIND)
        for key in keys:
            sim.close_position(*key)
        await sim.restart(down_s=0.05)
        sim.connectivity("restored_data_kept")
        await eventually(lambda: streamer.counts.reconnects)

        async def closed():
            return await zero_rows(lake, settings) == keys

        await eventually(closed)
        rows = pl.read_delta(lake.updates.table.path).filter(pl.col("position") == 0)
        assert rows.height == len(keys), "each has one zero row"
        await eventually(lambda: streamer.detail is None)


async def test_the_last_holding_that_closes_while_it_is_watched_closes_at_once(stream_legs, lake):
    async with stream_legs(CALL, second_list_s=NEVER_S) as (sim, streamer, received):
        await eventually(lambda: all_valued(lake, streamer.settings))
        for key in open_keys(sim, B):
            sim.close_position(*key)
        await eventually(lambda: [u for u in received.closes(CALL) if u.account == B])
        assert streamer.detail is None


async def test_the_first_list_of_a_new_process_is_a_first_one_again(streaming, lake):
    await lake.registry.add_active(**leg(PUT))
    async with simulate() as sim:
        async with streaming(sim) as (streamer, _):
            settings = streamer.settings
            await eventually(lambda: all_valued(lake, settings))
            _, held = rated_and_held(lake, settings)
        sim.empty_lists(A)
        for _ in range(2):
            async with streaming(sim, second_list_s=NEVER_S) as (streamer, _):
                rated = {A: UNKNOWN, B: COMPLETE}
                await publishes(lake, settings, rated, held)
                assert f"account {A} has none" in streamer.detail
        assert await zero_rows(lake, settings) == set()


async def test_accounts_of_another_login_at_the_port_are_unknown_and_never_closed(
    stream_legs, lake
):
    async with stream_legs(PUT, CALL) as (sim, streamer, received):
        settings = streamer.settings
        await eventually(lambda: all_valued(lake, settings))
        _, held = rated_and_held(lake, settings)
        sim.log_in_as([B])
        await publishes(lake, settings, {A: UNKNOWN, B: COMPLETE}, held)

        shown = len(received.updates)
        unknown = (
            f"account {A} is not managed by this login now: its {held[A]} holdings are unknown"
        )
        await eventually(lambda: streamer.detail == unknown)
        await eventually(lambda: len(received.updates) > shown + 3)
        assert {update.account for update in received.updates[shown:]} == {B}
        assert {account for account, _ in streamer.routes} == {B}
        assert await zero_rows(lake, settings) == set()

        sim.log_in_as([A, B])
        await publishes(lake, settings, {A: COMPLETE, B: COMPLETE}, held)
        await eventually(lambda: streamer.detail is None)
        assert await zero_rows(lake, settings) == set()


async def test_a_stream_that_starts_behind_another_login_knows_whose_accounts_it_lacks(
    streaming, lake
):
    await lake.registry.add_active(**leg(CALL))
    async with simulate() as sim:
        sim.log_in_as([A])
        async with streaming(sim) as (streamer, _):
            settings = streamer.settings
            await publishes(lake, settings, {A: COMPLETE}, {A: 5})

        sim.log_in_as([B])
        for _ in range(2):
            async with streaming(sim) as (streamer, received):
                expected = {A: UNKNOWN, B: COMPLETE}, {A: 5, B: 4}
                await publishes(lake, settings, *expected)
                assert f"account {A} is not managed" in streamer.detail
                await received.row(CALL, account=B)
                assert received.newest(A, CALL) is None
        assert await zero_rows(lake, settings) == set()


async def test_a_request_of_an_account_that_is_not_managed_waits_in_a_library_too(
    stream_legs, lake
):
    async with stream_legs(PUT) as (sim, streamer, _received):
        settings = streamer.settings
        await eventually(lambda: all_valued(lake, settings))
        sim.log_in_as([B])
        await eventually(lambda: f"account {A} is not managed" in (streamer.detail or ""))
        manager = IBConnectionManager(settings)
        view = await ConnectionValues(manager).view()
        await manager.close()
        assert not view.covers(A)
