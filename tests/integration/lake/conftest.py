"""A clock that the test sets, and the values that the tests of the lake are made of.

The tests of the tables run on a disk; those that are marked `in_store`, and with TESTS=all
all but those that are marked `on_disk`, run in an object store too.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from position_sync_dagster.domain.position_update import PositionUpdate, Source, TradingMode
from position_sync_dagster.lake import ledger_rows
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.position_updates import PositionUpdatesTable, SyncUpdates
from position_sync_dagster.lake.storage.table import Table
from tests.support.clock import HandClock
from tests.support.empty_lakes import put_tables
from tests.support.extent import EVERYTHING
from tests.support.object_store import ObjectStore


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def make_update(clock: HandClock) -> Callable[..., PositionUpdate]:
    def make(conid: int = 1, *, position: float = 1.0, **given: Any) -> PositionUpdate:
        usual = dict(
            symbol="SPY", account="DUSIM1", timestamp=clock.now,
            trading_mode=TradingMode.SIMULATED,
            source=Source.QUEUE if given.get("request_id") else Source.STREAM,
        )  # fmt: skip
        money = {"market_value": 150.0 * position, "unrealized_pnl": 30.0 * position}
        prices = {"right": None, "market_price": 1.5, "average_cost": 120.0}
        return PositionUpdate(conid=conid, position=position, **prices, **money, **usual | given)

    return make


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test that asks for a home the places where it runs."""
    if "home" in metafunc.fixturenames:
        marks = {mark.name for mark in metafunc.definition.iter_markers()}
        stored = "in_store" in marks or (EVERYTHING and "on_disk" not in marks)
        metafunc.parametrize("home", ["disk", "store"] if stored else ["disk"], indirect=True)


@pytest.fixture
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Return where the tables of a test lie: a folder, or a lake in an object store."""
    if request.param == "disk":
        return tmp_path
    store: ObjectStore = request.getfixturevalue("store")
    return store.lake()


@pytest.fixture
def lake(home: Path | str, clock: HandClock) -> Lake:
    put_tables(home)
    return Lake(home, clock=clock)


@pytest.fixture
def open_ledger(home: Path | str, clock: HandClock) -> Callable[..., SyncUpdates]:
    """Return a function that opens the ledger anew, by the right clock or by another one."""
    return lambda by=clock: PositionUpdatesTable(f"{home}/updates", clock=by).sync


def counted(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, measure: Callable[..., int]
) -> list[int]:
    """Return a list that grows by a measure of the arguments of each call."""
    measured = list[int]()
    real = getattr(owner, name)

    def call(*arguments: Any) -> Any:
        measured.append(measure(*arguments))
        return real(*arguments)

    monkeypatch.setattr(owner, name, call)
    return measured


@pytest.fixture
def files_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the number of files each time a table reads some."""
    return counted(monkeypatch, Table, "scan_files", lambda _table, files: files.height)


@pytest.fixture
def rows_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the number of rows each time a table reads files."""
    rows = lambda _table, files: files["num_records"].sum() if files.height else 0  # noqa: E731
    return counted(monkeypatch, Table, "scan_files", rows)


@pytest.fixture
def rows_decided(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the number of rows each time newest rows are looked for."""
    rows = lambda frame: frame.select(pl.len()).collect().item()  # noqa: E731
    return counted(monkeypatch, ledger_rows, "newest_rows", rows)
