"""What happened today, from the tables alone: trades, closes, outages and breaks, a line each.

The list is the same after a restart of everything: nothing of it is kept in memory.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from operator import attrgetter

import polars as pl

from position_sync_dagster.domain.closes import BY_DELIVERY, SLACK, Cause, Closure, PositionChange
from position_sync_dagster.domain.exchange_time import NEW_YORK
from position_sync_dagster.domain.gateway_session import GatewaySession, Owner, SessionState
from position_sync_dagster.domain.holding import Key, grouped
from position_sync_dagster.domain.instrument import contract_name, digits, leg_name
from position_sync_dagster.domain.leg import NEGLIGIBLE
from position_sync_dagster.domain.movements import Movement, MovementKind, known_sum
from position_sync_dagster.domain.reconciliation import Break
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.schema import moment

# Maximum number of ended breaks that are looked at.
MOST_BREAKS = 100

TERMS = ("symbol", "right", "strike", "expiry")

# What an order of the owner makes.
TRADES = frozenset({MovementKind.TRADE, MovementKind.CONVERSION})

# The broker's code of a trade that opened, and closed nothing.
OPENED = "O"

# How long before or after the end of an option what it delivered is seen: one list names both.
DELIVERED_WITHIN = timedelta(hours=1)


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
        movements: Those that count, of contracts; in order of time.
        names: The contracts as a trader writes them, by conid.
        strategies: The strategies that have or had a leg, by conid.
    """

    since: datetime
    changes: Sequence[PositionChange] = ()
    movements: Sequence[Movement] = ()
    closures: Sequence[Closure] = ()
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
    changes = lake.position_changes.records(since)
    movements = _movements_since(lake, since)
    conids = set(map(attrgetter("conid"), (*changes, *movements)))
    of_these = pl.col("conid").is_in(conids)

    legs = lake.registry.sync.history().filter(of_these)  # also removed ones
    by_conid = legs.group_by("conid").agg(pl.col("strategy_id").unique())
    strategies = {conid: frozenset(names) for conid, names in by_conid.iter_rows()}

    terms = lake.updates.sync.latest().filter(of_these).select("conid", *TERMS)
    names = {conid: leg_name(*terms_of_leg) for conid, *terms_of_leg in terms.iter_rows()}
    names |= {change.conid: contract_name(change) for change in changes}

    breaks = lake.breaks.open_breaks()
    for ended in lake.breaks.closed_breaks(MOST_BREAKS):
        if ended.resolved_at and ended.resolved_at >= since:
            breaks.append(ended)

    return Day(
        since=since,
        changes=changes,
        movements=movements,
        closures=lake.closures.current(pl.col("closed_at") >= moment(since)),
        sessions=read_sessions(lake, since),
        breaks=breaks,
        names=names,
        strategies=strategies,
    )


def read_sessions(lake: Lake, since: datetime) -> list[GatewaySession]:
    """Return the sessions of a day that began then; blocks."""
    return lake.sessions.history(None, pl.col("heartbeat_at") >= moment(since))


def _movements_since(lake: Lake, since: datetime) -> list[Movement]:
    """Return the movements of contracts since a time; one without a time belongs to its day."""
    day = since.astimezone(NEW_YORK).date()
    # The day of a calendar further west begins later.
    listed = lake.movements.records(day - timedelta(days=1), pl.col("conid").is_not_null())
    of_day = [
        movement
        for movement in listed
        if (movement.at >= since if movement.at is not None else movement.day >= day)
    ]
    return sorted(of_day, key=lambda movement: movement.at or since)


def changes_of(day: Day) -> list[DayChange]:
    """Return everything that happened on a day, the newest first; pure."""
    changes = [*_trades(day), *_moves(day), *_gateways(day), *_breaks(day)]
    return sorted(changes, key=attrgetter("at"), reverse=True)


def realized_of(day: Day) -> dict[Key, float | None]:
    """Return the realised profit of each holding that moved today, as the broker states it; pure.

    A holding is left out while its movements do not explain all that it changed by. The profit is
    None if that of one of them is not known.
    """
    unexplained: defaultdict[Key, float] = defaultdict(float)
    for change in day.changes:
        unexplained[change.key] += change.by

    realized: dict[Key, float | None] = {}
    for key, movements in grouped(attrgetter("key"), day.movements).items():
        quantities = [movement.quantity for movement in movements]
        moved = known_sum(quantities)
        if moved is not None and abs(unexplained[key] - moved) < NEGLIGIBLE:
            realized[key] = known_sum(movement.realized_pnl for movement in movements)
    return realized


def _trades(day: Day) -> Iterator[DayChange]:
    """Yield a line for each order that was executed."""
    trades = [movement for movement in day.movements if movement.kind in TRADES]
    for (account, _order), legs in grouped(_order_of, trades).items():
        by_conid = grouped(lambda leg: leg.conid or 0, legs)
        conids = tuple(by_conid)
        parts = ", ".join(_traded(trades, day.names) for trades in by_conid.values())
        profits = [profit for profit in map(_closing_profit, legs) if profit is not None]
        amount = sum(profits) if profits else None
        currency = legs[0].currency
        yield DayChange(
            at=max(leg.at or day.since for leg in legs),
            kind=ChangeKind.TRADE,
            account=account,
            conids=conids,
            text=f"{_common_strategies(day, conids)}{parts}{_gain(amount, currency)}",
            amount=amount,
            currency=currency,
        )


def _closing_profit(trade: Movement) -> float | None:
    """Return the realised profit of a trade; None: it opened, or its profit is not known.

    Statements write 0 for what opened. Without a code that says so, a 0 says nothing.
    """
    is_opening = trade.open_close == OPENED or (trade.open_close is None and not trade.realized_pnl)
    return None if is_opening else trade.realized_pnl


def _order_of(trade: Movement) -> tuple[str, str]:
    return trade.account, trade.order_id or trade.movement_id


def _common_strategies(day: Day, conids: Sequence[int]) -> str:
    """Return the strategies that have all legs of a combo, before what was traded."""
    if len(conids) < 2:
        return ""
    nobody: frozenset[str] = frozenset()
    common = frozenset.intersection(*(day.strategies.get(conid, nobody) for conid in conids))
    return f"{', '.join(sorted(common))}: " if common else ""


def _traded(trades: Sequence[Movement], names: Mapping[int, str]) -> str:
    """Return what was done with one contract: "sold 1 QQQ 555C 15Dec28 at 41.20"."""
    first = trades[0]
    quantities = [trade.quantity or 0.0 for trade in trades]  # one without moved nothing
    size = sum(map(abs, quantities))
    net = sum(quantities)
    word = "bought" if net > 0 else "sold" if net < 0 else "bought and sold"
    name = names.get(first.conid or 0, first.symbol or "")

    paid = known_sum(
        None if trade.price is None else trade.price * abs(trade.quantity or 0.0)
        for trade in trades
    )
    at = f" at {paid / size:,.2f}" if size and paid is not None else ""
    return f"{word} {digits(abs(net) or size / 2)} {name}{at}"


def _gain(amount: float | None, currency: str | None) -> str:
    return f", {amount:+,.0f} {currency or ''}".rstrip() if amount else ""


@dataclass(frozen=True, slots=True)
class _Move:
    """A change of a quantity that no trade explains, with its causes where it is a close."""

    change: PositionChange
    closures: Sequence[Closure]

    @property
    def delivered_key(self) -> Key | None:
        """The holding that came or went with an option; None: it delivered nothing."""
        for closure in self.closures:
            is_option = closure.right is not None
            if is_option and closure.cause in BY_DELIVERY and closure.counter_conid is not None:
                return closure.account, closure.counter_conid
        return None


def _moves(day: Day) -> Iterator[DayChange]:
    """Yield the changes of quantities that no trade explains, and why holdings ended.

    What an option delivered is in the line of the option.
    """
    moves = _untraded_moves(day)
    options_of: defaultdict[str, list[_Move]] = defaultdict(list)
    without_delivery: list[_Move] = []
    for move in moves:
        delivery = _delivery_of(move, moves)
        if delivery is None:
            without_delivery.append(move)
        else:
            options_of[delivery.change.change_id].append(move)

    for move in without_delivery:
        yield _move([*options_of[move.change.change_id], move])


def _untraded_moves(day: Day) -> list[_Move]:
    """Return the changes that no trade explains."""
    movements_of = grouped(attrgetter("key"), day.movements)
    explained = [closure for closure in day.closures if closure.cause is not Cause.UNEXPLAINED]
    closures_of_change = grouped(attrgetter("change_id"), explained)
    moves: list[_Move] = []
    for change in day.changes:
        closures = closures_of_change[change.change_id]
        untraded = [closure for closure in closures if closure.cause is not Cause.TRADED]
        if untraded or not _is_traded(change, movements_of[change.key]):
            moves.append(_Move(change, untraded or closures))
    return moves


def _delivery_of(option: _Move, moves: Iterable[_Move]) -> _Move | None:
    """Return what an option delivered; None: it delivered nothing, or that is not seen yet."""
    nearest: _Move | None = None
    shortest = DELIVERED_WITHIN
    for move in moves:
        distance = abs(move.change.seen_at - option.change.seen_at)
        if move.change.key != option.delivered_key or distance > shortest:
            continue
        if nearest is None or distance < shortest:
            nearest = move
            shortest = distance
    return nearest


def _is_traded(change: PositionChange, movements: Iterable[Movement]) -> bool:
    """Return whether a trade of the same direction was made when a quantity changed."""
    begin = (change.since or change.seen_at) - SLACK
    end = change.seen_at + SLACK
    for movement in movements:
        is_same_way = (movement.quantity or 0.0) * change.by > 0
        is_near = movement.at is not None and begin <= movement.at <= end
        if movement.kind in TRADES and is_same_way and is_near:
            return True
    return False


def _move(moves: Sequence[_Move]) -> DayChange:
    """Return the line of a change; of a delivery that of the options, and of what they left."""
    first = moves[0].change
    closures = [closure for move in moves for closure in move.closures]
    causes = dict.fromkeys(closure.cause.lower().replace("_", " ") for closure in closures)
    word = " and ".join(causes) or ("quantity" if first.after else "closed")
    amount = known_sum(closure.realized_pnl for closure in closures) if closures else None
    steps = [
        f"{contract_name(move.change)}  {digits(move.change.before)} → {digits(move.change.after)}"
        for move in moves
    ]
    return DayChange(
        at=first.seen_at,
        kind=ChangeKind.CLOSE if closures or not first.after else ChangeKind.QUANTITY,
        account=first.account,
        conids=tuple(move.change.conid for move in moves),
        text=f"{word}: {', '.join(steps)}{_gain(amount, first.currency)}",
        amount=amount,
        currency=first.currency,
    )


def _gateways(day: Day) -> Iterator[DayChange]:
    """Yield when owners of logins started and ended, and each outage."""
    for session in day.sessions:
        if session.owner is not Owner.STREAM:
            continue
        for at, text in _history_of(session):
            text = f"gateway {session.gateway_id}: {text}"
            yield DayChange(at=at, kind=ChangeKind.GATEWAY, text=text)


def _history_of(session: GatewaySession) -> Iterator[tuple[datetime, str]]:
    """Yield what happened to a session, with the time."""
    yield session.started_at, "the stream started"
    for began, ended, reason in session.outages_over:
        span = f"{began.astimezone():%H:%M:%S} to {ended.astimezone():%H:%M:%S}"
        yield began, f"outage from {span}{f' – {reason}' if reason else ''}"

    detail = f" – {session.detail}" if session.detail else ""
    if session.state is SessionState.BLIND:
        yield session.state_since, f"outage, not over yet{detail}"
    elif session.state in (SessionState.ENDED, SessionState.LOST):
        yield session.heartbeat_at, f"{session.state}{detail}"


def _breaks(day: Day) -> Iterator[DayChange]:
    """Yield the breaks that are open, and those that ended today."""
    for (at, state), breaks in grouped(_last_step_of, day.breaks).items():
        first = breaks[0]
        more = f" and {len(breaks) - 1} more" if len(breaks) > 1 else ""
        yield DayChange(
            at=at,
            kind=ChangeKind.BREAK,
            account=first.account,
            conids=tuple(difference.conid for difference in breaks),
            text=f"break {state}: {first.symbol} {first.type}: {first.detail}{more}",
        )


def _last_step_of(difference: Break) -> tuple[datetime, str]:
    at = difference.resolved_at or difference.confirmed_at or difference.opened_at
    return at, difference.state
