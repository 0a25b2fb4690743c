"""Who gets a market data line: demands, their rank, and how many lines there are; pure.

The limit of a login is the configured one. If the gateway refuses a line earlier (code 101), the
lines in use then are the limit for some time: that one is learned.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from operator import attrgetter

from position_sync_dagster.domain.clock import NEVER
from position_sync_dagster.domain.holding import BrokerPosition, grouped
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.domain.retry import Backoff


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """A conid that a strategy wants streamed and that an account holds, or an underlying.

    Attributes:
        priority: The best (smallest) priority of its legs.
        since: When the oldest of its legs was added.
        options: How many options need its price for their greeks, if it is no leg but an
            underlying; 0 of a leg.
    """

    conid: int
    priority: int = 1
    since: datetime = NEVER
    options: int = 0


def demands(
    holdings_of: Callable[[int], Iterable[BrokerPosition]],
    legs: Iterable[ActiveContract],
    *,
    sec_types: Iterable[str],
) -> list[Demand]:
    """Return the conids that want a line: active in an account that holds them.

    Args:
        holdings_of: Returns the holdings of a conid.
        legs: The active legs of strategies.
        sec_types: Holdings of other security types want no line.
    """
    allowed = frozenset(sec_types)
    wanted = []
    for conid, legs_of_conid in grouped(attrgetter("conid"), legs).items():
        accounts = {
            holding.account
            for holding in holdings_of(conid)
            if holding.position and holding.instrument.sec_type in allowed
        }
        # A leg without an account is one of each account that holds the contract.
        held = [leg for leg in legs_of_conid if accounts and leg.account in (None, *accounts)]
        if held:
            priority = min(leg.priority for leg in held)
            since = min(leg.added_at for leg in held)
            wanted.append(Demand(conid=conid, priority=priority, since=since))
    return wanted


def rank(demand: Demand, held: Collection[int]) -> tuple[int, int, bool, datetime, int]:
    """Return the sort key of a demand: the smaller is served first.

    Underlyings come before legs: one line gives all options of an underlying their greeks. The one
    that more options need comes first. Of legs the smaller priority number comes first. Then comes
    the conid that has a line already, so that a line does not go back and forth; then the older
    leg; then the smaller conid.

    Args:
        demand: The conid.
        held: The conids that have a line.
    """
    return (
        -demand.options,
        demand.priority,
        demand.conid not in held,
        demand.since,
        demand.conid,
    )


def most_underlyings(budget: int) -> int:
    """Return how many underlyings may have a line: a quarter of the lines that may be used."""
    return max(0, budget) // 4


def allocate_lines(
    wanted: Iterable[Demand],
    held: Mapping[int, float],
    *,
    budget: int,
    now: float,
    min_hold_s: float,
) -> frozenset[int]:
    """Choose the conids that hold a line from now on, by `rank`; add none above the budget.

    Underlyings come first, then legs by their priority; of one priority, what has a line already.
    Underlyings get a quarter of these lines at most, also where others are spare. A line younger
    than `min_hold_s` is kept in any case, and counts. If the budget has fallen below the number of
    young lines, they are kept and none is added.

    Args:
        wanted: The demands.
        held: conid → when its line was requested.
        budget: The lines that may be used: those of the login, without what other programs use, and
            without the reserve for them.
        now: The present moment.
        min_hold_s: The shortest time that a line is kept.

    >>> from datetime import UTC
    >>> at = datetime(2026, 1, 2, tzinfo=UTC)
    >>> legs = [Demand(conid=c, priority=1, since=at) for c in (3, 1, 2)]
    >>> sorted(allocate_lines(legs, {}, budget=2, now=0.0, min_hold_s=5.0))
    [1, 2]
    """
    by_rank = sorted(wanted, key=lambda demand: rank(demand, held))
    underlyings = [demand.conid for demand in by_rank if demand.options]
    legs = [demand.conid for demand in by_rank if not demand.options]

    chosen = {conid for conid, since in held.items() if now - since < min_hold_s}
    for conid in [*underlyings[: most_underlyings(budget)], *legs]:
        if len(chosen) >= budget:
            break
        chosen.add(conid)
    return frozenset(chosen)


@dataclass(frozen=True, slots=True, kw_only=True)
class LineLimit:
    """The line limit of a login: as configured, or for some time as learned from code 101.

    After that time as many lines as configured are requested again. If the gateway refuses one
    soon, the time is twice as long.

    Attributes:
        configured: The upper bound.
        reserve: The number of lines that is always left free.
        wait: How long a learned limit counts.
        given: The lines in use when the gateway refused one; None: the configured ones are tried.
        failures: Times in a row that the gateway refused one.
        until: How long `given` counts.

    >>> wait = Backoff(first_s=60, longest_s=900)
    >>> limit = LineLimit(configured=100, reserve=5, wait=wait)
    >>> limit = limit.refused(61, now=0.0).refused(60, now=0.1)
    >>> limit.lines, limit.at(59.0).lines, limit.at(61.0).lines
    (60, 60, 100)
    """

    configured: int
    reserve: int
    wait: Backoff
    given: int | None = None
    failures: int = 0
    until: float = -math.inf

    @property
    def lines(self) -> int:
        """The number of lines, the reserve included."""
        return self.configured if self.given is None else self.given

    def refused(self, in_use: int, now: float) -> "LineLimit":
        """Return the limit after code 101: the gateway gives no more than are in use.

        In a burst of refusals only the last one shows the true limit, and the first one alone
        counts as a try that was refused. If the limit before ended lately (within the longest wait
        after `until`), that is one more try in a row, and the wait is longer.
        """
        failures = self.failures
        if self.given is None:
            was_lately = now - self.until < self.wait.longest_s
            failures = failures + 1 if was_lately else 1

        return replace(
            self,
            given=min(in_use, self.configured),
            failures=failures,
            until=now + self.wait.delay_s(failures),
        )

    def at(self, now: float) -> "LineLimit":
        """Return the limit that counts now: the configured one once a learned one is over."""
        if self.given is None or now < self.until:
            return self
        return replace(self, given=None)
