"""From what was measured to a thousand gateways: how many lakes; and the price of a login."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.gateways.point import Point

# The share of the commits that a table takes at most, of which a lake is planned to need: above
# it, writers wait for each other, and the slowest of them longest.
LOAD = 0.5

# The price of a request in the standard class of S3 (us-east-1, 2025).
USD_WRITE, USD_READ = 5e-6, 0.4e-6

MONTH_S = 30 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How many gateways are laid out, at one flush interval and one interval of heartbeats.

    Attributes:
        a_lake: Logins that a lake carries.
        lakes: How many lakes they need.
    """

    gateways: int
    legs: int
    flush_s: float
    heartbeat_s: float
    a_lake: int
    lakes: int


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
    return Layout(
        gateways=gateways,
        legs=legs,
        flush_s=flush_s,
        heartbeat_s=heartbeat_s,
        a_lake=a_lake,
        lakes=math.ceil(gateways / a_lake),
    )


def usd_a_month(point: Point) -> float:
    """Return what a login's requests cost in a month that is all as busy as the measured time.

    It counts the requests that were seen, with repeated attempts, tables that were opened, and the
    reads of who looks on.
    """
    usd_s = point.puts * USD_WRITE + (point.requests - point.puts) * USD_READ
    return usd_s * MONTH_S / point.logins
