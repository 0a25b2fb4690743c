"""A daemon that works without letting a sensor tick is started again."""

from types import SimpleNamespace

import pytest

from position_sync_dagster import last_work
from position_sync_dagster.dagster_host import services
from position_sync_dagster.dagster_host.services import LOOK_S, TICK_S, DaemonSigns, Program

LAST_TICK_S = 60.0


@pytest.mark.parametrize("failing", [False, True], ids=["none ticks", "each tick fails"])
def test_a_daemon_whose_sensors_tick_no_more_is_started_again_once(monkeypatch, failing):
    """A tick that fails, as while the store is away, is one: another daemon would not help."""
    clock = SimpleNamespace(now=0.0)
    # The daemon gives a sign every 2 s; the sensors tick every 5 s, until they do not any more.
    files = {
        last_work.DAEMON: lambda: clock.now // 2,
        last_work.SENSORS: lambda: min(clock.now, LAST_TICK_S) // 5,
        last_work.FAILED_TICK: lambda: clock.now // 5 if failing else None,
    }
    monkeypatch.setattr(services, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(last_work, "changed_at", lambda program: files[program]())
    signs, ends = DaemonSigns(), []
    daemon = Program(last_work.DAEMON, "module", "main", ask=signs.ask, lost="lets no sensor tick")

    def start() -> None:
        daemon.process, daemon.answered = SimpleNamespace(pid=1, exitcode=None), None
        daemon._started = clock.now

    def end_at_once() -> None:
        daemon.process = daemon.answered = None
        ends.append(clock.now)

    monkeypatch.setattr(daemon, "start", start)
    monkeypatch.setattr(daemon, "end_at_once", end_at_once)
    while clock.now < LAST_TICK_S + 5 * TICK_S:
        if daemon.look():
            signs.forget()
        clock.now += LOOK_S
    assert len(ends) == (not failing)
    assert all(TICK_S < ended - LAST_TICK_S < TICK_S + services.HANG_S for ended in ends)
    assert daemon.works
