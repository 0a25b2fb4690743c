"""However the demo ends, nothing of it is left, and the next start carries on.

The kill of everything ends the demo that `test_recovery.py` started last. SIGINT ends the demo of
`test_sigint.py`, SIGTERM the `dev` of `test_logins.py`, and SIGKILL that of `test_dev.py`.
"""

import os
import random
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import polars as pl
import psutil
import pytest

from tests.acceptance.test_recovery import assert_never_two_writers
from tests.support.demo_program import (
    LEGS,
    LIMIT_S,
    QUEUED,
    STREAMED,
    Demo,
    SharedHome,
    assert_tables_are_whole,
    wait_for,
)


def until_streaming(demo: Demo) -> None:
    def streaming() -> bool:
        demo.check()
        return demo.lines() >= STREAMED

    wait_for("the stream has its lines", streaming, poll_s=0.2)


class Terminal:
    """A terminal that a person watches while a demo runs on it in a home."""

    def __init__(self, home: SharedHome) -> None:
        self._home = home
        self._demo: Demo | None = None
        self._shown: list[bytes] = []
        self._reader: threading.Thread | None = None

    def running(self) -> Demo:
        """Return the demo that runs on it; start one if none does."""
        if self._demo is None or self._demo.process.poll() is not None:
            person, program = os.openpty()  # the side that a person sees, and the program's side
            self._demo = self._home.start(terminal=program)
            os.close(program)
            self._reader = threading.Thread(target=self._watch, args=(person,))
            self._reader.start()
        return self._demo

    def shown(self) -> bytes:
        """Return what was written to it."""
        return b"".join(self._shown)

    def close(self) -> None:
        """Wait until nothing can be written to it: the demo has ended."""
        if self._reader is not None:
            self._reader.join(LIMIT_S)

    def _watch(self, person: int) -> None:
        with open(person, "rb", buffering=0) as screen, suppress(OSError):
            while text := screen.read(65536):
                self._shown.append(text)


@pytest.fixture(scope="module")
def terminal(chain_home: SharedHome) -> Iterator[Terminal]:
    """Return the terminal of one demo in the shared home."""
    made = Terminal(chain_home)
    yield made
    made.close()


def test_after_a_kill_of_everything_no_request_is_lost_or_written_twice(home, terminal):
    demo = home.running()
    until_streaming(demo)

    def in_the_queue() -> set[str]:
        return set(demo.table("position_queue").filter(bucket="live")["request_id"])

    requests = wait_for("requests in the queue", in_the_queue)
    threading.Event().wait(random.uniform(0.0, 6.0))
    victims = [psutil.Process(demo.process.pid), *demo.processes()]
    random.shuffle(victims)
    for process in victims:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    demo.ended_without_a_trace()

    again = terminal.running()
    until_streaming(again)

    def all_answered() -> bool:
        done = again.table("position_queue").filter(status="SUCCESS")["request_id"]
        return requests <= set(done)

    wait_for("each request that was there is answered", all_answered, poll_s=0.5)
    done = again.table("position_queue").filter(pl.col("request_id").is_in(requests))
    assert done["request_id"].is_unique().all(), "a request was answered twice"
    rows = again.updates()
    assert rows["update_id"].is_unique().all(), "a row was written twice"
    assert rows["request_id"].drop_nulls().is_unique().all(), "a request has two rows"
    answered = done.join(rows, on=["update_id", "account", "conid"], suffix="_of_row")
    assert set(answered["request_id"]) == requests, "a request without its row"
    own = answered.filter(pl.col("request_id").is_in(rows["request_id"].drop_nulls().implode()))
    assert (own["request_id"] == own["request_id_of_row"]).all()
    assert_never_two_writers(again.lake)
    assert_tables_are_whole(again.lake)


def test_a_closed_terminal_ends_all_of_it(terminal):
    demo = terminal.running()
    until_streaming(demo)
    wait_for("the live status", lambda: b"20 of 100 in use" in terminal.shown())
    ui = f"127.0.0.1:{demo.ui_port}".encode()
    wait_for("the address of the UI, once it answers", lambda: ui in terminal.shown())
    # A terminal that closes takes its side away and hangs up on the foreground group.
    os.killpg(demo.process.pid, signal.SIGHUP)
    demo.ended_without_a_trace()


def missed_figures(verdict: dict[str, Any]) -> set[str]:
    return {figure["name"] for figure in verdict["figures"] if not figure["met"]}


def test_by_itself_it_ends_with_a_verdict(home):
    for seconds in (60, 150):  # a busy machine needs more than a quiet one
        demo = home.start("--for", str(seconds))
        verdict = demo.event("verdict")
        missed = missed_figures(verdict)
        assert demo.process.wait(LIMIT_S) == (1 if missed else 0)
        demo.ended_without_a_trace()
        log = (demo.home / "dagster.log").read_text(errors="replace")
        assert "supervisor: Everything has ended, as requested." in log
        # A run that is in progress at the end is interrupted, and Dagster says so under its name.
        entries = re.split(r"\n(?=\S*\d{4}-\d\d-\d\d )", log)
        assert not [
            entry
            for entry in entries
            if "KeyboardInterrupt" in entry and " - dagster - ERROR - " not in entry
        ], "a helper was interrupted"
        if missed <= {"all current after"}:
            break
    assert missed <= {"all current after"}, verdict["figures"]
    found = {figure["name"]: figure["found"] for figure in verdict["figures"]}
    assert found["legs with a current row"] == str(LEGS)
    assert (found["by STREAM"], found["by QUEUE"]) == (str(STREAMED), str(QUEUED))


def test_a_verdict_names_what_was_missed(start):
    demo = start("--for", "3")
    verdict = demo.event("verdict")
    assert not verdict["met"]
    missed = missed_figures(verdict)
    assert {"legs with a current row", "by QUEUE", "all current after"} <= missed
    assert demo.process.wait(LIMIT_S) == 1
    demo.ended_without_a_trace()
