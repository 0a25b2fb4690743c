"""However the demo ends, nothing of it is left, and the next start carries on.

The kill of everything ends the demo of `test_running.py`, and Ctrl-C in its terminal the next one.
SIGTERM ends the `dev` of `test_logins.py`, SIGKILL that of `test_dev.py`, and
`tests/integration/cli/test_stopping.py` has SIGINT at every moment.
"""

import os
import random
import signal
import threading
from contextlib import suppress
from itertools import count
from typing import Any

import polars as pl
import psutil

from benchmarks import looks
from position_sync_dagster.money.lake import MoneyLake
from tests.support import demo_program
from tests.support.demo_program import LEGS, LIMIT_S, QUEUED, STREAMED, Demo, Terminal, wait_for
from tests.support.promises import assert_one_writer_each
from tests.support.waiting import Patience

# How long the demo that ends by itself runs: it is whole again before it ends.
FOR_S = 90


def until_streaming(demo: Demo) -> None:
    def streaming() -> bool:
        demo.check()
        return demo.lines() >= STREAMED

    wait_for("the stream has its lines", streaming, poll_s=0.2)


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
    # A request has a second row only where its holding has another quantity by then.
    answers = rows.drop_nulls("request_id").select("request_id", "conid", "position")
    assert answers.is_unique().all(), "a request has two rows of one quantity"
    answered = done.join(rows, on=["update_id", "account", "conid"], suffix="_of_row")
    assert set(answered["request_id"]) == requests, "a request without its row"
    own = answered.filter(pl.col("request_id").is_in(rows["request_id"].drop_nulls().implode()))
    assert (own["request_id"] == own["request_id_of_row"]).all()
    assert_one_writer_each(MoneyLake(again.lake))
    demo_program.assert_tables_are_whole(again.lake)


def until_shown(terminal: Terminal, text: bytes) -> None:
    wait_for(
        f"{text.decode()} on the screen",
        lambda: text in terminal.shown(),
        told=lambda: terminal.shown()[-4000:],
    )


def test_an_interrupt_ends_all_of_it_and_the_events_name_every_row(terminal):
    demo = terminal.running()
    until_shown(terminal, b" in use")
    until_shown(terminal, f"127.0.0.1:{demo.ui_port}".encode())
    wait_for("rows", lambda: any((demo.lake / "position_updates" / "_delta_log").glob("*.json")))
    before = demo.updates().height
    wait_for("it writes", lambda: demo.updates().height > before)

    terminal.interrupt()
    assert demo.process.wait(LIMIT_S) == 0, demo.outcome()
    demo.ended_without_a_trace()
    assert looks.count(demo.home) == 0
    # Dagster's launcher interrupts a run a second time while it ends: it is a failed one then.
    assert {*looks.ended_runs(demo.home, "stream_positions")} <= {"CANCELED", "SUCCESS", "FAILURE"}


def test_a_closed_terminal_ends_all_of_it(terminal):
    demo = terminal.running()
    until_shown(terminal, b" in use")
    # A terminal that closes takes its side away and hangs up on the foreground group.
    os.killpg(demo.process.pid, signal.SIGHUP)
    assert demo.process.wait(LIMIT_S) == 0, demo.outcome()
    demo.ended_without_a_trace()


def missed_figures(verdict: dict[str, Any]) -> set[str]:
    return {figure["name"].strip() for figure in verdict["figures"] if not figure["met"]}


def test_by_itself_it_ends_with_a_verdict(home):
    patience = Patience()
    for doublings in count():  # a busy machine needs more time than a quiet one
        demo = home.start("--for", str(FOR_S * 2**doublings))
        verdict = demo.event("verdict")
        missed = missed_figures(verdict)
        assert demo.process.wait(LIMIT_S) == (1 if missed else 0)
        demo.ended_without_a_trace()
        log = (demo.home / "dagster.log").read_text(errors="replace")
        assert "supervisor: Everything has ended, as requested." in log
        if missed <= {"all current after"} or patience.is_over(LIMIT_S):
            break

    assert missed <= {"all current after"}, verdict["figures"]
    row = {figure["name"].strip(): figure["found"] for figure in verdict["figures"]}
    assert row["legs with a current row"] == str(LEGS)
    assert row["by STREAM"] == str(STREAMED)
    assert row["by QUEUE"] == str(QUEUED)


def test_a_verdict_names_what_was_missed(start):
    demo = start("--for", "3")
    verdict = demo.event("verdict")
    assert not verdict["met"]
    missed = missed_figures(verdict)
    assert {"legs with a current row", "by QUEUE", "all current after"} <= missed
    assert demo.process.wait(LIMIT_S) == 1
    demo.ended_without_a_trace()
