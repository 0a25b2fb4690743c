"""A deployment: the programs of `deploy/programs.yaml` on Postgres."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import polars as pl
import pytest

from position_sync_dagster.demo import import_strategies
from position_sync_dagster.domain.gateway_session import GatewaySession, SessionState
from position_sync_dagster.money.lake import MoneyLake
from tests.support import demo_program, postgres
from tests.support.demo_book import strategies_text
from tests.support.demo_program import LIMIT_S, LINES, wait_for
from tests.support.hosts import Host
from tests.support.ports import free_port
from tests.support.promises import assert_one_writer_each, streaming

pytestmark = [
    pytest.mark.skipif(postgres.programs() is None, reason=postgres.MISSING),
    pytest.mark.timeout(900),
]

ACCOUNT = "DUSIM0001"
MONITORED = 915000030
PROGRAMS = ("code", "daemon", "webserver")


@dataclass
class Deployment:
    """One host, and what it works on."""

    database: postgres.Postgres
    folder: Path
    gateway_port: int
    control_port: int
    host: Host

    @property
    def lake(self) -> MoneyLake:
        return MoneyLake(self.folder / "lake")

    def post(self, action: str, **arguments: Any) -> None:
        """Make the simulated gateway do something."""
        httpx.post(
            f"http://127.0.0.1:{self.control_port}/{action}", json=arguments, trust_env=False
        ).raise_for_status()

    def session(self) -> GatewaySession | None:
        return self.lake.sessions.current(f"127.0.0.1:{self.gateway_port}")


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("deployment")
    gateway_port = free_port()
    control_port = free_port()
    words = ["-m", "ib_gateway_simulator", "--book", "demo", "--host", "127.0.0.1"]
    words += ["--port", str(gateway_port), "--control-port", str(control_port)]
    strategies = folder / "strategies.yaml"
    strategies.write_text(strategies_text())
    import_strategies(folder / "lake", strategies)

    with postgres.running() as database:
        files = {"cwd": folder, "output": folder / "simulator.log"}
        simulator = demo_program.started(*words, program=sys.executable, env={}, **files)
        environment = database.environment | {
            "POSITION_SYNC_LAKE": str(folder / "lake"),
            "POSITION_SYNC_GATEWAY_PORT": str(gateway_port),
            "POSITION_SYNC_TRADING_MODE": "SIMULATED",
        }
        host = Host(folder / "host", environment)
        try:
            with patch.dict(os.environ, database.environment):
                yield Deployment(database, folder, gateway_port, control_port, host)
        finally:
            host.kill()
            simulator.kill()
            simulator.wait()


def started(deployment: Deployment) -> GatewaySession:
    """Start what does not run, and wait for a stream."""
    if not deployment.host.processes():
        deployment.host.start(*PROGRAMS)
    return streaming(deployment.lake, lambda session: session.lines_in_use == LINES)


def test_a_stream_outlives_an_outage_of_postgres_and_what_waited_is_drained_afterwards(deployment):
    before = started(deployment)
    with deployment.database.away():
        version = deployment.lake.updates.table.version()
        deployment.post("disconnect")

        def writes_on() -> bool:
            session_read = deployment.session()
            assert session_read is not None
            assert session_read.session_id == before.session_id, "the stream ended with Postgres"
            again = (
                session_read.state is SessionState.LIVE
                and session_read.state_since > before.state_since
            )
            return again and deployment.lake.updates.table.version() >= version + 10

        wait_for("rows without Postgres, also after an interruption", writes_on, poll_s=0.3)
        request = deployment.lake.queue.sync.insert(MONITORED, "NVDA", account=ACCOUNT)

    def drained() -> bool:
        rows = pl.read_delta(str(deployment.folder / "lake" / "position_queue"))
        return rows.filter(request_id=request)["status"].to_list() == ["SUCCESS"]

    wait_for("a request that waited is answered", drained, within_s=2 * LIMIT_S, poll_s=0.5)
    session = deployment.session()
    assert session is not None
    assert session.session_id == before.session_id
    assert_one_writer_each(deployment.lake)


def test_a_stop_gives_the_lease_up_and_no_log_and_no_command_line_names_the_password(deployment):
    before = started(deployment)
    deployment.host.note_commands()
    deployment.host.stop()
    session = deployment.session()
    assert session is not None
    assert session.session_id == before.session_id
    assert session.state == SessionState.ENDED
    demo_program.assert_tables_are_whole(deployment.folder / "lake")
    texts = [deployment.host.logs(), *deployment.host.commands]
    assert all(texts)
    parts = (postgres.PASSWORD, *postgres.PASSWORD.split("/"))
    assert [part for part in parts for text in texts if part in text] == []
