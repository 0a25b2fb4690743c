"""Broker positions: replaced by the owner of the login, and by nobody whom it followed."""

import shutil
from contextlib import nullcontext
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from polars.testing import assert_frame_equal

from position_sync_dagster.domain.gateway_session import Owner
from position_sync_dagster.domain.holding import AccountConfirmation, Completeness
from position_sync_dagster.domain.instrument import Instrument, Right
from position_sync_dagster.errors import LeaseLostError, TradingModeError
from position_sync_dagster.lake.broker_positions import FOLD_FILES
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.storage import commits
from position_sync_dagster.lake.storage.commits import write
from position_sync_dagster.lake.storage.data_files import data_files
from tests.support.holdings import make_holding
from tests.support.never_null import null_where_never

LOGIN = "127.0.0.1:7497"
WHO = dict(lease_s=15.0, run_id="run-1", host="box", pid=42)


def holding(clock, conid=1, position=2.0, account="DUSIM1", gateway_id=LOGIN, **more):
    put = Instrument(
        conid=conid, symbol="SPY", sec_type="OPT", currency="USD", multiplier=100.0,
        right=Right.PUT, strike=440.0, expiry=date(2026, 2, 20),
        local_symbol="SPY   260220P00440000",
    )  # fmt: skip
    values = dict(
        instrument=put, average_cost=120.5, snapshot_id="download-1", gateway_id=gateway_id,
        completeness=Completeness.COMPLETE, account=account,
    )  # fmt: skip
    return make_holding(conid, clock.now, position=position, **(values | more))


def followed(lake, clock, owner=Owner.STREAM):
    """Let an owner publish a holding, and another one follow it; return their sessions."""
    first = lake.sessions.acquire(LOGIN, Owner.STREAM, **WHO)
    lake.broker_positions.replace(LOGIN, [holding(clock, 1)], first)
    lake.sessions.end(first)
    return first, lake.sessions.acquire(LOGIN, owner, **WHO)


async def test_a_replacement_is_one_commit_and_is_read_as_it_was_written(lake, clock):
    lake.broker_positions.replace(LOGIN, [holding(clock, 9)])
    version = lake.broker_positions.table.version()
    positions = [
        holding(clock, 1, market_price=1.5, value_time=clock.now, daily_pnl=-3.0),
        holding(clock, 2, position=0.0),
        holding(clock, 1, account="DUSIM2"),
    ]
    lake.broker_positions.replace(LOGIN, positions)
    assert lake.broker_positions.table.version() == version + 1
    assert lake.broker_positions.read(LOGIN) == positions
    assert lake.broker_positions.read("elsewhere") == []


async def test_any_gateway_is_kept_apart_from_the_others(lake, clock):
    names = [LOGIN, "it's:1", "a' OR '1'='1", "x\0y", "%41=/é🙂"]
    for first in (10, 20):
        for conid, name in enumerate(names, first):
            lake.broker_positions.replace(name, [holding(clock, conid, gateway_id=name)])
    read = [lake.broker_positions.read(name) for name in names]
    assert [[p.instrument.conid for p in rows] for rows in read] == [[c] for c in range(20, 25)]


@pytest.mark.parametrize("rows", [1, 0], ids=["with rows", "with no rows"])
@pytest.mark.in_store
async def test_an_owner_that_was_followed_writes_nothing(lake, clock, rows):
    first, second = followed(lake, clock, Owner.REFRESH)
    lake.broker_positions.replace(LOGIN, [holding(clock, 2)] * rows, second)
    before = lake.broker_positions.read(LOGIN)
    with pytest.raises(LeaseLostError, match="newer owner"):
        lake.broker_positions.replace(LOGIN, [holding(clock, 3)], first)
    assert lake.broker_positions.read(LOGIN) == before
    lake.broker_positions.replace(LOGIN, [holding(clock, 4)], second)


async def test_accounts_of_another_trading_mode_do_not_mix(lake, clock):
    lake.broker_positions.replace(LOGIN, [holding(clock, 1)])
    with pytest.raises(TradingModeError):
        lake.broker_positions.replace(LOGIN, [holding(clock, 1, account="U1234567")])
    assert len(lake.broker_positions.read(LOGIN)) == 1


CHANGES: dict[str, Any] = {"accounts": {}}


@pytest.mark.in_store
async def test_changes_take_the_place_of_the_rows_before_them_and_leave_the_others(lake, clock):
    table = lake.broker_positions
    table.replace(LOGIN, [holding(clock, conid) for conid in (1, 2, 3)])
    clock.advance(seconds=1)
    changed = [holding(clock, 2, 5.0), holding(clock, 3, 0.0), holding(clock, 4)]
    written = table.table.rows().height
    table.update(LOGIN, changed, captured_at=clock.now, **CHANGES)
    assert table.table.rows().height == written + 3  # what did not change was not written
    rows = table.rows(LOGIN)
    assert dict(rows.select("conid", "position").iter_rows()) == {1: 2.0, 2: 5.0, 3: 0.0, 4: 2.0}
    assert rows.sort("published_version")["captured_at"][-1] == clock.now
    assert_frame_equal(rows, Lake(lake.path).broker_positions.rows(LOGIN))


async def test_a_confirmation_of_an_account_holds_for_its_rows_from_before(lake, clock):
    table = lake.broker_positions
    earlier = clock.now
    rows = [
        holding(clock, 1, completeness=Completeness.PARTIAL),
        holding(clock, 2, completeness=Completeness.PARTIAL, confirmed_at=earlier),
        holding(clock, 1, account="DUSIM2", completeness=Completeness.PARTIAL),
    ]
    table.replace(LOGIN, rows)
    assert table.read(LOGIN) == rows

    clock.advance(seconds=60)
    confirmed = {"DUSIM1": AccountConfirmation(clock.now), "DUSIM2": AccountConfirmation(None)}
    table.update(LOGIN, [holding(clock, 1)], accounts=confirmed)
    for reader in (table, Lake(lake.path).broker_positions):
        state_of = {row.key: (row.completeness, row.confirmed_at) for row in reader.read(LOGIN)}
        assert state_of.pop(("DUSIM2", 1)) == (Completeness.PARTIAL, None)
        complete = (Completeness.COMPLETE, clock.now)
        assert state_of == {("DUSIM1", 1): complete, ("DUSIM1", 2): complete}

    # What is known of the account now replaces what was known of it before.
    partial = holding(clock, 2, completeness=Completeness.PARTIAL)
    table.update(LOGIN, [partial], accounts=confirmed)
    assert {r.completeness for r in table.read(LOGIN)} == {Completeness.PARTIAL}


async def test_rows_of_a_replacement_are_confirmed_with_their_account_but_for_a_mere_value(
    lake, clock
):
    rows = [
        holding(clock, 1),
        holding(clock, 2, market_value=5.0),  # which no message confirmed
        holding(clock, 1, account="DUSIM2"),
    ]
    confirmed = {"DUSIM1": AccountConfirmation(clock.now), "DUSIM2": AccountConfirmation(None)}
    session = lake.sessions.acquire(LOGIN, Owner.STREAM, **WHO)
    written = {"captured_at": clock.now, "accounts": confirmed}
    lake.broker_positions.replace(LOGIN, rows, session, **written)
    read = lake.broker_positions.read(LOGIN)
    assert [row.confirmed_at for row in read] == [clock.now, None, None]
    assert (
        null_where_never(lake.path, lake.specs) == {}
    )  # that no feed has confirmed DUSIM2 is no fault


async def test_many_changes_are_refused_until_all_rows_are_replaced(lake, clock):
    table = lake.broker_positions
    size = 40
    expected = dict.fromkeys(range(size), 2.0)
    replaced = 0
    for number in range(3 * FOLD_FILES):
        expected[number % 7] = float(number)
        changed = [holding(clock, number % 7, float(number))]
        confirmed = {"DUSIM1": AccountConfirmation(clock.now)}
        if table.update(LOGIN, changed, accounts=confirmed) is None:
            replaced += 1
            everything = [holding(clock, conid, held) for conid, held in expected.items()]
            table.replace(LOGIN, everything, accounts=confirmed)
        assert table.table.rows().height <= size + FOLD_FILES
        assert len(table.table.snapshot(data_files)) <= FOLD_FILES
        read = {row.instrument.conid: row.position for row in table.read(LOGIN)}
        assert read == expected
    assert replaced == 3  # the first time, and after each `FOLD_FILES` files


async def test_changes_without_rows_of_the_same_session_are_refused(lake, clock):
    table = lake.broker_positions
    assert table.update(LOGIN, [holding(clock, 1)], **CHANGES) is None
    first = lake.sessions.acquire(LOGIN, Owner.STREAM, **WHO)
    table.replace(LOGIN, [holding(clock, 1)], first)
    table.update(LOGIN, [holding(clock, 1, 3.0)], first, **CHANGES)
    lake.sessions.end(first)
    second = lake.sessions.acquire(LOGIN, Owner.STREAM, **WHO)
    assert table.update(LOGIN, [holding(clock, 1, 4.0)], second, **CHANGES) is None
    table.replace(LOGIN, [holding(clock, 1, 5.0)], second)
    with pytest.raises(LeaseLostError, match="newer owner"):
        table.update(LOGIN, [holding(clock, 1, 6.0)], first, **CHANGES)
    assert [row.position for row in table.read(LOGIN)] == [5.0]


@pytest.mark.on_disk  # it undoes its environment
async def test_of_a_commit_race_with_a_newer_owner_the_older_one_writes_nothing(
    lake, clock, monkeypatch
):
    first, second = followed(lake, clock)
    broker_positions = Lake(lake.path).broker_positions

    def overtaken(*args, **more):
        monkeypatch.undo()
        broker_positions.replace(LOGIN, [holding(clock, 1, 5.0)], second)
        write(*args, **more)

    # The writer lock only keeps the order; what is proved here must hold without it.
    monkeypatch.setattr(commits, "write", overtaken)
    monkeypatch.setattr(broker_positions.table._writer_lock, "fair", nullcontext)
    with pytest.raises(LeaseLostError, match="newer owner"):
        lake.broker_positions.update(LOGIN, [holding(clock, 1, 9.0)], first, **CHANGES)
    assert [row.position for row in broker_positions.read(LOGIN)] == [5.0]


@pytest.mark.on_disk  # it deletes a folder
async def test_after_a_table_was_deleted_the_next_rows_are_all_of_them(lake, clock):
    table = lake.broker_positions
    table.replace(LOGIN, [holding(clock, 1), holding(clock, 2)])
    shutil.rmtree(table.table.path)
    Lake(lake.path).broker_positions.table.initialize()
    assert table.update(LOGIN, [holding(clock, 1, 3.0)], **CHANGES) is None
    assert table.read(LOGIN) == []


async def test_followed_holdings_are_as_new_as_their_account_says(lake, clock):
    table = lake.broker_positions
    first = clock.now
    rows = [replace(holding(clock, conid), followed=conid < 3) for conid in (1, 2, 3)]
    table.replace(LOGIN, rows)
    clock.advance(seconds=4)
    until = {"DUSIM1": AccountConfirmation(None, clock.now)}
    table.update(LOGIN, [rows[0]], accounts=until)
    received_at_of = {row.instrument.conid: row.received_at for row in table.read(LOGIN)}
    assert received_at_of == {1: clock.now, 2: clock.now, 3: first}

    table.update(LOGIN, [replace(rows[1], followed=False)], accounts=until)
    clock.advance(seconds=4)
    until = {"DUSIM1": AccountConfirmation(None, clock.now)}
    table.update(LOGIN, [rows[2]], accounts=until)
    received_at_of = {row.instrument.conid: row.received_at for row in table.read(LOGIN)}
    assert received_at_of == {1: clock.now, 2: first, 3: first}
