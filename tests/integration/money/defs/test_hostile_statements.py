"""Files in the folder of statements that are none: each is an error of its own, and of no other."""

import os
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from position_sync_dagster.defs.assets.past_days import exchange_since
from position_sync_dagster.money.defs.statements import imported
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past import statement_folder
from position_sync_dagster.money.past.flex_fields import StatementError
from position_sync_dagster.money.past.flex_service import LARGEST_STATEMENT, FlexService
from position_sync_dagster.money.past.statement_days import StatementDays
from position_sync_dagster.money.past.statement_folder import (
    INDEX_FILE,
    ServedAccounts,
    StatementFolder,
    download,
    flex_queries,
)
from position_sync_dagster.settings import load_settings
from tests.support.flex_files import element, position, refused, statement, trade

GOOD = statement(position(), trades=(trade("good"),))
LONG = "9" * 5000
KEPT = "kept-to-itself"
MINUTE_S = 60.0


def declared(encoding: str) -> bytes:
    return f'<?xml version="1.0" encoding="{encoding}"?>'.encode() + GOOD


def doctype(declarations: str, body: str = "") -> bytes:
    return f"<!DOCTYPE a [{declarations}]>".encode() + statement(more=body)


BOMB = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(12))
TOMORROW_BUT_ONE = f"{datetime.now(UTC) + timedelta(days=2):%Y%m%d}"

CONTENTS: dict[str, bytes] = {
    "empty": b"",
    "page": b"<html><body>Please log in</body></html>",
    "answer": refused("1019", "Statement generation in progress."),
    "cut off": GOOD[:-30],
    "a NUL inside": GOOD.replace(b"SPY", b"S\0Y"),
    "bytes that are no UTF-8": GOOD.replace(b"SPY", b"S\xffY"),
    "unknown encoding": declared("klingon"),
    "another encoding than it says": declared("utf-16"),
    "entities that grow": doctype('<!ENTITY e0 "x">' + BOMB, "&e12;"),
    "an entity of a file": doctype('<!ENTITY e SYSTEM "file:///etc/passwd">', "&e;"),
    "nested deeply": statement(more="<a>" * 200_000),
    "made at no time": statement(position(), generated=";;;"),
    "a day as others write it": statement(position(), first="05/03/2026"),
    "after tomorrow": statement(position(), last=TOMORROW_BUT_ONE),
    "a foreign account": statement(position(accountId="U7654321"), account="U7654321"),
}

ROWS: dict[str, bytes] = {
    "a conid of 5,000 digits": statement(position().replace('conid="1"', f'conid="{LONG}"')),
    "a conid of other digits": statement(position().replace('conid="1"', 'conid="\u0661"')),
    "a cash row of the year 1": statement(
        more=element("EquitySummaryByReportDateInBase", {"reportDate": "00010101", "total": "1"})
    ),
}


def too_large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(LARGEST_STATEMENT + 1)


THINGS: dict[str, Callable[[Path], None]] = {
    "a pipe": os.mkfifo,
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a file that cannot be read": lambda path: path.symlink_to("/proc/self/mem"),
    "a file of half a gigabyte": too_large,
}


@pytest.fixture
def folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POSITION_SYNC_TRADING_MODE", "SIMULATED")
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    (folder / "good.xml").write_bytes(GOOD)
    return folder


OTHER_FORMATS = {
    "a page": b"\n<!DOCTYPE html><html><body>Log in",
    "CSV": b'"ClientAccountID","Symbol"\n"DUSIM0001","SPY"\n',
    "CSV with a mark": b"\xef\xbb\xbfAccount;Symbol\n",
    "an archive": b"PK\x03\x04 a.xml",
}


@pytest.mark.parametrize("name", OTHER_FORMATS)
def test_a_file_of_another_format_is_named_with_the_format_to_choose(folder, name):
    (folder / "bad.xml").write_bytes(OTHER_FORMATS[name])
    (error,) = StatementFolder(folder).read().unreadable
    assert error.what.startswith("bad.xml is not complete XML")
    assert "format XML" in error.remedy


def test_a_file_with_the_ending_of_another_format_is_named(folder):
    (folder / "march.CSV").write_bytes(b"a,b\n")
    (folder / "notes.md").write_text("kept beside the statements")
    read = StatementFolder(folder).read()
    (error,) = read.unreadable
    assert error.what == "march.CSV is no XML file, and is not read."
    assert "format XML" in error.remedy
    assert len(read.found) == 1


def test_a_pipe_in_the_place_of_the_index_is_no_index(folder):
    os.mkfifo(folder / INDEX_FILE)
    for _ in range(2):
        assert [statement.file for statement in StatementFolder(folder).read().found] == [
            "good.xml"
        ]


def check_bad_is_named_and_good_is_read(folder: Path) -> None:
    settings = load_settings(flex_folder=folder, lake=str(folder / "absent"))
    accounts = ServedAccounts(MoneyLake(settings.lake), settings)
    read = StatementFolder(folder, accounts).read()
    assert [statement.file for statement in read.found] == ["good.xml"]
    (error,) = read.unreadable
    assert error.what.startswith("bad.xml")
    assert error.remedy
    assert len(str(error)) < 500
    assert exchange_since(settings, StatementDays)[1] == date(2026, 3, 5), (
        "Dagster loads from the good one's day"
    )


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_a_file_with_such_a_content_is_an_error_of_its_own(folder, content):
    (folder / "bad.xml").write_bytes(content)
    check_bad_is_named_and_good_is_read(folder)


@pytest.mark.parametrize("content", ROWS.values(), ids=ROWS)
def test_a_row_with_such_a_content_is_an_error_of_its_own(folder, content):
    (folder / "bad.xml").write_bytes(content)
    for _ in range(2):  # parsed, and from the index of the folder
        read = StatementFolder(folder).read()
        assert {statement.file for statement in read.found} == {"good.xml", "bad.xml"}
        (error,) = read.unreadable
        assert error.what.startswith("bad.xml: ")
        assert error.remedy
        assert len(str(error)) < 500


@pytest.mark.parametrize("make", THINGS.values(), ids=THINGS)
def test_what_is_no_file_is_an_error_of_its_own(folder, make):
    make(folder / "bad.xml")
    check_bad_is_named_and_good_is_read(folder)


def test_a_name_that_is_no_text_is_an_error_of_its_file(folder):
    os.rename(folder / "good.xml", os.fsencode(folder) + b"/\xff.xml")
    read = StatementFolder(folder).read()
    assert read.found == ()
    assert str(read.unreadable[0]).startswith("\\udcff.xml has a name with unprintable characters")


def test_a_folder_that_is_none_is_named(folder, monkeypatch):
    statement_folder = StatementFolder(folder / "good.xml")
    assert "cannot be read" in str(statement_folder.read().unreadable[0])
    assert statement_folder.read().found == ()
    monkeypatch.setattr(FlexService, "download", lambda *_: GOOD)
    settings = load_settings(flex_folder=folder / "good.xml", flex_token=KEPT, flex_query_id="7")
    (query,), _mistakes = flex_queries(settings)
    served = ServedAccounts(MoneyLake(settings.lake), settings)
    with pytest.raises(StatementError, match=r"query 7: the folder .* cannot be written"):
        download(query, settings, served)


def test_all_others_are_imported_and_the_check_names_the_bad_ones(world, folder, lake):
    bad = {name: CONTENTS[name] for name in ("empty", "cut off", "a foreign account")} | ROWS
    for name, content in bad.items():
        (folder / f"bad-{name}.xml").write_bytes(content)
    os.mkfifo(folder / "pipe.xml")
    result = world.materialize(imported)
    assert result.success
    assert lake.executions.rows()["execution_id"].to_list() == ["good"]

    (check,) = result.get_asset_check_evaluations()
    assert check.check_name == "files_are_readable"
    assert check.passed is False
    assert check.metadata["left_out"].value == len(bad) + 1
    assert check.severity is dg.AssetCheckSeverity.WARN
    for path in folder.glob("[bp]*.xml"):
        path.unlink()
    (check,) = world.materialize(imported).get_asset_check_evaluations()
    assert check.passed


def test_a_download_that_fails_is_tried_again_keeps_no_file_back_and_the_check_names_it(
    world, folder, lake, monkeypatch
):
    world.set(flex_token=KEPT, flex_query_id="123456")
    service = FlexService(url="http://127.0.0.1:1/flex", patience_s=0.001)
    monkeypatch.setattr(statement_folder, "FlexService", lambda: service)
    waits: list[float] = []
    now = time.time
    sleep = time.sleep
    monkeypatch.setattr(time, "time", lambda: now() + sum(waits))
    monkeypatch.setattr(time, "sleep", lambda s: waits.append(s) if s > MINUTE_S else sleep(s))

    result = world.materialize(imported)
    assert result.success
    assert waits == pytest.approx([600] * 3, abs=MINUTE_S)
    retries = [e for e in result.all_events if e.event_type_value == "STEP_UP_FOR_RETRY"]
    assert len(retries) == 3
    for retry in retries:
        assert "gave no answer" in retry.event_specific_data.error.cause.message
    assert lake.executions.rows()["execution_id"].to_list() == ["good"]

    (check,) = result.get_asset_check_evaluations()
    assert check.passed is False
    assert check.metadata["left_out"].value == 1
    assert "query 123456: the Flex service at 127.0.0.1 gave no answer" in check.description
    event, *_ = result.asset_materializations_for_node("statements")
    assert event.asset_key.to_user_string() == "flex_statements"
    assert "downloaded" not in event.metadata
