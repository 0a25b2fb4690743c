"""A data file that is not as the log says is found; the table, the file and the cure are named."""

from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest

from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.storage import file_checks
from position_sync_dagster.lake.storage.file_checks import ROUND_S, FileChecks, due_footers
from position_sync_dagster.lake.storage.table import Table
from tests.support.object_store import put_stored, stored_under

NOON = 1_800_000_000.0
MINUTE_S = 60.0
DAY_S = 86_400.0

# The length of the footer and the mark of a Parquet file, with which it ends.
END = 8


def without_footer(whole: bytes) -> bytes:
    """Return a file of the same size whose footer is zeros between its start and its end."""
    length = int.from_bytes(whole[-END:-4], "little")
    return whole[: -END - length] + bytes(length) + whole[-END:]


DAMAGES = [
    ("is empty", lambda whole: b""),
    ("is cut", lambda whole: whole[:-20]),
    ("was overwritten", lambda whole: whole + b"\0"),
    ("cannot be read", lambda whole: whole[:END] + bytes(len(whole) - END)),
    ("cannot be read", without_footer),
]


@pytest.fixture
def ledger(lake: Lake, make_update) -> Table:
    """Return a ledger of three files."""
    for conid in (1, 2, 3):
        lake.updates.sync.append([make_update(conid)])
    return lake.updates.table


def first_file(table: Table) -> str:
    return unquote(table.read(lambda files: min(files.get_column("path"))))


@pytest.mark.parametrize(("flaw", "damage"), DAMAGES)
def test_a_ledger_file_that_was_cut_or_written_over_is_named_with_its_cure(ledger, flaw, damage):
    name = first_file(ledger)
    file = Path(ledger.path, name)
    file.write_bytes(damage(file.read_bytes()))

    text = str(ledger.damage())
    assert f"{ledger.path} cannot be read whole: of 3 files, 1 are damaged: {name} {flaw}" in text
    assert "from a copy" in text


def test_a_footer_that_is_damaged_later_is_found_within_half_a_day_and_named_until_it_is_mended(
    ledger,
):
    checks = FileChecks(ledger.path, None)
    name = first_file(ledger)
    file = Path(ledger.path, name)
    whole = file.read_bytes()

    def flawed_at(second: float) -> list[str]:
        return list(ledger.read(lambda files: checks.flaws(files, NOON + second)))

    assert flawed_at(0) == []
    file.write_bytes(without_footer(whole))
    found_at = next(hour for hour in range(1, 13) if flawed_at(hour * 3600.0))

    assert flawed_at(found_at * 3600.0 + MINUTE_S) == [name]
    file.write_bytes(whole)
    assert flawed_at(found_at * 3600.0 + 2 * MINUTE_S) == []


def test_a_store_is_listed_once_and_its_footers_are_read_in_turn(store, make_update, monkeypatch):
    lake = Lake(store.lake())
    for conid in (1, 2):
        lake.updates.sync.append([make_update(conid)])
    table = lake.updates.table
    name = first_file(table)
    assert table.damage() is None

    store.proxy.counts()
    assert table.damage() is None
    assert store.proxy.counts()["LIST"] == 2  # of the log, and of the table

    whole = stored_under(table.path)[f"{table.path}/{name}"]
    put_stored(f"{table.path}/{name}", whole[:-20])
    assert f"{name} is cut" in str(table.damage())

    put_stored(f"{table.path}/{name}", without_footer(whole))
    monkeypatch.setattr(file_checks, "ROUND_S", 1e-3)
    assert f"{name} cannot be read" in str(table.damage())


def test_each_footer_is_due_once_in_a_round_and_few_at_a_time():
    paths = [f"date=2027-01-01/part-{number}.parquet" for number in range(5_000)]
    looks = [NOON + MINUTE_S * minute for minute in range(int(ROUND_S / MINUTE_S) + 1)]
    due = [due_footers(paths, since, now) for since, now in pairwise(looks)]
    assert sorted(path for look in due for path in look) == sorted(paths)
    assert max(map(len, due)) < 30


def test_a_program_that_is_off_each_night_reads_each_footer_within_a_day():
    paths = [f"part-{number}.parquet" for number in range(500)]
    night_s = ROUND_S - MINUTE_S
    assert due_footers(paths, NOON + night_s, NOON + DAY_S) == set(paths)
