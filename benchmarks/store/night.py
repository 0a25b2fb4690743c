"""What a stream asks of its store in an hour: in the session, and while no contract trades."""

import asyncio
import os
from collections import Counter
from unittest.mock import patch
from urllib.parse import unquote

from benchmarks.bench import Bench
from benchmarks.book.generated import generate
from benchmarks.documents import markdown_table
from benchmarks.gateways.arithmetic import MONTH_S, USD_READ, USD_WRITE
from benchmarks.outcome import Line
from ib_gateway_simulator import SimulatedGateway
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.strategies.strategies_file import load_strategies
from position_sync_dagster.money.stream_parts import with_money
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.stream.streamer import stream
from tests.support.object_store import ObjectStore, running_store
from tests.support.settings import make_settings
from tests.support.store_proxy import Request

LEGS, ACTIVE = 200, 20
LATENCY_S = 0.02
# Until each leg has its first rows, and the account was downloaded.
SETTLED_S = 75.0

HOUR_S = 3_600.0
WRITES = ("PUT", "LIST", "POST")

# The hours of all contracts, and settings.
KINDS = {
    "in the session": (None, {}),
    "no contract trades": ("CLOSED", {}),
}


def night(bench: Bench) -> None:
    """Measure a stream alone: sensors and drains ask besides."""
    counted = {
        what: asyncio.run(_counted(bench, hours, more)) for what, (hours, more) in KINDS.items()
    }
    tables = sorted({table for found in counted.values() for table, _ in found})
    usual = counted["in the session"]
    bench.report.add(
        f"Requests of a stream in an hour, {LEGS} legs, {ACTIVE} streamed",
        [
            Line(
                what=what,
                state=f"{_usd(found):.0f} USD a month",
                ours=sum(found.values()),
                unit="/h",
                against="in the session",
                theirs=sum(usual.values()),
            )
            for what, found in counted.items()
        ],
    )
    rows = [
        [
            table,
            *(
                f"{_of(found, table, WRITES):,.0f}, {_of(found, table):,.0f}"
                for found in counted.values()
            ),
        ]
        for table in tables
    ]
    rows.append(
        ["all", *(f"{_of(f, None, WRITES):,.0f}, {_of(f, None):,.0f}" for f in counted.values())]
    )
    rows.append(
        ["USD a month, all hours alike", *(f"{_usd(found):.0f}" for found in counted.values())]
    )
    text = markdown_table(["PUT or LIST, all, an hour", *counted], rows)
    bench.report.say(text)


Counted = Counter[tuple[str, str]]


def _of(found: Counted, table: str | None, kinds: tuple[str, ...] = ()) -> float:
    return sum(
        number
        for (name, kind), number in found.items()
        if table in (None, name) and (not kinds or kind in kinds)
    )


def _usd(found: Counted) -> float:
    writes = _of(found, None, WRITES)
    hourly = writes * USD_WRITE + (_of(found, None) - writes) * USD_READ
    return hourly * MONTH_S / HOUR_S


async def _counted(bench: Bench, hours: str | None, more: dict[str, float]) -> Counted:
    """Return the requests in an hour, by table and kind."""
    book = generate(bench.new_folder("night"), LEGS, ACTIVE)
    seconds, settled_s = bench.size(150.0, 20.0), bench.size(SETTLED_S, 10.0)
    with running_store() as store, patch.dict(os.environ, store.environment):
        async with SimulatedGateway(
            book=str(book.book), port=0, control_port=None, seed=1
        ) as gateway:
            if hours:
                gateway.set_hours(None, hours)
            settings = make_settings(
                gateway_port=gateway.port,
                trading_mode="SIMULATED",
                lake=store.lake(),
                **more,
            )
            lake = MoneyLake.of(settings)
            await lake.initialize()
            await lake.registry.replace_all(load_strategies(book.strategies))
            store.proxy.change(latency_s=LATENCY_S)
            stop = asyncio.Event()
            task = asyncio.create_task(stream(lake, settings, stop=stop, complete=with_money))
            try:
                await _live(store, settings)
                await asyncio.sleep(settled_s)
                store.proxy.change()
                await asyncio.sleep(seconds)
                requests = store.proxy.change()
            finally:
                stop.set()
                await task
    found = Counter((_table(request), request.kind) for request in requests)
    return Counter({key: number * HOUR_S / seconds for key, number in found.items()})


async def _live(store: ObjectStore, settings: Settings) -> None:
    sessions = MoneyLake.of(settings).sessions
    while True:
        found = await asyncio.to_thread(sessions.current, settings.gateway_id)
        if found is not None and found.state is SessionState.LIVE:
            return
        await asyncio.sleep(1.0)


def _table(request: Request) -> str:
    path = unquote(request.path)
    parts = path.partition("/lake/")[2].replace("?", "/").split("/")
    return parts[0].split("&")[0] or "other"
