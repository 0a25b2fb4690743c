"""The ledger of values: each row once and as it is meant, one newest row, one trading mode."""

import math
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from deltalake import ColumnProperties, DeltaTable, WriterProperties, write_deltalake

from position_sync_dagster.domain.clock import NEVER
from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.domain.position_update import (
    PositionUpdate,
    PositionUpdateHandler,
    TradingMode,
)
from position_sync_dagster.errors import InvalidRequestError, LeaseLostError, TradingModeError
from position_sync_dagster.lake import position_updates
from position_sync_dagster.lake.schema import POSITION_UPDATES, new_ids, update_rows
from position_sync_dagster.lake.storage.commits import write
from position_sync_dagster.lake.storage.data_files import data_files
from position_sync_dagster.lake.storage.merges import maintain
from position_sync_dagster.lake.storage.opening import Upkeep
from position_sync_dagster.lake.storage.table import Table

FEW = 4


@pytest.fixture
def ledger(home):
    return position_updates.PositionUpdatesTable(f"{home}/updates")


@pytest.fixture
def other(ledger):
    """Return the ledger as another process has it open.

    It waits for no other writer, and merges a few files.
    """
    upkeep = Upkeep(lock_wait_s=0.001, compact_from=FEW)
    return position_updates.PositionUpdatesTable(ledger.table.path, upkeep=upkeep)


@pytest.mark.in_store
def test_an_update_is_read_as_it_was_written(ledger, make_update):
    update = make_update(symbol="it's\0 '; DROP 🙂", update_id="u-1")
    ledger.sync.append([update], batch_id="b-1", run_id="r-1")
    [read] = ledger.sync.latest_updates()
    assert isinstance(read, PositionUpdate)
    assert read.update_id == "u-1"
    assert read.batch_id == "b-1"
    assert read.run_id == "r-1"
    assert read.symbol == update.symbol
    assert read.timestamp == update.timestamp
    assert read.expiry is None


@pytest.mark.in_store
def test_a_batch_that_is_tried_again_writes_nothing_even_with_new_values(ledger, make_update):
    first = ledger.sync.append([make_update(1), make_update(2)], batch_id="b-1")
    assert first.version == 2  # 1 remembers the trading mode
    assert first.rows == 2
    again = ledger.sync.append([make_update(1, position=9.0), make_update(3)], batch_id="b-1")
    assert again.version == 2
    assert again.rows == 0
    assert ledger.sync.count() == 2


@pytest.mark.in_store
def test_the_row_of_a_request_is_written_once_whoever_writes_it(ledger, make_update, clock):
    request_id = new_ids(clock.now, 1)[0]
    ledger.sync.append([make_update(1, request_id=request_id)], batch_id="b-1")
    clock.advance(7200)
    late = [make_update(1, request_id=request_id, position=2.0), make_update(2)]
    assert ledger.sync.append(late, batch_id="b-2").rows == 1
    assert ledger.sync.existing([request_id, "other"]) == {request_id}


def test_half_a_surrogate_pair_is_no_stored_id_and_fences_as_any_name(ledger, make_update):
    ledger.sync.append([make_update(1, update_id="row-1")])
    assert ledger.sync.existing(["row-1", "row\udc80"]) == {"row-1"}
    ledger.table.fence("gateway\udc80", 2)
    with pytest.raises(LeaseLostError):
        ledger.table.fence("gateway\udc80", 1)


@pytest.mark.parametrize("passed_s", [-3600, 30 * 86_400])
def test_an_id_that_was_given_is_written_once_whatever_the_clock_says_later(
    ledger, make_update, clock, passed_s
):
    ledger.sync.append([make_update(1, update_id="row-1")])
    clock.advance(passed_s)
    again = [make_update(1, update_id="row-1", position=2.0), make_update(2)]
    assert ledger.sync.append(again).rows == 1
    assert ledger.sync.latest().select("conid", "position").rows() == [(1, 1.0), (2, 1.0)]


def test_the_look_up_of_repeats_reads_no_file_but_that_of_an_old_id_among_new_ones(
    ledger, make_update, clock, files_read
):
    old = make_update(1)
    ledger.sync.append([old, make_update(2)])
    for _ in range(8):
        clock.advance(1)
        ledger.sync.append([make_update(c) for c in (1, 2)])
    assert files_read == []
    clock.advance(1)
    mixed = [old, *(make_update(c) for c in range(2, 20))]
    assert ledger.sync.append(mixed).rows == 18
    assert files_read == [1]


def test_a_file_without_statistics_is_read_for_repeats(ledger, make_update, clock):
    ledger.sync.initialize()
    none = WriterProperties(default_column_properties=ColumnProperties(statistics_enabled="NONE"))
    rows = update_rows([replace(make_update(1, update_id="row-1"), batch_id="b-1")])
    write_deltalake(ledger.table.path, rows, mode="append", writer_properties=none)
    clock.advance(3600)
    assert ledger.sync.append([make_update(1, update_id="row-1")]).rows == 0
    assert ledger.sync.append([make_update(2)], batch_id="b-1").rows == 0
    assert ledger.sync.append([make_update(2)]).rows == 1


@pytest.mark.parametrize(
    "text",
    ["z" * 200, "é" * 99, "\U0010ffff" * 100, "a" + "\U0010ffff" * 100],
    ids=["one byte", "two bytes", "no greater prefix", "one greater prefix"],
)
def test_an_id_longer_than_what_statistics_keep_of_it_is_written_once(
    ledger, make_update, clock, text
):
    for _ in range(2):
        ledger.sync.append([make_update(1, update_id=text), make_update(2, update_id="id")])
        clock.advance(3600)
    assert ledger.sync.count() == 2


@pytest.mark.in_store
async def test_a_guard_is_called_before_each_attempt_to_commit(ledger, other, make_update, clock):
    calls: list[int] = []

    def guard() -> None:
        calls.append(other.sync.count())
        if len(calls) < 3:
            other.sync.append([make_update(100 + len(calls))])

    done = await ledger.append([make_update(1)], batch_id="b-1", guard=guard)
    assert done.rows == 1
    assert calls == [0, 1, 2]
    assert ledger.sync.count() == 3


@pytest.mark.parametrize("refusal", [ValueError("nobody thought of it"), KeyboardInterrupt()])
async def test_the_error_of_a_guard_reaches_the_caller_unchanged_and_nothing_is_written(
    ledger, other, make_update, refusal
):
    cause = ValueError("why")
    calls: list[int] = []

    def guard() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise refusal from cause
        other.sync.append([make_update(2)])

    with pytest.raises(type(refusal)) as raised:
        ledger.sync.append([make_update(1)], guard=guard)
    assert raised.value is refusal
    assert refusal.__cause__ is cause
    assert len(calls) == 2
    assert ledger.sync.latest().get_column("conid").to_list() == [2]
    assert ledger.sync.append([make_update(1)]).rows == 1


def test_a_guard_is_not_called_when_there_is_nothing_to_write(ledger, make_update):
    ledger.sync.append([make_update(1)])
    calls: list[int] = []
    for rows in ([], [make_update(1)]):
        assert ledger.sync.append(rows, guard=lambda: calls.append(1)).rows == 0
    assert calls == []


@pytest.mark.in_store
def test_a_ledger_of_an_older_release_is_migrated_and_keeps_each_row_once(
    ledger, make_update, clock
):
    kept = {name: kind for name, kind in POSITION_UPDATES.described.items() if name != "daily_pnl"}
    older = replace(POSITION_UPDATES, version=POSITION_UPDATES.version - 1, described=kept)
    rows = update_rows(
        [replace(make_update(c, update_id=f"row-{c}"), batch_id="b-1") for c in (1, 2)]
    )
    Table(ledger.table.path, older).transact(
        lambda handle: write(handle, rows.drop("daily_pnl"), {"batch_id": "b-1"})
    )
    clock.advance(3600)
    new = replace(make_update(2, update_id="row-3", position=3.0), daily_pnl=7.0)
    assert ledger.sync.append([make_update(1, update_id="row-1"), new]).rows == 1
    assert ledger.sync.append([make_update(4)], batch_id="b-1").rows == 0
    assert ledger.sync.existing(["row-1", "row-2", "row-3", "row-4"]) == {"row-1", "row-2", "row-3"}
    read = {u.conid: (u.position, u.daily_pnl) for u in ledger.sync.latest_updates()}
    assert read == {1: (1.0, None), 2: (3.0, 7.0)}


async def test_a_repeated_streamed_update_writes_nothing(ledger, make_update, clock):
    writer = position_updates.DeltaLakePositionWriter(table=ledger)
    assert isinstance(writer, PositionUpdateHandler)
    await writer.on_position_update(make_update(1))
    await writer.on_position_updates([make_update(1), make_update(1)])
    await writer.on_position_updates([])
    assert ledger.sync.count() == 1
    assert ledger.sync.version() == 2
    clock.advance(1)
    await writer.on_position_updates([make_update(1), make_update(2)])
    assert ledger.sync.count() == 3
    assert ledger.sync.version() == 3


def test_the_newest_row_of_a_holding_is_the_same_in_any_order_of_arrival(home, make_update, clock):
    moments = [clock.now + timedelta(seconds=s) for s in (0, 5, 3, 5, 1)]
    updates = []
    for number, at in enumerate(moments):
        values = {"timestamp": at, "position": float(number)}
        updates += [make_update(c, update_id=f"{c}-{number}", **values) for c in (1, 2)]

    newest = []
    for seed in range(2):
        position_updates_table = position_updates.PositionUpdatesTable(f"{home}/u{seed}")
        shuffled = Random(seed).sample(updates, len(updates))
        for start in range(0, len(shuffled), 3):
            position_updates_table.sync.append(shuffled[start : start + 3])
            position_updates_table.sync.latest()
        newest.append(
            position_updates_table.sync.latest().select("account", "conid", "position").rows()
        )
    assert newest == [[("DUSIM1", 1, 3.0), ("DUSIM1", 2, 3.0)]] * 2


def test_the_fence_and_the_ids_survive_when_files_are_merged_and_the_log_is_cut(
    ledger, other, make_update, clock
):
    ledger.table.fence("g:1", 7)
    batches = []
    for _ in range(FEW):
        clock.advance(1)
        batches.append([make_update(c) for c in (1, 2)])
        ledger.sync.append(batches[-1])
    assert maintain(other.table, clean_now=True).compacted == FEW
    again = position_updates.PositionUpdatesTable(ledger.table.path)
    maintain(again.table, clean_now=True)

    for opened in (ledger, position_updates.PositionUpdatesTable(ledger.table.path)):
        assert [opened.sync.append(batch).rows for batch in batches] == [0] * FEW
        with pytest.raises(LeaseLostError):
            opened.table.fence("g:1", 6)


def test_an_append_that_was_planned_before_a_fence_is_refused(ledger, other, make_update):
    ledger.sync.append([make_update(1)])
    ledger.table.fence("g:1", 1)
    fenced: list[Any] = []

    def fence():  # after the token was checked, before the commit
        if not fenced:
            fenced.append(other.table.fence("g:1", 2))

    stale = replace(make_update(2), gateway_id="g:1", fencing_token=1)
    with pytest.raises(LeaseLostError):
        ledger.sync.append([stale], guard=fence)
    assert ledger.sync.count() == 1


@pytest.mark.on_disk  # in a store the first try may begin with an older version
def test_an_append_that_lost_looks_only_at_what_the_winners_added(
    ledger, other, make_update, files_read
):
    ledger.sync.append([make_update(1)])
    through = ledger.sync.newest_of([9], datetime(2026, 1, 1, tzinfo=UTC)).through
    for conid in range(2, 8):
        other.sync.append([make_update(conid)])
    tries = []

    def lose_twice():
        tries.append(len(files_read))
        if len(tries) < 3:
            other.sync.append([make_update(10 + len(tries))])

    assert ledger.sync.append([make_update(9)], through=through, guard=lose_twice).rows == 1
    assert len(tries) == 3
    looked_at = [files_read[tries[0] : tries[1]], files_read[tries[1] : tries[2]]]
    assert all(max(files) <= 1 for files in looked_at), looked_at


@pytest.mark.in_store
async def test_writers_merge_small_files_from_time_to_time(home, make_update, clock, eventually):
    often = Upkeep(compact_every=10, compact_from=FEW)
    ledger = position_updates.PositionUpdatesTable(f"{home}/updates", upkeep=often)
    for _ in range(10):
        clock.advance(1)
        ledger.sync.append([make_update(1)])
    await eventually(lambda: ledger.table.snapshot(lambda handle: len(handle.file_uris())) < FEW)
    assert ledger.sync.count() == 10


def test_a_scan_whose_files_are_vacuumed_meanwhile_is_repeated(ledger, other, make_update, clock):
    for _ in range(FEW):
        clock.advance(1)
        ledger.sync.append([make_update(1)])
    tries = []

    def slow_read(handle: DeltaTable) -> int:
        tries.append(handle.version())
        if len(tries) == 1:
            assert maintain(other.table, clean_now=True).compacted == FEW
        return ledger.table.read_rows(data_files(handle), ["conid"]).height

    assert ledger.table.snapshot(slow_read) == FEW
    assert len(tries) == 2


def test_rows_are_read_from_the_first_moment_to_the_last(ledger, make_update, clock):
    ledger.sync.initialize()
    first = NEVER
    last = datetime.max.replace(tzinfo=UTC)
    assert ledger.sync.between(first, last).is_empty()
    at = clock.now.replace(microsecond=999_999)
    ledger.sync.append([make_update(1, timestamp=at)])
    assert ledger.sync.between(first, last).height == 1
    assert ledger.sync.between(at, at).height == 1
    assert ledger.sync.between(at + timedelta(microseconds=1), last).is_empty()


def test_the_value_at_a_moment_is_the_last_one_before_it(ledger, make_update, clock):
    began = clock.now
    for day in range(5):
        clock.now = began + timedelta(days=day)
        ledger.sync.append([make_update(1, position=float(day))])
    middle = began + timedelta(days=2)
    late = began + timedelta(days=9)
    for rows, expected in (
        (ledger.sync.last_before(middle + timedelta(hours=5)), [2.0]),
        (ledger.sync.last_before(middle), [2.0]),
        (ledger.sync.last_before(middle - timedelta(microseconds=1)), [1.0]),
        (ledger.sync.last_before(began - timedelta(seconds=1)), []),
        (ledger.sync.last_before(late, look_back_days=4), []),
        (ledger.sync.last_before(late, look_back_days=5), [4.0]),
    ):
        assert rows.get_column("position").to_list() == expected


@pytest.mark.on_disk  # it lists folders
def test_the_date_is_the_utc_date_of_the_timestamp(ledger, make_update):
    ledger.sync.append([make_update(1, timestamp=datetime(2026, 1, 2, 23, 59, 59, 999999, UTC))])
    ledger.sync.append([make_update(1, timestamp=datetime(2026, 1, 3, 0, 0, tzinfo=UTC))])
    days = [p.name for p in sorted(Path(ledger.table.path).glob("date=*"))]
    assert days == ["date=2026-01-02", "date=2026-01-03"]


def test_a_lake_of_one_trading_mode_refuses_the_others_and_keeps_its_rows(ledger, make_update):
    ledger.sync.append([make_update(1)])
    for mode in (TradingMode.LIVE, TradingMode.PAPER):
        with pytest.raises(TradingModeError, match="SIMULATED"):
            ledger.sync.append([make_update(2, trading_mode=mode)])
    with pytest.raises(TradingModeError):
        ledger.sync.append([make_update(3), make_update(4, trading_mode=TradingMode.LIVE)])
    assert ledger.sync.count() == 1


async def test_an_update_of_an_account_has_its_trading_mode_and_one_without_has_none(home):
    table = position_updates.PositionUpdatesTable(f"{home}/position_updates")
    now = datetime.now(UTC)
    plain = PositionUpdate(1, "SPY", None, 1.0, 2.0, 200.0, 150.0, 50.0, now)
    await table.append([plain, replace(plain, conid=2, account="DU123")])
    rows = {u.conid: u.trading_mode for u in await table.latest_updates()}
    assert rows == {1: None, 2: "PAPER"}
    with pytest.raises(TradingModeError):
        await table.append([replace(plain, conid=3, account="U123")])


DBL_MAX = 1.7976931348623157e308
LOCAL = datetime(2026, 1, 2, 15, 0, 1)  # noqa: DTZ001 - a time without a zone
EXPIRY = date(2026, 2, 20)
MIDNIGHT = datetime(2026, 2, 20, tzinfo=UTC)
# What is given for a field, and what it means.
MEANT = {
    "timestamp": [(LOCAL, LOCAL.astimezone(UTC))],
    "value_time": [(LOCAL, LOCAL.astimezone(UTC))],
    "right": [(text, Right.PUT) for text in ("P", Right.PUT)] + [("call", Right.CALL)],
    "expiry": [(given, EXPIRY) for given in ("20260220", "2026-02-20", 20260220, MIDNIGHT)],
}
MEANT_AS_NONE = [("right", ""), ("right", None), ("expiry", "")]


def test_a_local_time_a_right_as_ib_spells_it_and_an_expiry_as_text_are_read_as_they_are_meant(
    ledger, make_update
):
    cases = [(field, *pair) for field in MEANT for pair in MEANT[field]]  # type: ignore[attr-defined]
    cases += [(field, given, None) for field, given in MEANT_AS_NONE]
    updates = [
        replace(make_update(conid), **{field: given})
        for conid, (field, given, _stored) in enumerate(cases)
    ]
    ledger.sync.append(updates)
    for (field, given, stored), read in zip(cases, ledger.sync.latest_updates(), strict=True):
        assert getattr(read, field) == stored, (field, given)


def test_a_number_that_is_not_finite_is_unknown(ledger, make_update):
    values = [math.nan, math.inf, -math.inf, DBL_MAX, -DBL_MAX, 1.797e308]
    updates = [
        replace(make_update(conid), market_value=value, delta=value)
        for conid, value in enumerate(values)
    ]
    ledger.sync.append(updates)
    read = ledger.sync.latest_updates()
    assert [(row.market_value, row.delta) for row in read] == [(None, None)] * len(values)
    assert {row.market_price for row in read} == {1.5}


REFUSED = {
    "position": (None, math.nan, DBL_MAX, "3"),
    "multiplier": (math.inf,),
    "market_price": ("1.5", True),
    "right": ("X",),
    "expiry": ("20260230",),
    "timestamp": (None, "2026-01-02", date(2026, 1, 2)),
    "conid": ("1", None, 1.5),
    "symbol": (None, 5),
    "source": ("RADIO", None),
    "price_kind": ("GUESS",),
    "market_data_type": ("live",),
}


def test_a_value_that_cannot_be_stored_is_refused_with_the_name_of_its_field(ledger, make_update):
    ledger.sync.append([make_update(2)])
    for field, value in ((name, value) for name in REFUSED for value in REFUSED[name]):
        with pytest.raises(InvalidRequestError, match=f"{field} .*cannot be stored") as caught:
            ledger.sync.append([make_update(3), replace(make_update(), **{field: value})])
        assert repr(value) in str(caught.value)
        assert caught.value.remedy
    assert [u.conid for u in ledger.sync.latest_updates()] == [2], "all or nothing"


def test_an_update_that_needs_no_change_is_returned_as_it_is(make_update):
    update = make_update()
    assert position_updates.coerce_update(update) is update
