"""A check that hangs does not make the preflight hang."""

import threading
from functools import partial

import pytest

from position_sync_dagster.errors import LakeError
from position_sync_dagster.processes.preflight import Finding, Level, bounded, good


def test_checks_run_side_by_side_and_their_findings_keep_their_order():
    at_once = threading.Barrier(3)

    def look(text: str) -> list[Finding]:
        at_once.wait(60)
        return [good("disk", text)]

    looks = {text: partial(look, text) for text in ("one", "two", "three")}
    found = bounded(looks, within_s=60)
    assert found == [good("disk", text) for text in looks]


def test_an_error_of_ours_in_a_check_is_a_finding_and_any_other_is_raised():
    def away() -> list[Finding]:
        raise LakeError("The table is gone.", remedy="Restore it.")

    [found] = bounded({"tables": away}, within_s=60)
    assert found == Finding("tables", Level.BAD, "The table is gone.", "Restore it.")
    with pytest.raises(ZeroDivisionError):
        bounded({"disk": lambda: [good("disk", str(1 // 0))]}, within_s=60)


def test_a_check_that_hangs_is_bad_and_the_others_are_shown():
    release, ended = threading.Event(), threading.Event()
    looks = {
        "disk": lambda: [good("disk", str(release.wait()))],
        "tables": lambda: [good("tables", str(ended.set()))],
    }
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
