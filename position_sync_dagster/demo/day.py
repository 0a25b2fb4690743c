"""A day in the life of the demo's book: fills, rolls and short outages, by a seed.

Each change is undone later, so that the book stays what it is. The first minute only has fills of
legs that are held: what the acceptance test counts does not change.
"""

import json
import random
from pathlib import Path
from typing import Any

SEED = 7
HOURS = 2.0
ACCOUNT = "DUSIM0001"

FIRST_S = 42.0
"""Seconds after the start until the first event: each leg has a current row before."""

FIRST_OUTAGE_S = 150.0
OUTAGE_EVERY_S = 600.0
OUTAGE_S = 6.0

FILLED = {
    911000010: -1,
    912000012: -1,
    913000007: 1,
    914000010: -1,
    915000003: 1,
    911000020: 1,
    913000030: -1,
    915000036: -1,
}
"""Legs that are filled, with the sign of the holding: five of strategies, three monitored ones.

A fill adds one contract, and the next one of the leg takes it away: no leg opens or closes.
"""

ROLLED = (912000018, 912000038)
"""QQQ 585 call: from December of one strategy to January of another, and back."""

ROLL_EVERY_S = 240.0


def day_events(seed: int = SEED, hours: float = HOURS) -> list[dict[str, Any]]:
    """Return the events as a scenario of the simulator has them, ordered by time."""
    chance = random.Random(seed)  # noqa: S311 - it decides what a demo shows
    end_s = hours * 3600
    events: list[dict[str, Any]] = []
    at_s, added = FIRST_S, set[int]()
    while at_s < end_s:
        conid = chance.choice(list(FILLED))
        step = -FILLED[conid] if conid in added else FILLED[conid]
        added ^= {conid}
        events.append(_fill(at_s, conid, step))
        at_s += chance.uniform(20.0, 45.0)
    at_s, towards = 90.0, 1
    while at_s < end_s:
        december, january = ROLLED
        events += [_fill(at_s, december, -towards), _fill(at_s + 0.5, january, towards)]
        at_s, towards = at_s + ROLL_EVERY_S, -towards
    at_s = FIRST_OUTAGE_S
    while at_s < end_s:
        events.append({"at_s": at_s, "do": "connectivity", "state": "lost"})
        back = {"do": "connectivity", "state": "restored_data_kept"}
        events.append({"at_s": at_s + OUTAGE_S, **back})
        at_s += OUTAGE_EVERY_S
    return sorted(events, key=lambda event: float(event["at_s"]))


def write_day(path: Path) -> None:
    """Write the events as a scenario file; JSON is YAML."""
    lines = ",\n".join(json.dumps(event) for event in day_events())
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def _fill(at_s: float, conid: int, quantity: int) -> dict[str, Any]:
    return {
        "at_s": round(at_s, 1),
        "do": "fill",
        "account": ACCOUNT,
        "conid": conid,
        "quantity": quantity,
    }
