"""Values of accounts, contracts and breaks: appended, replaced or closed by what came later."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from position_sync_dagster.domain.account_values import AccountSource, AccountSummary
from position_sync_dagster.domain.reconciliation import BreakState, Discrepancy, DiscrepancyType
from position_sync_dagster.errors import LeaseLostError, UnknownRequestError
from position_sync_dagster.lake.schema import records_of
from position_sync_dagster.lake.storage.data_files import data_files
from position_sync_dagster.lake.storage.table import noted
from tests.support.contracts import contract_details
from tests.support.open_breaks import open_breaks_of

A = "DUSIM0001"
B = "DUSIM0002"
LOGIN = "127.0.0.1:7497"


@pytest.fixture
def row(clock):
    def make(account=A, net=1000.0, **more):
        given = dict(
            currency="USD", timestamp=clock.now, gateway_id=LOGIN, fencing_token=1,
        )  # fmt: skip
        return AccountSummary(account=account, net_liquidation=net, **given | more)

    return make


async def net_of(lake):
    rows = lake.account_values.latest()
    return dict(rows.select("account", "net_liquidation").iter_rows())


async def test_unknown_amounts_are_null_and_come_back_as_none(lake, row, clock):
    values = row(net=None, currency=None, daily_pnl=-1.5, pnl_received_at=clock.now)
    assert lake.account_values.append([values]).rows == 1
    [read] = records_of(AccountSummary, lake.account_values.latest())
    assert read == replace(values, row_id=read.row_id, trading_mode="SIMULATED")
    frame = lake.account_values.latest()
    assert frame.select("net_liquidation", "cash", "currency").row(0) == (None, None, None)


@pytest.mark.in_store
async def test_the_same_row_is_written_once(lake, row):
    rows = [row(row_id="0001"), row(B, row_id="0002")]
    assert lake.account_values.append(rows).rows == 2
    assert lake.account_values.append([*rows, row(B, net=5.0)]).rows == 1
    assert await net_of(lake) == {A: 1000.0, B: 5.0}


async def test_a_row_from_a_clock_that_ran_ahead_hides_nothing(lake, row, clock):
    lake.account_values.append([row(net=1.0, timestamp=clock.now + timedelta(days=400))])
    lake.account_values.append([row(net=2.0), row(B)])
    assert await net_of(lake) == {A: 2.0, B: 1000.0}


async def test_rows_of_statements_stand_apart(lake, row, clock):
    flex = {"source": AccountSource.FLEX, "gateway_id": None, "fencing_token": None}
    lake.account_values.append([row(net=3.0)])
    for days in (1, 5):
        at = clock.now - timedelta(days=days)
        lake.account_values.append([row(net=days, timestamp=at, **flex)])
    assert await net_of(lake) == {A: 3.0}


@pytest.mark.in_store
async def test_an_owner_that_was_followed_by_another_writes_nothing_more(lake, row):
    lake.account_values.table.fence(LOGIN, 2)
    with pytest.raises(LeaseLostError, match="newer owner"):
        lake.account_values.append([row()])
    lake.account_values.append([row(fencing_token=2, net=7.0)])
    with pytest.raises(LeaseLostError, match="newer owner"):
        lake.account_values.table.fence(LOGIN, 1)
    assert await net_of(lake) == {A: 7.0}


async def test_an_append_and_a_read_cost_the_same_after_many_days(lake, row, clock, files_read):
    start = clock.now
    for day in range(20):
        clock.now = start + timedelta(days=day)
        for net in range(8):
            lake.account_values.append([row(net=net + day)])
    table = lake.account_values.table
    files = table.snapshot(data_files).height
    files_read.clear()
    lake.account_values.append([row(net=-1.0)])
    assert files_read == [], "an append of a new row reads no older rows"
    assert await net_of(lake) == {A: -1.0}
    # Fifteen days of eight rows, however long the table has grown, and the row of this test.
    assert files_read[-1] <= 15 * 8 + 1 < files


def details(clock, conid):
    return contract_details(conid, seen_at=clock.now)


@pytest.mark.in_store
async def test_the_newest_details_of_a_contract_are_kept(lake, clock):
    first = details(clock, 1)
    lake.contracts.put([first, first, details(clock, 2)])
    made = lake.contracts.get([1, 2])
    assert made[1] == first
    assert lake.contracts.get([1])[1] is made[1]  # nothing has changed: it is made once
    clock.advance(60)
    lake.contracts.put([details(clock, 1), details(clock, 3)])
    contract = lake.contracts.get([1, 3, 99])
    assert contract == {1: details(clock, 1), 3: details(clock, 3)}
    assert lake.contracts.get([2])[2].seen_at == first.seen_at
    assert lake.contracts.get([]) == {}
    assert len(lake.contracts.get()) == 3


def test_details_that_are_known_are_read_for_what_is_derived_of_them(lake, clock):
    """Else a table would not be made again that is made of details which changed meanwhile."""
    lake.contracts.put([details(clock, 7)])
    known = lake.contracts.get([7])
    for_derived, reads = noted(lambda: lake.contracts.get([7]))
    assert for_derived == known
    assert [read.table.path for read in reads] == [lake.contracts.table.path]


async def test_details_of_new_contracts_are_added_without_a_look_at_the_others(
    lake, clock, files_read
):
    lake.contracts.put([details(clock, conid) for conid in range(1, 501)])
    files_read.clear()
    lake.contracts.put([details(clock, conid) for conid in range(501, 521)])
    assert sum(files_read) == 0
    clock.advance(60)
    lake.contracts.put([details(clock, conid) for conid in (400, *range(600, 700))])
    contract = lake.contracts.get(range(1, 1_000))
    assert len(contract) == 620
    seen_now = {conid for conid, terms in contract.items() if terms.seen_at == clock.now}
    assert seen_now == {400, *range(600, 700)}
    assert lake.contracts.get([450, 9_999]) == {450: contract[450]}


def test_contracts_that_expired_long_ago_are_read_only_if_they_are_named(lake, clock):
    ends = {1: date(2028, 1, 21), 2: date(2028, 1, 20), 3: None, 4: date(2028, 1, 20)}
    ending = []
    for conid, end in ends.items():
        ending.append(replace(details(clock, conid), last_trade_date=end, expires_on=None))
    lake.contracts.put(ending)
    assert lake.contracts.unexpired(date(2028, 1, 21), {4}).keys() == {1, 3, 4}


AT = datetime(2026, 1, 2, 15, tzinfo=UTC)


def missing(conid=1, expected=2.0):
    return Discrepancy(
        type=DiscrepancyType.MISSING, account="DUSIM1", conid=conid, symbol="SPY",
        expected=expected, actual=None, detail="held at the broker, no row",
    )  # fmt: skip


@pytest.mark.in_store
async def test_a_break_is_opened_confirmed_and_resolved(lake):
    lake.breaks.record({LOGIN: [missing()]}, AT, snapshots={LOGIN: "download-1"}, run_id="run-1")
    [open_break] = lake.breaks.open_breaks()
    assert open_break.state == BreakState.OPENED
    assert open_break.opened_at == AT
    assert open_break.snapshot_id == "download-1"
    later = AT + timedelta(minutes=5)
    lake.breaks.record({LOGIN: [missing(expected=3.0)]}, later)
    [open_break] = lake.breaks.open_breaks()
    assert open_break.state == BreakState.CONFIRMED
    assert open_break.confirmed_at == later
    assert open_break.opened_at == AT
    assert open_break.expected == 3.0

    lake.breaks.record({LOGIN: [missing(expected=4.0)]}, later + timedelta(minutes=5))
    [open_break] = lake.breaks.open_breaks()
    assert open_break.confirmed_at == later
    assert open_break.last_seen_at == later + timedelta(minutes=5)

    lake.breaks.record({LOGIN: []}, later)
    assert lake.breaks.open_breaks() == []
    [gone] = lake.breaks.closed_breaks()
    assert gone.break_id == open_break.break_id
    assert gone.state == BreakState.RESOLVED
    assert gone.resolved_at == later


async def test_the_breaks_that_are_gone_come_newest_first(lake):
    lake.breaks.record({LOGIN: [missing(1), missing(2)]}, AT)
    lake.breaks.record({LOGIN: [missing(2)]}, AT)
    assert [closed_break.conid for closed_break in lake.breaks.closed_breaks()] == [1]
    lake.breaks.record({LOGIN: []}, AT + timedelta(hours=1))
    assert [closed_break.conid for closed_break in lake.breaks.closed_breaks()] == [2, 1]
    assert len(lake.breaks.closed_breaks(1)) == 1


async def test_a_reconciliation_that_changes_nothing_commits_nothing(lake):
    lake.breaks.record({LOGIN: []}, AT)
    assert lake.breaks.table.version() == 0
    for _ in range(2):
        lake.breaks.record({LOGIN: [missing()]}, AT)
    version = lake.breaks.table.version()
    lake.breaks.record({LOGIN: [missing()]}, AT)
    assert lake.breaks.table.version() == version
    assert [open_break.state for open_break in lake.breaks.open_breaks()] == [BreakState.CONFIRMED]


async def test_an_accepted_break_remains_accepted_until_it_is_gone(lake, clock):
    lake.breaks.record({LOGIN: [missing()]}, AT)
    [open_break] = lake.breaks.open_breaks()
    accepted = lake.breaks.accept(open_break.break_id, by="eva", note="assigned over night")
    assert accepted.accepted_by == "eva"
    assert accepted.accepted_at == clock.now
    lake.breaks.record({LOGIN: [missing()]}, AT)
    assert [b.state for b in lake.breaks.open_breaks()] == [BreakState.ACCEPTED]
    lake.breaks.record({LOGIN: []}, AT)
    [gone] = lake.breaks.closed_breaks()
    assert gone.state == BreakState.ACCEPTED
    assert gone.resolved_at == AT
    with pytest.raises(UnknownRequestError):
        lake.breaks.accept(open_break.break_id, by="eva")


async def test_an_acceptance_ends_when_the_quantities_change(lake):
    lake.breaks.record({LOGIN: [missing(), missing(conid=2)]}, AT)
    first = lake.breaks.open_breaks()[0]
    lake.breaks.accept(first.break_id, by="eva", note="assigned")
    later = AT + timedelta(minutes=5)
    changed = [missing(first.conid, expected=3.0), missing(3 - first.conid)]
    lake.breaks.record({LOGIN: changed}, later)
    now = {open_break.conid: open_break for open_break in lake.breaks.open_breaks()}[first.conid]
    assert now.state == BreakState.CONFIRMED
    assert now.confirmed_at == later
    assert now.expected == 3.0
    assert now.accepted_by is None
    assert now.accepted_at is None
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
    assert again.state == BreakState.CONFIRMED
    assert again.accepted_by is None
    assert again.note == "max reopened it"


async def test_the_breaks_of_one_gateway_do_not_end_those_of_another(lake):
    lake.breaks.record({LOGIN: [missing()]}, AT)
    lake.breaks.record({"b:1": [replace(missing(), conid=2)]}, AT)
    lake.breaks.record({"b:1": []}, AT)
    assert [b.gateway_id for b in lake.breaks.open_breaks()] == [LOGIN]
    assert open_breaks_of(lake.breaks, "b:1") == []
