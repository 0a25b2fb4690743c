"""The log of sent ticks: which price was sent when, for measurements of latency."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from ib_gateway_simulator.market_data.ticks import PRICE_NAMES
from ib_gateway_simulator.protocol.fields import Fields


@dataclass(frozen=True, slots=True)
class SentTick:
    """One price that was sent; `sent_at_us` is unix time in microseconds."""

    conid: int
    field: str
    value: float
    sent_at_us: int


class TickLog:
    """Keeps the newest price per conid and field, and the last `size` of all (0 keeps none)."""

    def __init__(self, size: int = 0) -> None:
        self._newest: dict[int, dict[str, SentTick]] = {}
        self._recent: deque[SentTick] = deque(maxlen=size)

    def record(self, conid: int, fields: Fields, sent_at_us: int) -> None:
        """Record one message; ignore everything but price ticks."""
        if fields[0] != "1":
            return
        name = PRICE_NAMES.get(int(fields[3]))
        if name is None:
            return
        tick = SentTick(conid, name, float(fields[4]), sent_at_us)
        self._newest.setdefault(conid, {})[name] = tick
        if self._recent.maxlen:
            self._recent.append(tick)

    def newest(self, conid: int) -> dict[str, dict[str, Any]]:
        """Return value and `sent_at_us` by field for one conid; empty when nothing was sent."""
        return {
            name: {"value": tick.value, "sent_at_us": tick.sent_at_us}
            for name, tick in self._newest.get(conid, {}).items()
        }

    def recent(self, conid: int | None = None) -> list[SentTick]:
        """Return the last sent prices, oldest first."""
        return [tick for tick in self._recent if conid in (None, tick.conid)]
