"""One flow whole inside another one, before any step of it: what two processes may do to a lake.

A step is a read of a table, or a commit that was planned on what was read. The second flow opens
the lake by itself, as another process does.
"""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache, cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import dagster as dg
import polars as pl

from position_sync_dagster.defs.assets import latest_positions, past_days
from position_sync_dagster.domain.execution import Execution
from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.errors import LakeError
from position_sync_dagster.lake.storage import commits, merges
from position_sync_dagster.lake.storage.opening import Upkeep
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.money.defs import explained_days, strategies
from position_sync_dagster.money.lake import MoneyLake, derived_rows
from position_sync_dagster.money.past.explain_closes import CloseExplainer
from position_sync_dagster.money.past.statement_days import StatementDays
from position_sync_dagster.money.past.statement_folder import import_statements
from position_sync_dagster.settings import Settings
from tests.support import object_store
from tests.support.booked_days import FRIDAY, MONDAY, SPY_PUT, STOCK, THURSDAY, Booked, held, traded
from tests.support.empty_lakes import put_tables
from tests.support.flex_files import ACCOUNT
from tests.unit.money.past.test_causes import change

# No writer waits for the one inside which it writes, and few files are merged.
QUICK = Upkeep(lock_wait_s=0.001, compact_from=2)
DAYS = (THURSDAY, FRIDAY, MONDAY)
# A put that is bought on Thursday and sold on Friday.
PUT = int(SPY_PUT["conid"])
BOUGHT_AT = 5.0
SHARES = 100
# When closes are judged.
NOW = datetime(2026, 3, 9, 21, tzinfo=UTC)


@dataclass(frozen=True)
class Scene:
    """A lake and a folder of statements, as each flow opens them."""

    lake_path: str
    folder: Path

    @cached_property
    def settings(self) -> Settings:
        """The settings of every flow."""
        return Settings(
            lake=self.lake_path, flex_folder=self.folder, daily_start=f"{THURSDAY}",
            strategies_file=self.folder / "strategies.yaml",
        )  # fmt: skip

    def opened(self) -> MoneyLake:
        """Return the lake as another process opens it."""
        return MoneyLake(self.lake_path, fsync=False, upkeep=QUICK)

    def state(self, sold_at: float, made: date) -> None:
        """Import statements by which the put was sold at a price, made one night."""
        for day in (THURSDAY, FRIDAY):
            text = self.booked(day, sold_at).xml(day, day, f"{made:%Y%m%d};010000", ACCOUNT)
            (self.folder / f"{day}-{made}.xml").write_text(text)
        import_statements(self.opened(), self.settings)

    def booked(self, day: date, sold_at: float, bought_at: float = BOUGHT_AT) -> Booked:
        """Return what a statement says of Thursday, or of Friday."""
        shares = held(STOCK, SHARES, 220)
        bought = traded(SPY_PUT, 1, bought_at, THURSDAY, ibExecID="bought")
        sold = traded(SPY_PUT, -1, sold_at, FRIDAY, ibExecID="sold")
        is_held = day == THURSDAY
        cash = 50_000 - 100 * BOUGHT_AT + (0 if is_held else 100 * sold_at)
        value = 220 * SHARES + (100 * BOUGHT_AT if is_held else 0)
        return Booked(
            held=[shares, held(SPY_PUT, 1, BOUGHT_AT)] if is_held else [shares],
            trades=[bought] if is_held else [sold],
            worth={"total": cash + value, "cash": cash},
            balances={"USD": cash},
            rates={},
        )


Flow = Callable[[Scene], object]


@cache
def _assets() -> Mapping[str, Any]:
    settings = Settings(daily_start=f"{THURSDAY}")
    partitions = past_days.exchange_partitions(*past_days.exchange_since(settings, StatementDays))
    made = (explained_days.explained_asset(partitions), explained_days.books_asset(partitions))
    return {asset.key.to_user_string(): asset for asset in made}


def _materialize(name: str, scene: Scene, *days: date) -> None:
    """Run the function of an asset over days, without a run of Dagster."""
    asset: dg.AssetsDefinition = _assets()[name]
    context = SimpleNamespace(
        partition_keys=[f"{day}" for day in days],
        run=SimpleNamespace(run_id="run"),
        add_asset_metadata=lambda *_args, **_more: None,
    )
    function: Any = asset.op.compute_fn
    resource = SimpleNamespace(lake_of=lambda _kind: scene.opened(), settings=scene.settings)
    function.decorated_fn(context, resource)


def fill(scene: Scene) -> None:
    """Fill the days."""
    lake = scene.opened()
    service = partial(StatementDays, lake, scene.settings)
    past_days.fill(lake, service, list(DAYS))


def explain(scene: Scene) -> None:
    """Explain the days."""
    _materialize("profit_explained", scene, FRIDAY, MONDAY)


def book(scene: Scene) -> None:
    """Make the books of the days."""
    _materialize("books", scene, FRIDAY, MONDAY)


def tell_campaigns(scene: Scene) -> None:
    """Make the campaigns."""
    explained_days.closed_campaigns.derive(scene.opened(), scene.settings, None)


def record(scene: Scene) -> None:
    """Do what the job close_day does."""
    for flow in (fill, explain, book, tell_campaigns):
        flow(scene)


def state_correction(scene: Scene) -> None:
    """Import a correction: the campaign brought 500."""
    scene.state(10, date(2026, 3, 13))


def correct(scene: Scene) -> None:
    """Import the correction, and record the days anew."""
    state_correction(scene)
    record(scene)


def revert(scene: Scene) -> None:
    """Import what was recorded at first, and record the days anew."""
    scene.state(11, date(2026, 3, 12))
    record(scene)


def report_executions(scene: Scene) -> None:
    """Store an execution that the gateway reports, with what follows from it."""
    at = datetime(2026, 3, 9, 15, tzinfo=UTC)
    told = dict.fromkeys(Execution.__dataclass_fields__) | dict(
        execution_id="api-1", account=ACCOUNT, conid=10, symbol="AAPL", time=at,
        sec_type="STK", side="BUY", quantity=3.0, price=220.0, currency="USD",
        commission=1.0, commission_currency="USD", source="GATEWAY", statement="",
        stated_at=at, attributes="{}", multiplier=1.0,
    )  # fmt: skip
    CloseExplainer(scene.opened(), clock=lambda: NOW).explain([Execution(**told)])


def judge(scene: Scene) -> None:
    """Explain the closes, and infer movements."""
    CloseExplainer(scene.opened(), clock=lambda: NOW).explain()


def follow_market(scene: Scene) -> None:
    """Append a row to the ledger, and derive what follows the market."""
    lake = scene.opened()
    at = datetime(2026, 3, 9, 19, tzinfo=UTC)
    lake.updates.sync.append([PositionUpdate(7, "IBM", None, 1.0, 9.0, 9.0, 8.0, 1.0, at)])
    for table in (latest_positions.latest_positions, strategies.strategy_exposure):
        table.derive(lake, scene.settings, None)


def merge(scene: Scene) -> None:
    """Merge the small files of each table."""
    for table in scene.opened().all_tables:
        if table.exists():
            merges.compact(table, merges.SMALL_BYTES)


def maintain(scene: Scene) -> None:
    """Maintain all tables; what is not needed any more is deleted at once."""
    scene.opened().maintain(clean_now=True)


FLOWS: dict[str, Flow] = {
    "fill": fill, "explain": explain, "books": book, "campaigns": tell_campaigns,
    "import": state_correction, "executions": report_executions, "judge": judge,
    "market": follow_market, "merge": merge, "maintain": maintain, "correct": correct,
    "revert": revert,
}  # fmt: skip


def make_scene(folder: Path) -> Scene:
    """Make a lake with recorded days, statements that are newer than these, and a close.

    The recorded campaign brought 600; by the newer statements it is 550.
    """
    scene = Scene(str(folder / "lake"), folder / "flex")
    scene.folder.mkdir(parents=True)
    put_tables(scene.lake_path)
    scene.state(11, date(2026, 3, 10))
    record(scene)
    scene.state(10.5, date(2026, 3, 11))
    seen_at = datetime(2026, 3, 6, 18, tzinfo=UTC)
    closed = change(PUT, 1, 0, seen_at, account=ACCOUNT, symbol="SPY")
    scene.opened().position_changes.add([closed])
    return scene


def copy_of(scene: Scene, folder: Path, lake_path: str = "") -> Scene:
    """Copy a scene into a folder; its lake to another place, if one is named."""
    copy = Scene(lake_path or str(folder / "lake"), folder / "flex")
    for source, target in ((scene.lake_path, copy.lake_path), (scene.folder, copy.folder)):
        for name, content in _files_in(source):
            if "://" in str(target):
                object_store.put_stored(f"{target}/{name}", content)
            else:
                _put_new(Path(target, name), content)
    return copy


def commit_like(scene: Scene, later: Scene) -> None:
    """Let a lake get the commits that a later copy of it has, as another process makes them."""
    for name, content in _files_in(later.lake_path):
        _put_new(Path(scene.lake_path, name), content)


def _files_in(folder: str | Path) -> Iterator[tuple[Path, bytes]]:
    for path in Path(folder).rglob("*"):
        if path.is_file():
            yield path.relative_to(folder), path.read_bytes()


def _put_new(path: Path, content: bytes) -> None:
    """Write a file that is not there yet: one that is there is never changed."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


# Chooses a step by the steps so far, itself among them.
Chosen = Callable[[list[str]], bool]


@contextmanager
def before_step(chosen: Chosen, act: Callable[[], object]) -> Iterator[list[str]]:
    """Act once, right before the first step that is chosen; the list has the steps so far."""
    steps: list[str] = []
    acts = iter([act])
    run, write = Table._run, commits.write_deltalake
    acting = False

    def step(kind: str) -> None:
        nonlocal acting
        if acting:
            return

        steps.append(kind)
        if chosen(steps):
            acting = True
            for work in acts:
                work()
            acting = False

    def running(table: Table, *args: Any, **more: Any) -> Any:
        step(f"use {table.spec.name}")
        return run(table, *args, **more)

    def writing(handle: Any, *args: Any, **more: Any) -> None:
        step(f"write {handle.metadata().name}")
        write(handle, *args, **more)

    with patch.object(Table, "_run", running), patch.object(commits, "write_deltalake", writing):
        yield steps


# Columns that differ from try to try, or say in which order two flows looked.
UNTOLD = {"run_id", "judged_at", "update_id", "batch_id", "recorded_at", "ledger_version"} | {
    "committed_at", "confirmed_at", "oldest_value_at", "stated_at", "statement",
}  # fmt: skip
Outcome = tuple[list[str], dict[str, pl.DataFrame]]


def told(scene: Scene) -> dict[str, pl.DataFrame]:
    """Return what the tables of money and the derived ones say."""
    lake = scene.opened()
    frames = {table.spec.name: derived_rows(table) for table in lake.derived_tables}
    for part in (lake.executions, lake.statement_events, lake.movements):
        frames[part.table.spec.name] = part.table.rows()
    frames["closures"] = lake.closures.current_rows()

    for name, frame in frames.items():
        rows = frame.drop(UNTOLD, strict=False)
        frames[name] = rows.sort(rows.columns, nulls_last=True)
    return frames


def _errors_of(scene: Scene, flow: Flow) -> list[str]:
    try:
        flow(scene)
    except (LakeError, dg.Failure) as error:
        return [type(error).__name__]
    return []


def outcome_of(scene: Scene, flow: Flow) -> Outcome:
    """Do a flow; return its errors, and what the tables say then."""
    return _errors_of(scene, flow), told(scene)


def steps_of(scene: Scene, flow: Flow) -> list[str]:
    """Return the steps of a flow."""
    with before_step(lambda _steps: False, lambda: None) as steps:
        flow(scene)
    return steps


def inside(scene: Scene, first: Flow, second: Flow, chosen: Callable[[list[str]], bool]) -> Outcome:
    """Do the second flow whole, right before the chosen step of the first one, else after it."""
    errors: list[str] = []
    done = []

    def act() -> None:
        done.append(True)
        errors.extend(_errors_of(scene, second))

    with before_step(chosen, act):
        errors.extend(_errors_of(scene, first))
    if not done:
        act()
    return sorted(errors), told(scene)


def difference(outcome: Outcome, expected: Outcome) -> str:
    """Return in what two outcomes differ; empty: in nothing."""
    if outcome[0] != expected[0]:
        return f"errors {outcome[0]}, not {expected[0]}"
    names = (n for n, rows in outcome[1].items() if not rows.equals(expected[1][n]))
    return ", ".join(names)


def main(name: str, lake_path: str, arguments: dict[str, str]) -> None:
    """Do a flow in this process, which stops itself once it has read and is about to write."""
    scene = Scene(lake_path, Path(arguments["folder"]))

    def is_about_to_write(steps: list[str]) -> bool:
        return steps[-1] == f"write {arguments['written']}"

    with before_step(is_about_to_write, lambda: os.kill(os.getpid(), signal.SIGSTOP)):
        FLOWS[name](scene)
    print("done")
