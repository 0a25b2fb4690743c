"""How many rows of the ledger and of `broker_positions` a change reads and writes: not the book."""

from dataclasses import replace
from datetime import timedelta

import pytest

from position_sync_dagster.domain.holding import (
    AccountConfirmation,
    BrokerPosition,
    Completeness,
)
from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.lake.storage.table import Table
from tests.support.torn_queues import written

LOGIN, ACCOUNT = "127.0.0.1:7497", "DUSIM1"
BATCH = 50
BOOKS = (200, 4_000)


@pytest.fixture
def read(monkeypatch) -> list[int]:
    """Return a list that grows by the number of rows each time one of the tables reads some."""
    rows: list[int] = []
    scan_files = Table.scan_files

    def counted(self, files):
        rows.append(0 if files.is_empty() else files["num_records"].sum())
        return scan_files(self, files)

    monkeypatch.setattr(Table, "scan_files", counted)
    return rows


@pytest.mark.on_disk  # it reads the log's files
@pytest.mark.parametrize("book", BOOKS)
def test_a_batch_appends_its_rows_and_reads_those_of_the_batch_before(
    lake, make_update, clock, read, book
):
    ledger, since = lake.updates.sync, clock.now - timedelta(hours=1)
    conids = range(1, book + 1)
    ledger.append([make_update(conid, request_id=f"first-{conid}") for conid in conids])
    ledger.newest_of(conids, since)
    ledger.latest()
    for batch in range(3):
        clock.advance(1)
        chosen = conids[batch * BATCH : (batch + 1) * BATCH]
        read.clear()
        newest = ledger.newest_of(chosen, since)
        assert len(newest.rows) == BATCH
        rows = [make_update(conid, request_id=f"{batch}-{conid}") for conid in chosen]
        ledger.append(rows, through=newest.through)
        assert sum(read) <= BATCH
        assert written(ledger.table) == BATCH
        read.clear()
        assert ledger.latest().height == book
        assert sum(read) == BATCH


@pytest.mark.on_disk  # it reads the log's files
@pytest.mark.parametrize("book", BOOKS)
def test_a_fill_adds_one_row_of_its_holding_and_a_reader_reads_that_alone(lake, clock, read, book):
    table = lake.broker_positions
    held = [
        BrokerPosition(
            gateway_id=LOGIN, account=ACCOUNT, position=1.0, received_at=clock.now,
            position_time=clock.now, snapshot_id="s", completeness=Completeness.COMPLETE,
            instrument=Instrument(conid=conid, symbol="SPY", sec_type="OPT", currency="USD"),
        )
        for conid in range(1, book + 1)
    ]  # fmt: skip
    table.replace(LOGIN, held)
    table.rows(LOGIN)
    for conid in (3, 7):
        clock.advance(1)
        read.clear()
        fill = replace(held[conid - 1], position=5.0, received_at=clock.now)
        table.update(LOGIN, [fill], accounts={ACCOUNT: AccountConfirmation(clock.now)})
        assert read == []
        assert written(table.table) == 1
        assert table.read(LOGIN)[conid - 1].position == 5.0
        assert table.rows(LOGIN).height == book
        assert read == [1]
