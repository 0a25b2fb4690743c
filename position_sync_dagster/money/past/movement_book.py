"""The table `movements`, what executions and statements say, each once; and what follows."""

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import KW_ONLY, dataclass, replace
from datetime import UTC, date
from functools import partial
from itertools import chain
from math import copysign
from operator import attrgetter
from typing import Any

from polars import DataFrame, Expr, all_horizontal, col, concat, lit

from position_sync_dagster.domain.clock import A_DAY
from position_sync_dagster.domain.exchange_time import beginning_of, exchange_date
from position_sync_dagster.domain.holding import KEY, grouped
from position_sync_dagster.lake.derived import Replaced
from position_sync_dagster.lake.schema import DAILY_POSITIONS, frame_of, one_of, records_of
from position_sync_dagster.money.lake import MoneyLake, derived_rows, judged_last
from position_sync_dagster.money.magnifiers import VALUED, magnifiers_of
from position_sync_dagster.money.past.closes import (
    FLEX,
    Closure,
    EventKind,
    Statement,
    StatementEvent,
)
from position_sync_dagster.money.past.movement_sources import (
    INFERRED_CAUSES,
    Terms,
    completed,
    inferred_movements,
    reported_movement,
)
from position_sync_dagster.money.past.movements import (
    Movement,
    MovementSource,
    Section,
    StatedSection,
    StatementName,
    counting_movements,
    newest_of,
    signed_transfer,
)
from position_sync_dagster.money.tables import MOVEMENTS
from position_sync_dagster.money.trading_days import session_of
from position_sync_dagster.sync.exchange_days import time_zone_of

# What names a statement in rows of older releases.
_FILE_OF = attrgetter("account", "statement", "stated_at")


@dataclass(eq=False, repr=False)
class MovementBook:
    """Keeps the table `movements`; blocks, and may be used by any process.

    Args:
        lake: The tables.

    Example:
        MovementBook(lake).update()
    """

    lake: MoneyLake
    _: KW_ONLY
    run_id: str | None = None

    def update(
        self,
        statements: Collection[Statement] = (),
        *,
        since: date | None = None,
    ) -> Replaced:
        """Make the table equal to what the sources say now.

        What the table has of other statements stays, as far as no newer one states it newly.

        Args:
            statements: New statements, with their rows; or some that are read again.
            since: Movements of earlier days stay as they are; without new statements alone.

        Raises:
            CommitContentionError: Other writers committed first each time; nothing was changed.
        """
        counting = partial(self._counting, statements, since)
        return self.lake.movements.derive(counting, since=since, run_id=self.run_id)

    def _counting(self, statements: Collection[Statement], since: date | None) -> list[Movement]:
        sections = _sections(self.lake, statements)
        begin = None
        if since is not None:
            # The day of a movement may differ by one from that of its time in UTC.
            begin = beginning_of(since, UTC) - A_DAY

        reported = self.lake.executions.records(begin, col.source != FLEX)
        read_now = {
            (account, statement.first, statement.last, statement.generated_at)
            for statement in statements
            for account in statement.accounts
        }

        is_reported = col.source == MovementSource.API.value
        stated = self._stated(statements)
        of_files = grouped(_FILE_OF, sections)
        for stored in self.lake.movements.records(since, ~is_reported):
            movement = _dated(stored, of_files[_FILE_OF(stored)])
            if movement.stated_by not in read_now:
                stated.append(movement)

        conids = {*map(attrgetter("conid"), (*stated, *reported))}
        terms = _terms(self.lake, conids - {None})
        # What is known of the contract and of its calendar now counts, of a stored movement too.
        movements = [completed(movement, terms) for movement in stated]
        movements += [reported_movement(execution, terms) for execution in reported]

        counting = counting_movements(movements, sections)
        if since is None:
            return counting
        return [movement for movement in counting if movement.day >= since]

    def _stated(self, statements: Collection[Statement]) -> list[Movement]:
        """Return what statements state; what a transfer closed is long or short, as it was held."""
        stated = [*_stated_once(statements)]
        sideless = [movement for movement in stated if movement.is_sideless]
        if not sideless:
            return stated

        are_moved = one_of("conid", {movement.conid for movement in sideless})
        closes = derived_rows(
            self.lake.derived_table(DAILY_POSITIONS), are_moved, columns=_CLOSE
        ).rows()
        positions = chain.from_iterable(statement.positions for statement in statements)
        closes += map(attrgetter("day", *_CLOSE[1:]), positions)
        return [_with_side(movement, closes) for movement in stated]


def movements_with_inferred(
    lake: MoneyLake, since: date | None = None, *conditions: Expr
) -> DataFrame:
    """Return movements, with those that follow from causes of closes; blocks.

    These say how an option ended that no movement and no statement of its days names. What judges
    closes reads none of them.

    Args:
        since: The first day; None: any.
        conditions: Which rows are wanted.
    """
    only = all_horizontal(lit(value=True), *conditions)
    inferred = frame_of(MOVEMENTS, _inferred(lake, since)).filter(only)
    return concat([lake.movements.rows(since, only), inferred]).sort("day", "movement_id")


# Which closures may say what no execution and no statement does.
_MAY_FOLLOW = one_of("cause", INFERRED_CAUSES) & (col.evidence.list.len().fill_null(0) == 0)


def days_inferred_anew(lake: MoneyLake, judged: DataFrame) -> list[date]:
    """Return the days of closes of which something else follows than before they were judged.

    Args:
        judged: New rows of `closures`.
    """
    stored = lake.closures.rows(None, one_of("change_id", judged["change_id"]))
    before = stored.join(judged, on=["change_id", "judged_at"], how="anti", nulls_equal=True)
    content = ("change_id", "cause", "quantity", "closed_at")
    both = concat(
        judged_last(rows).filter(_MAY_FOLLOW).select(content) for rows in (stored, before)
    )
    return [*map(exchange_date, both.filter(both.is_unique())["closed_at"])]


def _inferred(lake: MoneyLake, since: date | None) -> list[Movement]:
    """Return what follows from the causes that count, since a day."""
    # A close is judged when it has been seen; its day may differ by one from that in UTC.
    judged_since = None if since is None else beginning_of(since, UTC) - A_DAY
    counted = lake.closures.current_rows(since=judged_since)
    closures = records_of(Closure, counted.filter(_MAY_FOLLOW))
    if not closures:
        return []

    terms = _terms(lake, {closure.conid for closure in closures})
    movements = [
        movement
        for closure in closures
        for movement in inferred_movements(closure, terms)
        if since is None or movement.day >= since
    ]
    return counting_movements(movements, _sections(lake))


def _sections(lake: MoneyLake, statements: Iterable[Statement] = ()) -> list[StatedSection]:
    """Return the sections of all statements, stored and new."""
    kind = EventKind.SECTIONS
    events = lake.statement_events.records(None, col.kind == kind.value)
    stated = chain.from_iterable(statement.events for statement in statements)
    events += [event for event in stated if event.kind is kind]
    return [*chain.from_iterable(map(_sections_in, events))]


def _terms(lake: MoneyLake, conids: set[int]) -> Terms:
    """Return what is known of contracts, and of the trading days."""
    details = lake.contracts.get(conids)
    terms = Terms(
        session_of=partial(session_of, lake.calendar),
        zone=time_zone_of(lake.calendar),
        details=details,
    )
    without_details = conids - details.keys()
    if not without_details:
        return terms

    # What the broker said of holdings of these contracts, the newest last.
    columns = ["conid", "timestamp", *VALUED]
    are_named = one_of("conid", without_details)
    latest = lake.updates.sync.latest().filter(are_named).select(columns)
    daily = lake.derived_table(DAILY_POSITIONS)
    rows = concat([latest, derived_rows(daily, are_named, columns=columns)])
    rows = rows.sort("timestamp")
    multipliers = dict(rows.select("conid", "multiplier").iter_rows())
    return replace(terms, multipliers=multipliers, magnifiers=magnifiers_of(rows))


# What is read of a holding at a close.
_CLOSE = ("session_date", *KEY, "position")


def _with_side(movement: Movement, closes: Iterable[tuple[Any, ...]]) -> Movement:
    """Return a transfer as one of the side that the newest close has, also that of its day.

    Where none has it, it is not known by how much it changed the holding.
    """
    if not movement.is_sideless:
        return movement
    until_then = (
        close for close in closes if close[0] <= movement.day and close[1:3] == movement.key
    )
    held = max(until_then, default=None)
    if held is None:
        return replace(movement, quantity=None, value=None)
    return signed_transfer(movement, copysign(movement.change, -held[-1]))


def _sections_in(event: StatementEvent) -> list[StatedSection]:
    return [
        StatedSection(
            account=event.account,
            section=Section(name),
            first=event.first_day or event.day,
            last=event.day,
            statement=event.statement,
            stated_at=event.stated_at,
        )
        for name in json.loads(event.attributes)
    ]


def _stated_once(statements: Iterable[Statement]) -> Iterator[Movement]:
    """Return what statements state; one that is there twice, in a file or in two, is read once."""
    parts: dict[tuple[StatementName, Section], list[Movement]] = {}
    for statement in statements:
        part_of = attrgetter("stated_by", "section")
        for name, movements in grouped(part_of, statement.movements).items():
            if len(movements) > len(parts.get(name, ())):
                parts[name] = movements
    return chain.from_iterable(parts.values())


def _dated(movement: Movement, of_file: Iterable[StatedSection]) -> Movement:
    """Return a movement with the days of its statement; older releases had its file alone."""
    stated = newest_of(of_file, movement.day)
    if stated is None or movement.stated_first is not None:
        return movement
    return replace(movement, stated_first=stated.first, stated_last=stated.last)
