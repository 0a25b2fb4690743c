"""However the demo ends, nothing of it is left, and the next start carries on.

SIGINT ends the demo of `test_colours.py`, and SIGTERM that of `test_running.py`.
"""

import os
import random
import signal
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import psutil

from tests.support.demo_program import (
    LEGS,
    LIMIT_S,
    QUEUED,
    STREAMED,
    Demo,
    assert_tables_are_whole,
    wait_for,
)


def until_streaming(demo: Demo) -> None:
    def streaming() -> bool:
        demo.check()
        return demo.lines() >= STREAMED

    wait_for("the stream has its lines", streaming, poll_s=0.2)


def rows_written(home: Path) -> int:
    count: int = pl.scan_delta(str(home / "lake" / "position_updates")).select(pl.len()).collect()
    return count.item()


def test_sigkill_ends_all_of_it(home):
    demo = home.running()
    until_streaming(demo)
    before = rows_written(home.path)
    wait_for("it writes", lambda: rows_written(home.path) > before)
    demo.process.kill()
    demo.ended_without_a_trace()
    assert demo.process.wait(LIMIT_S) == -signal.SIGKILL
    assert rows_written(home.path) > before


def test_a_closed_terminal_ends_all_of_it(home):
    person, program = os.openpty()  # the side that a person sees, and the program's side
    demo = home.start(terminal=program)
    os.close(program)
    shown: list[bytes] = []

    def watch() -> None:
        with open(person, "rb", buffering=0) as screen, suppress(OSError):
            while text := screen.read(65536):
                shown.append(text)

    reader = threading.Thread(target=watch)
    reader.start()
    until_streaming(demo)
    wait_for("the live status", lambda: b"20 of 100 in use" in b"".join(shown))
    ui = f"127.0.0.1:{demo.ui_port}".encode()
    wait_for("the address of the UI, once it answers", lambda: ui in b"".join(shown))
    # A terminal that closes takes its side away and hangs up on the foreground group.
    os.killpg(demo.process.pid, signal.SIGHUP)
    demo.ended_without_a_trace()
    reader.join(LIMIT_S)


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
        assert "supervisor: Everything has ended, as was asked." in log
        assert "KeyboardInterrupt" not in log, "a helper was interrupted"
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


def test_after_a_kill_of_everything_no_request_is_lost_or_written_twice(home):
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

    again = home.start()
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
    assert_tables_are_whole(again.lake)
