"""The output of the demo for a program and for a log."""

import errno
import io
import json
from datetime import UTC, datetime

import pytest

from position_sync_dagster.demo.run import (
    AcceptanceResult,
    JsonDisplay,
    LineDisplay,
    LiveDisplay,
    Look,
    choose_display,
)
from position_sync_dagster.processes.stop_request import StopRequested
from position_sync_dagster.sync.reports.changes import ChangeKind, DayChange

RESULTS = [
    AcceptanceResult(name="legs", wanted="2", found="2", met=True),
    AcceptanceResult(name="  by QUEUE", wanted="1", found="0", met=False),
]
LOOK = Look(
    figures=[("lines", "20 of 100 in use")],
    addresses=[("Dagster UI", "starting")],
    status={"lines_in_use": 20},
)


class Closed(io.StringIO):
    """A terminal that was closed."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")


def test_a_program_reads_one_json_object_per_line(capsys):
    with choose_display(as_json=True) as display:
        display.event("started", {"ui": "here"})
        display.note("not for a program")
        for _ in range(2):  # the second one comes too soon
            display.show(LOOK)
        display.show_acceptance(RESULTS)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"event": "started", "ui": "here"},
        {"event": "status", "lines_in_use": 20},
        {
            "event": "verdict",
            "met": False,
            "figures": [
                {"name": "legs", "wanted": "2", "found": "2", "met": True},
                {"name": "by QUEUE", "wanted": "1", "found": "0", "met": False},
            ],
        },
    ]


def test_a_log_has_the_addresses_once_and_then_the_figures(capsys):
    with choose_display(as_json=False) as display:
        display.event("started", {"ui": "here"})
        for _ in range(2):
            display.show(LOOK)
        display.show_acceptance(RESULTS)
    first, second, *table = capsys.readouterr().out.splitlines()
    assert (first, second) == ("Dagster UI: starting", "lines: 20 of 100 in use")
    assert [line.split()[-1] for line in table[1:]] == ["met", "missed"]


def test_a_log_has_each_change_once_also_after_a_read_that_failed(capsys):
    at = datetime(2026, 3, 9, 14, 30, tzinfo=UTC)
    change = DayChange(at=at, kind=ChangeKind.GATEWAY, text="gateway: connected")
    display = LineDisplay()
    for look in (
        Look(changes=[change]),
        Look(figures=[("trouble", "away")]),
        Look(changes=[change]),
    ):
        display.show(look)
    assert capsys.readouterr().out.count("14:30:00 gateway: connected") == 1


@pytest.mark.parametrize("kind", [JsonDisplay, LineDisplay, LiveDisplay])
def test_a_closed_output_stops_the_demo(kind, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout", Closed())
    with pytest.raises(StopRequested, match="the output was closed"), kind() as display:
        display.show(LOOK)
