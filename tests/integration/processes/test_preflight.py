"""The preflight against a simulated gateway: what it finds, and that it leaves no trace."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import ib_async
import pytest
from typer.testing import CliRunner

from ib_gateway_simulator import SimulatedGateway
from position_sync_dagster.cli import commands
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import Owner
from position_sync_dagster.gateway.connection import CLOSE_S, GatewayConnection, connect
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.processes import preflight
from position_sync_dagster.processes.preflight import Finding, Level, run_preflight
from position_sync_dagster.sync.stream.ownership import Ownership
from tests.support.ports import free_port
from tests.support.queues import newest_entry
from tests.support.streams import settings_for, simulate
from tests.support.waiting import eventually

A = "DUSIM0001"
B = "DUSIM0002"
CALL = 921000001
PUT = 921000002
CENTS = 921000004
FILE = """\
strategies:
  - strategy_id: one
    legs:
      - {conid: 921000001, symbol: AAPL, right: C, strike: 240, expiry: 20281215, quantity: 1}
"""


async def look(sim: SimulatedGateway, **settings: Any) -> dict[str, list[Finding]]:
    """Run the preflight beside the simulator's event loop, in the folder of the test."""
    to_thread = await asyncio.to_thread(
        run_preflight, settings_for(sim, **settings), {}, env_file=None,
        dagster_home=Path.cwd() / "dagster_home",
    )  # fmt: skip
    by_check: dict[str, list[Finding]] = {}
    for finding in to_thread:
        assert bool(finding.remedy) == (finding.level is not Level.GOOD), finding
        by_check.setdefault(finding.check, []).append(finding)
    return by_check


def levels(found: dict[str, list[Finding]]) -> dict[str, set[Level]]:
    return {check: {finding.level for finding in ones} for check, ones in found.items()}


def trace(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


async def test_a_good_gateway_is_good_in_each_line_and_nothing_is_left(tmp_path):
    (tmp_path / "s.yaml").write_text(FILE)
    async with simulate() as sim:
        before = trace(tmp_path)
        answer = await look(sim, strategies_file=tmp_path / "s.yaml", trading_mode="SIMULATED")
        expected = {
            "settings", "strategies file", "tables", "disk", "Dagster home", "programs",
            "gateway", "accounts", "clock", "account feed", "positions", "market data",
            "lines",
        }  # fmt: skip
        assert set(answer) == expected
        unknown = levels(answer) | {"disk": {Level.GOOD}}
        # Of an option that is worth nothing the portfolio row has no value.
        assert unknown.pop("positions") == {Level.GOOD, Level.WARNING}
        assert set.union(*unknown.values()) == {Level.GOOD}

        [gateway] = answer["gateway"]
        assert "server version" in gateway.text
        assert [position.text.split(":")[0] for position in answer["positions"]] == [A, B]
        assert "live" in answer["market data"][0].text
        await eventually(lambda: sim.stats()["connections"]["now"] == 0)
        assert sim.stats()["lines_in_use"] == 0
        assert sim.stats()["connections"]["total"] == 1
        assert trace(tmp_path) == before


async def test_a_line_without_greeks_says_so(monkeypatch):
    monkeypatch.setattr(preflight, "TRIAL_S", 1.5)
    async with simulate() as sim:
        sim.set_permission(PUT, 10091)
        sim.set_permission(CALL, 10091)
        findings = (await look(sim))["market data"]
    [silent] = [
        finding for finding in findings if "no greeks (tick 13) came within 1.5 s" in finding.text
    ]
    assert silent.level is Level.WARNING
    assert "underlying" in silent.remedy


async def test_another_release_of_ib_async_than_the_tested_one_is_named(monkeypatch):
    monkeypatch.setattr(preflight, "TESTED_IB_ASYNC", "2.10")
    async with simulate() as sim:
        [client] = (await look(sim))["ib_async"]
    assert client.level is Level.WARNING
    assert client.text.startswith(f"ib_async {ib_async.__version__} is installed")
    assert "ib-async==2.10.*" in client.remedy


async def test_without_details_no_line_is_tried():
    async with simulate() as sim:
        sim.refuse_details(200)
        [untried] = (await look(sim))["market data"]
        assert sim.stats()["peak_lines"] == 0
    assert untried.level is Level.WARNING
    assert untried.text.startswith("not tried")


async def test_a_line_is_tried_for_each_exchange_held_and_a_refused_one_says_what_to_subscribe():
    async with simulate() as sim:
        sim.set_permission(CENTS, 354)
        findings = (await look(sim))["market data"]
        [refused] = [finding for finding in findings if finding.level is not Level.GOOD]
        assert refused.level is Level.WARNING
        assert "(FOP, CBOT)" in refused.text
        assert "(354)" in refused.text
        assert "POSITION_SYNC_DELAYED_FALLBACK" in refused.remedy
        for place in ("(STK, SMART)", "(OPT, SMART)", "(FUT, CME)", "(FOP, CME)"):
            assert any(place in one.text for one in findings)
        assert sim.stats()["peak_lines"] == 1
        await eventually(lambda: sim.stats()["lines_in_use"] == 0)


@asynccontextmanager
async def other(sim: SimulatedGateway) -> AsyncIterator[GatewayConnection]:
    """Connect a program of somebody else for the time of a block."""
    connection = await connect(settings_for(sim, gateway_client_id=90))
    try:
        yield connection
    finally:
        await connection.close()


async def test_a_login_without_a_free_line_is_bad():
    async with simulate(max_lines=1) as sim, other(sim) as program:
        details = await program.details([PUT])
        program.lines.subscribe(details[PUT])
        answer = await look(sim)
    assert levels(answer)["lines"] == {Level.BAD}
    assert "101" in answer["lines"][0].text


async def test_an_account_that_another_client_follows_is_named():
    async with simulate() as sim, other(sim) as program:
        program.ib.client.reqAccountUpdates(True, B)
        await program.ib.reqCurrentTimeAsync()  # its requests were read in order
        answer = await look(sim)
    assert levels(answer)["account feed"] == {Level.WARNING}
    assert "2101" in answer["account feed"][0].text
    assert Level.WARNING in levels(answer)["positions"]


async def test_while_a_stream_owns_the_login_its_session_is_read_instead(tmp_path):
    lake = MoneyLake(tmp_path / "lake")
    await lake.initialize()
    async with simulate() as sim:
        settings = settings_for(sim, lake=str(tmp_path / "lake"))
        async with Ownership(lake.sessions, settings, owner=Owner.STREAM):
            answer = await look(sim, lake=settings.lake)
            assert "owns the login" in answer["gateway"][0].text
            assert "market data" not in answer
            assert sim.stats()["connections"]["total"] == 0


@pytest.mark.parametrize(
    ("ahead_s", "level", "part"),
    [
        (0, Level.GOOD, "within 5 s"),
        (30, Level.BAD, "30 s behind"),
        (-30, Level.BAD, "30 s ahead of"),
    ],
)
def test_the_clock_is_compared_with_the_gateways(ahead_s, level, part):
    now = utc_now()
    finding = preflight.of_clock(now + timedelta(seconds=ahead_s), now)
    assert finding.level is level
    assert part in finding.text


def test_a_table_that_cannot_be_used_is_named_with_what_to_do(tmp_path):
    lake = MoneyLake(tmp_path / "lake", fsync=False)
    lake.initialize_sync()
    newest_entry(Path(lake.queue.table.path)).write_bytes(b"")
    [finding] = preflight.check_lake(MoneyLake(lake.path, use="look"))
    assert finding.level is Level.BAD
    assert "doctor --repair" in finding.remedy


def test_all_limits_together_are_less_than_a_minute():
    assert preflight.LOCAL_S + preflight.WITHIN_S + CLOSE_S < 60


def test_without_a_gateway_the_command_says_what_to_do_and_ends_with_1(monkeypatch):
    monkeypatch.setenv("POSITION_SYNC_GATEWAY_PORT", str(free_port()))
    monkeypatch.setenv("POSITION_SYNC_MAX_LINE", "7")
    result = CliRunner().invoke(commands(), ["doctor"])
    assert result.exit_code == 1
    assert "Start TWS or IB Gateway" in result.output
    result = CliRunner().invoke(commands(), ["doctor", "--json"])
    printed = json.loads(result.stdout)
    assert printed["good"] is False
    [settings] = [finding for finding in printed["findings"] if finding["check"] == "settings"]
    assert settings["level"] == "warning"
    assert "POSITION_SYNC_MAX_LINES" in settings["text"]
