"""Compares the profit that the program explains with the wealth of the simulated broker."""

from dataclasses import dataclass
from datetime import date

from tests.support.month.broker import Broker, Script
from tests.support.month.program import LATE_SESSIONS, Program

# Less than half a cent: the broker's own amounts are exact.
TOLERANCE = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """A profit that is not what wealth grew by."""

    seen: str
    session: date
    account: str
    currency: str
    grown: float | None
    explained: float | None

    def __str__(self) -> str:
        """Return it as one line."""
        return (
            f"{self.seen}: {self.session} {self.account} {self.currency}: wealth grew by "
            f"{self.grown}, explained are {self.explained}"
        )


def deviations(program: Program, broker: Broker, session: date, seen: str) -> list[Deviation]:
    """Return where the program's profit of a session is not what the broker's wealth grew by.

    Args:
        seen: When it was looked at.
    """
    rows = program.profit(session).iter_rows()
    explained = {(account, currency): profit for account, currency, profit in rows}
    grown = {
        (account, currency): float(amount)
        for account in broker.closed
        for currency, amount in (broker.profit(account, session) or {}).items()
    }
    found = []
    for account, currency in sorted({*explained, *grown}):
        true, told = grown.get((account, currency), 0.0), explained.get((account, currency), 0.0)
        if told is None or abs(true - told) > TOLERANCE:
            found.append(
                Deviation(
                    seen=seen, session=session, account=account, currency=currency,
                    grown=true, explained=told,
                )
            )  # fmt: skip
    return found


def play(program: Program, broker: Broker, script: Script) -> list[Deviation]:
    """Play all sessions, with the night after each, and return all deviations.

    After each session beside a gateway its evening is filled; in each night statements are
    imported, and the last sessions are filled again. At the end all sessions are filled again.
    """
    found: list[Deviation] = []
    for number, session in enumerate(script.sessions):
        script.play(broker, session)
        if session in script.with_gateway:
            program.live(broker, session)
            program.fill([session])

        program.receive(script.delivered(broker, session))
        program.import_statements()
        program.fill(script.sessions[max(0, number - LATE_SESSIONS + 1) : number + 1])

    program.fill(script.sessions)
    for session in script.sessions:
        found += deviations(program, broker, session, "at the end")
    return found
