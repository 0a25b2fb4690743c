"""An interrupt ends the demo that `test_running.py` and `test_screens.py` looked at."""

import signal

from benchmarks import looks
from tests.support.demo_program import LIMIT_S, wait_for


def test_an_interrupt_ends_all_of_it_and_the_events_name_every_row(home):
    demo = home.running()
    wait_for("rows", lambda: any((demo.lake / "position_updates" / "_delta_log").glob("*.json")))
    before = demo.updates().height
    wait_for("it writes", lambda: demo.updates().height > before)
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(LIMIT_S) == 0, demo.outcome()
    demo.ended_without_a_trace()
    assert looks.count(demo.home) == 0
    newest, *older = looks.ended_runs(demo.home, "stream_positions")
    # Dagster's launcher interrupts a run a second time while it ends: it is a failed one then.
    assert {newest, *older} <= {"CANCELED", "SUCCESS", "FAILURE"}
