"""Who may stream: the allocation of market data lines, and the route of each holding; pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from position_sync_dagster.domain.broker import BrokerPosition
from position_sync_dagster.domain.leg import ActiveContract, LegState

Key = tuple[str, int]
"""(account, conid)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """A conid that a strategy wants streamed and that some account holds."""

    conid: int
    priority: int
    since: datetime


def demands(
    holdings: Iterable[BrokerPosition],
    legs: Iterable[ActiveContract],
    *,
    sec_types: Iterable[str],
    barred: Iterable[int] = (),
) -> list[Demand]:
    """List the conids that want a line: active in an account that holds them.

    Args:
        barred: Conids for which the gateway refuses market data for now.
    """
    allowed, out = frozenset(sec_types), frozenset(barred)
    held: dict[int, set[str]] = {}
    for holding in holdings:
        if holding.position and holding.instrument.sec_type in allowed:
            held.setdefault(holding.instrument.conid, set()).add(holding.account)
    wanted: dict[int, Demand] = {}
    for leg in legs:
        accounts = held.get(leg.conid)
        if not accounts or leg.conid in out or leg.removed_at is not None:
            continue
        if leg.account is not None and leg.account not in accounts:
            continue
        before = wanted.get(leg.conid)
        wanted[leg.conid] = Demand(
            conid=leg.conid,
            priority=min(leg.priority, before.priority) if before else leg.priority,
            since=min(leg.added_at, before.since) if before else leg.added_at,
        )
    return list(wanted.values())


def allocate_lines(
    wanted: Iterable[Demand],
    held: Mapping[int, datetime],
    *,
    limit: int,
    reserve: int,
    now: datetime,
    min_hold: timedelta,
) -> frozenset[int]:
    """Choose the conids that hold a line from now on; never more than limit − reserve.

    The rule: lower priority number first; then who holds a line already (a line is not passed
    to and fro); then the older leg; then the smaller conid. A line younger than `min_hold` is
    kept, whoever wants it, and counts.

    Args:
        held: conid → when its line was taken.

    >>> from datetime import UTC
    >>> now = datetime(2026, 1, 2, tzinfo=UTC)
    >>> legs = [Demand(conid=c, priority=1, since=now) for c in (3, 1, 2)]
    >>> sorted(allocate_lines(legs, {}, limit=3, reserve=1, now=now, min_hold=timedelta(0)))
    [1, 2]
    """
    budget = max(0, limit - reserve)
    ranked = sorted(wanted, key=lambda d: (d.priority, d.conid not in held, d.since, d.conid))
    order = [d.conid for d in ranked]
    young = [c for c, since in held.items() if now - since < min_hold]
    rank = {conid: place for place, conid in enumerate(order)}
    kept = sorted(young, key=lambda c: (rank.get(c, len(rank)), held[c], c))[:budget]
    chosen = dict.fromkeys(kept)
    for conid in order:
        if len(chosen) >= budget:
            break
        chosen.setdefault(conid)
    return frozenset(chosen)


def route(
    holdings: Iterable[BrokerPosition],
    legs: Iterable[ActiveContract],
    lines: frozenset[int],
    *,
    sec_types: Iterable[str],
) -> dict[Key, LegState]:
    """Give each holding its way: one line serves every holding of its conid.

    A conid with a line streams in each account that holds it, in a strategy or not, since that
    is free. Without a line, an active leg is OVERFLOW and anything else MONITORED. Security
    types that the settings leave out have no route.
    """
    allowed = frozenset(sec_types)
    active: dict[int, set[str | None]] = {}
    for leg in legs:
        if leg.removed_at is None:
            active.setdefault(leg.conid, set()).add(leg.account)
    routes: dict[Key, LegState] = {}
    for holding in holdings:
        conid = holding.instrument.conid
        if holding.instrument.sec_type not in allowed:
            continue
        accounts = active.get(conid, set())
        if holding.position == 0:
            state = LegState.CLOSED
        elif conid in lines:
            state = LegState.STREAMED
        elif None in accounts or holding.account in accounts:
            state = LegState.OVERFLOW
        else:
            state = LegState.MONITORED
        routes[holding.key] = state
    return routes
