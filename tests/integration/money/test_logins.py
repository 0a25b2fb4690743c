"""Several logins stream into one lake: real sockets and tables, one stream each."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.position_update import Source
from position_sync_dagster.errors import SettingsError
from position_sync_dagster.gateway.connection import connect
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports.figures import read_figures
from position_sync_dagster.money.reports.status import read_status
from position_sync_dagster.sync.drain import drain
from position_sync_dagster.sync.reconciliation import ReconciliationService
from position_sync_dagster.sync.stream.streamer import stream
from tests.support.booked_legs import CALL, PUT, book_of_one_account, leg
from tests.support.extent import EVERYTHING
from tests.support.streams import eventually, settings_for, simulate

ACCOUNTS = {"east": "DUSIM0011", "mid": "DUSIM0012", "west": "DUSIM0013"}
# Open holdings of each login.
HELD = 5


@pytest.fixture
def gateways(tmp_path):
    """Run a simulator for each login, and write the file that names them."""

    @asynccontextmanager
    async def run(*, one_line=()):
        async with AsyncExitStack() as stack:
            sims = {
                name: await stack.enter_async_context(simulate(book_of_one_account(account)))
                for name, account in ACCOUNTS.items()
            }
            path = tmp_path / "gateways.yaml"
            lines = []
            for name, sim in sims.items():
                max_lines = 2 if name in one_line else 10
                lines.append(
                    f"- {{name: {name}, port: {sim.port}, accounts: [{ACCOUNTS[name]}], "
                    f"max_lines: {max_lines}, reserved_lines: 1}}"
                )
            path.write_text("\n".join(["gateways:", *lines]))
            settings = settings_for(
                sims["east"],
                gateways_file=path,
                lake=str(tmp_path / "lake"),
                max_lines=100,
                underlying_lines=0,
            )
            yield sims, settings

    return run


@asynccontextmanager
async def streams(settings):
    """Stream each login, and drain all the time, each over a lake object of its own."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for login in settings.logins:
            running = stream(MoneyLake.of(login), login, run_id=login.gateway_id, stop=stop)
            tasks.create_task(running)
        drains = tasks.create_task(drain_for_ever(settings))
        yield
        stop.set()
        drains.cancel()


async def drain_for_ever(settings):
    lake = MoneyLake.of(settings)
    await lake.initialize()
    while True:
        await drain(lake, settings)
        await asyncio.sleep(0.1)


async def test_each_login_streams_within_its_lines_and_every_leg_is_current(gateways, lake):
    await lake.registry.add_active(**leg(CALL))
    await lake.registry.add_active(**leg(PUT))
    async with gateways(one_line=("west",)) as (sims, settings), streams(settings):

        def whole():
            figures = read_figures(lake, settings, utc_now())
            valued = figures.status.legs_streamed + figures.status.legs_queued
            if valued == figures.held == len(ACCOUNTS) * HELD:
                return figures

            return None

        overview = await eventually(whole)
        limits = {login.gateway_id: login.line_limit for login in overview.status.logins}
        assert limits == {"east": 10, "mid": 10, "west": 2}  # one of each is reserved
        await eventually(lambda: {n: s.stats()["lines_in_use"] for n, s in sims.items()} == LINES)
        assert {name: sim.stats()["peak_lines"] for name, sim in sims.items()} == LINES
        rows = await lake.updates.latest_updates()
        assert {(row.gateway_id, row.account) for row in rows} == set(ACCOUNTS.items())
        streamed = {row.account for row in rows if (row.conid, row.source) == (CALL, Source.STREAM)}
        assert {ACCOUNTS["east"], ACCOUNTS["mid"]} <= streamed
        assert (await ReconciliationService(lake, settings).run()).ok
        await eventually(lambda: read_status(lake, settings, utc_now()).queue["PENDING"] == 0)


LINES = {"east": 2, "mid": 2, "west": 1}


async def newest(lake, name, conid):
    rows = await lake.updates.latest_updates()
    read_rows = [row for row in rows if (row.account, row.conid) == (ACCOUNTS[name], conid)]
    if read_rows:
        return read_rows[0].position

    return None


@pytest.mark.parametrize("trouble", ["down", "hung", "storm"][not EVERYTHING :])
async def test_trouble_at_one_gateway_delays_no_row_of_another(gateways, lake, trouble):
    await lake.registry.add_active(**leg(CALL))
    async with gateways() as (sims, settings), streams(settings):
        for name in ACCOUNTS:
            for conid in (CALL, PUT):
                await eventually(lambda name=name, conid=conid: newest(lake, name, conid))

        sim = sims["mid"]
        session = lake.sessions
        storm = None
        if trouble == "down":
            await sim.restart(down_s=3600)
            await eventually(lambda: is_blind(session))
        elif trouble == "hung":
            sim.pause()
        else:
            storm = asyncio.create_task(flood(sim))

        for name in ("east", "west"):
            for conid in (CALL, PUT):  # a streamed leg, and one of the queue
                sims[name].fill(ACCOUNTS[name], conid, 7)
        for name in ("east", "west"):
            for conid, held in ((CALL, 12), (PUT, 4)):
                await eventually(lambda n=name, c=conid, h=held: holds(lake, n, c, h))
        if storm is not None:
            storm.cancel()
        if trouble == "hung":
            sim.resume()


async def flood(sim):
    while True:
        sim.step(20)
        await asyncio.sleep(0.01)


async def holds(lake, name, conid, quantity):
    return await newest(lake, name, conid) == quantity


async def is_blind(sessions):
    current_session = sessions.current("mid")
    return current_session is not None and current_session.state == "BLIND"


async def test_a_gateway_with_other_accounts_is_refused(gateways):
    async with gateways() as (_sims, settings):
        text = settings.gateways_file.read_text()
        settings.gateways_file.write_text(text.replace("DUSIM0012", "DUSIM0012, DUSIM0099"))
        with pytest.raises(SettingsError, match=r"of mid at .* serves DUSIM0012, and .*DUSIM0099"):
            await connect(settings.for_login("mid"))
