"""Several logins in one lake, by a real Dagster: what each does is no matter of the others."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from unittest.mock import patch

import pytest

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import GatewaySession, SessionState
from position_sync_dagster.errors import LakeError
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports.figures import read_figures
from position_sync_dagster.processes.home import Home
from position_sync_dagster.processes.supervisor import is_serving
from position_sync_dagster.settings import Settings, load_settings
from tests.support.demo_program import LIMIT_S, end_all, processes_of, query_ui, started, wait_for
from tests.support.logins import Login, write_gateways, write_strategies
from tests.support.ports import free_port
from tests.support.promises import assert_kept, current_by_login, streaming, waiting

pytestmark = pytest.mark.timeout(900)

LEGS = 60
ACTIVE = 10
MAX_LINES = 14

STREAMS = """query { runsOrError(filter: {pipelineName: "stream_positions"}) {
  ... on Runs { results { runId status tags { key value } } } } }"""


@dataclass
class SeveralLogins:
    """`position-sync dev` over a file that names two of three gateways at first.

    Attributes:
        named: The logins that the file names now.
    """

    folder: Path
    logins: Sequence[Login]
    settings: Settings
    ui_port: int
    process: "subprocess.Popen[bytes]"
    named: Sequence[Login]

    def __post_init__(self) -> None:
        self.lake = MoneyLake.of(self.settings)

    def name(self, *logins: Login) -> None:
        """Save the gateways file."""
        self.named = logins
        write_gateways(self.folder / "gateways.yaml", logins)

    def current(self) -> dict[str, int]:
        """Return how many legs of each login are current now."""
        with suppress(LakeError):
            return current_by_login(read_figures(self.lake, self.settings, utc_now()))
        return {}

    def all_current(self) -> bool:
        return self.current() == dict.fromkeys((login.name for login in self.named), LEGS)

    def session(self, login: Login) -> GatewaySession:
        """Wait for a stream of a login that has all its lines."""

        def has_lines(held_session: GatewaySession) -> bool:
            return held_session.lines_in_use == login.wanted_lines

        return streaming(self.lake, has_lines, name=login.name)

    def partitions(self) -> dict[str, str]:
        """Return the partition of each stream run, by its run id."""
        wait_for("the UI answers", lambda: is_serving(self.ui_port))
        runs = query_ui(self.ui_port, STREAMS)["runsOrError"]["results"]
        tags = {run["runId"]: {t["key"]: t["value"] for t in run["tags"]} for run in runs}
        return {run_id: tag["dagster/partition"] for run_id, tag in tags.items()}

    def close(self) -> None:
        """End all processes, in whatever state they are."""
        end_all(self.process, self.folder / "home")
        for login in self.logins:
            login.close()


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeveralLogins]:
    folder = tmp_path_factory.mktemp("logins")
    home = Home.at(folder / "home")
    home.prepare()
    logins = [
        Login.start(folder / "books", number, legs=LEGS, active=ACTIVE, max_lines=MAX_LINES)
        for number in (1, 2, 3)
    ]
    write_strategies(folder / "strategies.yaml", logins)
    environment = {
        "DAGSTER_HOME": str(home.dagster_home),
        "POSITION_SYNC_LAKE": str(home.lake),
        "POSITION_SYNC_TRADING_MODE": "SIMULATED",
        "POSITION_SYNC_SESSION_LEASE_S": "120",  # no stream of a busy machine loses its login
        "POSITION_SYNC_GATEWAYS_FILE": str(folder / "gateways.yaml"),
        "POSITION_SYNC_STRATEGIES_FILE": str(folder / "strategies.yaml"),
    }
    write_gateways(folder / "gateways.yaml", logins[:2])

    ui_port = free_port()
    words = ("dev", "--ui-port", str(ui_port))
    output = folder / "output.txt"
    process = started(*words, cwd=folder, output=output, env=environment)
    with patch.dict(os.environ, environment):
        running = SeveralLogins(folder, logins, load_settings(), ui_port, process, logins[:2])
        try:
            yield running
        finally:
            running.close()


def test_each_login_is_streamed_by_a_run_of_its_partition(several):
    first, second, _ = several.logins
    wait_for("all legs are current", several.all_current, poll_s=0.5)
    sessions = [several.session(first), several.session(second)]
    partitions = several.partitions()
    assert {partitions[session.run_id] for session in sessions} == {first.name, second.name}
    assert sessions[0].pid != sessions[1].pid


def test_a_login_that_is_added_to_the_file_comes_up_and_one_that_is_removed_ends(several):
    first, second, third = several.logins
    wait_for("all legs are current", several.all_current, poll_s=0.5)
    before = several.session(second)
    several.name(first, second, third)
    wait_for("all legs are current, also the new ones", several.all_current, poll_s=0.5)
    session = several.session(third)
    assert several.partitions()[session.run_id] == third.name
    third.post("freeze")  # what moves is requested again, and no login would have its account
    captured = set[datetime]()
    frozen_at = utc_now()

    def requested_all() -> bool:
        """What moved before is requested after a publication, and before the next one."""
        captured.update(several.lake.broker_positions.rows(third.name)["captured_at"])
        return sum(at > frozen_at for at in captured) >= 2

    wait_for("what moved before is requested", requested_all)
    wait_for("no request of it waits", lambda: waiting(several.lake) == 0)
    several.name(first, second)

    def ended() -> bool:
        current_session = several.lake.sessions.current(third.name)
        return current_session.state is SessionState.ENDED

    wait_for("the stream of the removed login ends", ended)
    wait_for("its lines are free", lambda: third.stats()["lines_in_use"] == 0)
    assert several.session(second).session_id == before.session_id


def test_nothing_is_lost_and_nothing_written_twice_or_by_two(several):
    wait_for("all legs are current", several.all_current, poll_s=0.5)
    wait_for("no request waits", lambda: waiting(several.lake) == 0)
    quiet_at = utc_now()
    several.process.terminate()  # as the end of a session does
    assert several.process.wait(LIMIT_S) == 0
    wait_for("no process is left", lambda: not processes_of(several.folder / "home"))
    streamed = [login for login in several.logins if several.lake.sessions.current(login.name)]
    assert_kept(several.lake, streamed, quiet_at)
