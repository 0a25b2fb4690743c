"""Recordings as the input of a stream: the small one of the tests, and the legs of any.

`python -m tests.support.recorded_session FILE` makes the small one anew.
"""

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from ib_gateway_simulator import SimulatedGateway, load_book
from ib_gateway_simulator.recording.proxy import Proxy
from ib_gateway_simulator.recording.recorder import Recorder
from ib_gateway_simulator.recordings.entry import Message
from ib_gateway_simulator.recordings.recording import Recording
from position_sync_dagster.domain.leg import ActiveContract, make_leg
from position_sync_dagster.errors import GatewayError
from position_sync_dagster.gateway.connection import GatewayConnection, connect
from position_sync_dagster.settings import Settings

# Two accounts, three lines, a fill, a close, an outage of IB, a restart of the gateway.
SMALL = Path(__file__).with_name("small.ibrec")

LINES = (921000001, 921000002, 921000003)
RIGHTS = {"C": "CALL", "P": "PUT"}


def legs_of(recording: Recording) -> list[ActiveContract]:
    """Return a leg for each contract of which the recorded client had a line."""
    rows: dict[str, tuple[str, ...]] = {}
    lines: set[str] = set()
    for entry in recording.entries:
        match entry:
            case Message(name="position", fields=fields) if fields:
                rows[fields[3]] = fields
            case Message(name="reqMktData", fields=fields) if fields:
                lines.add(fields[3])
            case _:
                pass
    return [
        make_leg(
            conid=int(conid),
            symbol=rows[conid][4],
            expiry=rows[conid][6] or None,
            strike=float(rows[conid][7]) or None,
            right=RIGHTS.get(rows[conid][8]),
            strategy_id="recorded",
            added_at=datetime.now(UTC),
        )
        for conid in sorted(lines & rows.keys())
    ]


def held_in(recording: Recording) -> dict[tuple[str, int], float]:
    """Return the newest position of each holding that was told."""
    held: dict[tuple[str, int], float] = {}
    for entry in recording.entries:
        match entry:
            case Message(name="position", fields=fields) if fields:
                held[fields[2], int(fields[3])] = float(fields[14])
            case Message(name="updatePortfolio", fields=fields) if fields:
                held[fields[19], int(fields[2])] = float(fields[13])
            case _:
                pass
    return held


async def make(path: Path) -> None:
    """Record a session of the stream's own connection with the small book."""
    options = {"tick_interval_s": 0.5, "port": 0, "control_port": None}
    async with SimulatedGateway(load_book("small"), seed=7, **options) as sim:
        with Recorder(path, random=Random(5)) as recorder:
            async with Proxy(recorder, ("127.0.0.1", sim.port)) as proxy:
                await _session(sim, proxy)


async def _session(sim: SimulatedGateway, proxy: Proxy) -> None:
    settings = Settings(_env_file=None, gateway_port=proxy.port)
    connection = await _connected(settings)
    await asyncio.sleep(4)
    sim.fill("DUSIM0001", LINES[0], 2)
    await asyncio.sleep(1)
    sim.close_position("DUSIM0001", LINES[2])
    sim.connectivity("lost")
    await asyncio.sleep(1)
    sim.connectivity("restored_data_kept")
    await asyncio.sleep(3)
    down = asyncio.create_task(sim.restart(down_s=2.0))
    await connection.lost.wait()
    await connection.close()
    while True:
        try:
            connection = await _connected(settings)
            break
        except GatewayError:
            await asyncio.sleep(0.25)
    await down
    await asyncio.sleep(4)
    await connection.close()
    await asyncio.sleep(0.5)


async def _connected(settings: Settings) -> GatewayConnection:
    connection = await connect(settings)
    await connection.feed.ensure(timedelta(seconds=60))
    details = await connection.details(LINES)
    for conid in LINES:
        connection.lines.subscribe(details[conid])
    return connection


if __name__ == "__main__":
    asyncio.run(make(Path(sys.argv[1])))
