"""Recordings as the input of a stream: the small one of the tests, and the legs of any."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ib_gateway_simulator.recordings.entry import Message
from ib_gateway_simulator.recordings.recording import Recording
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.lake.given_leg import make_leg

# Two accounts, three lines, a fill, a close, an outage of IB, a restart of the gateway.
SMALL = Path(__file__).with_name("small.ibrec")

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
    return [_leg_of(rows[conid]) for conid in sorted(lines & rows.keys())]


def _leg_of(fields: Sequence[str]) -> Any:
    """Return the leg of a message `position`."""
    conid, symbol, _, expiry, strike, right = fields[3:9]
    return make_leg(
        conid=int(conid), symbol=symbol, expiry=expiry or None, strike=float(strike) or None,
        right=RIGHTS.get(right), strategy_id="recorded", added_at=datetime.now(UTC),
    )  # fmt: skip


def told_in(recording: Recording) -> dict[tuple[str, int], list[float]]:
    """Return the positions of each holding that were told, the newest one last."""
    told: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
    for entry in recording.entries:
        match entry:
            case Message(name="position", fields=fields) if fields:
                told[fields[2], int(fields[3])].append(float(fields[14]))
            case Message(name="updatePortfolio", fields=fields) if fields:
                told[fields[19], int(fields[2])].append(float(fields[13]))
            case _:
                pass
    return told
