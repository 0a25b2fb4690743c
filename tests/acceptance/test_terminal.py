"""A closed terminal ends the demo that `test_running.py` and `test_screens.py` looked at."""

import os
import signal

from benchmarks import looks
from tests.support.demo_program import LIMIT_S, wait_for


def test_a_closed_terminal_ends_all_of_it_and_the_events_name_every_row(terminal):
    demo = terminal.running()
    wait_for("the live status", lambda: b"of 100 in use" in terminal.shown())
    ui = f"127.0.0.1:{demo.ui_port}".encode()
    wait_for("the address of the UI, once it answers", lambda: ui in terminal.shown())
    before = demo.updates().height
    wait_for("it writes", lambda: demo.updates().height > before)
    # A terminal that closes takes its side away and hangs up on the foreground group.
    os.killpg(demo.process.pid, signal.SIGHUP)
    assert demo.process.wait(LIMIT_S) == 0, demo.outcome()
    demo.ended_without_a_trace()
    assert looks.count(demo.home) == 0
    newest, *older = looks.ended_runs(demo.home, "stream_positions")
    # Dagster's launcher interrupts a run a second time while it ends: it is a failed one then.
    assert {newest, *older} <= {"CANCELED", "SUCCESS", "FAILURE"}
