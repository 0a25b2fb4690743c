"""Lots: when what an account has or had was opened and closed, what it cost, and what it brought.

First in, first out, through assignments and corporate actions, or as the broker matched them where
a statement has its closed lots. It is the same money as that of campaigns. No tax form: what is
taxed, and when, is for others to say.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import StrEnum
from itertools import chain
from operator import attrgetter

from polars import col

from position_sync_dagster.domain.exchange_time import exchange_date
from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.lake.schema import TableSpec, columns_of
from position_sync_dagster.money.campaigns.closed_campaigns import CampaignBook
from position_sync_dagster.money.campaigns.entry_values import Entry, EntryLeg, read_entries
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.booking import EdgeKind, Share, booked, of_account
from position_sync_dagster.money.past.closes import EventKind, StatementEvent
from position_sync_dagster.money.past.movements import MovementKind, known_sum, rounded, times
from position_sync_dagster.money.past.postings import Posting, name_of


class LotSource(StrEnum):
    """Who matched what closed with what opened: first in, first out, or the broker."""

    FIFO = "FIFO"
    BROKER = "BROKER"


@dataclass(frozen=True, slots=True, kw_only=True)
class TradedLot(Entry):
    """A quantity that was opened at once and closed at once, or is still held.

    Attributes:
        account: IB account.
        conid: Contract that was closed; after a corporate action not the one that was opened.
        contract: As a trader writes it.
        symbol: Symbol of the underlying.
        sec_type: IB's security type.
        right: CALL or PUT; null of what is no option.
        strike: Strike of an option. Unit: as quoted.
        expiry: Expiry of an option or a future.
        currency: Currency of the money.
        quantity: Below 0 of what was sold first; 0 of money alone: what a corporate action paid, a
            fee in another currency.
        opened: Day on which it was opened; null where that is before all movements, and of money
            alone.
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
        entry_delta: Delta of one option by the first row after it was opened. Unit: `currency` per
            `currency` of the underlying.
        entry_implied_vol: Implied volatility in that row. Unit: part of one, a year.
        entry_underlying_price: Price of the underlying in that row. Unit: as quoted.
        entry_after_s: How long after it was opened that row was written. Unit: s.
        entry_unknown: Which of these are null of an option, and why.
    """

    account: str
    conid: int
    contract: str
    symbol: str | None
    sec_type: str | None
    right: str | None
    strike: float | None
    expiry: date | None
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


# The columns of lots as a frame, those of the entry last; no table has them.
LOTS = TableSpec(
    "lots",
    columns_of(TradedLot, besides=columns_of(Entry)) | columns_of(TradedLot),
    description="Lots, as they are exported.",
)


def lots_of(postings: Sequence[Posting]) -> list[TradedLot]:
    """Return the lots that are closed, and then those that are held; pure.

    Whose they are does not matter. A fee in another currency than that of its contract is in no lot
    of it, but one of its own.

    Args:
        postings: All of the holdings.
    """
    booking = booked(postings, of_account)
    closed = [
        _lot(edge.opened or edge.by.nothing, edge.by)
        for edge in booking.edges
        if edge.kind in (EdgeKind.CLOSES, EdgeKind.PAYS)
    ]
    closed += [_lot(fee.nothing, fee) for fee in _fees_elsewhere(postings)]
    return closed + [_lot(share, None) for share in chain.from_iterable(booking.held.values())]


def _fees_elsewhere(postings: Iterable[Posting]) -> Iterator[Share]:
    """Yield the fees in another currency than that of their contract, each as money alone."""
    for posting in postings:
        charged_in = posting.charged_elsewhere
        if charged_in is not None:
            charged = replace(posting, movement=replace(posting.movement, currency=charged_in))
            why_unknown = posting.why_no_fee_in(charged_in)
            yield Share(charged, 0.0, times(posting.fee, -1.0), posting.fee, why_unknown)


def _lot(opened: Share, closing: Share | None) -> TradedLot:
    """Return the lot of what was opened and closed; None: it is held."""
    contract = (opened.brought_by or opened.posting).movement
    opening = opened.posting.movement
    # Of what was held before all movements, and of money alone, no day is known.
    since = None if opened.posting.is_prior or not opened.quantity else opening.day
    sides = [opened.cash, None]
    fees = opened.fees
    why_unknown = opened.why_unknown
    if closing is not None:
        contract = closing.posting.movement
        sides = [opened.cash, closing.cash]
        fees = known_sum([opened.fees, closing.fees])
        why_unknown = why_unknown or closing.why_unknown

    bought, sold = sides if opened.quantity >= 0 else reversed(sides)
    lot = TradedLot(
        account=contract.account,
        conid=contract.key[1],
        contract=name_of(contract),
        symbol=contract.symbol,
        sec_type=contract.sec_type,
        right=contract.right,
        strike=contract.strike,
        expiry=contract.expiry,
        currency=contract.currency,
        quantity=opened.quantity,
        opened=since,
        opened_at=None if since is None else opening.at,
        opened_by=opening.kind,
        opened_through=opening.through,
        cost=times(bought, -1.0),
        proceeds=sold,
        fees=fees,
        why_unknown=why_unknown,
    )
    if closing is None:
        return lot
    return replace(
        lot,
        closed=contract.day,
        closed_at=contract.at,
        closed_by=contract.kind,
        closed_through=contract.through,
        days=None if since is None else (contract.day - since).days,
        profit=known_sum(sides),
    )


def as_the_broker_matched(
    lots: Iterable[TradedLot], stated: Iterable[StatementEvent]
) -> list[TradedLot]:
    """Return lots where those of a contract and day are the broker's, if it states all of them.

    A fee in another currency is none of them.

    Args:
        lots: Those by first in, first out.
        stated: The closed lots of statements.
    """
    stated_of = grouped(attrgetter("account", "conid", "day"), stated)
    closed = grouped(attrgetter("account", "conid", "closed", "currency"), lots)
    matched: list[TradedLot] = []
    for (account, conid, day, _currency), of_day in closed.items():
        is_money_alone = not any(lot.quantity for lot in of_day)
        events = [] if day is None or is_money_alone else stated_of[account, conid, day]
        size = sum(lot.quantity for lot in of_day)
        stated_size = sum(event.quantity or 0.0 for event in events)  # each has one
        if events and not rounded(size - stated_size):
            matched += [_broker_lot(of_day[0], event) for event in events]
        else:
            matched += of_day
    return matched


def _broker_lot(lot: TradedLot, event: StatementEvent) -> TradedLot:
    """Return a lot as the broker states it: what opening it cost or brought, and the profit."""
    quantity = event.quantity or 0.0  # a closed lot has one
    is_long = quantity > 0
    opened = None if event.time is None else exchange_date(event.time)
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
    lots = lots_of(CampaignBook(lake).parts)
    wanted = [
        lot
        for lot in as_the_broker_matched(lots, stated)
        if (lot.closed or date.max) >= (since or date.min)
    ]
    # Money alone was never opened.
    has_entry = grouped(lambda lot: lot.right is not None and lot.quantity != 0, wanted)
    entered = read_entries(lake, [(lot, [_entry_leg(lot)]) for lot in has_entry[True]])
    return sorted(
        has_entry[False] + entered,
        key=lambda lot: (lot.closed or date.max, lot.account, lot.contract),
    )


def _entry_leg(lot: TradedLot) -> EntryLeg:
    """Return one option of a lot, as it was opened."""
    return EntryLeg(
        conid=lot.conid,
        name=lot.contract,
        symbol=lot.symbol,
        at=lot.opened_at if lot.opened_by is MovementKind.TRADE else None,
        quantity=1.0,
        multiplier=1.0,
    )
