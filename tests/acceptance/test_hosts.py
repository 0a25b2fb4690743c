"""Two hosts of a deployment on one Postgres and one lake: what outlives what.

Each host is a group of processes with the commands of `deploy/programs.yaml` and a home of its own.
`tests/support/dagster-1.5.sql.gz` is a `pg_dump` of an instance of Dagster 1.5.14 (of 2023): five
runs of jobs with our names, one of them left STARTED, their events, the cursor of a sensor, and two
partitions. Today's Dagster is seven migrations of its tables further: the hosts begin with that.
"""

import gzip
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import polars as pl
import pytest

from position_sync_dagster.demo.programs import import_strategies
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import GatewaySession, SessionState
from position_sync_dagster.lake.lake import Lake
from tests.acceptance.test_recovery import assert_never_two_writers
from tests.support import postgres
from tests.support.demo_program import (
    LIMIT_S,
    LINES,
    PROGRAM,
    assert_tables_are_whole,
    clean_environment,
    wait_for,
)
from tests.support.extent import EVERYTHING
from tests.support.hosts import ROOT, Host
from tests.support.ports import free_port

pytestmark = [
    pytest.mark.skipif(postgres.programs() is None, reason=postgres.MISSING),
    pytest.mark.timeout(900),
]

HOLDERS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"

DUMP = ROOT / "tests" / "support" / "dagster-1.5.sql.gz"
REVISION = "SELECT version_num FROM alembic_version"
KEPT = (
    "SELECT run_id, pipeline_name, status FROM runs ORDER BY run_id",
    "SELECT id, run_id, dagster_event_type, asset_key, event FROM event_logs ORDER BY id",
    "SELECT run_id, key, value FROM run_tags ORDER BY run_id, key",
    "SELECT selector_id, status, instigator_body FROM instigators ORDER BY selector_id",
    "SELECT partitions_def_name, partition FROM dynamic_partitions ORDER BY 1, 2",
    "SELECT asset_key, last_run_id FROM asset_keys ORDER BY asset_key",
)
"""What a person would miss."""

PAGES = """{
  runsOrError(limit: 50) { ... on Runs { results { runId } } }
  assetOrError(assetKey: {path: ["position_updates"]}) {
    ... on Asset { assetMaterializations(limit: 50) { runId } } } }"""

RUNS = """query($filter: RunsFilter) {
  runsOrError(filter: $filter) { ... on Runs { results { runId status } } } }"""

EVENTS = """query($asset: AssetKeyInput!) {
  assetOrError(assetKey: $asset) { ... on Asset { assetMaterializations(limit: 50) {
    runId timestamp description } } } }"""


@dataclass
class Deployment:
    """Two hosts, and what both work on.

    Attributes:
        older: What an older Dagster wrote, by its query, as it was before the migration.
        revision: The revision of Dagster's tables then.
    """

    database: postgres.Postgres
    folder: Path
    gateway_port: int
    control_port: int
    a: Host
    b: Host
    older: dict[str, list[tuple[Any, ...]]]
    revision: list[tuple[Any, ...]]

    @property
    def lake(self) -> Lake:
        return Lake(self.folder / "lake")

    def post(self, action: str, **arguments: Any) -> None:
        """Make the simulated gateway do something."""
        httpx.post(
            f"http://127.0.0.1:{self.control_port}/{action}", json=arguments, trust_env=False
        ).raise_for_status()

    def session(self) -> GatewaySession | None:
        return self.lake.sessions.current(f"127.0.0.1:{self.gateway_port}")

    def streaming(self, *, after: GatewaySession | None = None) -> GatewaySession:
        """Wait for a stream with all its lines, which is another than the one before."""

        def lives() -> GatewaySession | None:
            found = self.session()
            if found is None or (after is not None and found.session_id == after.session_id):
                return None
            live = found.is_alive(utc_now()) and found.state is SessionState.LIVE
            return found if live and found.lines_in_use == LINES else None

        session: GatewaySession = wait_for("streaming", lives, within_s=2 * LIMIT_S, poll_s=0.3)
        return session

    def holders(self) -> int:
        return int(self.database.query(HOLDERS)[0][0])

    def kept(self) -> dict[str, list[tuple[Any, ...]]]:
        return {query: self.database.query(query) for query in KEPT}


def migrate(host: Host) -> str:
    """Migrate Dagster's storage as docs/deploy.md says, and return what the program wrote."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "dagster"), "instance", "migrate"],
        env=host.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("deployment")
    gateway_port, control_port = free_port(), free_port()
    words = ["--book", "demo", "--host", "127.0.0.1", "--port", str(gateway_port)]
    words += ["--control-port", str(control_port)]
    import_strategies(folder / "lake")
    with postgres.running() as database, (folder / "simulator.log").open("wb") as log:
        simulator = subprocess.Popen(
            [sys.executable, "-m", "ib_gateway_simulator", *words],
            env=clean_environment(),
            stdout=log,
            stderr=log,
        )
        environment = database.environment | {
            "POSITION_SYNC_LAKE": str(folder / "lake"),
            "POSITION_SYNC_GATEWAY_PORT": str(gateway_port),
            "POSITION_SYNC_TRADING_MODE": "SIMULATED",
        }
        hosts = [Host(folder / name, environment) for name in "ab"]
        database.output(
            "psql", "-q", "-v", "ON_ERROR_STOP=1", input=gzip.decompress(DUMP.read_bytes())
        )
        older = {query: database.query(query) for query in KEPT}
        revision = database.query(REVISION)
        try:
            migrate(hosts[0])
            with patch.dict(os.environ, database.environment):
                yield Deployment(
                    database, folder, gateway_port, control_port, *hosts, older, revision
                )
        finally:
            for host in hosts:
                host.kill()
            simulator.kill()
            simulator.wait()


def test_what_an_older_dagster_wrote_outlives_a_migration_and_the_programs_go_on(deployment):
    database, older = deployment.database, deployment.older
    assert len(older[KEPT[0]]) == 5
    migrated = database.query(REVISION)
    assert migrated != deployment.revision
    assert deployment.kept() == older
    assert postgres.PASSWORD not in migrate(deployment.a)  # again, as after a failure in between
    assert database.query(REVISION) == migrated

    deployment.a.start("code", "daemon", "webserver")
    deployment.streaming()  # its sensor has started a stream
    wait_for("the pages answer", deployment.a.answers, poll_s=0.5)
    shown = deployment.a.graphql(PAGES)
    runs = {run_id for run_id, *_ in older[KEPT[0]]}
    assert runs <= {run["runId"] for run in shown["runsOrError"]["results"]}
    materialized = {one["runId"] for one in shown["assetOrError"]["assetMaterializations"]}
    assert len(runs & materialized) == 3


@pytest.mark.parametrize("outage", ["refusing", "away"] if EVERYTHING else ["away"])
def test_a_stream_outlives_an_outage_of_postgres_and_tells_dagster_later(deployment, outage):
    if not deployment.a.processes():
        deployment.a.start("code", "daemon", "webserver")
    before = deployment.streaming()
    with getattr(deployment.database, outage)():
        version = deployment.lake.updates.table.version()
        deployment.post("disconnect")

        def writes_on() -> bool:
            found = deployment.session()
            assert found is not None
            assert found.session_id == before.session_id, "the stream ended with Postgres"
            again = found.state is SessionState.LIVE and found.state_since > before.state_since
            return again and deployment.lake.updates.table.version() >= version + 10

        wait_for("rows without Postgres, also after an interruption", writes_on, poll_s=0.3)
        back_at = utc_now()

    def told() -> set[str]:
        with suppress(httpx.HTTPError, AssertionError):  # the pages come back a little later
            asset = {"path": ["position_updates"]}
            found = deployment.a.graphql(EVENTS, asset=asset)["assetOrError"]
            return {
                event["description"]
                for event in found["assetMaterializations"]
                if event["runId"] == before.run_id
                and float(event["timestamp"]) / 1000 >= back_at.timestamp()
            }
        return set()

    events = {"Streamed: blind", "Streamed: live"}
    wait_for("the events of the outage", lambda: events <= told(), poll_s=0.5)
    session = deployment.session()
    assert session is not None
    assert session.session_id == before.session_id
    wait_for("a daemon works again", lambda: deployment.holders() == 1, poll_s=0.3)
    assert postgres.PASSWORD not in deployment.a.logs()


def test_the_stream_of_a_killed_host_comes_up_on_the_other_and_there_are_never_two(deployment):
    if not deployment.a.processes():
        deployment.a.start("code", "daemon", "webserver")
    before = deployment.streaming()
    deployment.b.start("code", "daemon", "webserver")
    wait_for("the other daemon waits", lambda: "This one waits" in deployment.b.logs())
    assert deployment.holders() == 1

    def seen() -> set[str]:
        with suppress(httpx.HTTPError):
            filtered = {"statuses": ["STARTED"]}
            runs = deployment.b.graphql(RUNS, filter=filtered)["runsOrError"]["results"]
            return {run["runId"] for run in runs}
        return set()

    wait_for("the other host's pages show the run", lambda: before.run_id in seen(), poll_s=0.3)
    deployment.a.kill()
    after = deployment.streaming(after=before)
    owner = next((p for p in deployment.b.processes() if p.pid == after.pid), None)
    assert owner is not None, "the stream runs on neither host"
    assert deployment.holders() == 1
    wait_for("the run of the killed host is ended", lambda: before.run_id not in seen(), poll_s=0.3)
    lake = deployment.folder / "lake"

    def writers() -> set[int]:
        rows = pl.scan_delta(str(lake / "position_updates")).filter(source="STREAM")
        return set(rows.select("fencing_token").collect()["fencing_token"])

    deployment.b.note_commands()
    both = {before.fencing_token, after.fencing_token}
    wait_for("rows of both streams", lambda: both <= writers(), poll_s=0.3)
    assert_never_two_writers(lake)
    assert_tables_are_whole(lake)


def test_a_stop_gives_the_lease_up_and_a_backup_of_then_is_whole(deployment, tmp_path):
    if not deployment.b.processes():
        deployment.b.start("code", "daemon", "webserver")
    before = deployment.streaming()
    deployment.b.stop()
    session = deployment.session()
    assert session is not None
    assert session.session_id == before.session_id
    assert session.state is SessionState.ENDED
    shutil.copytree(deployment.folder / "lake", tmp_path / "lake")
    dump = str(tmp_path / "dagster.dump")
    deployment.database.output("pg_dump", "--format=custom", f"--file={dump}")
    deployment.database.output("createdb", "restored")
    deployment.database.output("pg_restore", "--dbname=restored", "--exit-on-error", dump)
    restored = {"PGDATABASE": "restored", "POSITION_SYNC_LAKE": str(tmp_path / "lake")}
    environment = deployment.b.environment | restored

    def succeeds(*words: str) -> str:
        done = subprocess.run(
            [PROGRAM, *words], env=environment, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    succeeds("doctor")
    succeeds("audit", "verify", "--repair", "--grace", "0")
    assert before.run_id is not None
    assert before.run_id in succeeds("trace", before.run_id)


def test_no_log_and_no_command_line_names_the_password(deployment):
    hosts = (deployment.a, deployment.b)
    if not all(host.logs() for host in hosts):  # this test runs alone
        for host in hosts:
            host.start("code", "daemon", "webserver")
        deployment.streaming()
        wait_for("the pages of both answer", lambda: all(host.answers() for host in hosts))
        deployment.b.note_commands()
    texts = [*(host.logs() for host in hosts), *deployment.b.commands]
    assert all(texts)
    parts = (postgres.PASSWORD, *postgres.PASSWORD.split("/"))
    assert [part for part in parts for text in texts if part in text] == []
