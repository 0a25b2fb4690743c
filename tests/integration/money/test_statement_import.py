"""What imports of statements leave in the tables: each statement once, and none lost."""

from datetime import date, timedelta
from typing import Any

import polars as pl
import pytest

from position_sync_dagster.errors import CommitContentionError
from position_sync_dagster.lake import derived
from position_sync_dagster.lake.derived import derive_from_ledger
from position_sync_dagster.lake.schema import LATEST_POSITIONS
from position_sync_dagster.money.past import movement_book
from position_sync_dagster.money.past.statement_folder import forget_files, import_statements
from tests.support.booked_days import FRIDAY, MONDAY, STOCK, Booked, paid, traded
from tests.support.derived_rows import put_rows
from tests.support.flex_files import ACCOUNT


def day_of(number: int) -> date:
    return FRIDAY + timedelta(days=number)


def of_day(number: int) -> Booked:
    return Booked(trades=[traded(STOCK, 1 + number, 220, day_of(number))])


def interrupted(monkeypatch, times: int, act) -> None:
    """Make each of the next derivations act after its look at the sources, before its commit."""
    counting = movement_book.counting_movements
    left = iter(range(times))

    def with_another_commit(*looked_at):
        rows = counting(*looked_at)
        number = next(left, None)
        if number is not None:
            act(number)
        return rows

    monkeypatch.setattr(movement_book, "counting_movements", with_another_commit)


def test_an_import_that_others_overtake_again_and_again_loses_nothing(books, lake, monkeypatch):
    """Each derivation of the first import is overtaken by one that another import commits."""

    def import_another(number: int) -> None:
        with monkeypatch.context() as alone:
            alone.setattr(movement_book, "counting_movements", counting)
            books.state(day_of(number + 1), of_day(number + 1))

    counting = movement_book.counting_movements
    interrupted(monkeypatch, 4, import_another)
    books.state(FRIDAY, of_day(0))
    assert sorted(lake.movements.rows()["quantity"]) == [1, 2, 3, 4, 5]


def test_an_import_that_is_always_overtaken_fails_and_the_next_one_stores_it(
    books, lake, monkeypatch
):
    counting = movement_book.counting_movements

    def touch(number: int) -> None:
        table = lake.movements.table
        changed = table.rows().with_columns(description=pl.lit(str(number)))
        put_rows(table, changed)

    books.state(day_of(1), of_day(1))
    interrupted(monkeypatch, derived.ATTEMPTS, touch)
    with pytest.raises(CommitContentionError, match=r"movements, .* each of 10 times"):
        books.state(FRIDAY, of_day(0))
    assert sorted(lake.movements.rows()["quantity"]) == [2]

    monkeypatch.setattr(movement_book, "counting_movements", counting)
    import_statements(lake, books.settings)
    assert sorted(lake.movements.rows()["quantity"]) == [1, 2]


def test_a_table_made_of_others_keeps_what_another_process_committed_meanwhile(lake):
    table = lake.derived_table(LATEST_POSITIONS)
    newer = LATEST_POSITIONS.empty.with_columns()
    versions: list[Any] = []

    def overtaken():
        row = pl.DataFrame({"account": [f"U{len(versions)}"]})
        newer_rows = pl.concat([newer, row], how="diagonal")
        versions.append(put_rows(table, newer_rows).version)
        return newer

    _made, replaced = derive_from_ledger(table, overtaken)
    assert replaced.changed is False
    assert replaced.version == versions[-1]
    assert table.rows()["account"].to_list() == ["U1"]


def test_a_table_that_others_keep_changing_is_not_waited_for_twice(lake, monkeypatch):
    table = lake.derived_table(LATEST_POSITIONS)
    put_rows(table, LATEST_POSITIONS.empty)
    looks = []

    def look():
        looks.append("looked")
        return LATEST_POSITIONS.empty

    def refuse(*_args, **_options):
        raise CommitContentionError("Others commit first.", remedy="Wait.")

    monkeypatch.setattr(derived, "_replace", refuse)
    _made, replaced = derive_from_ledger(table, look)
    assert replaced.changed is False
    assert looks == ["looked"]


def test_movements_that_were_lost_come_back_when_the_folder_is_read_again(books, lake):
    books.state(FRIDAY, of_day(0))
    whole = lake.movements.rows()
    put_rows(lake.movements.table, whole.clear())
    import_statements(lake, books.settings)
    assert lake.movements.rows().is_empty()

    forget_files(books.settings)
    import_statements(lake, books.settings)
    assert lake.movements.rows().equals(whole)


def in_one_file(*texts: str) -> str:
    """Return one result of a query with the statements of several."""
    begin = "<FlexStatement "
    end = "</FlexStatement>"
    statements = []
    for text in texts:
        inner = text.split(begin, 1)[1].split(end)[0]
        statements.append(begin + inner + end)
    head = texts[0].split(begin)[0]
    tail = texts[0].split(end)[1]
    return head + "".join(statements) + tail


SATURDAY = "20260307;010000"
SAME = of_day(0).xml(FRIDAY, FRIDAY, SATURDAY, ACCOUNT)
OF_WEEK = Booked(trades=[traded(STOCK, 1, 220, FRIDAY)], cash=[paid("Other Fees", -4, FRIDAY)])


@pytest.mark.parametrize(
    ("texts", "fees"),
    [
        ((SAME, SAME), []),
        ((SAME, SAME.replace(SATURDAY, "20260307;010001")), []),
        ((SAME, OF_WEEK.xml(date(2026, 3, 2), FRIDAY, SATURDAY, ACCOUNT)), [-4.0]),
        ((SAME, OF_WEEK.xml(date(2026, 3, 2), FRIDAY, "20260307;020000", ACCOUNT)), [-4.0]),
    ],
    ids=["twice", "twice at other times", "its week", "its week later"],
)
@pytest.mark.parametrize("files", [1, 2])
def test_a_statement_is_known_by_account_period_and_time_in_whatever_file(
    books, lake, texts, fees, files
):
    written = texts
    if files == 1:
        written = [in_one_file(*texts)]

    for number, text in enumerate(written):
        (books.folder / f"{number}.xml").write_text(text)
    import_statements(lake, books.settings)
    rows = lake.movements.rows()
    assert rows.filter(kind="TRADE")["quantity"].to_list() == [1.0]
    assert rows.filter(kind="FEE")["cash"].to_list() == fees


def test_a_file_that_is_replaced_by_that_of_another_week_takes_nothing_back(books, lake):
    books.state(FRIDAY, of_day(0), name="latest")
    books.state(MONDAY, of_day(3), name="latest")
    assert lake.movements.rows()["quantity"].to_list() == [1.0, 4.0]


def test_an_import_commits_once_and_without_news_not_at_all(books, lake, monkeypatch):
    for number in range(5):
        day = day_of(number)
        worth = Booked(worth={"cash": 10.0}, trades=of_day(number).trades)
        text = worth.xml(day, day, f"2026032{number};010000", ACCOUNT)
        (books.folder / f"{number}.xml").write_text(text)
    tables = [lake.executions, lake.statement_events, lake.movements]
    import_statements(lake, books.settings)
    versions = [table.table.version() for table in tables]
    assert versions == [1, 1, 1], "each is made first"

    monkeypatch.setattr(movement_book, "counting_movements", None)
    import_statements(lake, books.settings)
    assert [table.table.version() for table in tables] == versions
