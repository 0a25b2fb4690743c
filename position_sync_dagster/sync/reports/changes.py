"""What happened today, from the tables alone: trades, closes, outages and breaks, a line each.

The list is the same after a restart of everything: nothing of it is kept in memory.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from enum import StrEnum
from operator import attrgetter

import polars as pl

from position_sync_dagster.domain import closes
from position_sync_dagster.domain.exchange_time import NEW_YORK
from position_sync_dagster.domain.gateway_session import GatewaySession, Owner, SessionState
from position_sync_dagster.domain.holding import Key, grouped
from position_sync_dagster.domain.instrument import contract_name, digits, leg_name
from position_sync_dagster.domain.leg import NEGLIGIBLE
from position_sync_dagster.domain.reconciliation import Break
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.schema import moment

# Maximum number of ended breaks that are looked at.
MOST_BREAKS = 100

TERMS = ("symbol", "right", "strike", "expiry")

# The type of an execution that names the whole combo, beside those of its legs.
BAG = "BAG"


class ChangeKind(StrEnum):
    """What changed: an order was executed, a holding ended or moved, a login, or a break."""

    TRADE = "TRADE"
    CLOSE = "CLOSE"
    QUANTITY = "QUANTITY"
    GATEWAY = "GATEWAY"
    BREAK = "BREAK"


@dataclass(frozen=True, slots=True, kw_only=True)
class DayChange:
    """One thing that happened.

    Attributes:
        conids: The contracts that it concerns.
        text: What happened, for a person.
        amount: The realised profit; None if there is none, or if it is not known.
        currency: The currency of `amount`.
    """

    at: datetime
    kind: ChangeKind
    account: str | None = None
    conids: tuple[int, ...] = ()
    text: str
    amount: float | None = None
    currency: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """What the tables have of a day.

    Attributes:
        since: Its beginning: midnight in New York.
        names: The contracts as a trader writes them, by conid.
        strategies: The strategies that have or had a leg, by conid.
    """

    since: datetime
    changes: Sequence[closes.PositionChange] = ()
    executions: Sequence[closes.Execution] = ()
    closures: Sequence[closes.Closure] = ()
    sessions: Sequence[GatewaySession] = ()
    breaks: Sequence[Break] = ()
    names: Mapping[int, str] = field(default_factory=dict)
    strategies: Mapping[int, frozenset[str]] = field(default_factory=dict)


def day_began(now: datetime) -> datetime:
    """Return the last midnight in New York."""
    midnight = datetime.combine(now.astimezone(NEW_YORK).date(), time(), NEW_YORK)
    return midnight.astimezone(UTC)


def read_day(lake: Lake, since: datetime) -> Day:
    """Return what the tables have of a day that began then; blocks.

    Raises:
        LakeError: A table cannot be used.
    """
    begin = moment(since)
    changes = lake.position_changes.records(since)
    executions = closes.current_executions(lake.executions.records(since))
    conids = {one.conid for one in changes} | {one.conid for one in executions}
    named = pl.col("conid").is_in(conids)
    legs = lake.registry.sync.history().filter(named).group_by("conid")  # also removed ones
    strategies = legs.agg(pl.col("strategy_id").unique()).iter_rows()
    terms = lake.updates.sync.latest().filter(named).select("conid", *TERMS).iter_rows()
    names = {conid: leg_name(*of) for conid, *of in terms}
    names |= {one.conid: contract_name(one) for one in changes}
    gone = lake.breaks.closed_breaks(MOST_BREAKS)
    return Day(
        since=since,
        changes=changes,
        executions=executions,
        closures=lake.closures.current(pl.col("closed_at") >= begin),
        sessions=lake.sessions.history(None, pl.col("heartbeat_at") >= begin),
        breaks=[
            *lake.breaks.open_breaks(),
            *(one for one in gone if one.resolved_at and one.resolved_at >= since),
        ],
        names=names,
        strategies={conid: frozenset(found) for conid, found in strategies},
    )


def changes_of(day: Day) -> list[DayChange]:
    """Return everything that happened on a day, the newest first; pure."""
    found = [*_trades(day), *_moves(day), *_gateways(day), *_breaks(day)]
    return sorted(found, key=lambda one: one.at, reverse=True)


def realized_of(day: Day) -> dict[Key, float | None]:
    """Return the realised profit of each holding that changed today, from what explains it; pure.

    A holding is left out while executions and causes do not explain all that it changed by. The
    profit is None if that of one of them is not known.
    """
    rest: dict[Key, float] = defaultdict(float)
    found: dict[Key, list[float | None]] = defaultdict(list)
    for change in day.changes:
        rest[change.key] += change.by
    for made in day.executions:
        rest[made.account, made.conid] -= made.change
        found[made.account, made.conid].append(made.realized_pnl)
    for one in day.closures:
        if one.cause not in (closes.Cause.TRADED, closes.Cause.UNEXPLAINED):
            rest[one.account, one.conid] += one.quantity
            found[one.account, one.conid].append(one.realized_pnl)
    return {
        key: None if None in profits else sum(profit or 0.0 for profit in profits)
        for key, profits in found.items()
        if abs(rest[key]) < NEGLIGIBLE
    }


def _trades(day: Day) -> Iterable[DayChange]:
    """Yield a line for each order that was executed."""
    orders = grouped(
        lambda one: (one.account, one.order_id or one.brokerage_order_id or one.execution_id),
        (one for one in day.executions if one.sec_type != BAG),
    )
    for (account, _order), made in orders.items():
        of_conid = grouped(attrgetter("conid"), made)
        parts = ", ".join(_traded(ones, day.names) for ones in of_conid.values())
        none: frozenset[str] = frozenset()
        common = frozenset.intersection(*(day.strategies.get(conid, none) for conid in of_conid))
        of = f"{', '.join(sorted(common))}: " if len(of_conid) > 1 and common else ""
        profits = [one.realized_pnl for one in made if one.realized_pnl is not None]
        amount, currency = (sum(profits) if profits else None), made[0].currency
        yield DayChange(
            at=max(one.time for one in made),
            kind=ChangeKind.TRADE,
            account=account,
            conids=tuple(of_conid),
            text=f"{of}{parts}{_gain(amount, currency)}",
            amount=amount,
            currency=currency,
        )


def _traded(ones: Sequence[closes.Execution], names: Mapping[int, str]) -> str:
    """Return what was done with one contract: "sold 1 QQQ 555C 15Dec28 at 41.20"."""
    net, size = sum(one.change for one in ones), sum(one.quantity for one in ones)
    priced = [one.price * one.quantity for one in ones if one.price is not None]
    at = f" at {sum(priced) / size:,.2f}" if size and len(priced) == len(ones) else ""
    word = "bought" if net > 0 else "sold" if net < 0 else "bought and sold"
    name = names.get(ones[0].conid, ones[0].symbol)
    return f"{word} {digits(abs(net) or size / 2)} {name}{at}"


def _gain(amount: float | None, currency: str | None) -> str:
    return f", {amount:+,.0f} {currency or ''}".rstrip() if amount else ""


def _moves(day: Day) -> Iterable[DayChange]:
    """Yield the changes of quantities that no execution explains, and why holdings ended."""
    made = grouped(attrgetter("account", "conid"), day.executions)
    explained = (one for one in day.closures if one.cause is not closes.Cause.UNEXPLAINED)
    causes = grouped(attrgetter("change_id"), explained)
    for change in day.changes:
        known = causes[change.change_id]
        untraded = [one for one in known if one.cause is not closes.Cause.TRADED]
        if not untraded and closes.executions_of(change, made[change.key]):
            continue
        told = untraded or known
        names = dict.fromkeys(one.cause.lower().replace("_", " ") for one in told)
        word = " and ".join(names) or ("quantity" if change.after else "closed")
        profits = [one.realized_pnl for one in told if one.realized_pnl is not None]
        amount = sum(profits) if told and len(profits) == len(told) else None
        step = f"{digits(change.before)} → {digits(change.after)}"
        yield DayChange(
            at=change.seen_at,
            kind=ChangeKind.CLOSE if told or not change.after else ChangeKind.QUANTITY,
            account=change.account,
            conids=(change.conid,),
            text=f"{word}: {contract_name(change)}  {step}{_gain(amount, change.currency)}",
            amount=amount,
            currency=change.currency,
        )


def _gateways(day: Day) -> Iterable[DayChange]:
    """Yield when owners of logins started and ended, and each outage."""
    for one in day.sessions:
        if one.owner is not Owner.STREAM:
            continue
        detail = f" – {one.detail}" if one.detail else ""
        found = [(one.started_at, "the stream started")]
        for began, ended, why in one.outages_over:
            span = f"{began.astimezone():%H:%M:%S} to {ended.astimezone():%H:%M:%S}"
            found.append((began, f"outage from {span}{f' – {why}' if why else ''}"))
        if one.state is SessionState.BLIND:
            found.append((one.state_since, f"outage, not over yet{detail}"))
        elif one.state in (SessionState.ENDED, SessionState.LOST):
            found.append((one.heartbeat_at, f"{one.state}{detail}"))
        for at, text in found:
            text = f"gateway {one.gateway_id}: {text}"
            yield DayChange(at=at, kind=ChangeKind.GATEWAY, text=text)


def _breaks(day: Day) -> Iterable[DayChange]:
    """Yield the breaks that are open, and those that ended today."""
    found = grouped(
        lambda one: (one.resolved_at or one.confirmed_at or one.opened_at, one.state), day.breaks
    )
    for (at, state), (first, *others) in found.items():
        more = f" and {len(others)} more" if others else ""
        yield DayChange(
            at=at,
            kind=ChangeKind.BREAK,
            account=first.account,
            conids=tuple(one.conid for one in (first, *others)),
            text=f"break {state}: {first.symbol} {first.type}: {first.detail}{more}",
        )
