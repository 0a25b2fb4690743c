"""How a simulated gateway behaves."""

from __future__ import annotations

from dataclasses import dataclass


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
    tick_ring: int = 0
    """How many sent ticks to keep for latency measurements."""
    first_order_id: int = 1
    autostep: bool = True
    """Let the market step by itself; False leaves it to `step`."""
