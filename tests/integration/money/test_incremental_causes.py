"""Closes that are judged when they are due have the causes of a judgement of all facts."""

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter
from random import Random

import pytest

from position_sync_dagster.domain.execution import Execution
from position_sync_dagster.gateway.connection import day_begin
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.causes import Facts, closures_of
from position_sync_dagster.money.past.closes import Closure, knows_more
from position_sync_dagster.money.past.explain_closes import CloseExplainer
from tests.support.extent import EVERYTHING
from tests.support.facts import facts_of, store_statement
from tests.unit.money.past.test_causes import ACCOUNT, CONTRACTS
from tests.unit.money.past.test_causes_of_histories import (
    LOOKS,
    MADE,
    PERIODS,
    days_of,
    executions,
    statement_of,
    watched,
)

HISTORIES = 40 if EVERYTHING else 4

Counted = dict[str, list[Closure]]


def told(counted: Counted) -> dict[str, list[tuple[object, ...]]]:
    key = attrgetter("cause", "stage", "quantity")
    return {change_id: sorted(map(key, closures)) for change_id, closures in counted.items()}


def by_change(closures: list[Closure]) -> Counted:
    ordered = sorted(closures, key=lambda closure: closure.change_id)
    return {
        key: list(ones)
        for key, ones in groupby(ordered, key=lambda judged_close: judged_close.change_id)
    }


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_what_is_judged_when_it_is_due_is_what_a_judgement_of_everything_says(
    seed: int, tmp_path
) -> None:
    lake = MoneyLake(tmp_path / "lake")
    lake.contracts.put(CONTRACTS.values())
    random = Random(seed)
    days = days_of(random)
    moment: list[datetime] = []
    explainer = CloseExplainer(lake, clock=lambda: moment[-1])
    counted: Counted = {}

    def compare(facts: Facts) -> None:
        for change_id, new in by_change(closures_of(facts)).items():
            if knows_more(new, counted.get(change_id, ())):
                counted[change_id] = new
        assert told(by_change(lake.closures.current())) == told(counted)

    for watcher in watched(days, None, timedelta(), answers=True):
        lake.position_changes.add(watcher.changes)
        for look in LOOKS if random.random() < 0.5 else LOOKS[:1]:
            now = watcher.now + look
            moment.append(now)
            asked = {ACCOUNT: (day_begin(now), now)}
            known = [
                replace(execution, stated_at=now)
                for execution in executions(days)
                if execution.time <= now
            ]
            explainer.explain([one for one in known if one.time >= day_begin(now)], asked)
            stored: list[Execution] = lake.executions.records()
            given = {"changes": watcher.changes, "contracts": CONTRACTS, "asked": asked}
            compare(facts_of(executions=stored, **given))

    rows, events = statement_of(days)
    events = [replace(event, stated_at=MADE) for event in (*events, *PERIODS)]
    store_statement(lake, [replace(row, stated_at=MADE) for row in rows], events)
    moment.append(MADE + timedelta(days=random.choice((1, 20, 45))))
    explainer.explain()
    compare(
        facts_of(
            changes=watcher.changes,
            executions=lake.executions.records(),
            events=events,
            contracts=CONTRACTS,
        )
    )
