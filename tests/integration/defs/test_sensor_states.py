"""What Dagster stores of sensors: times ahead of the clock, and a sensor that is switched off."""

import time

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    SensorInstigatorData,
)
from dagster._daemon.sensor import get_elapsed

from position_sync_dagster.processes.sensor_states import WATCHED, mend_tick_times

HOUR_S = 3600.0


@pytest.fixture
def put(instance_on_disk: dg.DagsterInstance):
    """Store the state of a sensor, and return a function that reads it."""

    def store(name: str, status: InstigatorStatus = InstigatorStatus.DECLARED_IN_CODE, **data):
        location = RegisteredCodeLocationOrigin("position_sync_dagster")
        origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), name)
        state = InstigatorState(
            origin, InstigatorType.SENSOR, status, SensorInstigatorData(min_interval=2, **data)
        )
        instance_on_disk.add_instigator_state(state)
        read = instance_on_disk.get_instigator_state
        return lambda: read(state.instigator_origin_id, state.selector_id)

    return store


def test_a_sensor_whose_last_tick_is_ahead_of_the_clock_ticks_at_once_and_keeps_its_cursor(
    instance_on_disk, put
):
    now = time.time()
    ahead = put(
        WATCHED,
        cursor="{}",
        last_tick_timestamp=now + HOUR_S,
        last_tick_start_timestamp=now + HOUR_S,
        last_sensor_start_timestamp=now + HOUR_S,
    )
    fine = put("tell_people", last_tick_timestamp=now - 3.0, last_tick_start_timestamp=now - 4.0)
    assert get_elapsed(ahead()) < -HOUR_S + 60, "Dagster waits for an hour"
    before = fine()

    mended = mend_tick_times(instance_on_disk, now)
    assert mended.reset == (WATCHED,)
    assert mended.is_switched_off is False
    assert get_elapsed(ahead()) is None, "Dagster lets it tick at its next look"
    data = ahead().instigator_data
    assert data.cursor == "{}"
    assert data.last_sensor_start_timestamp == now
    assert fine() == before
    assert mend_tick_times(instance_on_disk, now).reset == ()


def test_a_sensor_that_a_person_switched_off_is_told_apart(instance_on_disk, put):
    put("tell_people", InstigatorStatus.STOPPED)
    assert not mend_tick_times(instance_on_disk, time.time()).is_switched_off
    put(WATCHED, InstigatorStatus.STOPPED)
    assert mend_tick_times(instance_on_disk, time.time()).is_switched_off
