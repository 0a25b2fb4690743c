"""The options of a simulated gateway: the one definition of their names, types and defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ib_gateway_simulator.errors import OptionError


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a gateway listens and behaves; times are in seconds.

    Raises:
        OptionError: A time is not above 0, a count is below 0 or too large, the address is empty,
            or there is no such time zone.
    """

    # Address to listen on.
    host: str = "127.0.0.1"
    # Port of the gateway; 0 takes any free one.
    port: int = 0
    # How many of the ports after `port` are tried if it is taken.
    next_ports: int = 0
    # Port of the controls, on 127.0.0.1; 0 takes any free one, None opens none.
    control_port: int | None = None
    # The same seed gives the same prices.
    seed: int = 7
    # How many days ago the previous close was: options had so much more time then.
    closed_days: float = 0.0
    # Market data lines of the login.
    max_lines: int = 100
    # Seconds between two steps of the market.
    tick_interval_s: float = 0.5
    # Seconds between two account updates.
    refresh_interval_s: float = 180.0
    # Zone of the gateway and of its account times: a name of the IANA database.
    time_zone: str = "UTC"
    pnl_interval_s: float = 1.0
    # How long a market data snapshot takes.
    snapshot_s: float = 12.0
    # 0 switches the check off.
    max_messages_per_s: int = 50
    # How much a client may leave unread before it is dropped.
    max_buffer_bytes: int = 4 << 20
    # How long a connection may take until startApi.
    handshake_timeout_s: float = 10.0
    # Sent ticks to keep for GET /ticks?recent=1.
    tick_ring: int = 0
    first_order_id: int = 1
    # Whether the market steps by itself; with False it moves by `step` only.
    autostep: bool = True

    def __post_init__(self) -> None:
        """Refuse values that would make the event loop run without a pause, and unknown zones."""
        for name in ("tick_interval_s", "refresh_interval_s", "pnl_interval_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise OptionError(f"{name} is {getattr(self, name)}: give a time above 0 seconds")
        for name in ("max_lines", "next_ports", "tick_ring", "max_messages_per_s"):
            if not 0 <= getattr(self, name) < 2**31:
                raise OptionError(f"{name} is {getattr(self, name)}: give 0 to 2,147,483,647")

        if not 0 <= self.closed_days < 30:
            raise OptionError(f"closed_days is {self.closed_days}: give 0 to 30 days")
        if not self.host.strip():
            # The sockets of an empty address listen to the whole network.
            raise OptionError("host is empty: give an address, such as 127.0.0.1")
        try:
            ZoneInfo(self.time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise OptionError(
                f"time_zone is {self.time_zone!r}: give a name such as America/New_York"
            ) from None

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of the gateway."""
        return ZoneInfo(self.time_zone)


# The defaults of the program: the port of TWS's paper trading, and a control port.
PROGRAM_OPTIONS = Options(port=7497, control_port=0)
