"""An upgrade of Dagster keeps what an older one wrote to Postgres, and the programs work on it.

`tests/support/dagster-1.5.sql.gz` is a `pg_dump` of an instance of Dagster 1.5.14 (of 2023): five
runs of jobs with our names, one of them left STARTED, their events, the cursor of a sensor, and two
partitions. Today's Dagster is seven migrations of its tables further.
"""

import gzip
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import postgres
from tests.support.demo_program import wait_for
from tests.support.hosts import ROOT, Host
from tests.support.ports import free_port

pytestmark = pytest.mark.skipif(postgres.programs() is None, reason=postgres.MISSING)

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
  runsOrError(limit: 50) { ... on Runs { results { runId jobName status } } }
  assetOrError(assetKey: {path: ["position_updates"]}) {
    ... on Asset { assetMaterializations(limit: 50) { runId description } } } }"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[tuple[Host, postgres.Postgres]]:
    """Return a host whose Postgres holds what Dagster 1.5 wrote; nothing of it is started."""
    with postgres.running() as database:
        database.output(
            "psql", "-q", "-v", "ON_ERROR_STOP=1", input=gzip.decompress(DUMP.read_bytes())
        )
        one = Host(
            tmp_path / "host",
            database.environment
            | {
                "POSITION_SYNC_LAKE": str(tmp_path / "lake"),
                "POSITION_SYNC_GATEWAY_PORT": str(free_port()),
            },
        )
        try:
            yield one, database
        finally:
            one.kill()


def migrate(one: Host) -> str:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "dagster"), "instance", "migrate"],
        env=one.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_runs_events_cursors_and_partitions_outlive_a_migration_and_the_programs_go_on(
    host,
) -> None:
    one, database = host
    before = {query: database.query(query) for query in KEPT}
    assert len(before[KEPT[0]]) == 5
    old_revision = database.query(REVISION)
    migrate(one)
    assert database.query(REVISION) != old_revision
    assert {query: database.query(query) for query in KEPT} == before
    migrated = database.query(REVISION)
    assert postgres.PASSWORD not in migrate(one)  # again, as after a failure in between
    assert database.query(REVISION) == migrated

    one.start("code", "daemon", "webserver")

    def pages() -> Any:
        try:
            return one.graphql(PAGES)
        except (httpx.HTTPError, AssertionError):
            return None

    old = {run_id for run_id, *_ in before[KEPT[0]]}

    def goes_on() -> list[dict[str, str]]:
        found = pages()
        runs = found["runsOrError"]["results"] if found else []
        new = [run for run in runs if run["runId"] not in old and run["status"] == "STARTED"]
        return [run for run in new if run["jobName"] == "stream_positions"]

    wait_for("a new stream is started by its sensor", goes_on, poll_s=0.5)
    shown = pages()
    assert old <= {run["runId"] for run in shown["runsOrError"]["results"]}
    materialized = {one["runId"] for one in shown["assetOrError"]["assetMaterializations"]}
    assert len(old & materialized) == 3
