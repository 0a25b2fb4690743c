"""The table `movements`, derived from executions, statements and the causes of closes."""

import json
from collections.abc import Collection, Iterable
from dataclasses import KW_ONLY, dataclass, replace
from datetime import date, timedelta

import polars as pl

from position_sync_dagster.domain.clock import NEVER
from position_sync_dagster.domain.closes import (
    FLEX,
    Closure,
    EventKind,
    Execution,
    Stage,
    Statement,
    StatementEvent,
    current_executions,
)
from position_sync_dagster.domain.movements import (
    Movement,
    MovementSource,
    Section,
    StatedSection,
    counting_movements,
)
from position_sync_dagster.lake.derived import Replaced
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.sync.exchange_days import ExchangeDays, exchange_days
from position_sync_dagster.sync.movement_sources import (
    SessionOf,
    Terms,
    completed,
    coverage_of,
    inferred_movements,
    reported_movement,
    stated_movements,
)
from position_sync_dagster.sync.price_magnifiers import magnifiers_of

# The longest time without a session of an exchange: Golden Week, Lunar New Year.
LONGEST_HOLIDAYS = timedelta(days=14)


@dataclass(eq=False, repr=False)
class MovementBook:
    """Keeps the table `movements`; blocks, and may be used by any process.

    Args:
        lake: The tables.
        calendar: The exchange whose trading days movements belong to.

    Example:
        MovementBook(lake, "XNYS").update()
    """

    lake: Lake
    calendar: str
    _: KW_ONLY
    run_id: str | None = None

    def update(self, statements: Collection[Statement] = ()) -> Replaced:
        """Make the table equal to what the sources say now.

        Args:
            statements: Those that are new; what their files stated before is gone. What the table
                has of other statements stays, as far as these do not state it newly.

        Raises:
            CommitContentionError: Other writers committed first each time; nothing was changed.
        """
        return self.lake.movements.derive(lambda: self._counting(statements), run_id=self.run_id)

    def covered_files(self) -> set[str]:
        """Return the files whose statements were stored."""
        return {covered.statement for covered in self._coverage()}

    def _counting(self, statements: Collection[Statement]) -> list[Movement]:
        reported = self._reported()
        closures = self._provisional()
        replaced = {statement.file for statement in statements}
        is_stated = pl.col("source") == MovementSource.STATEMENT.value
        stated = [
            movement
            for movement in self.lake.movements.records(only=is_stated)
            if movement.statement not in replaced
        ]
        days = _days_of(stated, reported, closures, statements)
        terms = self._terms(days, stated, reported, closures, statements)

        movements = [_again(movement, terms) for movement in stated]
        for statement in statements:
            movements += stated_movements(statement, terms)
        movements += [reported_movement(execution, terms) for execution in reported]
        for closure in closures:
            movements += inferred_movements(closure, terms)
        return counting_movements(movements, self._coverage())

    def _reported(self) -> list[Execution]:
        """Return the executions that gateways reported, each in its newest revision."""
        of_gateways = pl.col("source") != FLEX
        return current_executions(self.lake.executions.records(None, of_gateways))

    def _provisional(self) -> list[Closure]:
        """Return the causes of closes that no statement has said."""
        counting = self.lake.closures.current()
        return [closure for closure in counting if closure.stage is Stage.PROVISIONAL]

    def _coverage(self) -> list[StatedSection]:
        """Return the sections of all statements; of a file that was replaced only the newest."""
        is_sections = pl.col("kind") == EventKind.SECTIONS.value
        events = self.lake.statement_events.records(None, is_sections)
        newest = {}
        for event in sorted(events, key=lambda event: event.stated_at or NEVER):
            newest[event.statement, event.account] = event.stated_at

        coverage: list[StatedSection] = []
        for event in events:
            if newest[event.statement, event.account] == event.stated_at:
                coverage += _covered_by(event)
        return coverage

    def _terms(
        self,
        days: Collection[date],
        stated: Iterable[Movement],
        reported: Iterable[Execution],
        closures: Iterable[Closure],
        statements: Iterable[Statement],
    ) -> Terms:
        """Return what is known of the contracts of movements."""
        conids = {movement.conid for movement in stated if movement.conid is not None}
        conids |= {execution.conid for execution in reported}
        conids |= {closure.conid for closure in closures}
        for statement in statements:
            conids |= {execution.conid for execution in statement.executions}
            conids |= {event.conid for event in statement.events if event.conid is not None}

        details = self.lake.contracts.get(conids)
        changes = self.lake.position_changes.rows(columns=("conid", "seen_at", "multiplier"))
        changed = changes.sort("seen_at").select("conid", "multiplier")
        multipliers = dict(changed.iter_rows())
        multipliers |= {conid: one.multiplier for conid, one in details.items()}

        magnifiers = {
            conid: float(one.price_magnifier)
            for conid, one in details.items()
            if one.price_magnifier
        }
        of_gateways = {execution.conid for execution in reported}
        of_gateways |= {closure.conid for closure in closures}
        if of_gateways - magnifiers.keys():
            magnifiers = magnifiers_of(self.lake.updates.sync.latest()) | magnifiers

        calendar = _calendar_of(self.calendar, days)
        return Terms(
            session_of=_session_in(calendar),
            zone=calendar.zone,
            details=details,
            multipliers=multipliers,
            magnifiers=magnifiers,
        )


def sections_of(statement: Statement) -> list[StatementEvent]:
    """Return the rows of `statement_events` that say which sections a statement has."""
    of_account: dict[str, list[str]] = {}
    for covered in coverage_of(statement):
        of_account.setdefault(covered.account, []).append(covered.section.value)

    kind = EventKind.SECTIONS
    made = statement.generated_at.isoformat() if statement.generated_at else ""
    period = f"{statement.first}:{statement.last}:{made}"
    return [
        StatementEvent(
            event_id=f"{kind}:{account}:{statement.file}:{period}",
            kind=kind,
            account=account,
            day=statement.last,
            first_day=statement.first,
            attributes=json.dumps(sections),
            source=FLEX,
            statement=statement.file,
            stated_at=statement.generated_at,
        )
        for account, sections in of_account.items()
    ]


def _covered_by(event: StatementEvent) -> list[StatedSection]:
    return [
        StatedSection(
            account=event.account,
            section=Section(section),
            first=event.first_day or event.day,
            last=event.day,
            statement=event.statement,
            stated_at=event.stated_at,
        )
        for section in json.loads(event.attributes)
    ]


def _again(movement: Movement, terms: Terms) -> Movement:
    """Return a stored movement with what is known of its contract and its calendar now."""
    session = terms.session_of(movement.day)
    return completed(replace(movement, session_date=session), terms)


def _days_of(
    stated: Iterable[Movement],
    reported: Iterable[Execution],
    closures: Iterable[Closure],
    statements: Iterable[Statement],
) -> list[date]:
    """Return days between which all movements lie, as far as one zone differs from another."""
    days = [movement.day for movement in stated]
    days += [execution.time.date() for execution in reported]
    days += [closure.closed_at.date() for closure in closures]
    for statement in statements:
        days += [statement.first, statement.last]
        days += [execution.time.date() for execution in statement.executions]
        days += [event.day for event in statement.events]
    return days


def _calendar_of(name: str, days: Collection[date]) -> ExchangeDays:
    """Return the days of an exchange around these days."""
    first = min(days, default=date(2000, 1, 1)) - LONGEST_HOLIDAYS
    last = max(days, default=first) + LONGEST_HOLIDAYS
    return exchange_days(name, first, last)


def _session_in(calendar: ExchangeDays) -> SessionOf:
    """Return what finds the trading day of a day: that day, or the next one with a session."""

    def session_of(day: date) -> date:
        session = day
        while not calendar.is_trading_day(session):
            session += timedelta(days=1)
        return session

    return session_of
