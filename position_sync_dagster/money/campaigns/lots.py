"""Lots: when what an account has or had was opened and closed, what it cost, and what it brought.

First in, first out, through assignments and corporate actions, or as the broker matched them where
a statement has its closed lots. It is the same money as that of campaigns. No tax form: what is
taxed, and when, is for others to say.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from enum import StrEnum
from itertools import chain
from math import copysign
from typing import Any

from polars import col

from position_sync_dagster.domain.exchange_time import NEW_YORK
from position_sync_dagster.domain.holding import Key, grouped
from position_sync_dagster.lake.schema import TableSpec, columns_of
from position_sync_dagster.money.campaigns.closed_campaigns import CampaignBook
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.attribution import OwnedPart, name_of
from position_sync_dagster.money.past.closes import EventKind, StatementEvent
from position_sync_dagster.money.past.movements import (
    DELIVERIES,
    INCOME,
    Movement,
    MovementKind,
    known_sum,
    moment_of,
    rounded,
    times,
)


class LotSource(StrEnum):
    """Who matched what closed with what opened: first in, first out, or the broker."""

    FIFO = "FIFO"
    BROKER = "BROKER"


@dataclass(frozen=True, slots=True, kw_only=True)
class TradedLot:
    """A quantity that was opened at once and closed at once, or is still held.

    Attributes:
        account: IB account.
        conid: Contract that was closed; after a corporate action not the one that was opened.
        contract: As a trader writes it.
        symbol: Symbol of the underlying.
        sec_type: IB's security type.
        currency: Currency of the money.
        quantity: Below 0 of what was sold first; 0 of money that a corporate action paid alone.
        opened: Day on which it was opened; null where that is before all movements.
        opened_at: Time, where it is known (UTC).
        opened_by: Kind of movement that opened it, as in `movements`.
        opened_through: Contract of the option that delivered it.
        closed: Day on which it was closed; null of what is held.
        closed_at: Time, where it is known (UTC).
        closed_by: Kind of movement that closed it.
        closed_through: Contract of the option by which it was delivered.
        days: Calendar days from one to the other.
        cost: What buying it cost, with fees. Unit: `currency`.
        proceeds: What selling it brought, less fees; of a future both are notional. Unit:
            `currency`.
        profit: The second less the first; null of what is held. Unit: `currency`.
        fees: Fees in both; null where the broker matched it. Unit: `currency`.
        source: FIFO or BROKER.
        why_unknown: Why money of it is null.
    """

    account: str
    conid: int
    contract: str
    symbol: str | None
    sec_type: str | None
    currency: str | None
    quantity: float
    opened: date | None
    opened_at: datetime | None
    opened_by: MovementKind
    opened_through: int | None
    closed: date | None = None
    closed_at: datetime | None = None
    closed_by: MovementKind | None = None
    closed_through: int | None = None
    days: int | None = None
    cost: float | None = None
    proceeds: float | None = None
    profit: float | None = None
    fees: float | None
    source: LotSource = LotSource.FIFO
    why_unknown: str | None


# The columns of lots as a frame; no table has them.
LOTS = TableSpec("lots", columns_of(TradedLot), description="Lots, as they are exported.")


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldingChange:
    """What one movement, or what was held before the first one, changed of a holding.

    Attributes:
        cash: What it brought after fees; None: not known.
        fees: Positive was paid; None: not known.
        came_for: Of what a corporate action brought: the contracts that it took.
        is_prior: Whether it is no movement, but what was held before the first one.
        became: The corporate action that brought another contract in its place.
        why_unknown: Why its money is not known.
    """

    movement: Movement
    quantity: float
    cash: float | None
    fees: float | None
    came_for: tuple[int, ...] = ()
    is_prior: bool = False
    became: Movement | None = None
    why_unknown: str | None = None

    def part(self, quantity: float) -> "HoldingChange":
        """Return the part of it that changed so much."""
        fraction = quantity / self.quantity
        cash = times(self.cash, fraction)
        return replace(self, quantity=quantity, cash=cash, fees=times(self.fees, fraction))

    @property
    def through(self) -> int | None:
        """The option that delivered it."""
        if self.movement.kind in DELIVERIES and self.movement.right is None:
            return self.movement.counter_conid
        return None


def changes_in(parts: Iterable[OwnedPart]) -> list[HoldingChange]:
    """Return what parts of movements changed of the holdings of accounts, in order of time; pure.

    Whose they are does not matter. The cash of a settlement may have a row of its own. What a
    corporate action brings comes after what it took.
    """
    changes = map(_change, grouped(_change_of, parts).values())
    return sorted(changes, key=lambda change: (moment_of(change.movement), bool(change.came_for)))


def _change_of(part: OwnedPart) -> tuple[object, ...]:
    movement = part.movement
    is_settlement = movement.kind is MovementKind.CASH_SETTLEMENT
    return part.key, part.is_prior, movement.day if is_settlement else movement.movement_id


def _change(parts: Sequence[OwnedPart]) -> HoldingChange:
    largest = max(parts, key=lambda part: abs(part.quantity))
    reasons = []
    for part in parts:
        of_money = replace(part, unclear=None) if part.whose_is_unclear else part
        reasons.append(of_money.unknown)
    why_unknown = next(filter(None, reasons), None)

    cash = known_sum(part.cash for part in parts)
    fees = known_sum(part.fee_in(part.movement.currency) for part in parts)
    after_fees = None
    if why_unknown is None:
        after_fees = known_sum([cash, times(fees, -1.0)])
    return HoldingChange(
        movement=largest.movement,
        quantity=sum(part.quantity for part in parts),
        cash=after_fees,
        fees=None if after_fees is None else fees,
        came_for=largest.came_for,
        is_prior=largest.is_prior,
        why_unknown=why_unknown,
    )


def lots_of(changes: Iterable[HoldingChange]) -> list[TradedLot]:
    """Return the lots that are closed, and then those that are held; pure.

    Args:
        changes: All changes of the holdings, in order of time.
    """
    in_order = [*changes]
    matching = _Matching()
    for change in in_order:
        account, day = change.movement.account, change.movement.day
        matching.replaced.update((account, conid, day) for conid in change.came_for)

    for change in in_order:
        matching.add(change)

    held = [_lot(opened, None) for opened in chain.from_iterable(matching.held.values())]
    return matching.lots + held


@dataclass(slots=True, eq=False)
class _Matching:
    """Matches what closes a holding with what opened it first.

    Attributes:
        held: What opened what is held, the first one first.
        replaced: By how many contracts corporate actions replaced one of an account on a day.
        taken: What had opened what they took.
        lots: The closed lots.
    """

    held: defaultdict[Key, deque[HoldingChange]] = field(default_factory=lambda: defaultdict(deque))
    replaced: Counter[tuple[str, int, date]] = field(default_factory=Counter)
    taken: dict[Key, list[HoldingChange]] = field(default_factory=dict)
    lots: list[TradedLot] = field(default_factory=list)

    def add(self, change: HoldingChange) -> None:
        """Open or close what a movement changed."""
        kind = change.movement.kind
        if kind in INCOME:
            return
        if not change.quantity:
            self._pay(change)
        elif kind is MovementKind.CORPORATE_ACTION:
            self._reorganize(change)
        else:
            self._trade(change)

    def _trade(self, change: HoldingChange) -> None:
        """Close what is held on the other side, and open what is left."""
        held = self.held[change.movement.key]
        left = change
        while held and held[0].quantity * left.quantity < 0:
            first = held.popleft()
            size = min(abs(first.quantity), abs(left.quantity))
            closing = left.part(copysign(size, left.quantity))
            self.lots.append(_lot(first.part(-closing.quantity), closing))

            still_held = first.quantity + closing.quantity
            if rounded(still_held):
                held.appendleft(first.part(still_held))
            left = left.part(left.quantity - closing.quantity)
            if not rounded(left.quantity):
                return
        held.append(left)

    def _pay(self, change: HoldingChange) -> None:
        """Record money that changed no quantity, or that it is not known what changed."""
        key = change.movement.key
        if change.movement.quantity is None:
            why = change.why_unknown
            self.held[key] = deque(
                replace(opened, cash=None, why_unknown=why) for opened in self.held[key]
            )
        if change.cash != 0:
            self.lots.append(_lot(replace(change, cash=0.0, fees=0.0, is_prior=True), change))

    def _reorganize(self, change: HoldingChange) -> None:
        """Keep what lots cost, and since when they are held, through a corporate action."""
        movement = change.movement
        held = self.held[movement.key]
        total = sum(opened.quantity for opened in held)
        after = total + change.quantity
        if change.came_for:
            held.extend(self._in_place_of(change))
        elif self.replaced[movement.account, movement.key[1], movement.day]:
            self.taken[movement.key] = [*held]
            held.clear()
        elif total * after > 0 and rounded(after):
            self.held[movement.key] = deque(
                replace(opened, quantity=opened.quantity * after / total) for opened in held
            )
        else:
            self._trade(change)
            return
        self._pay(replace(change, quantity=0.0))

    def _in_place_of(self, change: HoldingChange) -> list[HoldingChange]:
        """Return what had opened the contracts for which a corporate action brought another one."""
        movement = change.movement
        account = movement.account
        gone = [self.taken.get((account, conid), []) for conid in change.came_for]
        is_shared = any(
            self.replaced[account, conid, movement.day] > 1 for conid in change.came_for
        )
        taken = [*chain.from_iterable(gone)]
        total = sum(opened.quantity for opened in taken)
        if is_shared or not total:
            why = f"what {name_of(movement)} cost is not known: a corporate action brought it"
            return [replace(change, cash=None, fees=None, why_unknown=why)]

        ratio = change.quantity / total
        return [
            replace(opened, quantity=opened.quantity * ratio, became=movement) for opened in taken
        ]


def _lot(opened: HoldingChange, closing: HoldingChange | None) -> TradedLot:
    """Return the lot of what was opened and closed; None: it is held."""
    contract = opened.became or opened.movement
    why_unknown = opened.why_unknown
    since = None if opened.is_prior else opened.movement.day
    sides = [opened.cash, None]
    fees = opened.fees
    ended: dict[str, Any] = {}
    if closing is not None:
        contract = closing.movement
        why_unknown = why_unknown or closing.why_unknown
        sides = [opened.cash, closing.cash]
        fees = known_sum([opened.fees, closing.fees])
        ended["profit"] = known_sum(sides)
        ended["closed"] = contract.day
        ended["closed_at"] = contract.at
        ended["closed_by"] = contract.kind
        ended["closed_through"] = closing.through
        if since is not None:
            ended["days"] = (contract.day - since).days

    bought, sold = sides if opened.quantity >= 0 else reversed(sides)
    return TradedLot(
        account=contract.account,
        conid=contract.key[1],
        contract=name_of(contract),
        symbol=contract.symbol,
        sec_type=contract.sec_type,
        currency=contract.currency,
        quantity=opened.quantity,
        opened=since,
        opened_at=None if opened.is_prior else opened.movement.at,
        opened_by=opened.movement.kind,
        opened_through=opened.through,
        cost=times(bought, -1.0),
        proceeds=sold,
        fees=fees,
        why_unknown=why_unknown,
        **ended,
    )


def as_the_broker_matched(
    lots: Iterable[TradedLot], stated: Iterable[StatementEvent]
) -> list[TradedLot]:
    """Return lots where those of a contract and day are the broker's, if it states all of them.

    Args:
        lots: Those by first in, first out.
        stated: The closed lots of statements.
    """
    stated_of = grouped(lambda event: (event.account, event.conid, event.day), stated)
    closed = grouped(lambda lot: (lot.account, lot.conid, lot.closed), lots)
    matched: list[TradedLot] = []
    for (account, conid, day), of_day in closed.items():
        events = [] if day is None else stated_of[account, conid, day]
        size = sum(lot.quantity for lot in of_day)
        stated_size = sum(event.quantity or 0.0 for event in events)
        if events and not rounded(size - stated_size):
            matched += [_broker_lot(of_day[0], event) for event in events]
        else:
            matched += of_day
    return matched


def _broker_lot(lot: TradedLot, event: StatementEvent) -> TradedLot:
    """Return a lot as the broker states it: what opening it cost or brought, and the profit."""
    quantity = event.quantity or 0.0  # a closed lot has one
    is_long = quantity > 0
    opened = None if event.time is None else event.time.astimezone(NEW_YORK).date()
    gained = times(event.realized_pnl, 1.0 if is_long else -1.0)
    other_side = known_sum([event.amount, gained])
    return replace(
        lot,
        quantity=quantity,
        opened=opened,
        opened_at=event.time,
        days=None if opened is None else (event.day - opened).days,
        cost=event.amount if is_long else other_side,
        proceeds=other_side if is_long else event.amount,
        profit=event.realized_pnl,
        fees=None,
        source=LotSource.BROKER,
        why_unknown=None,
    )


def read_lots(lake: MoneyLake, since: date | None = None) -> list[TradedLot]:
    """Read the lots, in the order in which they closed, and last those that are held; blocks.

    Args:
        since: The first day of a close; None: any.
    """
    stated = lake.statement_events.records(None, col.kind == EventKind.CLOSED_LOT.value)
    lots = lots_of(changes_in(CampaignBook(lake).parts))
    wanted = [
        lot
        for lot in as_the_broker_matched(lots, stated)
        if since is None or lot.closed is None or lot.closed >= since
    ]
    return sorted(wanted, key=lambda lot: (lot.closed or date.max, lot.account, lot.contract))
