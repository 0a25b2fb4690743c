"""A Dagster instance, a lake, and fixtures that fill its tables."""

import subprocess
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any
from unittest.mock import patch

import dagster as dg
import polars as pl
import pytest

from position_sync_dagster.defs import drain
from position_sync_dagster.defs.assets.table_asset import Derived, TickTable, check_evaluation
from position_sync_dagster.defs.checks import tables
from position_sync_dagster.defs.checks.evaluation import TableCheck
from position_sync_dagster.defs.composition import Composition
from position_sync_dagster.defs.resources import LOGINS, STREAM_JOB, sensor
from position_sync_dagster.defs.stream import supervise_stream
from position_sync_dagster.domain import reconciliation
from position_sync_dagster.domain.gateway_session import GatewaySession, Owner, SessionState
from position_sync_dagster.domain.holding import Completeness
from position_sync_dagster.domain.position_update import Source, TradingMode
from position_sync_dagster.domain.queue_request import QueueRequest
from position_sync_dagster.lake.schema import TableSpec
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.money.defs.extension import money_extension
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports import alerts
from position_sync_dagster.settings import Settings, load_settings
from tests.support.constants import replace_constant
from tests.support.empty_lakes import put_tables
from tests.support.holdings import make_holding, make_row
from tests.support.migrations import keep_migrations
from tests.support.receiver import Receiver, running_receiver
from tests.support.sessions import own

ACCOUNT = "DUSIM0001"
# Nothing listens there: a connection that is made by mistake is refused at once.
CLOSED_PORT = 1


@pytest.fixture(scope="session", autouse=True)
def _migrations_are_read_once() -> None:
    """Read the migrations of Dagster's storage once: most of what an instance costs."""
    keep_migrations()


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """Return the settings that the definitions read from the environment."""
    monkeypatch.setenv("POSITION_SYNC_LAKE", str(tmp_path / "lake"))
    monkeypatch.setenv("POSITION_SYNC_GATEWAY_PORT", str(CLOSED_PORT))
    return load_settings()


@pytest.fixture
def strategies_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of the strategies file, which is not there yet."""
    monkeypatch.setenv("POSITION_SYNC_STRATEGIES_FILE", str(tmp_path / "strategies.yaml"))
    return tmp_path / "strategies.yaml"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of statements, empty."""
    (tmp_path / "flex").mkdir()
    monkeypatch.setenv("POSITION_SYNC_FLEX_FOLDER", str(tmp_path / "flex"))
    return tmp_path / "flex"


@pytest.fixture
def lake(settings: Settings) -> MoneyLake:
    """Return the tables, empty."""
    put_tables(settings.lake)
    return MoneyLake(settings.lake)


@pytest.fixture
def composition(settings: Settings) -> Composition[MoneyLake]:
    """Return what the definitions are made of, with money."""
    return Composition(extension=money_extension(settings))


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Return an instance whose storages are in memory."""
    home = tmp_path / "home"
    home.mkdir()
    with dg.DagsterInstance.ephemeral(tempdir=str(home)) as instance:
        yield instance


class SentHere:
    """The program of a delivery, as a `Popen` in this process: one of its own takes a second."""

    def __init__(self, _command: Sequence[str], *, stdin: IO[str], **_: object) -> None:
        with patch("sys.stdin", stdin), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._code = alerts.main()

    def poll(self) -> int:
        """Return its exit code."""
        return self._code

    def wait(self, _seconds: float = 0.0) -> int:
        """Return its exit code."""
        return self._code


@pytest.fixture
def receiver(settings, monkeypatch) -> Iterator[Receiver]:
    """Serve one receiver of messages, which is told at once."""
    programs = SimpleNamespace(
        Popen=SentHere, DEVNULL=subprocess.DEVNULL, TimeoutExpired=subprocess.TimeoutExpired
    )
    monkeypatch.setattr(alerts, "subprocess", programs)
    with running_receiver() as found:
        monkeypatch.setenv("POSITION_SYNC_ALERT_URLS", found.url)
        replace_constant("alert_after_s", 0.0)
        monkeypatch.setattr(alerts, "WAIT_S", 120.0)
        yield found


@pytest.fixture
def instance_on_disk(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Return an instance with files, as a code server opens it; it takes a second."""
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        yield instance


def defined(definition: Any) -> Any:
    """Return the asset or the check as Dagster has it."""
    if isinstance(definition, TickTable):
        return definition.asset(MoneyLake)
    if isinstance(definition, TableCheck):
        return definition.definition(MoneyLake)
    return definition


class World:
    """The tables, a Dagster instance without programs, and a broker that holds what a test says."""

    def __init__(
        self,
        lake: MoneyLake,
        settings: Settings,
        composition: Composition[MoneyLake],
        open_instance: Callable[[], dg.DagsterInstance],
        patch: pytest.MonkeyPatch,
    ) -> None:
        self.lake, self.settings, self._patch = lake, settings, patch
        self.composition = composition
        self._supervise = sensor(supervise_stream, composition)
        self._open_instance = open_instance

    @cached_property
    def instance(self) -> dg.DagsterInstance:
        """The instance, made when something needs it: the evaluation of a check does not."""
        return self._open_instance()

    def set(self, **values: object) -> None:
        """Set settings, which the next run, check or tick reads from the environment."""
        for name, value in values.items():
            self._patch.setenv(f"POSITION_SYNC_{name.upper()}", str(value))

    def ago(self, seconds: float) -> datetime:
        """Return the moment so many seconds ago."""
        return datetime.now(UTC) - timedelta(seconds=seconds)

    def later(self, delta: timedelta) -> None:
        """Let the checks of the tables and the ticks that drain begin this much later."""
        for module in (tables, drain):
            self._patch.setattr(module, "utc_now", lambda: datetime.now(UTC) + delta)

    def own(
        self, *, owner=Owner.STREAM, state=SessionState.LIVE, run_id=None, lease_s=60.0, name=None
    ) -> GatewaySession:
        """Acquire the login and return the session."""
        login = name or self.settings.gateway_id
        return own(self.lake, login, owner=owner, run_id=run_id, lease_s=lease_s, state=state)

    def hold(
        self, *conids, session=None, completeness=Completeness.COMPLETE, account=ACCOUNT
    ) -> GatewaySession:
        """Write a broker snapshot that holds one contract of each conid; own the login for it."""
        session, now = session or self.own(), datetime.now(UTC)
        money = {"average_cost": 100.0, "market_price": 1.5, "market_value": 150.0}
        of_now = {"completeness": completeness, "confirmed_at": now, "unrealized_pnl": 50.0}
        of_login = {"gateway_id": session.gateway_id, "account": account}
        rows = [make_holding(conid, now, **money, **of_now, **of_login) for conid in conids]
        self.lake.broker_positions.replace(session.gateway_id, rows, session=session)
        return session

    def ask(self, *conids: int) -> list[str]:
        """Insert a request for each conid into the queue."""
        requests = [QueueRequest(conid, "SPY", 2, ACCOUNT) for conid in conids]
        return self.lake.queue.sync.insert_many(requests)

    def row(self, conid: int, at: datetime | float, *, more: Iterable[int] = (), **values: Any):
        """Append a row of a conid, and of `more`, dated by a moment or so many seconds ago."""
        when = at if isinstance(at, datetime) else self.ago(at)
        of_stream = {"source": Source.STREAM, "gateway_id": self.settings.gateway_id}
        plain = make_row(conid, when, ACCOUNT, trading_mode=TradingMode.SIMULATED, **of_stream)
        self.lake.updates.sync.append(replace(plain, conid=c, **values) for c in (conid, *more))

    def read(self, spec: TableSpec) -> pl.DataFrame:
        """Return the rows of a table."""
        return Table(self.settings.table(spec.name), spec).rows()

    def begin(self, name: str | None = None) -> str:
        """Begin a run of the stream, of a login or of the only one; return its id."""
        tags = {}
        if name is not None:
            tags = {"dagster/partition": name}

        status = dg.DagsterRunStatus.STARTED
        run = dg.DagsterRun(job_name=STREAM_JOB, status=status, tags=tags)
        self.instance.add_run(run)
        return run.run_id

    def supervise(self, *, since_s: float = 3600.0) -> dg.SensorResult | dg.SkipReason:
        """Evaluate the supervisor, and apply what it says of the partitions."""
        with dg.build_sensor_context(
            instance=self.instance, last_sensor_start_time=time.time() - since_s
        ) as context:
            result: Any = self._supervise(context)
        for change in getattr(result, "dynamic_partitions_requests", None) or ():
            if isinstance(change, dg.AddDynamicPartitionsRequest):
                self.instance.add_dynamic_partitions(LOGINS.name, change.partition_keys)
            else:
                for key in change.partition_keys:
                    self.instance.delete_dynamic_partition(LOGINS.name, key)
        return result

    def materialize(self, *assets: Any, **options: Any) -> dg.ExecuteInProcessResult:
        """Materialize assets with the real resource; a failure is a result, not an exception."""
        return dg.materialize(
            list(map(defined, assets)), instance=self.instance,
            resources={"position_sync": self.composition.resource()},
            raise_on_error=False, **options,
        )  # fmt: skip

    def derive(self, table: TickTable[MoneyLake]) -> Derived:
        """Write a table as a tick does; a run of Dagster takes ten times as long."""
        settings = load_settings()
        derived = table.derive(MoneyLake.of(settings), settings, None)
        for key, result in derived.checks.items():
            self.instance.report_runless_asset_event(check_evaluation(key, result))
        return derived

    def event(self, result: dg.ExecuteInProcessResult, name: str) -> dg.AssetMaterialization:
        """Return the one materialization of an asset in a run."""
        (found,) = result.asset_materializations_for_node(name)
        assert isinstance(found, dg.AssetMaterialization)
        return found

    def failure(self, result: dg.ExecuteInProcessResult, name: str) -> str:
        """Return why an asset of a run failed."""
        assert not result.success
        return result.failure_data_for_node(name).error.message

    def check(self, definition: TableCheck[MoneyLake]) -> dg.AssetCheckResult:
        """Evaluate one check as a tick does; a run of Dagster takes ten times as long."""
        settings = load_settings()
        return definition.evaluate(MoneyLake.of(settings), settings)

    def run_check(self, definition: TableCheck[MoneyLake]) -> dg.AssetCheckEvaluation:
        """Run one check as Dagster does, and return its evaluation."""
        result = self.materialize(definition, selection=dg.AssetSelection.all_asset_checks())
        (evaluation,) = result.get_asset_check_evaluations()
        return evaluation

    def fails(self, definition: TableCheck[MoneyLake]) -> dg.AssetCheckResult:
        """Evaluate a check that fails."""
        evaluation = self.check(definition)
        assert not evaluation.passed
        return evaluation

    def passes(self, definition: TableCheck[MoneyLake]) -> dg.AssetCheckResult:
        """Evaluate a check that passes."""
        evaluation = self.check(definition)
        assert evaluation.passed, evaluation.description
        return evaluation

    def shown(self, evaluation: dg.AssetCheckResult) -> list[dict[str, Any]]:
        """Return the rows that a failing check names."""
        return [dict(record.data) for record in evaluation.metadata["rows"].records]  # type: ignore[attr-defined]


@pytest.fixture
def world(lake, settings, composition, request, monkeypatch) -> World:
    """Return the world, in which nothing is held and nobody owns the login."""

    def open_instance() -> dg.DagsterInstance:
        return request.getfixturevalue("instance")

    return World(lake, settings, composition, open_instance, monkeypatch)


@pytest.fixture
def confirmed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a difference fail the check without the wait for the next drain."""
    monkeypatch.setattr(reconciliation, "CONFIRM_AFTER", timedelta(0))
