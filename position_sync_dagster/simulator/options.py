"""How a simulated gateway behaves."""

from __future__ import annotations

import math
from dataclasses import dataclass

from position_sync_dagster.simulator.errors import OptionError


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Hold how a gateway behaves; times in seconds."""

    seed: int = 7
    max_lines: int = 100
    tick_interval_s: float = 0.5
    refresh_interval_s: float = 180.0
    pnl_interval_s: float = 1.0
    snapshot_s: float = 12.0
    max_messages_per_s: int = 50
    """0 switches the check off."""
    max_buffer_bytes: int = 4 << 20
    """What a client may leave unread before it is dropped."""
    handshake_timeout_s: float = 10.0
    """How long a connection may take until startApi."""
    tick_ring: int = 0
    """How many sent ticks to keep for latency measurements."""
    first_order_id: int = 1
    autostep: bool = True
    """Let the market step by itself; False leaves it to `step`."""

    def __post_init__(self) -> None:
        """Refuse what would make the loop spin; raises OptionError."""
        for name in ("tick_interval_s", "refresh_interval_s", "pnl_interval_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise OptionError(f"{name} is {getattr(self, name)}: give a time above 0 seconds")
        for name in ("max_lines", "tick_ring", "max_messages_per_s"):
            if getattr(self, name) < 0:
                raise OptionError(f"{name} is {getattr(self, name)}: give 0 or more")
