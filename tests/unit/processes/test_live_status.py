"""The live status: on a terminal, in a log, and as JSON for a program."""

import errno
import io
import json
from datetime import UTC, datetime
from unittest.mock import Mock

import pytest

from position_sync_dagster.money.reports.changes import ChangeKind, DayChange
from position_sync_dagster.processes import live_status
from position_sync_dagster.processes.child_process import StopRequested
from position_sync_dagster.processes.live_status import (
    AcceptanceResult,
    Display,
    JsonDisplay,
    LiveDisplay,
    choose_display,
)

RESULTS = [
    AcceptanceResult(name="legs", wanted="2", found="2", met=True),
    AcceptanceResult(name="  by QUEUE", wanted="1", found="0", met=False),
]
AT = datetime(2026, 3, 9, 14, 30, tzinfo=UTC)
CHANGE = DayChange(at=AT, kind=ChangeKind.CLOSE, text="closed: SPY")
ADDRESSES = [("Dagster UI", "starting")]


@pytest.fixture
def overview(monkeypatch):
    """Return what the tables have, as far as the displays look at it."""
    monkeypatch.setattr(live_status, "figures_of", lambda seen: [("lines", "20 of 100 in use")])
    status = Mock(to_dict=lambda: {"lines_in_use": 20})
    return Mock(status=status, current=7, changes=[CHANGE])


class Closed(io.StringIO):
    """A terminal that was closed."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")


def test_a_program_reads_one_json_object_per_line(capsys, overview):
    with choose_display(as_json=True) as display:
        display.event("started", {"ui": "here"})
        display.note("not for a program")
        display.show(overview, ADDRESSES)
        display.show_acceptance(RESULTS)
    legs = {"name": "legs", "wanted": "2", "found": "2", "met": True}
    queued = {"name": "by QUEUE", "wanted": "1", "found": "0", "met": False}
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"event": "started", "ui": "here"},
        {"event": "status", "lines_in_use": 20, "current": 7},
        {"event": "verdict", "met": False, "figures": [legs, queued]},
    ]


def test_a_log_has_the_addresses_once_and_then_the_figures(capsys, overview):
    with choose_display(as_json=False) as display:
        display.event("started", {"ui": "here"})
        for _ in range(2):
            display.show(overview, ADDRESSES)
        display.show_acceptance(RESULTS)
    *lines, _heading, first, second = capsys.readouterr().out.splitlines()
    assert lines == ["Dagster UI: starting", *["lines: 20 of 100 in use"] * 2]
    assert [line.split()[-1] for line in (first, second)] == ["met", "missed"]


@pytest.mark.parametrize("kind", [JsonDisplay, Display, LiveDisplay])
def test_a_closed_output_stops_the_program(kind, monkeypatch, overview):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout", Closed())
    with pytest.raises(StopRequested, match="the output was closed"), kind() as display:
        display.show(overview, ADDRESSES)
