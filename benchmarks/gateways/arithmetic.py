"""From what was measured to a thousand gateways: how many lakes, at what price."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.gateways.point import Point

LOAD = 0.5
"""The share of the commits that a table takes at most, of which a lake is planned to need: above
it, writers wait for each other, and the slowest of them longest."""

PUBLISH_S, ACCOUNTS_S = 5.0, 10.0
"""How often a login commits to `broker_positions` and to `account_values`, about."""

WRITES, READS = 3.0, 4.0
"""Requests of one commit: PUT and LIST, which S3 counts alike, and GET."""

USD_WRITE, USD_READ = 5e-6, 0.4e-6
"""The price of a request in the standard class of S3 (us-east-1, 2025)."""

TRADING_S, MONTH_S = 21 * 6.5 * 3600, 30 * 86_400
"""Seconds of a month in which values change: of the exchange, and of one that never closes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How many gateways are laid out, at one flush interval and one interval of heartbeats.

    Attributes:
        a_lake: Logins that a lake carries.
        lakes: How many lakes they need.
        usd, usd_all_day: For the requests of a month, for all of them: while the exchange trades,
            and around the clock.
    """

    gateways: int
    legs: int
    flush_s: float
    heartbeat_s: float
    a_lake: int
    lakes: int
    usd: float
    usd_all_day: float


def rate_of(points: Iterable[Point], place: str) -> float:
    """Return the most commits a second that the ledger took at a place, with everything else on.

    Raises:
        ValueError: Nothing was measured there.
    """
    return max(point.commits for point in points if point.place == place)


def carried(rate: float, flush_s: float, heartbeat_s: float) -> int:
    """Return how many logins a lake carries.

    Ledger and leases are tables with a log each: either may be the one that is full. A lake carries
    one login at least: where its commit takes longer than the flush interval, values are written
    as often as it allows.

    Args:
        rate: Commits a second that one table takes.

    >>> carried(8.0, 1.0, 4.0), carried(8.0, 10.0, 4.0), carried(0.5, 1.0, 4.0)
    (4, 16, 1)
    """
    return max(math.floor(LOAD * rate * min(flush_s, heartbeat_s)), 1)


def lay_out(gateways: int, legs: int, rate: float, flush_s: float, heartbeat_s: float) -> Layout:
    """Lay out so many gateways with so many legs in all.

    A commit costs the same whatever its rows are, so the legs decide nothing here: they are a
    thousand for each gateway where the task is a million for a thousand.
    """
    a_lake = carried(rate, flush_s, heartbeat_s)
    commits = 1 / flush_s + 1 / heartbeat_s + 1 / PUBLISH_S + 1 / ACCOUNTS_S
    usd_s = gateways * commits * (WRITES * USD_WRITE + READS * USD_READ)
    return Layout(
        gateways=gateways,
        legs=legs,
        flush_s=flush_s,
        heartbeat_s=heartbeat_s,
        a_lake=a_lake,
        lakes=math.ceil(gateways / a_lake),
        usd=usd_s * TRADING_S,
        usd_all_day=usd_s * MONTH_S,
    )
