"""Dagster's own queue of runs: which limit binds, and that a drain finds a place in it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.instance.types import InstanceType
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.run_coordinator import SubmitRunContext
from dagster._core.storage.event_log import InMemoryEventLogStorage
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
from dagster._core.storage.root import LocalArtifactStorage
from dagster._core.storage.runs import InMemoryRunStorage
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon

from position_sync_dagster.dagster_host.launcher import fixed_limit
from position_sync_dagster.places import instance_file
from position_sync_dagster.run_slots import DRAIN_JOB, LOGINS, STREAM_JOB

BACKFILL = "close_day"
REPOSITORY = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "__repository__")

Open = Callable[[dict[str, Any]], dg.DagsterInstance]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Open an instance in memory, with the queue and the limits of a `dagster.yaml`."""
    with ExitStack() as stack:

        def opened_with(configuration: dict[str, Any]) -> dg.DagsterInstance:
            named = configuration.get("run_coordinator", {})
            module = import_module(named.get("module", dg.__name__))
            queue = getattr(module, named.get("class", "QueuedRunCoordinator"))
            return stack.enter_context(
                dg.DagsterInstance(
                    instance_type=InstanceType.EPHEMERAL,
                    local_artifact_storage=LocalArtifactStorage(str(tmp_path)),
                    run_storage=InMemoryRunStorage(),
                    event_storage=InMemoryEventLogStorage(),
                    compute_log_manager=NoOpComputeLogManager(),
                    run_coordinator=queue.from_config_value(None, named.get("config", {})),
                    run_launcher=dg.DefaultRunLauncher(),
                    settings={"concurrency": configuration["concurrency"]},
                )
            )

        yield opened_with


def submit(instance: dg.DagsterInstance, *jobs: str, tags: dict[str, str] | None = None) -> None:
    """Queue runs as sensors, schedules and the UI do."""
    for job in jobs:
        origin = RemoteJobOrigin(REPOSITORY, job)
        run = instance.add_run(
            dg.DagsterRun(job_name=job, tags=tags or {}, remote_job_origin=origin)
        )
        instance.run_coordinator.submit_run(SubmitRunContext(run, workspace=None))


def take(instance: dg.DagsterInstance) -> Sequence[str]:
    """Return the jobs of the runs that Dagster's daemon takes from the queue now; begin them."""
    daemon = QueuedRunCoordinatorDaemon(interval_seconds=1)
    taken = daemon._get_runs_to_dequeue(
        instance, instance.get_concurrency_config(), fixed_iteration_time=None
    )
    for run in taken:
        instance.report_dagster_event(dg.DagsterEvent("PIPELINE_START", run.job_name), run.run_id)
    return [run.job_name for run in taken]


def settings_of_the_project() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(instance_file().read_text())
    return found


def test_the_limit_of_all_runs_binds_whatever_pools_and_tags_leave_free(opened: Open) -> None:
    """As five logins on four places were: neither a pool nor a tag keeps a place for the drain."""
    limits = [{"key": "dagster/priority", "value": "1", "limit": 5}, {"key": "a", "limit": 1}]
    runs = {"max_concurrent_runs": 4, "tag_concurrency_limits": limits}
    pools = {"granularity": "run", "default_limit": 1}
    instance = opened({"concurrency": {"runs": runs, "pools": pools}})
    submit(instance, *[STREAM_JOB] * 5, tags={"dagster/priority": "1"})
    submit(instance, DRAIN_JOB, tags={"a": "drain"})
    assert take(instance) == [STREAM_JOB] * 4
    assert take(instance) == []
    assert fixed_limit(instance) == 4


def test_a_drain_finds_a_place_beside_the_streams_of_all_logins_and_a_backfill(
    opened: Open,
) -> None:
    instance = opened(settings_of_the_project())
    instance.add_dynamic_partitions(LOGINS, [f"login {n}" for n in range(5)])
    submit(instance, *[BACKFILL] * 30)
    assert take(instance) == [BACKFILL] * 6
    submit(instance, *[STREAM_JOB] * 11, tags={"dagster/priority": "1"})
    submit(instance, DRAIN_JOB)
    assert take(instance) == [*[STREAM_JOB] * 10, DRAIN_JOB]
    submit(instance, DRAIN_JOB)
    assert take(instance) == [DRAIN_JOB], "a refresh has a place of its own"
    assert take(instance) == []


def test_the_limit_follows_the_logins_while_the_daemon_works(opened: Open) -> None:
    instance = opened(settings_of_the_project())
    submit(instance, *[STREAM_JOB] * 6)
    assert take(instance) == [STREAM_JOB] * 2
    instance.add_dynamic_partitions(LOGINS, ["east", "west"])
    assert take(instance) == [STREAM_JOB] * 2
    assert fixed_limit(instance) is None


def test_a_limit_that_the_instance_names_is_fixed(opened: Open) -> None:
    configuration = settings_of_the_project()
    configuration["concurrency"]["runs"] = {"max_concurrent_runs": 12}
    assert fixed_limit(opened(configuration)) == 12
    configuration["concurrency"]["runs"] = {"max_concurrent_runs": -1}
    assert fixed_limit(opened(configuration)) is None
