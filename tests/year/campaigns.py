"""Compares what campaigns brought with the cash of their contracts in the broker's books."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from decimal import Decimal
from itertools import accumulate
from operator import itemgetter
from typing import Any

from ib_gateway_simulator.clearing.entries import (
    ActionEntry,
    CashEntry,
    Entry,
    TradeEntry,
    TransferEntry,
)
from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.domain.leg import UNATTRIBUTED
from tests.year.book import Book
from tests.year.broker import Broker
from tests.year.deviations import Deviation
from tests.year.profits import TOLERANCE, table
from tests.year.programs import Program

Row = Mapping[str, Any]
Holding = tuple[str, int]


def of_campaigns(
    program: Program, broker: Broker, book: Book, sessions: Iterable[date], seen: str
) -> Iterator[Deviation]:
    """Yield the campaigns that closed on some sessions and are missing, too many, or wrong."""
    closed_on = {*sessions}
    rows = table(program, "closed_campaigns").to_dicts()
    new = [row for row in rows if row["closed"] in closed_on]
    yield from _of_ended(new, book, closed_on, seen)
    yield from _of_days(new, rows, table(program, "profit_explained").to_dicts(), seen)

    legs = program.lake.registry.table.rows(columns=["account", "conid"])
    campaigns = _Campaigns(broker, rows, {*legs.iter_rows()})
    for row in new:
        true = campaigns.cash_of(row)
        profit = row["profit"]
        if true is not None and (profit is None or abs(profit - float(true)) > TOLERANCE):
            yield Deviation(
                invariant="campaign", session=row["closed"], seen=seen, what=row["campaign_id"],
                true=round(float(true), 4),
                told=row["profit_unknown"] if profit is None else profit,
            )  # fmt: skip


def _of_ended(
    rows: Iterable[Row], book: Book, closed_on: set[date], seen: str
) -> Iterator[Deviation]:
    """Compare the campaigns of strategies: which there are, when they began, and of what."""
    told = Counter(
        (row["strategy_id"], row["account"], row["opened"], row["closed"], _conids(row))
        for row in rows
        if row["strategy_id"] in {strategy.name for strategy in book.strategies}
    )
    true = Counter(
        (ended.strategy, ended.account, ended.opened, ended.closed, ended.conids)
        for ended in book.ended
        if ended.closed in closed_on
    )
    for campaign in (true - told) + (told - true):
        strategy, _account, opened, closed, _legs = campaign
        yield Deviation(
            invariant="campaign", session=closed, seen=seen, what=f"{strategy} since {opened}",
            true=f"{true[campaign]} of them", told=told[campaign],
        )  # fmt: skip


def _of_days(
    new: Iterable[Row], campaigns: Iterable[Row], days: Iterable[Row], seen: str
) -> Iterator[Deviation]:
    """Compare the profit of campaigns with the sum of those of their strategy's days."""
    by_strategy = itemgetter("strategy_id", "account", "currency")
    days_of = grouped(by_strategy, sorted(days, key=itemgetter("session_date")))
    campaigns_of = grouped(by_strategy, campaigns)
    for row in new:
        if row["opened"] is None or row["profit"] is None or row["strategy_id"] == UNATTRIBUTED:
            continue

        # A day on which another one ended or began has the profit of both.
        others = [campaign for campaign in campaigns_of[by_strategy(row)] if campaign is not row]
        if any(
            other["closed"] >= row["opened"] and (other["opened"] or date.min) <= row["closed"]
            for other in others
        ):
            continue
        profits = [
            day["profit"]
            for day in days_of[by_strategy(row)]
            if row["opened"] <= day["session_date"] <= row["closed"]
        ]
        if None in profits:
            continue
        if abs(sum(profits) - row["profit"]) > TOLERANCE:
            yield Deviation(
                invariant="days of a campaign", session=row["closed"], seen=seen,
                what=row["campaign_id"], true=row["profit"], told=round(sum(profits), 4),
            )  # fmt: skip

        ends = [*accumulate(profits)]
        for name, end in (("worst", min(ends)), ("best", max(ends))):
            # It is told where the days were recorded when the campaign was.
            if row[name] is not None and abs(row[name] - end) > TOLERANCE:
                yield Deviation(
                    invariant=f"{name} of a campaign", session=row["closed"], seen=seen,
                    what=row["campaign_id"], true=round(end, 4), told=row[name],
                )  # fmt: skip


def _conids(row: Row) -> frozenset[int]:
    return frozenset(map(int, row["conids"].split(",")))


class _Campaigns:
    """The books of the broker by contract, and which campaigns have a contract.

    Attributes:
        claimed: The holdings of which a strategy has, or had, a part or all.
    """

    def __init__(self, broker: Broker, rows: Iterable[Row], claimed: set[Holding]) -> None:
        self._securities = broker.office.securities
        self._claimed = claimed
        self._of_holding: defaultdict[Holding, list[tuple[date, Entry]]] = defaultdict(list)
        for account, closed in broker.closed.items():
            for books in closed:
                for entry in books.entries:
                    security = getattr(entry, "security", None)
                    if security is not None:
                        self._of_holding[account, security.conid].append((books.session, entry))

        self._rows_of: defaultdict[Holding, list[Row]] = defaultdict(list)
        for row in rows:
            for conid in _conids(row):
                self._rows_of[row["account"], conid].append(row)

    def cash_of(self, row: Row) -> Decimal | None:
        """Return what the contracts of a campaign brought; None: others have a part of them."""
        ended_on = {day for conid in _conids(row) for day in self._ends_of((row["account"], conid))}
        total = Decimal(0)
        for conid in _conids(row):
            if self._securities[conid].currency != row["currency"]:
                continue

            cash = self._cash_of_contract(row, (row["account"], conid), ended_on)
            if cash is None:
                return None
            total += cash
        return total

    def _ends_of(self, holding: Holding) -> Iterator[date]:
        """Yield the sessions on which an option ended."""
        for day, entry in self._of_holding[holding]:
            if isinstance(entry, TradeEntry) and entry.security.is_option and entry.codes:
                yield day

    def _cash_of_contract(self, row: Row, holding: Holding, ended_on: set[date]) -> Decimal | None:
        """Return what a contract brought; None: other campaigns, over or not, have a part of it.

        Args:
            ended_on: When the options of the campaign ended.
        """
        opened = row["opened"] or date.min
        others = [
            other
            for other in self._rows_of[holding]
            if other["campaign_id"] != row["campaign_id"]
            and other["closed"] >= opened
            and (other["opened"] or date.min) <= row["closed"]
        ]
        before = Decimal(0)
        left = Decimal(0)
        cash = Decimal(0)
        for day, entry in self._of_holding[holding]:
            if day > row["closed"]:
                continue

            left += _quantity(entry)
            if day < opened:
                before += _quantity(entry)
            elif isinstance(entry, CashEntry):
                cash += entry.amount
            elif isinstance(entry, TradeEntry):
                if _is_delivered(entry) and day not in ended_on:
                    return None
                cash += entry.proceeds + entry.settlement - entry.commission
            else:
                return None
        is_shared = row["strategy_id"] == UNATTRIBUTED and holding in self._claimed
        if others or is_shared or before or left:
            return None

        return cash


def _is_delivered(entry: TradeEntry) -> bool:
    """Return whether the end of an option brought it."""
    return not entry.security.is_option and entry.codes.split(";")[0] in ("A", "Ex")


def _quantity(entry: Entry) -> Decimal:
    if isinstance(entry, TradeEntry | TransferEntry | ActionEntry):
        return entry.quantity
    return Decimal(0)
