"""Statements of the broker: days that they fill, trades, cash, and what is refused."""

from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import IO, Any

import dagster as dg
import polars as pl
import pytest

from position_sync_dagster.defs.assets import past_days
from position_sync_dagster.domain.position_update import TradingMode
from position_sync_dagster.errors import TradingModeError
from position_sync_dagster.lake.breaks import ReconciliationBreaks
from position_sync_dagster.lake.schema import DAILY_POSITIONS
from position_sync_dagster.money.defs.statements import imported
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past import statement_folder
from position_sync_dagster.money.past.closes import Statement
from position_sync_dagster.money.past.explain_closes import CloseExplainer
from position_sync_dagster.money.past.flex import read_statements
from position_sync_dagster.money.past.flex_fields import StatementError
from position_sync_dagster.money.past.statement_days import StatementDays
from position_sync_dagster.money.past.statement_folder import (
    INDEX_FILE,
    ServedAccounts,
    StatementFolder,
    import_statements,
)
from position_sync_dagster.settings import load_settings
from position_sync_dagster.sync.past_days import ClosingService
from tests.integration.defs.assets.test_daily_positions import (
    DAILY,
    days_between,
    partition_range,
    utc,
)
from tests.support.flex_files import element, of_day, position, statement, trade
from tests.unit.money.past.test_causes import CALL, change

THURSDAY = "2026-03-05"


@pytest.fixture
def fill_in_run(folder: Path, world) -> Callable[..., dg.ExecuteInProcessResult]:
    def run(first: str = THURSDAY, last: str | None = None) -> dg.ExecuteInProcessResult:
        return world.materialize(DAILY, tags=partition_range(first, last or first))

    return run


@pytest.fixture
def fill(folder: Path, world) -> Callable[..., None]:
    """Fill days as a run does; a run of Dagster takes four times as long."""

    def write(first: str = THURSDAY, last: str | None = None) -> None:
        service = partial(StatementDays, world.lake, load_settings())
        past_days.fill(world.lake, service, days_between(first, last or first))

    return write


@pytest.fixture
def rows(world) -> Callable[[], pl.DataFrame]:
    return lambda: world.read(DAILY_POSITIONS).sort("session_date", "conid")


def killed(*_args, **_more) -> None:
    raise RuntimeError("killed")


def test_a_day_without_own_rows_is_filled_from_the_statement(fill_in_run, folder, rows, world):
    option = position(2, assetCategory="FSFOP", position="-3")
    bond = position(4, assetCategory="BOND")
    (folder / "a.xml").write_bytes(statement(position(1), option, bond))
    result = fill_in_run()
    assert result.success

    read_rows = rows()
    assert read_rows["position"].to_list() == [1.0, -3.0]
    assert read_rows["sec_type"].to_list() == ["OPT", "FOP"]
    assert set(read_rows["source"]) == {"FLEX"}
    assert set(read_rows["trading_mode"]) == {"SIMULATED"}
    assert read_rows["market_value"].to_list() == [150.0, 150.0]
    assert read_rows["timestamp"].to_list() == [utc("2026-03-05T21:00:00")] * 2
    event = world.event(result, "daily_positions")
    assert event.metadata["from_statement"].value == 2
    assert event.metadata["statements"].value == "a.xml"


def test_a_run_does_not_put_older_rows_of_a_day_over_those_of_another_run(
    fill, folder, rows, monkeypatch
):
    (folder / "a.xml").write_bytes(statement(position(1)))
    record = ClosingService.record_differences

    def after_another_run(*args, **more):
        monkeypatch.setattr(ClosingService, "record_differences", record)
        (folder / "b.xml").write_bytes(statement(position(2), generated="20260307;010000"))
        fill()
        return record(*args, **more)

    monkeypatch.setattr(ClosingService, "record_differences", after_another_run)
    fill()
    assert rows()["conid"].to_list() == [2]


def test_own_rows_of_the_day_stay_and_what_differs_is_a_break(world, fill, folder, rows, lake):
    world.row(1, utc("2026-03-05T20:00:00"), more=range(2, 5))
    others = position(2, position="2"), position(3), position(5)
    (folder / "a.xml").write_bytes(statement(position(1), *others))
    fill()
    assert rows()["source"].to_list() == [*["STREAM"] * 4, "FLEX"]
    assert rows()["market_value"].to_list() == [150.0] * 5

    open_breaks = lake.breaks.open_breaks()
    assert {(open_break.type.value, open_break.gateway_id) for open_break in open_breaks} == {
        ("STATEMENT", "statement:2026-03-05")
    }
    sides = {
        difference.conid: (difference.expected, difference.actual) for difference in open_breaks
    }
    assert sides == {2: (2.0, 1.0), 4: (None, 1.0), 5: (1.0, None)}
    (folder / "a.xml").write_bytes(statement(*map(position, range(1, 5))))
    fill()
    assert lake.breaks.open_breaks() == []


def test_a_day_whose_differences_could_not_be_recorded_stays_missing(
    world, fill, folder, rows, lake, monkeypatch
):
    world.row(1, utc("2026-03-05T20:00:00"))
    (folder / "a.xml").write_bytes(statement(position(1, position="2")))
    with monkeypatch.context() as broken:
        broken.setattr(ReconciliationBreaks, "record", killed)
        with pytest.raises(RuntimeError, match="killed"):
            fill()
    assert rows().is_empty()
    fill()
    assert rows().height == 1
    assert len(lake.breaks.open_breaks()) == 1


def test_what_was_traded_or_booked_after_the_close_is_no_difference(
    world, fill, folder, rows, lake
):
    """A statement has the quantities of the end of its day: without the option that expired."""
    for conid, held in ((1, -1.0), (2, 1.0), (3, 1.0), (4, 100.0)):
        world.row(conid, utc("2026-03-05T20:59:00"), position=held)
    booked = {"transactionType": "BookTrade", "dateTime": "20260305;162000", "tradePrice": "0"}
    trades = (
        trade("", tradeID="71", quantity="1", notes="A", **booked),
        trade("", tradeID="72", conid="5", quantity="-100", **booked),
        trade("e3", conid="2", quantity="2", dateTime="20260305;173000"),
        trade("e4", conid="2", quantity="4", dateTime="20260305;190000"),
        trade("e5", conid="3", quantity="1", dateTime="20260305;150000"),
    )
    held = {5: "-100", 2: "3", 3: "2", 4: "400"}
    stated = [position(conid, position=quantity) for conid, quantity in held.items()]  # type: ignore[attr-defined]
    split = dict(type="FS", conid="4", dateTime="20260305;202500", quantity="300")
    more = element("CorporateAction", split)
    for name in ("a", "b"):  # two statements that cover the day
        (folder / f"{name}.xml").write_bytes(statement(*stated, trades=trades, more=more))
    fill()

    own = [(1, -1.0), (2, 1.0), (3, 1.0), (4, 100.0)]
    assert rows().select("conid", "position").rows() == own
    (open_break,) = lake.breaks.open_breaks()
    assert open_break.conid == 3, "traded before the close"
    assert open_break.expected == 2.0, "traded before the close"
    assert open_break.actual == 1.0, "traded before the close"


def test_a_row_of_another_day_gives_way_to_the_statement(world, fill, folder, rows, lake):
    world.row(1, utc("2026-03-04T20:00:00"), market_value=1.0)
    world.row(9, utc("2026-03-04T20:00:00"))
    (folder / "a.xml").write_bytes(statement(position(1)))
    fill()
    assert rows().select("conid", "source", "market_value").rows() == [(1, "FLEX", 150.0)]
    assert lake.breaks.open_breaks() == []


def test_of_two_statements_for_a_day_the_later_one_counts(fill, folder, rows):
    late = "20260307;010000"
    early = "20260306;010000"
    (folder / "a.xml").write_bytes(statement(position(1, positionValue="7"), generated=late))
    (folder / "b.xml").write_bytes(statement(position(1), position(2), generated=early))
    fill()
    assert rows().select("conid", "market_value").rows() == [(1, 7.0)]


def test_a_day_between_statements_stays_missing(fill_in_run, folder, instance):
    (folder / "a.xml").write_bytes(of_day(date(2026, 3, 5)))
    (folder / "b.xml").write_bytes(of_day(date(2026, 3, 9)))
    assert fill_in_run("2026-03-04", "2026-03-09").success
    days = instance.get_materialized_partitions(dg.AssetKey("daily_positions"))
    assert days == {"2026-03-05", "2026-03-09"}


def test_rows_of_accounts_that_are_not_served_are_left_out_until_they_are(world, folder, lake):
    """A query of several accounts, of which one is in this lake; the other comes to it later."""
    other = {"accountId": "DUSIM0009"}
    for name in ("a", "b"):
        trades = (trade(f"{name}1"), trade(f"{name}2", **other))
        (folder / f"{name}.xml").write_bytes(statement(position(2, **other), trades=trades))
    world.row(1, utc("2026-03-05T20:00:00"))

    result = world.materialize(imported)
    assert set(lake.executions.rows()["execution_id"]) == {"a1", "b1"}
    (check,) = result.get_asset_check_evaluations()
    assert check.passed

    lake.position_changes.add([change(CALL, 2, 0, account="DUSIM0009")])
    import_statements(lake, load_settings())
    assert set(lake.executions.rows()["execution_id"]) == {"a1", "a2", "b1", "b2"}


def test_a_file_that_names_an_account_by_its_alias_says_what_to_choose(world, fill, folder):
    world.row(1, utc("2026-03-06T20:00:00"))
    alias = {"accountId": "Iron condors"}
    (folder / "a.xml").write_bytes(statement(position(**alias), account="Iron condors"))
    read = StatementFolder(folder, ServedAccounts(world.lake, world.settings)).read()
    (error,) = read.unreadable
    of_alias = "a.xml is a statement of the account Iron condors, and the tables hold DUSIM0001."
    assert error.what == of_alias
    assert "choose in the Flex query not to display it in place of the account id" in error.remedy


def test_a_backfill_parses_a_file_of_many_days_once(fill, folder, rows, parsed):
    days = [date(2026, 3, day) for day in (2, 3, 4, 5, 6)]
    positions = [position(number, day=f"{day:%Y%m%d}") for day in days for number in (1, 2)]
    (folder / "a.xml").write_bytes(statement(*positions, first="20260302", last="20260306"))
    fill("2026-03-02", "2026-03-06")
    assert rows().height == 10
    assert parsed.count("a.xml") <= 3, "for the days that Dagster offers, the index, and the rows"


def test_a_broken_file_fails_the_days_that_it_may_be_the_source_of(
    world, fill, fill_in_run, folder, rows
):
    (folder / "broken.xml").write_bytes(of_day(date(2026, 3, 6))[:200])
    world.row(1, utc("2026-03-05T20:00:00"))
    fill()  # its own rows are enough
    message = world.failure(fill_in_run("2026-02-05", "2026-03-05"), "daily_positions")
    assert "broken.xml is not complete XML" in message
    assert rows().height == 1


def test_an_import_reads_each_file_once_a_changed_one_again_and_stores_a_trade_once(
    world, folder, lake, parsed
):
    def added() -> list[int]:
        events = world.materialize(imported).asset_materializations_for_node("statements")
        return [event.metadata["added"].value for event in events if "added" in event.metadata]

    (folder / "a.xml").write_bytes(statement(trades=(trade("e1"), trade("e2"))))
    (folder / "b.xml").write_bytes(statement(trades=(trade("e2"), trade("e3"))))
    assert added() == [3, 2]
    version = lake.executions.table.version()
    assert added() == [0, 0]
    assert lake.executions.table.version() == version
    assert parsed == ["a.xml", "b.xml"]

    (folder / "b.xml").write_bytes(statement(trades=(trade("e3"), trade("e4"))))
    assert added() == [1, 0]
    assert parsed == ["a.xml", "b.xml", "b.xml"]
    rows = lake.executions.rows()
    assert set(rows["execution_id"]) == {"e1", "e2", "e3", "e4"}
    assert set(rows["source"]) == {"FLEX"}


@pytest.mark.parametrize("invented", [False, True])
def test_a_close_of_a_gap_is_explained_by_what_the_newest_statement_names(
    world, folder, lake, invented
):
    """What it names as the older one did is stored once; what it does not name is taken back."""
    wrong = ()
    if invented:
        wrong = (trade("e2", buySell="BUY", quantity="3"),)

    (folder / "a.xml").write_bytes(statement(trades=(trade("e1"), *wrong)))
    (folder / "b.xml").write_bytes(statement(trades=(trade("e1"),), generated="20260307;010000"))
    import_statements(lake, load_settings())
    since = utc("2026-03-04T21:00:00")
    seen_at = utc("2026-03-10T15:00:00")
    closed = change(CALL, 2, 0, seen_at, since=since, account="DUSIM0001")
    explainer = CloseExplainer(lake, clock=lambda: utc("2026-03-10T16:00:00"))
    lake.position_changes.add([closed])
    explainer.explain()
    (closure,) = lake.closures.current()
    assert closure.cause == "TRADED"
    assert closure.quantity == 2.0
    assert closure.executions == "e1"


@pytest.mark.parametrize("asset", ["statement_events", "movements"])
def test_a_day_is_covered_only_with_the_trades_of_its_statement(world, folder, lake, asset):
    """A person may launch one of the assets of the import."""
    (folder / "a.xml").write_bytes(statement(trades=(trade("e1"),)))
    result = world.materialize(imported, selection=asset)
    assert result.success
    [event] = result.asset_materializations_for_node("statements")
    assert event.metadata["dagster/row_count"].value == getattr(lake, asset).table.count()
    at = utc("2026-03-05T20:30:05")
    closed = change(CALL, 2, 0, at, account="DUSIM0001")
    explainer = CloseExplainer(lake, clock=lambda: utc("2026-03-06T12:00:00"))
    lake.position_changes.add([closed])
    explainer.explain()
    assert [closure.cause for closure in lake.closures.current()] == ["TRADED"]
    import_statements(lake, load_settings())
    assert lake.executions.table.count() == 1


@pytest.fixture
def parsed(monkeypatch) -> list[str]:
    """The names of the files that were parsed."""
    names: list[str] = []

    def noted(data: IO[bytes], name: str, **how: Any) -> list[Statement]:
        names.append(name)
        return read_statements(data, name, **how)

    monkeypatch.setattr(statement_folder, "read_statements", noted)
    return names


def test_another_lake_and_one_that_was_made_anew_get_the_rows_of_known_files(
    folder, settings, tmp_path, parsed
):
    (folder / "a.xml").write_bytes(statement(trades=(trade("e1"),)))
    for number in range(2):
        for expected in (1, 0):
            lake = MoneyLake(tmp_path / f"lake-{number}")
            assert import_statements(lake, settings).executions == expected
    rmtree(lake.executions.table.path)
    lake = MoneyLake(tmp_path / "lake-1")
    assert import_statements(lake, settings).executions == 1
    assert parsed == ["a.xml"] * 3


def of_account(account: str) -> bytes:
    trades = (trade(f"of {account}", accountId=account),)
    return statement(trades=trades, account=account)


def test_an_import_binds_an_empty_lake_to_the_trading_mode_of_its_accounts(folder, settings, lake):
    """Afterwards a gateway of another mode is refused, and so are its statements."""
    (folder / "a.xml").write_bytes(of_account("U1234567"))
    assert import_statements(lake, settings).executions == 1
    assert lake.sessions.mode() is TradingMode.LIVE

    (folder / "b.xml").write_bytes(of_account("DU1234567"))
    done = import_statements(lake, settings)
    assert done.executions == 0
    [error] = done.unreadable
    assert error.what.endswith("of the account DU1234567, and the trading mode is LIVE.")


def test_accounts_of_two_trading_modes_are_not_imported_into_one_lake(folder, settings, lake):
    for account in ("U1234567", "DU1234567"):
        (folder / f"{account}.xml").write_bytes(of_account(account))
    with pytest.raises(TradingModeError, match=r"holds LIVE data and was given PAPER"):
        import_statements(lake, settings)
    assert lake.movements.rows().is_empty()


def test_in_a_folder_that_cannot_be_written_all_is_read_without_an_index(folder, parsed):
    (folder / "a.xml").write_bytes(of_day(date(2026, 3, 5)))
    (folder / INDEX_FILE).mkdir()
    for _ in range(2):
        [found] = StatementFolder(folder).read().found
        assert found.first == date(2026, 3, 5)
    assert parsed == ["a.xml"] * 2


SPOILT = position(1, position="2,5")


def test_a_day_with_a_position_that_cannot_be_read_is_never_flat(
    fill, folder, lake, settings, world
):
    (folder / "a.xml").write_bytes(statement(SPOILT))

    def flat_days():
        return StatementDays(lake, settings).flat_days([date(2026, 3, 5)])

    assert flat_days() == set()
    with pytest.raises(
        StatementError, match=r"a\.xml: OpenPosition \(conid '1'.*which is no number"
    ):
        fill()
    (folder / "a.xml").write_bytes(statement())
    assert flat_days() == {date(2026, 3, 5)}


def test_for_no_days_no_statement_is_read(folder, lake, settings):
    (folder / "a.xml").write_bytes(statement())
    days = StatementDays(lake, settings)
    assert days.flat_days([]) == set()
    (folder / "a.xml").unlink()
    assert days.stated_days() == set()


def test_an_incomplete_statement_adds_what_it_has_and_contradicts_nothing(
    world, fill_in_run, folder, rows, lake
):
    world.row(1, utc("2026-03-05T20:00:00"), more=[3])
    (folder / "a.xml").write_bytes(statement(SPOILT, position(2)))
    result = fill_in_run()
    assert rows().select("conid", "source").rows() == [(1, "STREAM"), (2, "FLEX"), (3, "STREAM")]
    assert lake.breaks.open_breaks() == []
    event = world.event(result, "daily_positions")
    assert event.metadata["rows_left_out"].value == 1
