"""The one rule for a clock that was set back: small steps are waited out, large ones end."""

from datetime import UTC, datetime, timedelta

import pytest

from position_sync_dagster.domain.clock import WAITED_OUT, ClockWatch, SteadyClock
from position_sync_dagster.errors import ClockSetBackError

NOON = datetime(2027, 1, 4, 12, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)


class Machine:
    """The clock of a machine, which somebody sets."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


def test_a_process_sees_no_small_step_back_and_goes_on_when_the_machine_has_caught_up() -> None:
    machine = Machine()
    clock = SteadyClock(machine)
    watch = ClockWatch(clock)
    watch.check()
    machine.now = NOON - WAITED_OUT
    assert clock() == NOON
    watch.check()
    machine.now = NOON + INSTANT
    assert clock() == machine.now
    watch.check()


def test_a_larger_step_back_is_seen_at_once_and_ends_what_holds_times() -> None:
    machine = Machine()
    clock = SteadyClock(machine)
    watch = ClockWatch(clock)
    watch.check()
    machine.now = NOON - timedelta(hours=1)
    assert clock() == machine.now
    with pytest.raises(ClockSetBackError, match="set back by 3600 s"):
        watch.check()
