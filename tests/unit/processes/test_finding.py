"""A check that hangs does not make the preflight hang."""

import threading

import pytest

from position_sync_dagster.processes.preflight import Level, bounded, good


def test_what_a_check_finds_is_returned_and_its_error_raised():
    assert bounded("disk", lambda: [good("disk", "fine")], within_s=60) == [good("disk", "fine")]
    with pytest.raises(ZeroDivisionError):
        bounded("disk", lambda: [good("disk", str(1 // 0))], within_s=60)


def test_a_check_that_hangs_is_bad():
    release = threading.Event()
    try:
        [found] = bounded("disk", lambda: [good("disk", str(release.wait()))], within_s=0.05)
    finally:
        release.set()
    assert (found.check, found.level) == ("disk", Level.BAD)
    assert found.remedy
