"""The gateway simulator as a child process, and its control port."""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.processes.child_process import ChildProcess
from position_sync_dagster.processes.home import Home, home_environment
from position_sync_dagster.processes.ports import LOOPBACK, NEXT_PORTS, get_json
from position_sync_dagster.processes.stop_request import StopRequest

READY_TIMEOUT_S = 20.0
GRACE_S = 1.0
POLL_S = 0.05
ANSWER_TIMEOUT_S = 5.0


class SimulatorProcessError(PositionSyncError):
    """The simulator did not start, or it does not answer."""


class SimulatorPorts(NamedTuple):
    """The ports at which the simulator listens."""

    gateway: int
    control: int


def start(
    home: Home, wanted: SimulatorPorts, *, lock_fd: int, scenario: Path | None = None
) -> ChildProcess:
    """Start the simulator with the demo's book, and a scenario.

    Args:
        home: The home of the demo.
        wanted: The simulator listens at this gateway port, or at the next free one. It binds the
            port itself, so that two demos that start together get different ones. A control port
            of 0 means any free one.
        lock_fd: The file descriptor of the home's lock.
    """
    command = [sys.executable, "-m", "ib_gateway_simulator", "--book", "demo"]
    command += ["--host", LOOPBACK, "--port", str(wanted.gateway), "--next-ports", str(NEXT_PORTS)]
    command += ["--control-port", str(wanted.control)]
    command += [] if scenario is None else ["--scenario", str(scenario)]
    return ChildProcess(
        "The simulator",
        command,
        env=home_environment(home.path, {}),
        cwd=home.path,
        log=home.log_file("simulator"),
        grace_s=GRACE_S,
        inherited_fds=[lock_fd],
    )


def wait_until_ready(
    child: ChildProcess, stop: StopRequest, *, timeout_s: float = READY_TIMEOUT_S
) -> SimulatorPorts:
    """Wait until the simulator has printed its ports, and return them.

    Raises:
        ChildEndedError: The simulator has ended.
        SimulatorProcessError: The simulator did not print its ports in time.
        StopRequested: This process shall stop.
    """
    for _ in range(round(timeout_s / POLL_S)):
        ports = parse_ports(child.tail(lines=50))
        if ports:
            return ports
        child.check()
        stop.pause(POLL_S)
    raise SimulatorProcessError(
        f"The simulator was not ready after {timeout_s:.0f} s.", remedy=f"See {child.log}."
    )


def parse_ports(output: str) -> SimulatorPorts | None:
    """Return the ports from the simulator's output, None if it has not printed them yet.

    >>> parse_ports('{"port": 4010, "control_port": 4011}')
    SimulatorPorts(gateway=4010, control=4011)
    """
    for line in output.splitlines():
        if line.startswith("{"):
            try:
                values = json.loads(line)
            except ValueError:
                continue
            if values.get("port") and values.get("control_port"):
                return SimulatorPorts(gateway=values["port"], control=values["control_port"])
    return None


def stats(control_port: int) -> dict[str, Any]:
    """Read the simulator's counts from its control port.

    Raises:
        SimulatorProcessError: The simulator does not answer.
    """
    counts: dict[str, Any] = _get(control_port, "/stats")
    return counts


def held(control_port: int) -> frozenset[tuple[str, int]]:
    """Read the positions held from the control port, each as (account, conid).

    Raises:
        SimulatorProcessError: The simulator does not answer.
    """
    rows = _get(control_port, "/positions")
    return frozenset((row["account"], row["conid"]) for row in rows if row["quantity"])


def statements(control_port: int) -> dict[str, str]:
    """Read the statement of each account since the start, as XML.

    Raises:
        SimulatorProcessError: The simulator does not answer.
    """
    found: dict[str, str] = _get(control_port, "/statements")
    return found


def _get(control_port: int, path: str) -> Any:
    try:
        return get_json(control_port, path, timeout_s=ANSWER_TIMEOUT_S)
    except (OSError, ValueError) as error:
        raise SimulatorProcessError(
            f"The simulator's control port {control_port} does not answer: {error}.",
            remedy="See the simulator's log.",
        ) from error
