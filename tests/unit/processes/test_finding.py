"""A check that hangs does not make the preflight hang."""

import threading
from functools import partial

import pytest

from position_sync_dagster.processes.preflight import Finding, Level, bounded, good


def test_checks_run_side_by_side_and_their_findings_keep_their_order():
    at_once = threading.Barrier(3)

    def look(text: str) -> list[Finding]:
        at_once.wait(60)
        return [good("disk", text)]

    looks = [(text, partial(look, text)) for text in ("one", "two", "three")]
    found = bounded(looks, within_s=60)
    assert found == [good("disk", text) for text, _ in looks]


def test_the_error_of_a_check_is_raised():
    with pytest.raises(ZeroDivisionError):
        bounded([("disk", lambda: [good("disk", str(1 // 0))])], within_s=60)


def test_a_check_that_hangs_is_bad_and_the_others_are_shown():
    release, ended = threading.Event(), threading.Event()
    looks = [
        ("disk", lambda: [good("disk", str(release.wait()))]),
        ("tables", lambda: [good("tables", str(ended.set()))]),
    ]
    try:
        silent, found = bounded(looks, within_s=3)
        assert ended.is_set()
        assert (silent.check, silent.level, silent.text) == (
            "disk",
            Level.BAD,
            "no answer within 3 s",
        )
        assert (found.check, found.level) == ("tables", Level.GOOD)
    finally:
        release.set()
