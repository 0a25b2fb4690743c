"""Large computations of a webserver run one at a time, and few wait."""

from threading import Event, Thread

import pytest

from position_sync_dagster.errors import BusyError
from position_sync_dagster.web import turns
from position_sync_dagster.web.turns import SMALL_LEG_POINTS, Turns


def test_beyond_the_queue_large_ones_are_refused_and_small_ones_do_not_queue(monkeypatch):
    monkeypatch.setattr(turns, "MOST_WAITING", 0)
    queue = Turns()
    with queue.of(SMALL_LEG_POINTS):
        with pytest.raises(BusyError), queue.of(SMALL_LEG_POINTS):
            pass
        with queue.of(SMALL_LEG_POINTS - 1):
            pass
    with queue.of(SMALL_LEG_POINTS):
        pass


def test_one_that_waits_begins_when_the_one_before_has_ended():
    queue = Turns()
    events: list[str] = []
    asked = Event()

    def second() -> None:
        asked.set()
        with queue.of(SMALL_LEG_POINTS):
            events.append("second")

    waiting = Thread(target=second)
    with queue.of(SMALL_LEG_POINTS):
        waiting.start()
        asked.wait()
        events.append("first has ended")
    waiting.join()
    assert events == ["first has ended", "second"]
