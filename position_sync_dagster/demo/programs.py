"""The programs of a demo, the simulator and `dagster dev`, in a home of their own.

Both end with this process, whatever ends it: each runs under a reaper that reads a pipe from
here. Dagster's reaper also holds the simulator's pipe, so that the simulator ends last and the
stream can close its gateway session while the gateway still answers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import as_file, files
from pathlib import Path

from position_sync_dagster.demo import history, simulator_process
from position_sync_dagster.demo.day import write_day
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.processes import dagster_dev, ports
from position_sync_dagster.processes.child_process import ChildProcess
from position_sync_dagster.processes.environment import (
    DAGSTER_HOME,
    adopt_environment,
    home_environment,
)
from position_sync_dagster.processes.home import Home
from position_sync_dagster.processes.stop_request import StopRequest
from position_sync_dagster.settings import PREFIX, load_settings

GATEWAY_PORT = 17497
"""No port of TWS or IB Gateway, and below the ports that operating systems assign."""


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
    simulator: simulator_process.SimulatorPorts
    children: tuple[ChildProcess, ...]

    def check(self) -> None:
        """Raise if one of the programs has ended.

        Raises:
            ChildEndedError: It has ended.
        """
        for child in self.children:
            child.check()

    def addresses(self) -> dict[str, str]:
        """Return the addresses and folders of the parts."""
        return {
            "ui": dagster_dev.url(self.ui_port),
            "control": f"http://{ports.LOOPBACK}:{self.simulator.control}",
            "gateway": f"{ports.LOOPBACK}:{self.simulator.gateway}",
            "home": str(self.home.path),
            "lake": str(self.home.lake),
            "logs": str(self.home.log_file("*")),
        }


@contextmanager
def start(
    home: Home,
    *,
    ui_port: int,
    gateway_port: int | None,
    control_port: int,
    lock_fd: int,
    stop: StopRequest,
    calm: bool,
) -> Iterator[DemoRun]:
    """Start the programs; end them, and all that came from them, when the block ends.

    The settings of the home become the settings of this process.

    Args:
        home: The home, whose lock this process holds.
        ui_port: The port of the Dagster UI.
        gateway_port: The gateway's port; None takes that of the start before, or one that is free.
        control_port: The port of the simulator's controls; 0 takes any free port.
        lock_fd: The file descriptor of the home's lock, which the programs share.
        stop: Where a request to stop is noticed.
        calm: Whether nothing happens in the simulated market but prices.

    Raises:
        PositionSyncError: A program cannot be started, or the home cannot be written.
        StopRequested: This process shall stop.
    """
    since = utc_now()
    is_first = home.is_new
    home.prepare()
    settings = {} if is_first else home.read_settings()
    wanted = gateway_port or int(settings.get(f"{PREFIX}GATEWAY_PORT", GATEWAY_PORT))
    scenario = None if calm else home.path / "day.yaml"
    if scenario is not None:
        write_day(scenario)
    with simulator_process.start(
        env=home_environment(home.path, {}),
        cwd=home.path,
        log=home.log_file("simulator"),
        port=wanted,
        control_port=control_port,
        lock_fd=lock_fd,
        scenario=scenario,
    ) as gateway:
        if is_first:
            import_strategies(home.lake)
        found = simulator_process.wait_until_ready(gateway, stop)
        settings = home.update_settings(
            {
                f"{PREFIX}LAKE": str(home.lake),
                f"{PREFIX}GATEWAY_HOST": ports.LOOPBACK,
                f"{PREFIX}GATEWAY_PORT": str(found.gateway),
                f"{PREFIX}TRADING_MODE": "SIMULATED",
                f"{PREFIX}FLEX_FOLDER": str(home.path / "flex"),
            }
        )
        adopt_environment(settings | {DAGSTER_HOME: str(home.dagster_home)})
        if is_first:
            history.prepare(load_settings(_env_file=None))
        stop.check()
        with dagster_dev.start(
            env=home_environment(home.path, settings),
            dagster_home=home.dagster_home,
            ui_port=ui_port,
            cwd=home.path,
            log=home.log_file("dagster"),
            inherited_fds=[lock_fd, gateway.pipe_fd],
        ) as dagster:
            yield DemoRun(
                home=home,
                is_first=is_first,
                since=since,
                ui_port=ui_port,
                simulator=found,
                children=(gateway, dagster),
            )


def import_strategies(lake_path: Path) -> None:
    """Make the demo's strategies active. It is done once, so that a person's changes stay."""
    from position_sync_dagster.lake import Lake
    from position_sync_dagster.lake.registry.strategies_file import load_strategies

    book = files("position_sync_dagster.simulator") / "books" / "demo_strategies.yaml"
    with as_file(book) as path:
        legs = load_strategies(path)
    lake = Lake(str(lake_path))
    lake.initialize_sync()
    lake.registry.sync.replace_all(legs)
