"""The tick of `drain_queue`, over real tables and a real Dagster instance."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest
from deltalake import DeltaTable

from position_sync_dagster import PositionSyncComponent, dagster_files
from position_sync_dagster.defs import resources
from position_sync_dagster.defs import tick as defs_tick
from position_sync_dagster.defs.assets.queue_and_ledger import position_updates
from position_sync_dagster.defs.assets.table_asset import Derived
from position_sync_dagster.defs.checks import tables as table_checks
from position_sync_dagster.defs.checks.evaluation import UNKNOWN
from position_sync_dagster.defs.composition import CORE, Composition
from position_sync_dagster.defs.drain import drain_queue
from position_sync_dagster.defs.tick import TickCursor, Work
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.domain.holding import Completeness
from position_sync_dagster.domain.queue_request import QueueStatus
from position_sync_dagster.domain.reconciliation import Discrepancy, DiscrepancyType
from position_sync_dagster.errors import LakeError
from position_sync_dagster.lake import schema
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.money.defs import extension
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports import signs_of_life
from position_sync_dagster.money.reports.status import read_status
from position_sync_dagster.settings import load_settings
from tests.integration.defs.conftest import ACCOUNT
from tests.unit.money.past.test_causes import CALL, change

LEDGER = "position_updates"
RISK = "risk_scenarios"


class Ticks:
    """Evaluates the sensor as the daemon does: it stores the events one by one, then the cursor."""

    def __init__(self, instance: dg.DagsterInstance, composition: Composition[MoneyLake]) -> None:
        self.instance = instance
        self.composition = composition
        self.cursor: str | None = None

    def __call__(self, *, killed_after: int | None = None) -> dg.SensorResult:
        with dg.build_sensor_context(instance=self.instance, cursor=self.cursor) as context:
            result = resources.sensor(drain_queue, self.composition)(context)
        assert isinstance(result, dg.SensorResult)
        for event in result.asset_events[:killed_after]:
            self.instance.report_runless_asset_event(event)
        if killed_after is None:
            self.cursor = result.cursor
        return result

    def reported(self, name: str = LEDGER) -> list[dict[str, Any]]:
        """Return the metadata of the events of an asset, oldest first."""
        records = self.instance.fetch_materializations(dg.AssetKey(name), limit=100).records
        return [
            {key: value.value for key, value in record.asset_materialization.metadata.items()}
            for record in reversed(records)
        ]

    def rows(self) -> int:
        """Return how many rows all events of the ledger report."""
        return sum(int(event.get("rows", 0)) for event in self.reported())


@pytest.fixture
def tick(
    instance: dg.DagsterInstance, lake: MoneyLake, composition: Composition[MoneyLake]
) -> Ticks:
    """Return the ticks of the core alone: what money derives takes half of their time."""
    alone = replace(composition.extension, tick_parts=())
    return Ticks(instance, replace(composition, extension=alone))


@pytest.fixture
def with_money(
    tick: Ticks, composition: Composition[MoneyLake], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let ticks derive the tables of money too, and wait for them."""
    tick.composition = composition
    monkeypatch.setattr(extension, "BESIDE_WAIT_S", 60.0)


@pytest.fixture
def derive_by(
    composition: Composition[MoneyLake], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Let another function write a table in the ticks."""

    def change(name: str, derive: Callable[..., Derived]) -> None:
        table = replace(composition.written_by_ticks[name], derive=derive)
        monkeypatch.setitem(composition.written_by_ticks, name, table)

    return change


def said(result: dg.SensorResult) -> str:
    assert result.skip_reason is not None
    return result.skip_reason.skip_message or ""


def names(result: dg.SensorResult) -> list[str]:
    return [
        event.asset_key.to_user_string()
        for event in result.asset_events
        if isinstance(event, dg.AssetMaterialization)
    ]


@pytest.mark.usefixtures("with_money")
def test_each_tick_says_what_its_parts_took(world, tick, lake, settings, tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    world.hold(1)
    tick()
    tick()
    parts = {part.name: sum(part.counts) for part in signs_of_life.parts_of_ticks(tmp_path)}
    of_core = ("gateways", "strategies", "drain", "report", "checks", "news")
    of_money = ("derive_exposure", "explain_closes", "record_risk")
    assert parts == dict.fromkeys([*of_core, *of_money], 2)
    took_s = read_status(lake, settings, utc_now()).to_dict()["tick_parts_s"]
    assert took_s.keys() == parts.keys()
    assert all(seconds >= 0.0 for seconds in took_s.values())


def test_a_tick_drains_what_waits_and_reports_each_row_once(world, tick, lake):
    world.hold(1, 2, 3)
    world.ask(1, 2, 3)
    result = tick()
    assert lake.queue.sync.counts()[QueueStatus.SUCCESS] == 3
    assert "3 claimed, 3 rows" in said(result)
    (event,) = tick.reported()
    assert event["rows"] == 3
    assert event["rows_drained"] == 3
    assert event["rows_streamed"] == 0
    assert event["delta_version"] == lake.updates.table.version()
    assert names(result).index(LEDGER) < names(result).index("latest_positions")
    assert sorted(pl.read_delta(f"{lake.path}/latest_positions")["conid"]) == [1, 2, 3]
    tick()
    assert tick.rows() == 3


def test_an_idle_tick_reads_no_event_and_no_row_that_an_earlier_one_looked_at(
    world, tick, lake, instance, monkeypatch
):
    world.hold(1)
    tick()
    world.row(1, 5)
    tick()
    read_files = []
    scan = Table.scan_files

    def scan_files(table: Table, files: pl.DataFrame) -> pl.LazyFrame:
        if table.spec.name == LEDGER:
            read_files.append(files.height)
        return scan(table, files)

    def fetch(*_args: object, **_more: object) -> None:
        raise AssertionError("events were read")

    with monkeypatch.context() as watched:
        watched.setattr(Table, "scan_files", scan_files)
        watched.setattr(instance, "fetch_materializations", fetch)
        assert LEDGER not in names(tick())
        assert read_files == []

        world.row(1, 6)
        tick()
        assert read_files == [1]
    world.later(timedelta(seconds=61))
    tick()
    assert tick.rows() == 2


def test_a_tick_drains_again_once_the_interval_of_the_settings_has_passed(world, tick, lake):
    world.set(drain_interval_s="60")
    world.hold(1, 2)
    world.ask(1)
    tick()
    world.ask(2)
    assert "next drain within 60 s" in said(tick())
    world.later(timedelta(seconds=58))
    assert "1 claimed" in said(tick())


@pytest.mark.usefixtures("with_money")
def test_scenarios_are_recorded_after_the_first_rows_and_each_quarter_of_an_hour(world, tick, lake):
    world.hold(1)
    assert RISK not in names(tick())
    world.ask(1)
    assert RISK in names(tick())
    assert not lake.risk_scenarios.latest().is_empty()
    assert RISK not in names(tick())
    world.later(timedelta(minutes=16))
    assert RISK in names(tick())


@pytest.mark.usefixtures("with_money")
def test_a_mistake_in_the_file_of_scenarios_is_said_by_the_tick_and_makes_its_checks_unknown(
    world, tick, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    world.own()
    world.row(7, 0)
    path = Path("scenarios.yaml")
    path.write_text("scenarios: [{name: x, spott: 5}]\n")
    result = tick()
    assert "spott" in said(result)
    unknown = [
        asset_event
        for asset_event in result.asset_events
        if asset_event.asset_key.to_user_string() == RISK
    ]
    assert [UNKNOWN in evaluation.metadata for evaluation in unknown] == [True, True]
    path.unlink()
    world.later(timedelta(seconds=61))
    assert RISK in names(tick())


@pytest.mark.usefixtures("with_money")
@pytest.mark.parametrize(("name", "times"), [(RISK, 1), ("strategy_exposure", 2)])
def test_a_drain_does_not_wait_for_what_a_large_book_takes_and_newer_rows_follow(
    world, tick, derive_by, monkeypatch, name, times
):
    def record(*_: object) -> Derived:
        calls.append(may_end.wait(60))
        return Derived(metadata={})

    may_end = threading.Event()
    calls: list[Any] = []
    monkeypatch.setattr(extension, "BESIDE_WAIT_S", 0.0)
    derive_by(name, record)
    world.hold(1, 2)
    world.ask(1)
    assert name not in names(tick())

    world.ask(2)
    result = tick()
    assert "1 claimed" in said(result)
    assert name not in names(result)
    may_end.set()
    monkeypatch.setattr(extension, "BESIDE_WAIT_S", 60.0)
    assert name in names(tick())
    tick()
    assert calls == [True] * times


def test_rows_of_the_stream_are_reported_once_a_minute_and_drained_ones_at_once(world, tick):
    world.own()
    tick()
    world.row(7, 0)
    assert LEDGER not in names(tick())
    world.later(timedelta(seconds=61))
    assert LEDGER in names(tick())
    assert [event["rows_streamed"] for event in tick.reported()] == [0, 1]


LATEST = "latest_positions"


def test_values_alone_are_told_each_quarter_of_an_hour_and_a_changed_holding_at_once(
    world, tick, lake
):
    world.own(lease_s=7200.0)
    world.row(7, 60, more=[8])
    tick()
    world.row(7, 50, market_value=1.0)
    world.later(timedelta(seconds=61))
    told = names(tick())
    assert LEDGER in told
    assert LATEST not in told
    assert lake.derived_table(schema.LATEST_POSITIONS).rows()["market_value"].min() == 1.0

    lake.position_changes.add([change(CALL, -2, -3, datetime.now(UTC))])
    world.row(7, 40, position=-3.0)
    told = names(tick())
    assert told[-2:] == [LEDGER, LATEST]
    assert tick.reported(LATEST)[-1]["held"] == "2"

    world.row(7, 30, position=-3.0, market_value=2.0)
    world.later(timedelta(seconds=122))
    assert LATEST not in names(tick())
    world.later(timedelta(minutes=18))
    world.row(7, 20, position=-3.0, market_value=3.0)
    assert LATEST in names(tick())


def test_a_break_that_opens_is_told_at_once(world, tick, lake):
    world.own(lease_s=7200.0)
    world.row(7, 60)
    tick()
    assert LATEST not in names(tick())
    surplus = Discrepancy(DiscrepancyType.SURPLUS, ACCOUNT, 9, "SPY", 0.0, 1.0, "More is held.")
    lake.breaks.record({world.settings.gateway_id: [surplus]}, world.ago(0))
    assert {"reconciliation_breaks", LATEST} <= set(names(tick()))
    assert LATEST not in names(tick())


LIMITED = """
strategies:
  - strategy_id: condor
    limits: {currency: USD, unrealized_pnl: {min: -1500}}
    legs: [{conid: 7, symbol: SPY}]
"""


@pytest.mark.usefixtures("with_money")
def test_a_limit_that_is_crossed_is_told_at_once(
    strategies_file, settings, instance, world, monkeypatch
):
    strategies_file.write_text(LIMITED)
    tick = Ticks(instance, Composition(extension=extension.money_extension(load_settings())))
    world.own(lease_s=7200.0)
    world.row(7, 0, unrealized_pnl=0.0)
    tick()
    world.row(7, 0, unrealized_pnl=-1400.0)
    world.later(timedelta(seconds=61))
    assert not {LATEST, "strategy_exposure"} & set(names(tick()))
    world.row(7, 0, unrealized_pnl=-1600.0)
    world.later(timedelta(seconds=122))
    assert "strategy_exposure" in names(tick())
    assert LATEST in names(tick())
    assert not {LATEST, "strategy_exposure"} & set(names(tick()))


def test_what_statements_make_is_not_out_of_date_before_the_first_import(world, tick):
    world.own(lease_s=7200.0)
    tick()
    definitions = PositionSyncComponent().definitions(world.settings)
    graph = definitions.resolve_asset_graph()
    loading = LoadingContextForTest(tick.instance)
    resolver = CachingStaleStatusResolver(tick.instance, graph, loading)
    keys = graph.get_all_asset_keys()
    statuses = {key.to_user_string(): resolver.get_status(key).value for key in keys}
    assert statuses["executions"] == statuses["statement_events"] == "FRESH"
    assert statuses["flex_statements"] == "MISSING"
    assert "STALE" not in statuses.values()


@pytest.mark.parametrize("stored", [0, 1, 8])
def test_a_daemon_killed_while_it_stores_the_events_repeats_no_row(world, tick, stored):
    world.hold(1, 2)
    world.ask(1, 2)
    events = tick(killed_after=stored).asset_events
    made = [event for event in events[:stored] if isinstance(event, dg.AssetMaterialization)]
    reported = LEDGER in [event.asset_key.to_user_string() for event in made]
    assert tick.rows() == (2 if reported else 0)
    tick()
    assert tick.rows() == 2


def test_the_rows_of_a_run_are_reported_by_the_next_tick_and_not_by_the_run(world, tick):
    world.hold(1, 2)
    tick()
    world.ask(1, 2)
    assert world.materialize(position_updates).success
    assert tick.rows() == 0
    tick()
    assert tick.rows() == 2


def test_a_second_home_on_the_same_lake_continues_with_its_own_history(world, tick):
    world.hold(1)
    world.ask(1)
    tick()
    with dg.DagsterInstance.ephemeral() as instance:
        second = Ticks(instance, tick.composition)
        second()
        assert second.rows() == 1
    assert tick.rows() == 1


def test_while_the_owner_is_blind_nothing_is_claimed_and_the_reason_is_said(world, tick, lake):
    session = world.hold(1)
    lake.sessions.renew(session, lease_s=60.0, state=SessionState.BLIND)
    world.ask(1)
    assert "BLIND" in said(tick())
    assert lake.queue.sync.counts()[QueueStatus.PENDING] == 1


def test_requests_that_cannot_be_valued_are_left_alone_for_a_while(world, tick):
    world.hold(1, completeness=Completeness.PARTIAL)
    world.ask(5)
    tick()
    assert "next within" in said(tick())
    world.later(timedelta(seconds=31))
    assert "1 claimed" in said(tick())


def test_a_changed_strategies_file_is_applied_and_a_refused_one_stops_no_drain(
    world, tick, lake, strategies_file
):
    path = strategies_file
    leg = "{conid: 1, symbol: SPY, right: C, strike: 500, expiry: '20281215'}"
    path.write_text(f"strategies:\n  - strategy_id: one\n    legs: [{leg}]\n")
    world.hold(1, 2)
    assert "active_strategies" in names(tick())
    assert [active_leg.conid for active_leg in lake.registry.sync.get_all_active()] == [1]
    path.write_text(path.read_text().replace("right: C", "right: X"))
    world.ask(2)
    result = tick()
    assert "line 3" in said(result)
    assert "1 claimed" in said(result)
    lake.registry.sync.refresh()
    assert [active_leg.conid for active_leg in lake.registry.legs] == [1]


def test_a_mistyped_field_of_a_strategies_file_is_named_where_money_is_left_out(
    instance, strategies_file, caplog
):
    text = "strategies:\n  - strategy_id: one\n    prioritty: 2\n    limits: {}\n    legs: []\n"
    strategies_file.write_text(text)
    core = Composition(extension=CORE)
    Ticks(instance, core)()
    core_lake = Lake.of(load_settings())
    mistyped = (
        f"{strategies_file}, line 3: nothing that runs here reads the field 'prioritty'; "
        "did you mean 'priority'?"
    )
    of_money = f"{strategies_file}, line 4: nothing that runs here reads the field 'limits'."
    assert [text for text in caplog.messages if "nothing" in text] == [mistyped, of_money]

    result = table_checks.file_is_applied.evaluate(core_lake, load_settings())
    assert not result.passed
    assert result.description.startswith(f"0 legs. {mistyped} {of_money}")
    strategies_file.write_text(text.replace("prioritty", "priority"))
    result = table_checks.file_is_applied.evaluate(core_lake, load_settings())
    assert result.passed
    assert result.description == f"0 legs. {of_money}"


def test_results_of_checks_are_stored_when_they_change(world, tick, instance, lake):
    session = world.hold(1)
    world.ask(1)
    first = tick()
    key = dg.AssetCheckKey(dg.AssetKey(LEDGER), "a_stream_watches")

    def stored(result: dg.SensorResult) -> list[bool]:
        return [
            asset_event.passed
            for asset_event in result.asset_events
            if isinstance(asset_event, dg.AssetCheckEvaluation)
            and asset_event.asset_check_key == key
        ]

    assert stored(first) == [True]
    assert stored(tick()) == []
    lake.sessions.end(session)
    assert stored(tick()) == [False]
    record = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    assert record.run_id == ""  # as that of a materialization without a run


@pytest.mark.parametrize(
    "text",
    [
        '{"unowned_since": {"a": "b"}}',
        '{"at": {"all": "2026-01-02T03:04:05"}}',  # a time without a zone
        '{"at": {"all": 1e400}, "ledger_version": 1e400}',
    ],
)
def test_a_cursor_that_cannot_be_read_is_begun_anew(world, tick, text):
    world.own()
    tick.cursor = text
    tick()
    assert resources.cursor_of(TickCursor, tick.cursor).registry_version is not None


@pytest.mark.usefixtures("with_money")
def test_an_error_of_one_table_keeps_no_event_of_the_others_back(
    world, tick, derive_by, monkeypatch
):
    def fail(*_: object, **__: object) -> None:
        raise LakeError("A file is damaged.", remedy="Restore it.")

    def is_a_mistake(*_: object, **__: object) -> None:
        raise ZeroDivisionError("of ours")

    world.hold(1)
    world.ask(1)
    monkeypatch.setattr(table_checks, "breaks_state", fail)
    derive_by("closures", fail)
    derive_by("latest_positions", is_a_mistake)
    result = tick()
    assert tick.rows() == 1
    assert {"contracts", "strategy_exposure"} <= set(names(result))
    assert "latest_positions is not reported: ZeroDivisionError" in said(result)
    assert "closures is not reported: A file is damaged." in said(result)
    assert "reconciliation_breaks is not reported" in said(result)


def test_a_part_that_reports_a_table_which_nobody_listed_keeps_no_event_of_the_others_back(
    world, tick
):
    def report_unlisted(work: Work[MoneyLake]) -> None:
        work.write("held_symbols")

    parts = replace(tick.composition.extension, tick_parts=(report_unlisted,))
    tick.composition = replace(tick.composition, extension=parts)
    world.hold(1)
    world.ask(1)
    result = tick()
    assert tick.rows() == 1
    assert "Runs and ticks write no table held_symbols. List it in" in said(result)


def test_rows_are_counted_again_after_the_ledger_went_back_to_an_older_version(world, tick, lake):
    """After a restore, or in a new folder, its versions are older than those of the events."""
    world.hold(1)
    before = lake.updates.table.version()
    world.ask(1)
    tick()
    assert tick.rows() == 1
    DeltaTable(lake.updates.table.path).restore(before)
    tick()
    world.ask(1)
    tick()
    assert tick.rows() == 2


def test_without_rows_the_ledger_is_reported_each_quarter_of_an_hour_while_a_stream_is_live(
    world, tick, lake, monkeypatch
):
    session = world.own()
    tick()
    assert LEDGER not in names(tick())
    world.later(timedelta(minutes=16))
    lake.sessions.end(session)
    tick()
    monkeypatch.setattr(defs_tick, "gateway_states", lambda *_: {"a": "LIVE"})
    tick()  # the state changed
    world.later(timedelta(minutes=32))
    assert LEDGER in names(tick())


def test_while_nothing_can_be_drained_rows_and_checks_are_reported_all_the_same(
    world, tick, tmp_path, monkeypatch
):
    """A check that is not evaluated any more would look as if it passed."""

    def fail(*_: object, **__: object) -> None:
        raise LakeError("The queue is damaged.", remedy="Restore it.")

    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    world.own()
    world.row(7, 0)
    monkeypatch.setattr(defs_tick.Work, "_drain", fail)
    monkeypatch.setattr(defs_tick.queue_and_ledger, "queue_state", fail)
    result = tick()
    assert "Nothing is drained: The queue is damaged." in said(result)
    assert "The queue is damaged" in signs_of_life.read(tmp_path).problems[0]
    assert tick.rows() == 1
    assert any(
        isinstance(asset_event, dg.AssetCheckEvaluation) for asset_event in result.asset_events
    )
    assert dagster_files.file_of(dagster_files.FAILED_TICK).exists()
    assert not dagster_files.file_of(dagster_files.WORKED_TICK).exists()
