"""The rules in `examples/rules` do what they say, each as a program of its own."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

import position_sync_dagster as ps
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.position_update import PositionUpdate
from tests.support.booked_legs import CALL, terms_of
from tests.support.streams import simulate

RULES = Path(__file__).parents[3] / "examples" / "rules"


def row(conid: int = 7, **values: float | None) -> PositionUpdate:
    update = PositionUpdate(
        conid, "SPY", None, 1.0, 1.5, 150.0, 100.0, 0.0, utc_now(), account="DUSIM0001"
    )
    return replace(update, **values)


@asynccontextmanager
async def running(*command: object) -> AsyncIterator[Callable]:
    """Run a rule; give the test a function that returns its next line."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdout=asyncio.subprocess.PIPE, start_new_session=True
    )

    async def line() -> str:
        return (await asyncio.wait_for(process.stdout.readline(), 90)).decode().strip()

    try:
        yield line
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # the programs of a pipe too
        await process.communicate()


@pytest.fixture
async def lake(monkeypatch):
    monkeypatch.setenv("POSITION_SYNC_FSYNC", "false")
    lake = ps.Lake("data/lake")
    await lake.initialize()
    return lake


async def test_a_limit_is_said_once_when_it_is_crossed_and_unknown_is_never_within(lake):
    for conid in (7, 8):
        await lake.registry.add_active(
            conid=conid, symbol="SPY", right="PUT", strike=500.0, expiry="20281215",
            strategy_id="condor",
        )  # fmt: skip
    await lake.updates.append([row(7, unrealized_pnl=-100.0), row(8, unrealized_pnl=-100.0)])
    async with running(sys.executable, RULES / "loss_limit.py", "condor", 500) as line:
        assert "within" in await line()
        for profits in (-450.0, -420.0, -350.0, -460.0, -250.0):
            await lake.updates.append([row(7, unrealized_pnl=profits)])
        assert "beyond" in await line()
        assert "within" in await line()
        await lake.updates.append([row(8, unrealized_pnl=None)])
        assert "unknown" in await line()


async def test_a_rule_in_a_shell_goes_on_behind_its_token(lake, monkeypatch, tmp_path):
    if shutil.which("jq") is None:
        pytest.skip("this rule needs jq: apt install jq")
    monkeypatch.setenv("POSITION_SYNC", str(Path(sys.executable).with_name("position-sync")))
    monkeypatch.setenv("TOKEN_FILE", str(token := tmp_path / "token"))
    async with running(RULES / "daily_loss.sh", 200) as line:
        while not token.exists():
            await asyncio.sleep(0.05)
        before = token.read_text()
        await lake.updates.append([row(7, daily_pnl=-100.0), row(8, daily_pnl=-300.0)])
        assert "8: -300" in await line()

        while token.read_text() in ("", before):  # the token behind these rows follows them
            await asyncio.sleep(0.05)
    await lake.updates.append([row(9, daily_pnl=-400.0), row(10, daily_pnl=None)])
    async with running(RULES / "daily_loss.sh", 200) as line:
        assert "9: -400" in await line()


async def test_a_handler_in_the_process_of_the_stream(monkeypatch):
    async with simulate("small", tick_interval_s=0.2) as sim:
        monkeypatch.setenv("POSITION_SYNC_GATEWAY_PORT", str(sim.port))
        registry = ps.StrategyRegistry()
        await registry.initialize()
        await registry.add_active(conid=CALL, strategy_id="s", **terms_of(CALL))
        async with running(sys.executable, RULES / "in_process.py", 0.0001) as line:
            assert str(CALL) in await line()
