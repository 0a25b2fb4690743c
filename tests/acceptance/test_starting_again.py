"""Whatever is killed, legs are valued again, and never are there two streams.

One round in the suite, on the demo of `test_running.py`, which `test_stopping.py` kills whole;
`make chaos` asks for ten rounds of each.
"""

import os
import random
import signal
import time
from contextlib import suppress
from typing import Any

import httpx
import polars as pl
import psutil
import pytest

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import GatewaySession
from position_sync_dagster.money.lake import MoneyLake
from tests.support import promises
from tests.support.demo_program import LINES, STREAMED, Demo, assert_tables_are_whole, wait_for
from tests.support.promises import assert_one_writer_each

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "1"))

# Dagster's programs, and the part of the command line by which each is found.
PROGRAMS = {
    "code server": "dagster api grpc",
    "daemon": "dagster-daemon run",
    "webserver": "position_sync_dagster.webserver",
}

STREAM_RUNS = """{ runsOrError(filter: {pipelineName: "stream_positions"}) {
  ... on Runs { results { runId status } } } }"""


def streaming(demo: Demo, *, after: GatewaySession | None) -> GatewaySession:
    """Wait for a stream that is another than the one before, with all its lines."""
    began, lake = time.monotonic(), MoneyLake(demo.lake)
    session = promises.streaming(
        lake, lambda s: s.lines_in_use == lines_wanted(demo), after=after, check=demo.check
    )
    print(f"All lines again after {time.monotonic() - began:.1f} s")  # shown by `make chaos`
    wait_for("the broker agrees", lambda: demo.lines() == lines_wanted(demo))
    return session


def lines_wanted(demo: Demo) -> int:
    """Count the active legs that the broker holds, and their underlyings."""
    active = {leg.conid for leg in MoneyLake(demo.lake).registry.sync.get_all_active()}
    held = {row["conid"] for row in demo.positions() if row["quantity"]}
    return len(active & held) + LINES - STREAMED


def program(demo: Demo, name: str) -> psutil.Process:
    """Find one of Dagster's programs."""

    def found() -> psutil.Process | None:
        for process in demo.processes():
            with suppress(psutil.NoSuchProcess):
                if PROGRAMS[name] in " ".join(process.cmdline()):
                    return process
        return None

    process: psutil.Process = wait_for(f"a process of the {name}", found)
    return process


def log(demo: Demo) -> str:
    return (demo.home / "dagster.log").read_text(errors="replace")


def until_valued(demo: Demo, what: str) -> None:
    """Wait until a request that is inserted now has its row, and the stream has written others."""
    asked = utc_now()
    began = time.monotonic()
    lake = MoneyLake(demo.lake)
    leg = random.choice(wait_for("rows of the queue", lambda: of_the_queue(demo), poll_s=0.5))
    request = lake.queue.sync.insert(leg["conid"], leg["symbol"], account=leg["account"])

    def valued() -> bool:
        demo.check()
        rows = demo.table("position_queue").filter(request_id=request)
        return rows["status"].to_list() == ["SUCCESS"]

    wait_for(f"valued again after {what}", valued, poll_s=0.3)

    def streamed() -> bool:
        demo.check()
        rows = pl.scan_delta(str(demo.lake / "position_updates")).filter(source="STREAM")
        return rows.filter(pl.col("timestamp") > asked).head(1).collect().height == 1

    wait_for(f"streamed again after {what}", streamed, poll_s=0.3)
    print(f"valued again {time.monotonic() - began:.1f} s after {what}")


def of_the_queue(demo: Demo) -> list[dict[str, Any]]:
    return demo.updates().filter(source="QUEUE").to_dicts()


def stream_runs(demo: Demo) -> dict[str, str]:
    """Return the status of each run of the stream, which the UI tells once it answers."""
    runs: list[dict[str, str]] = []

    def told() -> bool:
        with suppress(httpx.HTTPError):
            runs[:] = demo.graphql(STREAM_RUNS)["runsOrError"]["results"]
            return True
        return False

    wait_for("the UI answers", told, poll_s=0.5)
    return {run["runId"]: run["status"] for run in runs}


@pytest.mark.timeout(1800 * ROUNDS)
def test_after_a_kill_of_the_streams_process_another_streams(home):
    demo = home.running()
    session = streaming(demo, after=None)
    for _ in range(ROUNDS):
        os.kill(session.pid, signal.SIGKILL)
        session = streaming(demo, after=session)
    assert_one_writer_each(MoneyLake(demo.lake))
    assert_tables_are_whole(demo.lake)


@pytest.mark.timeout(1800 * ROUNDS)
def test_each_program_that_is_killed_is_started_again_and_the_stream_outlives_it(home):
    demo = home.running()
    session = streaming(demo, after=None)
    runs = stream_runs(demo)
    for _ in range(ROUNDS):
        for name in PROGRAMS:
            killed = program(demo, name)
            again = log(demo).count(f"The {name} works again.")
            killed.kill()
            until_valued(demo, f"a kill of the {name}")
            assert demo.lines() == lines_wanted(demo), "a line was lost"

            wait_for(
                "it works again",
                lambda n=name, before=again: log(demo).count(f"The {n} works again.") > before,
                poll_s=0.3,
            )
            said = f"The {name} (process {killed.pid}) was killed by signal 9. It is started again."
            assert log(demo).count(said) == 1

    now = streaming(demo, after=None)
    assert now.session_id == session.session_id
    assert now.pid == session.pid
    assert stream_runs(demo) == runs, "no other stream was started, nor this one called failed"

    assert_one_writer_each(MoneyLake(demo.lake))
    assert_tables_are_whole(demo.lake)
