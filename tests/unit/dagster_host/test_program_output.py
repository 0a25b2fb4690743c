"""What Dagster's programs write to a file or a pipe: what happened, without colours or routine."""

import io
import logging
import re
import sys
from collections import deque

import pytest

from position_sync_dagster.dagster_host.daemon import is_worth_logging
from position_sync_dagster.dagster_host.services import follow


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("dagster", logging.ERROR, __file__, 1, text, None, None)


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("output", "coloured"), [(io.StringIO, False), (Screen, True)])
def test_a_pipe_gets_no_colours_and_a_terminal_keeps_them(output, coloured, monkeypatch) -> None:
    shown = output()
    monkeypatch.setattr(sys, "stdout", shown)
    follow(io.StringIO("\x1b[32m2026-11-23\x1b[0m - dagster - Launched 1 runs.\n"), deque())
    assert ("\x1b" in shown.getvalue()) is coloured
    plain = re.sub(r"\x1b\[\d+m", "", shown.getvalue())
    assert plain == "2026-11-23 - dagster - Launched 1 runs.\n"


@pytest.mark.parametrize(
    "text",
    [
        "Checking for new runs for sensor: drain_queue",
        "Sensor drain_queue skipped: requests wait (pending 2)",
        "Collected 2 runs for monitoring",
        "Checking run 1070dd77-dcad-469c-accf-a31d0b25685a",
        "Priority sorting and checking tag concurrency limits for queued runs.",
    ],
)
def test_a_look_that_found_nothing_is_no_line(text) -> None:
    assert not is_worth_logging(record(text))


@pytest.mark.parametrize("text", ["Launched 1 runs.", "Creating new run for drain_queue"])
def test_what_happened_is_a_line(text) -> None:
    assert is_worth_logging(record(text))
