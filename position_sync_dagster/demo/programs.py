"""The programs of a demo, the simulator and Dagster, and its history.

Both programs end with this process, whatever ends it. The simulator ends last, so that the stream
can close its gateway session while the gateway still answers.

What happens in the simulated market is in the simulator's `books/demo_day.yaml`. After three and a
half minutes a statement of the day confirms it. The demo's history is statements of the last ten
trading days; the newest five are recorded in `daily_positions` at the first start.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from ib_gateway_simulator.books.loader import BOOKS, load_book
from ib_gateway_simulator.statements import write_statements
from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.strategies_file import load_strategies
from position_sync_dagster.processes import supervisor
from position_sync_dagster.processes.child_process import MARKER, ChildProcess, StopRequest
from position_sync_dagster.processes.home import (
    DAGSTER_HOME,
    Home,
    adopt_environment,
    home_environment,
)
from position_sync_dagster.processes.ports import LOOPBACK, NEXT_PORTS, exchange_json
from position_sync_dagster.settings import PREFIX, Settings, load_settings
from position_sync_dagster.sync.reports.exchange_days import exchange_days

# Seconds from the start to the statement of the day, which a real broker makes in the night.
STATED_S = 215.0

# The number of past trading days that have a statement.
SESSIONS = 10

# The number of these days, the newest ones, that the first start records in `daily_positions`. The
# others are left for a backfill by the user.
RECORDED = 5


def prepare(settings: Settings) -> None:
    """Write the statements of the last sessions into the folder of the settings."""
    days = past_sessions(settings.calendar, datetime.now(UTC))
    write_statements(load_book("demo"), days, settings.flex_folder)


def record(settings: Settings, demo_run: "DemoRun") -> None:
    """Launch the runs that import the statements and record the newest of the sessions.

    Raises:
        OSError, ValueError: Dagster's UI does not answer or refuses.
    """
    days = past_sessions(settings.calendar, datetime.now(UTC))[-RECORDED:]
    launch(demo_run.ui_port, "import_statements", {})
    span = {"start": days[0].isoformat(), "end": days[-1].isoformat()}
    tags = {f"dagster/asset_partition_range_{end}": day for end, day in span.items()}
    launch(demo_run.ui_port, "close_day", tags)


def state_the_day(settings: Settings, demo_run: "DemoRun") -> None:
    """Write the statements of the day, as the simulator makes them, and import them.

    Raises:
        SimulatorProcessError: The simulator does not answer.
        OSError, ValueError: The folder cannot be written, or Dagster's UI does not answer.
    """
    day = datetime.now(UTC).date()
    for account, text in demo_run.ask("/statements").items():
        path = settings.flex_folder / f"{account}-{day:%Y%m%d}.xml"
        path.write_text(text, encoding="utf-8")
    launch(demo_run.ui_port, "import_statements", {})


# The time limit of the launch of a run, in seconds: right after a start Dagster is busy.
LAUNCH_S = 60.0

_LAUNCH = """
mutation($params: ExecutionParams!) {
  launchRun(executionParams: $params) { __typename ... on Error { message } }
}
"""


def launch(ui_port: int, job: str, tags: Mapping[str, str]) -> None:
    """Launch a job of the project through the UI's GraphQL.

    Raises:
        OSError, ValueError: The UI does not answer, or it refuses; the message says why.
    """
    selector = {
        "repositoryLocationName": "position_sync_dagster",
        "repositoryName": "__repository__",
        "jobName": job,
    }
    params = {
        "selector": selector,
        "runConfigData": {},
        "executionMetadata": {"tags": [{"key": k, "value": v} for k, v in tags.items()]},
    }
    request = {"query": _LAUNCH, "variables": {"params": params}}
    answer = exchange_json(ui_port, "/graphql", request, timeout_s=LAUNCH_S)
    result = (answer.get("data") or {}).get("launchRun") or {}
    if result.get("__typename") != "LaunchRunSuccess":
        raise ValueError(f"{job} was not launched: {result.get('message') or answer}")


def past_sessions(calendar: str, now: datetime) -> list[date]:
    """Return the trading days before that of the demo, oldest first.

    The day of the demo has a statement of its own (`state_the_day`). A prepared one would say, from
    the evening on, that nothing else happened on the day.
    """
    first = now.date() - timedelta(days=SESSIONS * 3)
    exchange = exchange_days(calendar, first, now.date())
    today = now.astimezone(ZoneInfo(exchange.timezone)).date()
    span = (first + timedelta(days=n) for n in range((today - first).days))
    return [day for day in span if exchange.is_trading_day(day)][-SESSIONS:]


SIMULATOR_GRACE_S = 1.0
POLL_S = 0.05
ANSWER_TIMEOUT_S = 5.0


class SimulatorProcessError(PositionSyncError):
    """The simulator does not answer."""


class SimulatorPorts(NamedTuple):
    """The ports at which the simulator listens."""

    gateway: int
    control: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of the command line; a port of 0 leaves the choice to the demo.

    Attributes:
        seconds: The time limit in seconds, after which the acceptance test decides. None runs
            until a request to stop.
        end_with: The process id of a parent. When it ends, the demo ends.
        calm: Whether the simulated day has no fills and no outages.
        empty: Whether a new home begins without a strategy: every holding is queued.
    """

    home: Path = Path(".demo")
    seconds: float | None = None
    ui_port: int = 0
    gateway_port: int = 0
    control_port: int = 0
    as_json: bool = False
    end_with: int | None = None
    calm: bool = False
    empty: bool = False


def start_simulator(home: Home, options: Options, gateway_port: int) -> ChildProcess:
    """Start the simulator with the demo's book, and its day unless the options say `calm`.

    Args:
        gateway_port: The simulator listens there, or at the next free port. It binds the port
            itself, so that two demos that start together get different ones.
    """
    command = [sys.executable, "-m", "ib_gateway_simulator", "--book", "demo"]
    command += ["--host", LOOPBACK, "--port", str(gateway_port), "--next-ports", str(NEXT_PORTS)]
    command += ["--control-port", str(options.control_port), "--end-with", str(os.getpid())]
    command += [] if options.calm else ["--scenario", str(BOOKS / "demo_day.yaml")]
    return ChildProcess(
        "The simulator",
        command,
        env=home_environment({MARKER: str(home.dagster_home)}),
        cwd=home.path,
        log=home.log_file("simulator"),
        grace_s=SIMULATOR_GRACE_S,
    )


def wait_until_ready(child: ChildProcess, stop: StopRequest) -> SimulatorPorts:
    """Wait until the simulator has printed its ports, and return them: a busy machine takes long.

    Raises:
        ChildEndedError: The simulator has ended.
        StopRequested: This process shall stop.
    """
    while True:
        for line in child.tail(lines=50).splitlines():
            with suppress(ValueError, KeyError, TypeError):  # another line of the log
                values = json.loads(line)
                return SimulatorPorts(gateway=values["port"], control=values["control_port"])
        child.check()
        stop.pause(POLL_S)


# The default port of the simulator. TWS and IB Gateway do not use it, and operating systems assign
# only higher ports to clients.
GATEWAY_PORT = 17497


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRun:
    """The running programs of a demo.

    Attributes:
        is_first: Whether the home was new.
        since: The start of the run.
        ui_port: The port of the Dagster UI.
        simulator: The ports of the simulator.
        children: The child processes.
    """

    home: Home
    is_first: bool
    since: datetime
    ui_port: int
    simulator: SimulatorPorts
    children: tuple[ChildProcess, ...]

    def check(self) -> None:
        """Raise if one of the programs has ended.

        Raises:
            ChildEndedError: It has ended.
        """
        for child in self.children:
            child.check()

    def ask(self, path: str) -> Any:
        """Return what the simulator's control port has at a path.

        Raises:
            SimulatorProcessError: The simulator does not answer.
        """
        try:
            return exchange_json(self.simulator.control, path, timeout_s=ANSWER_TIMEOUT_S)
        except (OSError, ValueError) as error:
            raise SimulatorProcessError(
                f"The simulator's control port {self.simulator.control} does not answer: {error}.",
                remedy="See the simulator's log.",
            ) from error

    def held(self) -> frozenset[Key]:
        """Return the positions held at the simulator.

        Raises:
            SimulatorProcessError: The simulator does not answer.
        """
        rows = self.ask("/positions")
        return frozenset((row["account"], row["conid"]) for row in rows if row["quantity"])

    def addresses(self) -> dict[str, str]:
        """Return the addresses and folders of the parts."""
        return {
            "ui": supervisor.url(self.ui_port),
            "control": f"http://{LOOPBACK}:{self.simulator.control}",
            "gateway": f"{LOOPBACK}:{self.simulator.gateway}",
            "home": str(self.home.path),
            "lake": str(self.home.lake),
            "logs": str(self.home.log_file("*")),
        }


@contextmanager
def start(home: Home, options: Options, *, ui_port: int, stop: StopRequest) -> Iterator[DemoRun]:
    """Start the programs; end them, and all that came from them, when the block ends.

    The settings of the home become the settings of this process. Without a port for the gateway it
    is that of the previous start.

    Args:
        home: The home, whose lock this process holds.
        ui_port: The port of the Dagster UI.
        stop: Raises when this process shall stop.

    Raises:
        PositionSyncError: A program cannot be started, or the home cannot be written.
        StopRequested: This process shall stop.
    """
    since = utc_now()
    is_first = home.is_new
    home.prepare()
    settings = {} if is_first else home.read_settings()
    before = int(settings.get(f"{PREFIX}GATEWAY_PORT", GATEWAY_PORT))
    with start_simulator(home, options, options.gateway_port or before) as gateway:
        if is_first:
            import_strategies(home.lake, empty=options.empty)
        found = wait_until_ready(gateway, stop)
        settings = home.update_settings(
            {
                f"{PREFIX}GATEWAY_HOST": LOOPBACK,
                f"{PREFIX}GATEWAY_PORT": str(found.gateway),
                f"{PREFIX}TRADING_MODE": "SIMULATED",
                f"{PREFIX}UI_URL": supervisor.url(ui_port),
            }
        )
        adopt_environment(settings | {DAGSTER_HOME: str(home.dagster_home)})
        if is_first:
            prepare(load_settings(_env_file=None))
        stop.check()
        with supervisor.start(
            env=home_environment(settings),
            dagster_home=home.dagster_home,
            ui_port=ui_port,
            cwd=home.path,
            log=home.log_file("dagster"),
        ) as dagster:
            yield DemoRun(
                home=home,
                is_first=is_first,
                since=since,
                ui_port=ui_port,
                simulator=found,
                children=(gateway, dagster),
            )


def import_strategies(lake_path: Path, *, empty: bool = False) -> None:
    """Make the tables, with the demo's strategies unless `empty`: changes by the user stay."""
    lake = Lake(str(lake_path))
    lake.initialize_sync()
    if not empty:
        lake.registry.sync.replace_all(load_strategies(BOOKS / "demo_strategies.yaml"))
