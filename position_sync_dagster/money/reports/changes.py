"""What happened today, from the tables alone: trades, closes, other moves and outages, a line each.

The list is the same after a restart of everything: nothing of it is kept in memory.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from enum import StrEnum
from itertools import chain
from operator import attrgetter

import polars as pl
from polars import col

from position_sync_dagster.domain.clock import A_DAY, FOREVER
from position_sync_dagster.domain.exchange_time import beginning_of
from position_sync_dagster.domain.gateway_session import GatewaySession, Owner, SessionState
from position_sync_dagster.domain.holding import Key, grouped
from position_sync_dagster.domain.instrument import contract_name, digits, leg_name
from position_sync_dagster.domain.leg import NEGLIGIBLE_QUANTITY
from position_sync_dagster.domain.position_change import PositionChange
from position_sync_dagster.lake.schema import moment, records_of
from position_sync_dagster.money.cents import cents, in_cents
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.closes import TRADES, Cause, Closure, trades_of
from position_sync_dagster.money.past.movement_book import movements_with_inferred
from position_sync_dagster.money.past.movements import Movement, known_sum, moment_of, times
from position_sync_dagster.money.past.postings import name_of
from position_sync_dagster.money.reports.columns import price
from position_sync_dagster.money.strategies.messages import Happened
from position_sync_dagster.money.strategies.rolled_legs import Roll, rolled_legs
from position_sync_dagster.sync.exchange_days import day_of, time_zone_of

# The broker's code of a trade that opened, and closed nothing.
OPENED = "O"


class ChangeKind(StrEnum):
    """What changed: an order was executed, a holding ended or moved, or a login."""

    TRADE = "TRADE"
    CLOSE = "CLOSE"
    QUANTITY = "QUANTITY"
    GATEWAY = "GATEWAY"


# What each cause of a close is; of others nobody is told but by *What changed*.
_HAPPENED = {
    Cause.ASSIGNED: Happened.ASSIGNED,
    Cause.EXERCISED: Happened.EXERCISED,
    Cause.EXPIRED_WORTHLESS: Happened.EXPIRED,
    Cause.CASH_SETTLED: Happened.EXPIRED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedLeg:
    """A contract that something happened to, in the words of a position; None: not known.

    Attributes:
        name: As a trader writes it.
        right: CALL or PUT; None of what is no option.
        quantity: By how much the holding changed, with a sign.
        price: The average price of what was traded, in the major unit of the currency.
    """

    conid: int
    name: str
    symbol: str | None
    sec_type: str | None
    right: str | None
    strike: float | None
    expiry: date | None
    quantity: float
    price: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DayChange:
    """One thing that happened.

    Attributes:
        conids: The contracts that it concerns.
        legs: The same with their terms, and what happened to each.
        text: What happened, for a person.
        amount: The realised profit; None if there is none, or if it is not known.
        currency: The currency of `amount`.
        happened: What people are told of it; None: nothing.
        source: The order, or the row of `position_changes`; None: a login.
    """

    at: datetime
    kind: ChangeKind
    happened: Happened | None = None
    source: str | None = None
    account: str | None = None
    conids: tuple[int, ...] = ()
    legs: tuple[ChangedLeg, ...] = ()
    text: str
    amount: float | None = None
    currency: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """What the tables have of a day.

    Attributes:
        since: Its beginning: midnight in New York.
        until: The moment of it until which it is told.
        changes: In order of time.
        movements: Those that count, of contracts; in order of time.
        strategies: The strategies that have or had a leg, by conid.
    """

    since: datetime
    until: datetime = FOREVER
    changes: Sequence[PositionChange] = ()
    movements: Sequence[Movement] = ()
    closures: Sequence[Closure] = ()
    sessions: Sequence[GatewaySession] = ()
    strategies: Mapping[int, frozenset[str]] = field(default_factory=dict)


def read_day(lake: MoneyLake, calendar: str, since: datetime, until: datetime = FOREVER) -> Day:
    """Return what the tables have of a day that began then; blocks.

    Args:
        calendar: The exchange of the day: what has no time belongs to its day there.
        until: What was known by a moment of it. The words of a movement may be newer.

    Raises:
        LakeError: A table cannot be used.
    """
    changes = lake.position_changes.records(since, col.seen_at <= moment(until))
    movements = _movements_since(lake, since, day_of(calendar, since))
    movements = [movement for movement in movements if moment_of(movement) < until]

    conids = set(map(attrgetter("conid"), chain(changes, movements)))
    legs = lake.registry.sync.history()  # also removed ones
    by_conid = legs.filter(col.conid.is_in(conids)).group_by("conid").agg("strategy_id")
    strategies = {conid: frozenset(names) for conid, names in by_conid.iter_rows()}

    is_of_day = col.closed_at >= moment(since)
    is_known = pl.coalesce("judged_at", "closed_at") <= moment(until)
    closures = lake.closures.current(is_of_day & is_known)
    return Day(
        since=since,
        until=until,
        changes=changes,
        movements=movements,
        closures=closures,
        strategies=strategies,
    )


def days_in(calendar: str, days: Day) -> Iterator[Day]:
    """Yield the days of an exchange of which something was read, each by itself; pure."""

    def day_of_movement(movement: Movement) -> date:
        if movement.at is None:
            return movement.day
        return day_of(calendar, movement.at)

    changes = grouped(lambda change: day_of(calendar, change.seen_at), days.changes)
    movements = grouped(day_of_movement, days.movements)
    for day in sorted({*changes, *movements}):
        since = beginning_of(day, time_zone_of(calendar))
        yield replace(days, since=since, changes=changes[day], movements=movements[day])


def read_sessions(lake: MoneyLake, since: datetime) -> list[GatewaySession]:
    """Return the sessions that lasted until a time, or longer; blocks."""
    return lake.sessions.history(None, col.heartbeat_at >= moment(since))


def _movements_since(lake: MoneyLake, since: datetime, day: date) -> list[Movement]:
    """Return the movements of contracts since a time; one without a time belongs to its day."""

    def is_of_time(movement: Movement) -> bool:
        if movement.at is None:
            return movement.day >= day
        return movement.at >= since

    # The day of a calendar further west begins later.
    rows = movements_with_inferred(lake, day - A_DAY, col.conid.is_not_null())
    return sorted(filter(is_of_time, records_of(Movement, rows)), key=moment_of)


def changes_of(day: Day) -> list[DayChange]:
    """Return everything that happened on a day, the newest first; pure."""
    changes = chain(_trades(day), _moves(day), _gateways(day))
    return sorted(changes, key=attrgetter("at"), reverse=True)


def realized_of(day: Day) -> dict[Key, float | None]:
    """Return the realised profit of each holding that moved today, as the broker states it; pure.

    A holding is left out while its movements do not explain all that it changed by. The profit is
    None if that of one of them is not known.
    """
    changes_of = grouped(attrgetter("key"), day.changes)
    realized = {}
    for key, movements in grouped(attrgetter("key"), day.movements).items():
        changed = sum(map(attrgetter("by"), changes_of[key]))
        moved = known_sum(map(attrgetter("quantity"), movements))
        if moved is not None and abs(changed - moved) < NEGLIGIBLE_QUANTITY:
            realized[key] = known_sum(map(attrgetter("realized_pnl"), movements))
    return realized


def closed_profits(day: Day) -> dict[Key, float | None]:
    """Return the profit of the day of each holding that moved today and is gone; pure.

    The broker's own formula of the day, in which commissions are no part, is (TWS Users' Guide,
    "Profit and Loss"):

        position now × price now − position at the close × price at the close + net amount traded

    Of what is gone the first term is 0, and the amount is in the movements. The second one follows
    from one message of the broker, which names the value of a holding with its profit of the day:
    both are of one moment. Where one of these is not known, the profit is not.

    Returns:
        The profit in the currency of the holding; None if it is not known.
    """
    changes_of = grouped(attrgetter("key"), day.changes)
    movements_of = grouped(attrgetter("key"), day.movements)

    profits = {}
    for key in changes_of.keys() | movements_of.keys():
        changes = changes_of[key]
        if not changes or changes[-1].after == 0:
            profits[key] = _profit_of(changes, movements_of[key])
    return profits


def _profit_of(changes: Sequence[PositionChange], movements: Sequence[Movement]) -> float | None:
    """Return the profit of a holding that is gone; without changes it was never seen open."""
    held = changes[0].before if changes else 0.0
    moved = known_sum(map(attrgetter("quantity"), movements))
    if moved is None or abs(held + moved) >= NEGLIGIBLE_QUANTITY:
        return None

    received = known_sum(map(attrgetter("cash"), movements))
    if not held:
        return received

    return known_sum([received, times(_value_at_close(changes[0]), -1.0)])


def _value_at_close(change: PositionChange) -> float | None:
    """Return the value at the close of yesterday, by the last message before the first change."""
    if change.market_price is None or change.daily_pnl is None:
        return None
    return change.market_price * change.before * change.multiplier - change.daily_pnl


def _trades(day: Day) -> Iterator[DayChange]:
    """Yield a line for each order that was executed."""
    trades = [movement for movement in day.movements if movement.kind in TRADES]
    rolls = rolled_legs(day.closures, day.changes, day.movements)
    rolls = [*filter(attrgetter("is_clear"), rolls)]
    for legs in grouped(_order_of, trades).values():
        yield _order(legs, day, rolls)


def _order(trades: Sequence[Movement], day: Day, rolls: Iterable[Roll]) -> DayChange:
    """Return the line of an order: its strategies, what it rolled and traded, and its gain."""
    first = trades[0]
    profits = [profit for profit in map(_closing_profit, trades) if profit is not None]
    amount = cents(sum(profits)) if profits else None
    by_conid = grouped(lambda trade: trade.conid or 0, trades)
    rolled = [roll for roll in rolls if roll.order == first.order_id]
    text = _common_strategies(day, [*by_conid])
    text += ", ".join(_done(by_conid, rolled))
    text += _gain(amount, first.currency)
    return DayChange(
        at=max(map(moment_of, trades)),
        kind=ChangeKind.TRADE,
        happened=Happened.ROLLED if rolled else Happened.FILLED,
        source=_order_of(first)[1],
        account=first.account,
        conids=(*by_conid,),
        legs=tuple(map(_traded_leg, by_conid.values())),
        text=text,
        amount=amount,
        currency=first.currency,
    )


def _closing_profit(trade: Movement) -> float | None:
    """Return the realised profit of a trade; None: it opened, or its profit is not known.

    Statements write 0 for what opened. Without a code that says so, a 0 says nothing.
    """
    if trade.open_close == OPENED:
        return None
    if trade.open_close is None and trade.realized_pnl == 0:
        return None
    return trade.realized_pnl


def _order_of(trade: Movement) -> tuple[str, str]:
    return trade.account, trade.order_id or trade.movement_id


def _common_strategies(day: Day, conids: Sequence[int]) -> str:
    """Return the strategies that have all legs of a combo, before what was traded."""
    of_legs = [day.strategies.get(conid, frozenset()) for conid in conids]
    names = frozenset.intersection(*of_legs)
    if len(conids) < 2 or not names:
        return ""
    return f"{', '.join(sorted(names))}: "


def _done(legs: Mapping[int, Sequence[Movement]], rolls: Iterable[Roll]) -> Iterator[str]:
    """Yield what an order did with its contracts: what it rolled, then each other one."""
    others = dict(legs)
    for roll in rolls:
        [closed], [opened] = roll.closed, roll.opened
        trades = [*legs[closed.conid], *legs[opened.conid]]
        if abs(sum(trade.change for trade in trades)) < NEGLIGIBLE_QUANTITY:
            yield _rolled(closed, opened, trades)
            del others[closed.conid], others[opened.conid]

    yield from map(_traded, others.values())


def _rolled(closed: PositionChange, opened: PositionChange, trades: Iterable[Movement]) -> str:
    """Return what took the place of what: "rolled 5 NVDA 170C 04Dec26 → 11Dec26, +1.43".

    The number is what one unit of the new position brought more than the end of the old one cost.
    """
    strike = None if opened.strike == closed.strike else opened.strike
    expiry = None if opened.expiry == closed.expiry else opened.expiry
    differs = leg_name("", opened.right, strike, expiry) or contract_name(opened)
    size = abs(opened.by)
    text = f"rolled {digits(size)} {contract_name(closed)}"
    text += f" → {differs}"
    brought = known_sum(times(trade.price, -trade.change) for trade in trades)
    if brought is None:
        return text
    return f"{text}, {brought / size:+,.2f}"


def _traded(trades: Sequence[Movement]) -> str:
    """Return what was done with one contract: "sold 1 QQQ 555C 15Dec28 at 41.20"."""
    leg = _traded_leg(trades)
    word = "bought and sold"
    if leg.quantity > 0:
        word = "bought"
    elif leg.quantity < 0:
        word = "sold"

    number = digits(abs(leg.quantity) or _size_of(trades) / 2)
    text = f"{word} {number} {leg.name}"
    if leg.price is None:
        return text
    return f"{text} at {price(leg.price)}"


def _traded_leg(trades: Sequence[Movement]) -> ChangedLeg:
    """Return the contract of trades, with what they changed together."""
    size = _size_of(trades)
    paid = known_sum(times(trade.price, abs(trade.change)) for trade in trades)
    average = None if paid is None or not size else paid / size
    quantity = sum(map(attrgetter("change"), trades))  # one without moved nothing
    return _leg(trades[0], name_of(trades[0]), quantity, average)


def _size_of(trades: Iterable[Movement]) -> float:
    return sum(abs(trade.change) for trade in trades)


def _leg(
    of: Movement | PositionChange, name: str, quantity: float, average: float | None = None
) -> ChangedLeg:
    return ChangedLeg(
        conid=of.conid or 0,
        name=name,
        symbol=of.symbol,
        sec_type=of.sec_type,
        right=of.right,
        strike=of.strike,
        expiry=of.expiry,
        quantity=quantity,
        price=average,
    )


def _gain(amount: float | None, currency: str | None) -> str:
    whole = round(amount or 0.0)
    if whole:
        return f", {whole:+,} {currency or ''}".rstrip()
    return ""


def _moves(day: Day) -> Iterator[DayChange]:
    """Yield the changes of quantities that no trade explains, and why holdings ended."""
    movements_of = grouped(attrgetter("key"), day.movements)
    changes_of = grouped(attrgetter("key"), day.changes)
    explained = [closure for closure in day.closures if closure.cause is not Cause.UNEXPLAINED]
    closures_of_change = grouped(attrgetter("change_id"), explained)
    for change in day.changes:
        closures = closures_of_change[change.change_id]
        untraded = [closure for closure in closures if closure.cause is not Cause.TRADED]
        changes = changes_of[change.key]
        movements = movements_of[change.key]
        is_traded = trades_of(change, movements) or _are_traded(changes, movements)
        if untraded or not is_traded:
            yield _move(change, untraded or closures)


def _are_traded(changes: Iterable[PositionChange], movements: Iterable[Movement]) -> bool:
    """Return whether trades are all that changed a holding, whenever they were made."""
    steps = [change.by for change in changes]
    traded = [movement.change for movement in movements if movement.kind in TRADES]
    # All rises were bought, and all falls were sold: sums of like parts, which round alike.
    for side in (max, min):
        moved = sum(side(step, 0.0) for step in steps)
        explained = sum(side(size, 0.0) for size in traded)
        if abs(moved - explained) >= NEGLIGIBLE_QUANTITY:
            return False
    return True


def _move(change: PositionChange, closures: Sequence[Closure]) -> DayChange:
    """Return the line of a change, such as "assigned: SPY 650C 15Jan27  -2 → 0, +150 USD"."""
    kind = ChangeKind.CLOSE
    text = "closed"
    amount = happened = None
    if closures:
        causes = dict.fromkeys(map(attrgetter("cause"), closures))
        happened = next(filter(None, map(_HAPPENED.get, causes)), None)
        text = " and ".join(causes).lower().replace("_", " ")
        amount = in_cents(known_sum(map(attrgetter("realized_pnl"), closures)))
    elif change.after:
        kind = ChangeKind.QUANTITY
        text = "quantity"

    name = contract_name(change)
    text += f": {name}  {digits(change.before)}"
    text += f" → {digits(change.after)}"
    text += _gain(amount, change.currency)
    return DayChange(
        at=change.seen_at,
        kind=kind,
        happened=happened,
        source=change.change_id,
        account=change.account,
        conids=(change.conid,),
        legs=(_leg(change, name, change.by),),
        text=text,
        amount=amount,
        currency=change.currency,
    )


def _gateways(day: Day) -> Iterator[DayChange]:
    """Yield when streams started and ended, and each outage."""
    for session in day.sessions:
        if session.owner is not Owner.STREAM:
            continue
        for at, event, reason in _history_of(session, day.until):
            text = f"gateway {session.gateway_id}: {event}"
            if reason:
                text += f" – {reason}"
            if at <= day.until:
                yield DayChange(at=at, kind=ChangeKind.GATEWAY, text=text)


def _history_of(
    session: GatewaySession, until: datetime
) -> Iterator[tuple[datetime, str, str | None]]:
    """Yield what happened to a session, with its time and the reason."""
    yield session.started_at, "the stream started", None
    for began, ended, reason in session.outages_over:
        length = f"outage of {(ended - began).total_seconds():,.0f} s"
        if ended > until:
            length = "outage, not over yet"
        yield began, length, reason

    if session.state is SessionState.BLIND:
        yield session.state_since, "outage, not over yet", session.detail
    elif session.state in (SessionState.ENDED, SessionState.LOST):
        yield session.heartbeat_at, session.state, session.detail
