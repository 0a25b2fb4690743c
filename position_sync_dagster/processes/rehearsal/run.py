"""Run the stream for a while beside TWS, in a lake of its own, and report what was heard."""

import asyncio
import signal
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.instrument import LISTED_OPTIONS, RIGHTS
from position_sync_dagster.domain.leg import Leg
from position_sync_dagster.lake.given_leg import make_leg
from position_sync_dagster.lake.sessions import login_owned
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.stream_parts import with_money
from position_sync_dagster.processes.heard.wire import vocabulary
from position_sync_dagster.processes.rehearsal.measured import Measured
from position_sync_dagster.processes.rehearsal.report import Report, assumptions, said_lines
from position_sync_dagster.processes.rehearsal.values import BrokerValues
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.stream.ownership import Ownership
from position_sync_dagster.sync.stream.router import StreamTables
from position_sync_dagster.sync.stream.streamer import stream
from position_sync_dagster.sync.waits import end_tasks

STRATEGY = "rehearsal"


async def rehearse(settings: Settings, *, minutes: float, lines: int, lake: Path | None) -> Report:
    """Listen until the time is over, or until SIGINT or SIGTERM; see `listen`."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    loop.call_later(minutes * 60.0, stop.set)
    return await listen(settings, lines=lines, lake=lake, stop=stop)


async def listen(
    settings: Settings, *, lines: int, lake: Path | None, stop: asyncio.Event
) -> Report:
    """Stream until `stop` is set, and report what was heard.

    Args:
        settings: Those of one login; it must not be streamed from.
        lines: How many market data lines it uses at most.
        lake: Where rows are kept; None: in a folder that is deleted at the end.

    Raises:
        LoginOwnedError: A stream owns the login.
        TradingModeError: The lake has data of another trading mode.
    """
    sessions = MoneyLake(settings.lake, use="look").sessions
    owner = sessions.current(settings.gateway_id) if sessions.table.exists() else None
    if owner is not None and owner.is_alive(utc_now()):
        raise login_owned(owner)

    heard, broker = Measured(), BrokerValues()

    def complete(
        tables: StreamTables, lake: MoneyLake, settings: Settings, own: Ownership
    ) -> StreamTables:
        parts = with_money(tables, lake, settings, own)
        return replace(parts, listeners=(*parts.listeners, heard, broker))

    began_at = time.monotonic()
    with TemporaryDirectory(prefix="rehearsal-") as folder:
        changes = {"max_lines": lines, "reserved_lines": 0, "lake": str(lake or folder)}
        settings = settings.model_copy(update=changes)
        tables = MoneyLake.of(settings)
        choosing = asyncio.create_task(_choose(broker, tables, settings))
        try:
            await stream(tables, settings, stop=stop, complete=complete)
        finally:
            await end_tasks(choosing)
        values = [*broker.lines(tables, settings)]

    heard.close()
    known = vocabulary()
    return Report(
        day=utc_now().date(),
        server_version=heard.server_version,
        minutes=(time.monotonic() - began_at) / 60.0,
        lines=lines,
        said=said_lines(heard.take().items(), heard, known),
        assumed=[*assumptions(heard, known, lines)],
        values=values,
    )


async def _choose(broker: BrokerValues, lake: MoneyLake, settings: Settings) -> None:
    """Stream some of what is held, unless the lake has active legs."""
    await broker.listed.wait()
    if not lake.registry.legs:
        most = max(1, settings.max_lines - settings.most_underlyings)
        await lake.registry.add_many(legs_to_stream(broker.held.values(), most))


def legs_to_stream(held: Iterable[Sequence[str]], most: int) -> Collection[Leg]:
    """Return legs for some holdings, of options first, spread over expiries and strikes.

    Args:
        held: The fields of messages of positions.
        most: The number of legs.
    """
    by_conid = {row[3]: row for row in held if float(row[14])}
    ordered = sorted(by_conid.values(), key=lambda row: (row[4], row[6], float(row[7] or 0)))
    options = []
    others = []
    for row in ordered:
        if row[5] in LISTED_OPTIONS:
            options.append(row)
        elif row[5] in ("STK", "FUT"):
            others.append(row)

    step = max(1, -(-len(options) // most))
    chosen = [*options[::step], *others][:most]
    return [_leg_of(row) for row in chosen]


def _leg_of(row: Sequence[str]) -> Leg:
    """Return the leg of a holding, from the fields of its message."""
    return make_leg(
        conid=int(row[3]),
        symbol=row[4],
        expiry=row[6] or None,
        strike=float(row[7] or 0) or None,
        right=RIGHTS.get(row[8]),
        strategy_id=STRATEGY,
        added_at=utc_now(),
    )
