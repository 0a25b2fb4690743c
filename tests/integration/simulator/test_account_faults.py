"""Faults of positions and of the account feed, as the real ib_async sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from ib_async import IB

from position_sync_dagster.simulator import ActionError, Book, Simulator

Eventually = Callable[[Callable[[], Any]], Awaitable[Any]]
Control = Callable[[Simulator], httpx.AsyncClient]
Post = Callable[..., Awaitable[Any]]
ConnectIB = Callable[..., Awaitable[IB]]
CALL = 921000001
FIRST, SECOND = "DUSIM0001", "DUSIM0002"
DEADLINE_S = 60.0


def codes_of(ib: IB) -> list[int]:
    """Return the list to which every code that a library receives is appended."""
    codes: list[int] = []
    ib.errorEvent += lambda _id, code, _text, _contract: codes.append(code)
    return codes


async def download(ib: IB, account: str) -> None:
    """Request an account, and wait for the end of its download."""
    await asyncio.wait_for(ib.reqAccountUpdatesAsync(account), DEADLINE_S)


@pytest.mark.parametrize("notice", [True, False])
async def test_a_silenced_account_feed_ends_and_a_new_request_works(
    small: Book,
    connect_ib: ConnectIB,
    control: Control,
    post: Post,
    eventually: Eventually,
    notice: bool,
) -> None:
    simulator = Simulator(small, control_port=0, refresh_interval_s=0.05)
    async with simulator as sim, control(sim) as http:
        ib = await connect_ib(sim)
        rows: list[object] = []
        ib.updatePortfolioEvent += rows.append
        codes = codes_of(ib)
        await download(ib, FIRST)
        first = len(rows)
        await eventually(lambda: len(rows) > first)
        assert await post(http, "silence_account", account=FIRST, notice=notice) == 1
        assert sim.stats()["account_feed"] is None
        # What the gateway answers now comes after the last row of the feed.
        await asyncio.wait_for(ib.reqCurrentTimeAsync(), DEADLINE_S)
        last = len(rows)
        sim.fill(FIRST, CALL, 1)
        for _ in range(20):
            await asyncio.wait_for(ib.reqCurrentTimeAsync(), DEADLINE_S)
        assert len(rows) == last
        assert (2100 in codes) is notice
        await download(ib, FIRST)
        again = len(rows)
        assert again > last
        await eventually(lambda: len(rows) > again)


async def test_only_an_account_of_the_login_can_be_silenced(
    small: Book, connect_ib: ConnectIB
) -> None:
    async with Simulator(small) as sim:
        ib = await connect_ib(sim)
        await download(ib, FIRST)
        assert sim.silence_account(SECOND) == 0
        assert sim.stats()["account_feed"] == {"account": FIRST, "clients": [1]}
        with pytest.raises(ActionError, match="account"):
            sim.silence_account("DU1")
