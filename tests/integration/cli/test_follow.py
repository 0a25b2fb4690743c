"""The command `follow`: JSON lines that another program reads, and resumes by their tokens."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from position_sync_dagster.cli import reports
from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.errors import TokenError
from tests.support.command_line import call

NOON = datetime(2026, 3, 9, 14, 30, tzinfo=UTC)
ROW = PositionUpdate(7, "SPY\u009b2J", None, 0.1, None, 15.25, None, None, NOON, "DUSIM1")


@pytest.fixture
def follow(lake, monkeypatch) -> Iterator:
    """Start the command in a process of its own, as a program would."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [str(Path(sys.executable).with_name("position-sync")), "follow"]
        process = subprocess.Popen(
            [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def lines(process: subprocess.Popen[str], until: str = "token") -> list[dict]:
    """Return the lines up to the next token."""
    read: list[dict] = []
    while until not in (read[-1] if read else {}):
        read.append(json.loads(process.stdout.readline()))
    return read


def test_it_ends_when_nobody_reads_any_more_and_another_resumes_by_the_last_token(lake, follow):
    first = follow("--since", "now")
    lines(first)
    lake.updates.sync.append([ROW])
    row, token = lines(first)
    assert row["conid"] == 7
    assert row["position"] == 0.1
    assert row["market_value"] == 15.25
    assert row["market_price"] is None
    assert row["symbol"] == "SPY\u009b2J"
    assert datetime.fromisoformat(row["timestamp"]) == ROW.timestamp

    first.stdout.close()
    assert first.wait(60) == 0, "also without rows"
    assert first.stderr.read() == ""
    lake.updates.sync.append([replace(ROW, conid=8)])
    lake.updates.sync.append([replace(ROW, conid=9)])
    second = follow("--since", token["token"])
    assert [line.get("conid") for line in lines(second)] == [8, 9, None]
    second.send_signal(signal.SIGINT)
    assert second.wait(60) == 0


class Clock:
    """The time as the command sees it: it passes while the command sleeps, and then ends it."""

    def __init__(self, seconds: float) -> None:
        self.now = 1000.0
        self.until = self.now + seconds

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now > self.until:
            raise KeyboardInterrupt


def test_a_reader_that_resumes_and_finds_nothing_new_keeps_its_token(lake, monkeypatch):
    lake.updates.sync.append([ROW])
    token = lake.updates.sync.follow().read().token
    monkeypatch.setattr(reports, "time", Clock(12.0))
    printed = call("follow", "--since", token).output
    assert {json.loads(line)["token"] for line in printed.splitlines()} == {token}


def test_a_text_that_is_no_token_is_an_error_with_a_remedy(lake):
    with pytest.raises(TokenError):
        call("follow", "--since", "yesterday")
