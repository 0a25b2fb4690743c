"""Repeated faults: one line per outage, or one per interval, and nothing lost in silence."""

import logging

import pytest

from position_sync_dagster.outage_log import LimitedLog, OutageLog

logger = logging.getLogger(__name__)


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, logger=__name__)
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records]


def test_a_fault_is_logged_once_until_it_changes_or_has_ended(lines):
    log = OutageLog(logger)
    new = [log.report(fault) for fault in ("full", "full", "read-only")]
    assert new == [True, False, True]
    assert log.fault == "read-only"
    log.fault = None
    log.report("read-only", level=logging.WARNING)
    assert not log.report("read-only", text="nothing is written: read-only, 11%")
    log.report("full", text="nothing is written: full, 10%")
    assert lines() == [
        ("ERROR", "full"),
        ("ERROR", "read-only"),
        ("WARNING", "read-only"),
        ("ERROR", "nothing is written: full, 10%"),
    ]


@pytest.fixture
def clock():
    class Clock:
        now_s = 5.0

        def __call__(self):
            return self.now_s

    return Clock()


def test_a_kind_is_logged_once_per_interval_with_the_number_left_out(lines, clock):
    log = LimitedLog(logger, every_s=60, monotonic=clock)
    logged = [log.report("tick", f"tick {n}") for n in range(4)]
    clock.now_s += 60
    log.report("tick", "tick 4")
    clock.now_s += 60
    log.report("tick", "tick 5")
    assert logged == [True, False, False, False]
    assert lines() == [
        ("WARNING", "tick 0"),
        ("WARNING", "tick 4; 3 more since the last such line"),
        ("WARNING", "tick 5"),
    ]


def test_kinds_do_not_wait_for_each_other(lines, clock):
    log = LimitedLog(logger, every_s=60, monotonic=clock)
    assert log.report("tick", "a tick")
    assert log.report("message", "a message")
    assert lines() == [("WARNING", "a tick"), ("WARNING", "a message")]
