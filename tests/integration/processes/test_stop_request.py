"""Requests to stop a process, by a signal or by the end of its parent."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from position_sync_dagster.processes.child_process import StopRequest, StopRequested
from tests.support.demo_program import LIMIT_S

WORK = textwrap.dedent(
    """
    import os, signal, sys
    from position_sync_dagster.processes import child_process
    child_process.block_stop_signals()
    stop = child_process.StopRequest()
    import polars as pl
    rows = pl.LazyFrame({"a": range(200_000)}).sort("a", descending=True)
    print("ready", flush=True)
    try:
        while True:
            rows.collect()
            stop.check()
    except child_process.StopRequested as request:
        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), sig)  # nothing interrupts the end
        try:
            stop.check()
        except child_process.StopRequested as again:
            print(again.reason)
            sys.exit(again.exit_code)
    """
)


@pytest.mark.parametrize(
    ("sig", "reason"),
    [
        (signal.SIGINT, "interrupted"),
        (signal.SIGTERM, "asked to end"),
        (signal.SIGHUP, "the terminal was closed"),
    ],
)
def test_a_signal_is_read_where_the_work_asks_for_it(sig, reason):
    with subprocess.Popen(
        [sys.executable, "-c", WORK],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(sig)
            output, _ = process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
    assert output == f"{reason}\n"
    assert process.returncode == 128 + sig


PAUSES = textwrap.dedent(
    """
    import sys
    from position_sync_dagster.processes import child_process
    child_process.block_stop_signals()
    stop = child_process.StopRequest()
    try:
        while True:
            stop.pause(0.02)
            print("goes on", flush=True)
    except child_process.StopRequested as request:
        sys.exit(request.exit_code)
    """
)


def test_a_process_that_was_stopped_goes_on():
    """As by Ctrl-Z and `fg`: a pause that has passed meanwhile is no signal."""
    with subprocess.Popen(
        [sys.executable, "-c", PAUSES], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            for _ in range(5):
                assert process.stdout.readline() == "goes on\n"
                process.send_signal(signal.SIGSTOP)
                time.sleep(0.1)  # the pause passes
                process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
    assert set(output.split("\n")) <= {"goes on", ""}
    assert process.returncode == 128 + signal.SIGTERM


def test_the_end_of_the_parent_is_a_request():
    StopRequest(end_with=os.getppid()).pause(0.0)
    with pytest.raises(StopRequested, match="is gone") as raised:
        StopRequest(end_with=os.getpid()).pause(LIMIT_S)
    assert raised.value.exit_code == 1
