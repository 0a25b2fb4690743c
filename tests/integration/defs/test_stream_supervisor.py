"""The supervisor sensor over real runs and leases."""

import dagster as dg
import pytest

from position_sync_dagster.defs.resources import sensor
from position_sync_dagster.defs.stream import supervise_stream
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.errors import StoreError
from position_sync_dagster.money.reports.status import read_status
from position_sync_dagster.settings import load_settings
from tests.support.store_proxy import Rule

PAUSED = "paused by a person"


def test_a_terminated_run_pauses_the_stream_until_the_sensor_is_toggled(
    world, instance, lake, settings
):
    run_id = world.begin()
    lake.sessions.end(world.own(run_id=run_id))
    instance.report_run_canceled(instance.get_run_by_id(run_id))
    assert PAUSED in world.supervise().skip_reason.skip_message
    detail = read_status(lake, settings, utc_now()).session_detail
    assert PAUSED in detail
    assert "the sensor supervise_stream off and on" in detail
    version = lake.sessions.table.version()
    world.supervise()
    assert lake.sessions.table.version() == version
    assert len(world.supervise(since_s=0.0).run_requests) == 1


@pytest.mark.parametrize(("request_of", "end"), [("canceling", "SUCCESS"), ("canceled", "FAILURE")])
def test_a_termination_pauses_the_stream_however_its_run_ended(
    world, instance, lake, request_of, end
):
    """Forced, or after a restart of the code server, Dagster does not reach the process."""
    run_id = world.begin()
    lake.sessions.end(world.own(run_id=run_id))
    run = instance.get_run_by_id(run_id)
    if request_of == "canceling":
        instance.report_run_canceling(run)
    else:
        instance.report_run_canceled(run)
    ended = dg.DagsterEventType.RUN_SUCCESS if end == "SUCCESS" else dg.DagsterEventType.RUN_FAILURE
    event = dg.DagsterEvent(event_type_value=ended.value, job_name=run.job_name)
    instance.report_dagster_event(event, run_id=run_id)
    assert instance.get_run_by_id(run_id).status.value == end
    assert PAUSED in world.supervise().skip_reason.skip_message
    assert len(world.supervise(since_s=0.0).run_requests) == 1


def test_a_pause_whose_stream_did_not_end_its_lease_is_noted_when_the_lease_is_over(
    world, instance, lake, settings
):
    """A clean end that takes longer than its grace leaves a row in the state LIVE."""
    run_id = world.begin()
    session = world.own(run_id=run_id, lease_s=3600.0)
    instance.report_run_canceled(instance.get_run_by_id(run_id))
    assert PAUSED in world.supervise().skip_reason.skip_message
    assert lake.sessions.current(settings.gateway_id).detail is None
    lake.sessions.renew(session, lease_s=0.001)
    assert PAUSED in world.supervise().skip_reason.skip_message
    status = read_status(lake, settings, utc_now())
    assert status.session_state == "LOST"
    assert PAUSED in status.session_detail


def test_a_tick_of_a_code_server_opens_the_instance_once(
    lake, composition, instance_on_disk, monkeypatch
):
    opened = []
    from_ref = dg.DagsterInstance.from_ref

    def count(ref):
        opened.append(from_ref(ref))
        return opened[-1]

    monkeypatch.setattr(dg.DagsterInstance, "from_ref", staticmethod(count))
    for _ in range(2):
        context = dg.SensorEvaluationContext(
            instance_ref=instance_on_disk.get_ref(), last_tick_completion_time=None,
            last_run_key=None, cursor=None, log_key=None, repository_name=None,
        )  # fmt: skip
        sensor(supervise_stream, composition)(context)
    assert len(opened) == 1
    opened[0].dispose()


def test_an_outage_of_the_store_fails_one_tick_and_skips_the_others(world, store):
    world.set(lake=store.lake())
    world.composition.opened(load_settings())
    assert isinstance(world.supervise(), dg.SensorResult)
    for _ in range(2):
        store.proxy.fail(Rule("slow down"))
        with pytest.raises(StoreError, match="SlowDown"):
            world.supervise()
        for _ in range(3):
            requests = world.supervise()
            assert isinstance(requests, dg.SkipReason)
            assert "SlowDown" in requests.skip_message
        store.proxy.fail()
        assert isinstance(world.supervise(), dg.SensorResult)
