"""The drain sensor over real tables and runs."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from position_sync_dagster.definitions import defs
from position_sync_dagster.defs.drain import MAX_RUNTIME_S, drain_queue, observe
from position_sync_dagster.defs.runs import DRAIN_JOB, FAILURE_REASON, RELEASED, STREAM_JOB
from position_sync_dagster.domain.gateway_session import Owner, SessionState
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.drain_plan import DrainCursor

pytestmark = pytest.mark.usefixtures("settings")


@pytest.fixture
def tick(instance: dg.DagsterInstance, lake: Lake) -> Callable[..., dg.SensorResult]:
    """Evaluate the sensor with the registry already recorded, so that only the case is tested."""

    def evaluate(**cursor: Any) -> dg.SensorResult:
        known = {"registry_version": lake.registry.table.version()} | cursor
        with dg.build_sensor_context(
            instance=instance, cursor=DrainCursor(**known).to_text()
        ) as context:
            result = drain_queue(context)
        assert isinstance(result, dg.SensorResult)
        return result

    return evaluate


DRAINED_AND_DERIVED = ["position_updates", "latest_positions", "strategy_exposure"]


def names(result: dg.SensorResult) -> list[str]:
    assert result.run_requests is not None
    (request,) = result.run_requests
    assert request.run_key is None
    assert request.asset_check_keys == []  # a planned check has no result until its step ran
    return [key.to_user_string() for key in request.asset_selection or ()]


def add_run(
    instance: dg.DagsterInstance, status: dg.DagsterRunStatus, job: str = DRAIN_JOB, **tags: str
) -> str:
    run = dg.DagsterRun(job_name=job, status=status, tags=tags)
    instance.add_run(run)
    return run.run_id


def test_waiting_requests_are_drained_by_one_run_over_the_ledger(tick, own_login, enqueue) -> None:
    own_login()
    enqueue(1, 2)
    result = tick()
    assert names(result) == DRAINED_AND_DERIVED
    assert result.run_requests[0].tags["position_sync/reason"] == "requests_wait"


def test_an_empty_queue_is_skipped_with_its_numbers(tick, own_login) -> None:
    own_login()
    result = tick()
    assert not result.run_requests
    assert "pending 0, claimable 0" in result.skip_reason.skip_message


def test_a_tick_changes_no_table(tick, own_login, enqueue, lake: Lake) -> None:
    own_login()
    enqueue(1)
    before = [table.version() for table in lake.tables]
    tick()
    assert [table.version() for table in lake.tables] == before


@pytest.mark.parametrize(
    "status",
    [
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
        dg.DagsterRunStatus.CANCELING,
    ],
)
def test_a_drain_in_progress_keeps_the_next_one_back(
    tick, own_login, enqueue, instance, status
) -> None:
    own_login()
    enqueue(1)
    run_id = add_run(instance, status)
    assert f"{run_id[:8]} is in progress" in tick().skip_reason.skip_message


def test_a_drain_left_started_by_a_crash_blocks_nothing_for_long(
    own_login, instance, lake: Lake, settings: Settings
) -> None:
    own_login()
    add_run(instance, dg.DagsterRunStatus.STARTED)
    later = datetime.now(UTC) + timedelta(seconds=MAX_RUNTIME_S + 1)
    assert observe(instance, lake, settings, now=datetime.now(UTC)).drain_in_progress
    assert observe(instance, lake, settings, now=later).drain_in_progress is None
    set_back = datetime.now(UTC) - timedelta(hours=1)
    assert observe(instance, lake, settings, now=set_back).drain_in_progress is None


def test_requests_wait_while_the_owner_is_not_connected(tick, own_login, enqueue) -> None:
    own_login(state=SessionState.BLIND)
    enqueue(1)
    assert "is BLIND since" in tick().skip_reason.skip_message


def test_without_a_stream_a_refresh_is_requested_with_the_drain(
    tick, settings, seconds_ago
) -> None:
    since = {settings.gateway_id: seconds_ago(60)}
    assert names(tick(unowned_since=since)) == ["position_queue", *DRAINED_AND_DERIVED]


def test_a_stream_run_that_is_starting_comes_before_a_refresh(
    tick, settings, instance, seconds_ago
) -> None:
    add_run(instance, dg.DagsterRunStatus.NOT_STARTED, STREAM_JOB)
    assert not tick(unowned_since={settings.gateway_id: seconds_ago(60)}).run_requests


def test_a_refresh_that_just_was_is_not_repeated(
    tick, settings, own_login, lake: Lake, seconds_ago
) -> None:
    lake.sessions.end(own_login(owner=Owner.REFRESH))
    since = {settings.gateway_id: seconds_ago(60)}
    assert "next refresh in" in tick(unowned_since=since).skip_reason.skip_message


def test_a_registry_that_changed_is_recorded(tick, own_login) -> None:
    own_login()
    assert names(tick(registry_version=-5)) == ["active_strategies"]


def test_a_strategies_file_that_was_saved_is_applied_once(
    tick, own_login, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    own_login()
    path = tmp_path / "strategies.yaml"
    path.write_text("strategies: []\n")
    monkeypatch.setenv("POSITION_SYNC_STRATEGIES_FILE", str(path))
    result = tick()
    assert names(result) == ["active_strategies"]
    mark = DrainCursor.from_text(result.cursor).strategies_mark
    assert not tick(strategies_mark=mark).run_requests


@pytest.mark.parametrize("text", ["strategies: []\n", "strategies: 7\n"])
def test_a_strategies_file_whose_run_was_killed_is_applied_after_all(
    tick, own_login, instance, lake, settings, monkeypatch, tmp_path, text
) -> None:
    own_login()
    path = tmp_path / "strategies.yaml"
    path.write_text(text)
    monkeypatch.setenv("POSITION_SYNC_STRATEGIES_FILE", str(path))
    first = tick()
    applied: dict[str, Any] = {
        "strategies_mark": DrainCursor.from_text(first.cursor).strategies_mark
    }
    run = dg.DagsterRun(
        job_name=DRAIN_JOB,
        status=dg.DagsterRunStatus.STARTED,
        asset_selection=frozenset(first.run_requests[0].asset_selection),
    )
    instance.add_run(run)
    assert not tick(**applied).run_requests
    instance.report_run_failed(run, "Its process was killed.")
    again = tick(**applied)
    assert names(again) == ["active_strategies"]

    result = (
        defs()
        .resolve_job_def(DRAIN_JOB)
        .execute_in_process(
            instance=instance,
            asset_selection=again.run_requests[0].asset_selection,
            raise_on_error=False,
        )
    )
    assert result.success is (text == "strategies: []\n")
    found = observe(instance, lake, settings, now=datetime.now(UTC))
    assert not found.unapplied, "a malformed file waits until it is saved"


def test_a_drain_that_failed_is_not_requested_again_at_once(
    tick, own_login, enqueue, instance
) -> None:
    own_login()
    enqueue(1)
    run_id = add_run(instance, dg.DagsterRunStatus.STARTED)
    instance.add_run_tags(run_id, {FAILURE_REASON: "STEP_FAILURE"})
    instance.report_run_failed(instance.get_run_by_id(run_id))
    assert "the last 1 drain runs failed" in tick().skip_reason.skip_message


def test_released_requests_wait_until_there_are_others(tick, own_login, enqueue, instance) -> None:
    own_login()
    enqueue(1, 2)
    run_id = add_run(instance, dg.DagsterRunStatus.STARTED, **{RELEASED: "2"})
    instance.report_run_failed(instance.get_run_by_id(run_id))
    assert "released requests that they could not value" in tick().skip_reason.skip_message
    enqueue(3)
    assert names(tick()) == DRAINED_AND_DERIVED
