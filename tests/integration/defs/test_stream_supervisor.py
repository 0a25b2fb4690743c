"""The supervisor sensor over real runs and leases."""

import time
from collections.abc import Callable

import dagster as dg
import pytest

from position_sync_dagster.defs.resources import POSITION_SYNC, STREAM_JOB
from position_sync_dagster.defs.stream import supervise_stream
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.errors import StoreUnavailableError
from position_sync_dagster.sync.reports.status import read_status
from tests.support.store_proxy import Rule

pytestmark = pytest.mark.usefixtures("settings", "lake")

Tick = Callable[..., dg.RunRequest | dg.SkipReason]


@pytest.fixture
def tick(instance: dg.DagsterInstance) -> Tick:
    def evaluate(*, since_s: float = 3600.0) -> dg.RunRequest | dg.SkipReason:
        with dg.build_sensor_context(
            instance=instance, last_sensor_start_time=time.time() - since_s
        ) as context:
            return decided(supervise_stream(context))

    return evaluate


def decided(found: dg.SensorResult) -> dg.RunRequest | dg.SkipReason:
    return found.run_requests[0] if found.run_requests else found.skip_reason


def begin(instance: dg.DagsterInstance, status: dg.DagsterRunStatus) -> str:
    run = dg.DagsterRun(job_name=STREAM_JOB, status=status)
    instance.add_run(run)
    return run.run_id


def test_a_stream_that_is_alive_is_left_alone(tick, instance, own_login):
    own_login(run_id=begin(instance, dg.DagsterRunStatus.STARTED))
    assert "its lease holds" in tick().skip_message


def test_a_run_whose_lease_is_dead_is_failed_and_followed(tick, instance, own_login):
    """After `kill -9` of everything Dagster believes for ever that the run goes on."""
    run_id = begin(instance, dg.DagsterRunStatus.STARTED)
    own_login(run_id=run_id, lease_s=0.001)
    assert isinstance(tick(), dg.RunRequest)
    assert instance.get_run_by_id(run_id).status is dg.DagsterRunStatus.FAILURE
    assert isinstance(tick(), dg.RunRequest)


def test_a_terminated_run_pauses_the_stream_until_the_sensor_is_toggled(
    tick, instance, own_login, lake, settings
):
    run_id = begin(instance, dg.DagsterRunStatus.STARTED)
    lake.sessions.end(own_login(run_id=run_id))
    instance.report_run_canceled(instance.get_run_by_id(run_id))
    assert "paused by a person" in tick().skip_message
    status = read_status(lake, settings, utc_now())
    assert "paused by a person" in status.session_detail
    version = lake.sessions.table.version()
    tick()
    assert lake.sessions.table.version() == version
    assert isinstance(tick(since_s=0.0), dg.RunRequest)


def test_a_pause_whose_stream_did_not_end_its_lease_is_noted_when_the_lease_is_over(
    tick, instance, own_login, lake, settings
):
    """A clean end that takes longer than its grace leaves a row in the state LIVE."""
    run_id = begin(instance, dg.DagsterRunStatus.STARTED)
    session = own_login(run_id=run_id, lease_s=3600.0)
    instance.report_run_canceled(instance.get_run_by_id(run_id))
    assert "paused by a person" in tick().skip_message
    assert lake.sessions.current(settings.gateway_id).detail is None
    lake.sessions.renew(session, lease_s=0.001)
    assert "paused by a person" in tick().skip_message
    status = read_status(lake, settings, utc_now())
    assert status.session_state == "LOST"
    assert "paused by a person" in status.session_detail


def test_a_tick_of_a_code_server_opens_the_instance_once(instance_on_disk, monkeypatch):
    opened = []
    from_ref = dg.DagsterInstance.from_ref

    def count(ref):
        instance = from_ref(ref)
        opened.append(instance)
        return instance

    monkeypatch.setattr(dg.DagsterInstance, "from_ref", staticmethod(count))
    for _ in range(2):
        context = dg.SensorEvaluationContext(
            instance_ref=instance_on_disk.get_ref(), last_tick_completion_time=None,
            last_run_key=None, cursor=None, log_key=None, repository_name=None,
        )  # fmt: skip
        supervise_stream(context)
    assert len(opened) == 1
    opened[0].dispose()


def test_an_outage_of_the_store_fails_one_tick_and_skips_the_others(instance, store, monkeypatch):
    monkeypatch.setenv("POSITION_SYNC_LAKE", store.lake())
    POSITION_SYNC.lake.initialize_sync()

    def tick() -> object:
        with dg.build_sensor_context(instance=instance, last_sensor_start_time=0.0) as context:
            return supervise_stream(context)

    assert isinstance(tick(), dg.SensorResult)
    for _ in range(2):
        store.proxy.fail(Rule("slow down"))
        with pytest.raises(StoreUnavailableError, match="SlowDown"):
            tick()
        for _ in range(3):
            found = tick()
            assert isinstance(found, dg.SkipReason)
            assert "SlowDown" in found.skip_message
        store.proxy.fail()
        assert isinstance(tick(), dg.SensorResult)
