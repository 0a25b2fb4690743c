"""Rows of `executions` and `statement_events` as the movements that their readers make of them."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date, datetime
from operator import attrgetter
from typing import Any

from position_sync_dagster.domain.exchange_time import NEW_YORK
from position_sync_dagster.domain.execution import FROM_GATEWAY, Execution
from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.causes import Facts
from position_sync_dagster.money.past.closes import EventKind, Statement, StatementEvent
from position_sync_dagster.money.past.flex_fields import FIRST_DAY, Fields
from position_sync_dagster.money.past.flex_movements import joined, movements_of
from position_sync_dagster.money.past.movement_book import MovementBook
from position_sync_dagster.money.past.movement_sources import Terms, reported_movement
from position_sync_dagster.money.past.movements import (
    Movement,
    counting_movements,
    signed_transfer,
)
from position_sync_dagster.sync.exchange_days import days_between

_ELEMENTS = {
    EventKind.OPTION_EVENT: "OptionEAE",
    EventKind.CORPORATE_ACTION: "CorporateAction",
    EventKind.TRANSFER: "Transfer",
    EventKind.CASH: "CashTransaction",
}


def movements_of_rows(
    executions: Iterable[Execution], events: Iterable[StatementEvent] = ()
) -> list[Movement]:
    """Return the movements that count, of all statements and of the gateway."""
    terms = Terms(session_of=lambda day: day, zone=NEW_YORK)
    movements: list[Movement] = []
    rows: defaultdict[object, list[tuple[str, Execution | StatementEvent]]] = defaultdict(list)
    for execution in executions:
        if execution.source == FROM_GATEWAY:
            movements.append(reported_movement(execution, terms))
        else:
            rows[execution.stated_at].append(("Trade", execution))
    for event in events:
        if event.kind in _ELEMENTS:
            rows[event.stated_at].append((_ELEMENTS[event.kind], event))

    for of_statement in rows.values():
        stated: list[Movement] = []
        for element, row in of_statement:
            written = json.loads(row.attributes or "{}")
            fields = Fields(attributes=written, file=row.statement, element=element)
            stated += movements_of(fields, row)
        directed = [row for _element, row in of_statement if isinstance(row, StatementEvent)]
        movements += joined(stated, directed, FIRST_DAY, date.max)
    return [_of_long(movement) for movement in counting_movements(movements, [])]


def _of_long(movement: Movement) -> Movement:
    """Return what went out, and does not say whether it was long or short, as long."""
    if movement.is_sideless:
        return signed_transfer(movement, -(movement.quantity or 0.0))
    return movement


def store_statement(
    lake: MoneyLake, executions: Iterable[Execution], events: Iterable[StatementEvent] = ()
) -> None:
    """Store what a statement names, whose days are not covered."""
    stated = [*executions]
    named = [*events]
    made = max(row.stated_at for row in (*stated, *named) if row.stated_at is not None)  # type: ignore[attr-defined]
    movements = tuple(
        replace(movement, stated_first=made.date(), stated_last=made.date(), stated_at=made)
        for movement in movements_of_rows(stated, named)
    )
    accounts = frozenset(row.account for row in (*stated, *named))  # type: ignore[attr-defined]
    statement = Statement(
        file="a.xml", account=min(accounts), first=made.date(), last=made.date(), days=frozenset(),
        generated_at=made, accounts=accounts, movements=movements,
    )  # fmt: skip
    MovementBook(lake).update([statement])
    lake.executions.add(stated)
    lake.statement_events.add(named)


def _weekdays(first: date, last: date) -> list[date]:
    return [day for day in days_between(first, last) if day.weekday() < 5]


def facts_of(
    *,
    executions: Iterable[Execution] = (),
    events: Iterable[StatementEvent] = (),
    prices: Mapping[int, float] | None = None,
    **given: Any,
) -> Facts:
    """Return the facts with the movements of these rows, and the days of statements.

    The prices are those before the end of options, by the option.
    """
    of_days = (event for event in events if event.kind is EventKind.PERIOD)
    periods = grouped(attrgetter("account"), of_days)

    def price_before(option: ContractDetails, _ended: datetime) -> float | None:
        return (prices or {}).get(option.conid)

    named = {"movements": movements_of_rows(executions, events), "periods": periods}
    weekdays = {"trading_days": _weekdays}
    return Facts(price_before=price_before, **weekdays | named | given)
