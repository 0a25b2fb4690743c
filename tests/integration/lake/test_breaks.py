"""Breaks: opened, confirmed, resolved or accepted by reconciliations and people."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from position_sync_dagster.domain.reconciliation import BreakState, Discrepancy, DiscrepancyType
from position_sync_dagster.errors import UnknownRequestError
from position_sync_dagster.lake.storage.table import Table

LOGIN = "127.0.0.1:7497"


AT = datetime(2026, 1, 2, 15, tzinfo=UTC)


def missing(conid=1, expected=2.0):
    return Discrepancy(
        type=DiscrepancyType.MISSING, account="DUSIM1", conid=conid, symbol="SPY",
        expected=expected, actual=None, detail="held at the broker, no row",
    )  # fmt: skip


@pytest.mark.in_store
async def test_a_break_is_opened_confirmed_and_resolved(lake):
    lake.breaks.record({LOGIN: [missing()]}, AT, snapshots={LOGIN: "download-1"}, run_id="run-1")
    [one] = lake.breaks.open_breaks()
    assert (one.state, one.opened_at, one.snapshot_id) == (BreakState.OPENED, AT, "download-1")
    later = AT + timedelta(minutes=5)
    lake.breaks.record({LOGIN: [missing()]}, later)
    [one] = lake.breaks.open_breaks()
    assert (one.state, one.confirmed_at) == (BreakState.CONFIRMED, later)
    lake.breaks.record({LOGIN: []}, later)
    assert lake.breaks.open_breaks() == []
    [gone] = lake.breaks.closed_breaks()
    assert (gone.break_id, gone.state) == (one.break_id, BreakState.RESOLVED)
    assert gone.resolved_at == later


async def test_closed_breaks_are_read_again_only_when_the_table_changed(lake, monkeypatch):
    lake.breaks.record({LOGIN: [missing(1), missing(2)]}, AT)
    lake.breaks.record({LOGIN: [missing(2)]}, AT)
    reads = []
    read = Table.read_rows
    monkeypatch.setattr(Table, "read_rows", lambda *args: reads.append(1) or read(*args))
    for _ in range(3):
        assert [one.conid for one in lake.breaks.closed_breaks()] == [1]
    assert len(reads) == 1
    lake.breaks.record({LOGIN: []}, AT + timedelta(hours=1))
    assert [one.conid for one in lake.breaks.closed_breaks()] == [2, 1]
    assert len(lake.breaks.closed_breaks(1)) == 1


async def test_a_reconciliation_that_changes_nothing_commits_nothing(lake):
    lake.breaks.record({LOGIN: []}, AT)
    assert lake.breaks.table.version() == 0
    for _ in range(2):
        lake.breaks.record({LOGIN: [missing()]}, AT)
    version = lake.breaks.table.version()
    lake.breaks.record({LOGIN: [missing()]}, AT)
    assert lake.breaks.table.version() == version


async def test_a_break_whose_quantities_change_remains_the_same_break(lake):
    for expected in (2.0, 3.0, 4.0):
        lake.breaks.record({LOGIN: [missing(expected=expected)]}, AT)
    [one] = lake.breaks.open_breaks()
    assert (one.expected, one.state, one.opened_at) == (4.0, BreakState.CONFIRMED, AT)


async def test_an_accepted_break_remains_accepted_until_it_is_gone(lake, clock):
    lake.breaks.record({LOGIN: [missing()]}, AT)
    [one] = lake.breaks.open_breaks()
    accepted = lake.breaks.accept(one.break_id, by="eva", note="assigned over night")
    assert (accepted.accepted_by, accepted.accepted_at) == ("eva", clock.now)
    lake.breaks.record({LOGIN: [missing()]}, AT)
    assert [b.state for b in lake.breaks.open_breaks()] == [BreakState.ACCEPTED]
    lake.breaks.record({LOGIN: []}, AT)
    [gone] = lake.breaks.closed_breaks()
    assert (gone.state, gone.resolved_at) == (BreakState.ACCEPTED, AT)
    with pytest.raises(UnknownRequestError):
        lake.breaks.accept(one.break_id, by="eva")


async def test_an_acceptance_ends_when_the_quantities_change(lake):
    lake.breaks.record({LOGIN: [missing(), missing(conid=2)]}, AT)
    first = lake.breaks.open_breaks()[0]
    lake.breaks.accept(first.break_id, by="eva", note="assigned")
    later = AT + timedelta(minutes=5)
    changed = [missing(first.conid, expected=3.0), missing(3 - first.conid)]
    lake.breaks.record({LOGIN: changed}, later)
    now = {one.conid: one for one in lake.breaks.open_breaks()}[first.conid]
    assert (now.state, now.confirmed_at, now.expected) == (BreakState.CONFIRMED, later, 3.0)
    assert (now.accepted_by, now.accepted_at) == (None, None)
    assert now.note == "eva accepted 2.0 against ? (assigned); that has changed"


async def test_an_acceptance_can_be_taken_back_by_the_beginning_of_its_id(lake):
    lake.breaks.record({LOGIN: [missing(), missing(conid=2)]}, AT)
    first, second = lake.breaks.open_breaks()
    with pytest.raises(UnknownRequestError, match="2 open breaks"):
        lake.breaks.accept(first.break_id[:8], by="eva")
    lake.breaks.accept(first.break_id, by="eva", note="assigned")
    with pytest.raises(UnknownRequestError, match="No open breaks that one can reopen"):
        lake.breaks.reopen(second.break_id, by="max")
    again = lake.breaks.reopen(first.break_id, by="max")
    assert (again.state, again.accepted_by) == (BreakState.CONFIRMED, None)
    assert again.note == "max reopened it"


async def test_the_breaks_of_one_gateway_do_not_end_those_of_another(lake):
    lake.breaks.record({LOGIN: [missing()]}, AT)
    lake.breaks.record({"b:1": [replace(missing(), conid=2)]}, AT)
    lake.breaks.record({"b:1": []}, AT)
    assert [b.gateway_id for b in lake.breaks.open_breaks()] == [LOGIN]
    assert lake.breaks.open_breaks("b:1") == []
