"""Compares what the program explains with the books of the simulated broker."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import date, datetime

import polars as pl

from ib_gateway_simulator.clearing.back_office import ClosedBooks
from ib_gateway_simulator.clearing.entries import (
    EXECUTED,
    ActionEntry,
    CashEntry,
    Entry,
    TradeEntry,
    TransferEntry,
)
from ib_gateway_simulator.clearing.securities import Category
from tests.year.broker import Broker
from tests.year.deviations import Deviation
from tests.year.programs import Program

# Less than half a cent: the broker's own amounts are exact.
TOLERANCE = 0.005

_OF_CODES = {"A": "ASSIGNED", "Ex": "EXERCISED", "Ep": "EXPIRED_WORTHLESS"}


def table(program: Program, name: str) -> pl.DataFrame:
    """Return the rows of a derived table."""
    tables = program.lake.derived_tables
    return next(table for table in tables if table.spec.name == name).rows()


# -- profit ---------------------------------------------------------------------------------------


def of_profit(
    program: Program, broker: Broker, sessions: Iterable[date], seen: str
) -> Iterator[Deviation]:
    """Yield where the program's profit of a session is not what the broker's wealth grew by."""
    explained = _explained(program)
    for session in sessions:
        for account in broker.closed:
            yield from _of_account(explained, broker, session, account, seen)


def in_the_evening(program: Program, broker: Broker, session: date) -> Iterator[Deviation]:
    """Yield the deviations of the accounts of which the gateway has told everything."""
    explained = _explained(program)
    for account in broker.closed:
        books = broker.books(account, session)
        if books.previous is not None and _is_told(books):
            yield from _of_account(explained, broker, session, account, "in the evening")


def _is_told(books: ClosedBooks) -> bool:
    """Return whether all that was booked on a session was executed on it, and is not of cash."""
    return all(
        isinstance(entry, TradeEntry)
        and entry.kind == EXECUTED
        and entry.at.date() == books.session
        and entry.security.category is not Category.CURRENCY
        for entry in books.entries
    )


def _explained(program: Program) -> dict[tuple[date, str, str], float | str]:
    """Return the profit by session, account and currency; where a part is unknown, why."""
    profits: defaultdict[tuple[date, str, str], float | str] = defaultdict(float)
    for row in table(program, "profit_explained").sort("profit", nulls_last=True).to_dicts():
        key = (row["session_date"], row["account"], row["currency"])
        if row["profit"] is None:
            profits[key] = f"unknown: {row['why_unknown']}"
        else:
            profits[key] += row["profit"]
    return profits


def _of_account(
    explained: dict[tuple[date, str, str], float | str],
    broker: Broker,
    session: date,
    account: str,
    seen: str,
) -> Iterator[Deviation]:
    grown = broker.profit(account, session)
    told_currencies = {key[2] for key in explained if key[:2] == (session, account)}
    for currency in sorted({*grown, *told_currencies}):
        true = round(float(grown.get(currency, 0)), 4)
        told = explained.get((session, account, currency), 0.0)
        if isinstance(told, str) or abs(true - told) > TOLERANCE:
            yield Deviation(
                invariant="profit", session=session, seen=seen, what=f"{account} {currency}",
                true=true, told=told,
            )  # fmt: skip


# -- movements ------------------------------------------------------------------------------------


def of_movements(
    program: Program, broker: Broker, sessions: Iterable[date], seen: str
) -> Iterator[Deviation]:
    """Yield the trades and ends of options that a session has too often, too rarely, or wrongly."""
    is_trade = (pl.col("section") == "TRADES") & (pl.col("sec_type") != "CASH")
    names = ("account", "conid", "quantity")
    rows = program.lake.movements.table.rows().filter(is_trade)
    for session in sessions:
        told = Counter(rows.filter(session_date=session).select(names).iter_rows())
        booked = Counter(
            (account, entry.security.conid, float(entry.quantity))
            for account in broker.closed
            for entry in broker.books(account, session).entries
            if isinstance(entry, TradeEntry) and entry.security.category is not Category.CURRENCY
        )
        for key in sorted((booked - told) + (told - booked)):
            yield Deviation(
                invariant="movements", session=session, seen=seen, what=f"{key}",
                true=f"{booked[key]} of them", told=told[key],
            )  # fmt: skip


# -- books ----------------------------------------------------------------------------------------

# The parts of the books that holdings and their cash bring.
_EARNED = ("profit", "income", "fees", "interest")


def of_books(
    program: Program, broker: Broker, sessions: Iterable[date], seen: str
) -> Iterator[Deviation]:
    """Yield where the books do not close, or not at the net liquidation of the broker.

    What strategies earned by `profit_explained`, in the base currency, is what they say besides
    rates, accruals and the owner.
    """
    rows = table(program, "books").to_dicts()
    told = {(row["session_date"], row["account"]): row for row in rows}
    earned = table(program, "profit_explained")
    for session in sessions:
        for account in broker.closed:
            books = broker.books(account, session)
            if books.previous is None:
                continue

            row = told.get((session, account), {})
            why = row.get("why_unknown")
            by_strategies = 0.0
            if None not in map(row.get, _EARNED):
                row["earned"] = sum(row[name] for name in _EARNED)
                of_account = earned.filter(session_date=session, account=account)
                for profit, code in of_account.select("profit", "currency").iter_rows():
                    by_strategies += profit * float(books.rates[code])
            for what, true in (
                ("net_liquidation", float(books.net_liquidation)),
                ("difference", 0.0),
                ("earned", by_strategies),
            ):
                amount = row.get(what)
                if amount is None or abs(amount - true) > TOLERANCE:
                    yield Deviation(
                        invariant="books", session=session, seen=seen, what=f"{account} {what}",
                        true=round(true, 4), told=why if amount is None else amount,
                    )  # fmt: skip


# -- causes ---------------------------------------------------------------------------------------


def true_cause(entry: Entry) -> str | None:
    """Return why an entry closed a holding; None: it is of no holding."""
    if isinstance(entry, CashEntry):
        return None
    if isinstance(entry, TransferEntry):
        return "TRANSFERRED"
    if isinstance(entry, ActionEntry):
        if entry.kind in ("FS", "RS"):
            return "SPLIT"

        return "CORPORATE_ACTION"
    if not isinstance(entry, TradeEntry) or entry.security.category is Category.CURRENCY:
        return None
    if entry.settlement:
        return "CASH_SETTLED"
    return _OF_CODES.get(entry.codes.split(";")[0], "TRADED")


class Causes:
    """The closes that were judged already are not compared again."""

    def __init__(self) -> None:
        self._entries: defaultdict[tuple[str, int], list[Entry]] = defaultdict(list)
        self._booked: set[tuple[str, date]] = set()

    def _add(self, broker: Broker) -> None:
        for account, closed in broker.closed.items():
            for books in closed:
                if (account, books.session) in self._booked:
                    continue
                self._booked.add((account, books.session))
                for entry in books.entries:
                    if true_cause(entry) is not None:
                        conid = entry.security.conid  # type: ignore[attr-defined]
                        self._entries[account, conid].append(entry)

    def deviations(self, program: Program, broker: Broker, since: datetime) -> Iterator[Deviation]:
        """Yield the closes that were seen since a time and have no cause, or another one.

        A close that the program saw is one of a holding that became smaller, between two looks at
        the gateway.
        """
        self._add(broker)
        closures = program.lake.closures.current_rows()
        changes = {row["change_id"]: row for row in program.lake.position_changes.rows().to_dicts()}
        judged = {row["change_id"] for row in closures.iter_rows(named=True)}
        for row in closures.sort("closed_at", "conid").iter_rows(named=True):
            change = changes.get(row["change_id"])
            if change is None or change["seen_at"] < since:
                continue
            causes = {
                true_cause(entry)
                for entry in self._entries[row["account"], row["conid"]]
                if change["since"] < entry.at <= change["seen_at"]
            }
            if causes and row["cause"] not in causes:
                yield Deviation(
                    invariant="cause", session=broker.session, seen="the morning after",
                    what=f"{row['account']} {row['quantity']:+g} {row['symbol']} {row['conid']}",
                    true=sorted(map(str, causes)), told=f"{row['cause']}: {row['detail']}",
                )  # fmt: skip

        for change in changes.values():
            became_smaller = abs(change["after"]) < abs(change["before"])
            if change["seen_at"] >= since and became_smaller and change["change_id"] not in judged:
                yield Deviation(
                    invariant="cause", session=broker.session, seen="the morning after",
                    what=f"{change['account']} {change['symbol']} {change['conid']}",
                    true="judged", told="no cause at all",
                )  # fmt: skip
