"""Compares what the program explains with the books of the simulated broker."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from ib_gateway_simulator.clearing.back_office import ClosedBooks
from ib_gateway_simulator.clearing.entries import (
    EXECUTED,
    ActionEntry,
    Entry,
    TradeEntry,
    TransferEntry,
)
from ib_gateway_simulator.clearing.securities import Category
from tests.support.month.broker import Broker, Script
from tests.support.month.market import NEW_YORK
from tests.support.month.program import LATE_SESSIONS, Program

# Less than half a cent: the broker's own amounts are exact.
TOLERANCE = 0.005

# When the night's jobs run.
MORNING = time(6, 15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """A figure of the program that is not the broker's."""

    seen: str
    session: date
    account: str
    what: str
    true: object
    told: object

    def __str__(self) -> str:
        """Return it as one line."""
        where = f"{self.seen}: {self.session} {self.account} {self.what}"
        return f"{where}: {self.true} at the broker, the program has {self.told}"


def play(program: Program, broker: Broker, script: Script) -> list[Deviation]:
    """Play all sessions, with the night after each, and return all deviations.

    After each session beside a gateway its evening is filled; in each night statements are
    imported, and the last sessions are filled again. At the end all sessions are filled again.
    """
    found: list[Deviation] = []
    passed: list[date] = []
    for session in script.sessions:
        script.play(broker, session)
        passed = [*passed, session] if session not in script.after_gaps else [session]
        if session in script.with_gateway:
            program.live(broker, session)
            program.fill([session])
            found += in_the_evening(program, broker, script, session)

        program.receive(script.delivered(broker, session))
        program.import_statements()
        program.fill(passed[-LATE_SESSIONS:])
        program.explain_closes(_morning_after(session))
        if session not in script.deliveries:
            found += of_profit(program, broker, script, session, "the morning after")

    for sessions in script.without_gaps():
        program.fill(sessions)
    for session in script.sessions:
        found += of_profit(program, broker, script, session, "at the end")
    return [*found, *of_books(program, broker, script), *of_causes(program, broker)]


def _morning_after(session: date) -> datetime:
    return datetime.combine(session + timedelta(days=1), MORNING, NEW_YORK)


# -- profit ---------------------------------------------------------------------------------------


def of_profit(
    program: Program, broker: Broker, script: Script, session: date, seen: str
) -> list[Deviation]:
    """Return where the program's profit of a session is not what the broker's wealth grew by."""
    explained = _explained(program, session)
    if session in script.after_gaps:
        return [
            Deviation(
                seen=seen, session=session, account=account, what=currency,
                true="no close before", told=profit,
            )
            for (account, currency), profit in explained.items()
            if profit is not None
        ]  # fmt: skip

    found: list[Deviation] = []
    for account in broker.closed:
        found += _of_account(explained, broker, session, account, seen)
    return found


def in_the_evening(
    program: Program, broker: Broker, script: Script, session: date
) -> list[Deviation]:
    """Return the deviations of accounts of which the gateway has told everything."""
    explained = _explained(program, session)
    found: list[Deviation] = []
    for account in broker.closed:
        if session not in script.after_gaps and _is_told(broker.books(account, session)):
            found += _of_account(explained, broker, session, account, "in the evening")
    return found


def _is_told(books: ClosedBooks) -> bool:
    """Return whether all that was booked on a session was executed on it."""
    return all(isinstance(one, TradeEntry) and one.kind == EXECUTED for one in books.entries)


def _explained(program: Program, session: date) -> dict[tuple[str, str], float | None]:
    rows = program.profit(session).iter_rows()
    return {(account, currency): profit for account, currency, profit in rows}


def _of_account(
    explained: dict[tuple[str, str], float | None],
    broker: Broker,
    session: date,
    account: str,
    seen: str,
) -> list[Deviation]:
    grown = broker.profit(account, session)
    found: list[Deviation] = []
    for currency in sorted({*grown, *(name for of, name in explained if of == account)}):
        true = round(float(grown.get(currency, 0)), 4)
        told = explained.get((account, currency), 0.0)
        if told is None or abs(true - told) > TOLERANCE:
            found.append(
                Deviation(
                    seen=seen, session=session, account=account, what=currency, true=true, told=told
                )
            )
    return found


# -- books ----------------------------------------------------------------------------------------


def of_books(program: Program, broker: Broker, script: Script) -> list[Deviation]:
    """Return where the books do not close, or not at the net liquidation of the broker."""
    told = {(row["session_date"], row["account"]): row for row in program.books().to_dicts()}
    found: list[Deviation] = []
    for account, closed in broker.closed.items():
        for books in closed:
            if books.previous is None or books.session in script.after_gaps:
                continue
            row = told.get((books.session, account), {})
            for what, true in (
                ("net_liquidation", float(books.net_liquidation)),
                ("difference", 0.0),
            ):
                amount = row.get(what)
                if amount is None or abs(amount - true) > TOLERANCE:
                    why = row.get("why_unknown")
                    found.append(
                        Deviation(
                            seen="at the end", session=books.session, account=account, what=what,
                            true=round(true, 4), told=amount if why is None else why,
                        )
                    )  # fmt: skip
    return found


# -- causes ---------------------------------------------------------------------------------------

_OF_CODES = {"A": "ASSIGNED", "Ex": "EXERCISED", "Ep": "EXPIRED_WORTHLESS"}


def true_cause(entry: Entry) -> str | None:
    """Return why an entry closed a holding; None: it is of no holding."""
    if isinstance(entry, TransferEntry):
        return "TRANSFERRED"
    if isinstance(entry, ActionEntry):
        return "SPLIT" if entry.kind == "FS" else "CORPORATE_ACTION"
    if not isinstance(entry, TradeEntry) or entry.security.category is Category.CURRENCY:
        return None
    if entry.settlement:
        return "CASH_SETTLED"
    return _OF_CODES.get(entry.codes.split(";")[0], "TRADED")


def of_causes(program: Program, broker: Broker) -> list[Deviation]:
    """Return the closes of which the program names another cause than the broker's books have.

    A close that the program saw is one of a holding that became smaller, by one entry, between two
    sessions beside the gateway.
    """
    entries: defaultdict[tuple[str, int], list[Entry]] = defaultdict(list)
    for account, closed in broker.closed.items():
        for books in closed:
            for entry in books.entries:
                if true_cause(entry) is not None:
                    entries[account, entry.security.conid].append(entry)  # type: ignore[attr-defined]

    found: list[Deviation] = []
    closures = program.lake.closures.current_rows().sort("closed_at", "conid")
    changes = {row["change_id"]: row for row in program.lake.position_changes.rows().to_dicts()}
    for row in closures.iter_rows(named=True):
        change = changes[row["change_id"]]
        first, last = change["since"], change["seen_at"]
        causes = {
            true_cause(entry)
            for entry in entries[row["account"], row["conid"]]
            if first < entry.at <= last
        }
        if causes and row["cause"] not in causes:
            found.append(
                Deviation(
                    seen="at the end", session=last.date(), account=row["account"],
                    what=f"{row['quantity']:+g} {row['symbol']} {row['conid']}",
                    true=sorted(map(str, causes)), told=f"{row['cause']}: {row['detail']}",
                )
            )  # fmt: skip
    return found
