"""How many runs Dagster may have at once: what `dagster.yaml` says, and who says it is too few."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from position_sync_dagster.cli.app import app
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.processes.preflight import Level, check_run_slots
from position_sync_dagster.run_slots import RunSlotsError, configured, too_few
from position_sync_dagster.settings import PREFIX, load_settings
from position_sync_dagster.sync.reports.status import read_status
from tests.support.empty_lakes import put_tables

OWN = (
    "run_coordinator: {module: position_sync_dagster.dagster_host.launcher, class: PromptRunQueue}"
)
DAGSTERS = "run_coordinator: {module: dagster, class: QueuedRunCoordinator, config: %s}"
FOUR = "concurrency: {runs: {max_concurrent_runs: 4}}"


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        (OWN, None),
        (f"{OWN}\n{FOUR}", 4),
        (FOUR, 4),
        ("telemetry: {enabled: false}", 10),
        ("", 10),
        (DAGSTERS % "{}", 10),
        (DAGSTERS % "{max_concurrent_runs: 6}", 6),
        (DAGSTERS % "{max_concurrent_runs: {env: RUNS_AT_ONCE}}", 7),
        (DAGSTERS % "{max_concurrent_runs: {env: NOT_SET}}", None),
        (DAGSTERS % "{max_concurrent_runs: -1}", None),
        ("run_queue: {max_concurrent_runs: 5}", 5),
        ("run_coordinator: {module: dagster, class: DefaultRunCoordinator}", None),
        ("a: [", None),
    ],
)
def test_the_limit_is_read_as_dagster_reads_it(text, limit, tmp_path, monkeypatch):
    monkeypatch.setenv("RUNS_AT_ONCE", "7")
    (tmp_path / "dagster.yaml").write_text(text)
    assert configured(tmp_path) == limit


def test_without_a_file_nothing_is_said_about_the_limit(tmp_path):
    assert configured(tmp_path) is None


@pytest.fixture
def five_logins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home of Dagster with four places, where a gateways file names five logins."""
    lines = [f"  - {{name: g{n}, port: {4000 + n}, accounts: [DU{n}]}}" for n in range(5)]
    (tmp_path / "gateways.yaml").write_text("\n".join(["gateways:", *lines, ""]))
    (tmp_path / "dagster.yaml").write_text(FOUR)
    monkeypatch.setenv(f"{PREFIX}GATEWAYS_FILE", str(tmp_path / "gateways.yaml"))
    monkeypatch.setenv(f"{PREFIX}LAKE", str(tmp_path / "lake"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    return tmp_path


def test_dev_does_not_start_with_too_few(five_logins):
    done = CliRunner().invoke(app, ["dev"])
    assert isinstance(done.exception, RunSlotsError)
    assert "5 logins need 18" in done.exception.what
    assert "max_concurrent_runs" in done.exception.remedy


def test_doctor_and_status_say_that_they_are_too_few(five_logins):
    [found] = check_run_slots(five_logins, 5)
    assert found.level is Level.BAD
    assert "4 runs in progress" in found.text
    assert found.remedy
    put_tables(str(five_logins / "lake"))
    settings = load_settings()
    status = read_status(Lake.of(settings), settings, utc_now())
    assert [line for line in status.attention if "5 logins need 18" in line]


def test_enough_is_good(five_logins):
    (five_logins / "dagster.yaml").write_text("concurrency: {runs: {max_concurrent_runs: 18}}")
    [found] = check_run_slots(five_logins, 5)
    assert found.level is Level.GOOD
    assert too_few(18, 5) is None
    assert too_few(17, 5) is not None
