"""Whatever is killed, hangs or is deleted, legs are valued again, and never are there two streams.

One round in the suite, where a kill of everything is a test of its own (`test_stopping.py`), which
kills the demo that is started last here; `make chaos` asks for ten rounds of each.
"""

import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import psutil
import pytest

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import GatewaySession, SessionState
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.processes import dagster_dev
from tests.support.demo_program import LIMIT_S, LINES, Demo, assert_tables_are_whole, wait_for

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "1"))
VICTIMS = ["dagster", "everything", "demo"]
"""What crashes. That all ends with a program that is killed alone, and with a Dagster that cannot
run, `test_dev.py` shows of `dev`."""


SERVICES = ("code server", "daemon", "webserver")
"""What is started beside the runs."""
KILLED = "was killed by signal 9 (SIGKILL)"

STREAM_RUNS = """{ runsOrError(filter: {pipelineName: "stream_positions"}) {
  ... on Runs { results { runId status } } } }"""
TERMINATE = """mutation($run: String!) {
  terminateRun(runId: $run) { __typename ... on Error { message } } }"""


RELOAD = """mutation { reloadRepositoryLocation(repositoryLocationName: "position_sync_dagster") {
  ... on WorkspaceLocationEntry { loadStatus } ... on Error { message } } }"""


def streaming(demo: Demo, *, after: GatewaySession | None) -> GatewaySession:
    """Wait for a stream that is another than the one before."""
    lake = Lake(demo.lake)

    def lives() -> GatewaySession | None:
        demo.check()
        found = lake.sessions.history(1) if (demo.lake / "gateway_sessions").exists() else []
        if not found or (after is not None and found[0].session_id == after.session_id):
            return None
        session = found[0]
        alive = session.is_alive(utc_now()) and session.state is SessionState.LIVE
        return session if alive and session.lines_in_use == LINES else None

    began = time.monotonic()
    session: GatewaySession = wait_for("streaming again", lives, poll_s=0.3)
    print(f"{LINES} lines again after {time.monotonic() - began:.1f} s")  # shown by `make chaos`
    wait_for("the broker agrees", lambda: demo.lines() == LINES)
    return session


def service(demo: Demo, name: str) -> psutil.Process:
    """Find a process by its name."""

    def found() -> psutil.Process | None:
        for process in demo.processes():
            with suppress(psutil.NoSuchProcess):
                if process.name() == name:
                    return process
        return None

    process: psutil.Process = wait_for(f"a process of the {name}", found)
    return process


def times_again(demo: Demo) -> int:
    """Return how often the log says that a program works again."""
    return (demo.home / "dagster.log").read_text(errors="replace").count(" works again.")


def said(demo: Demo) -> list[str]:
    """Return what the supervisor said of what went wrong."""
    log = (demo.home / "dagster.log").read_text(errors="replace")
    return [line for line in log.splitlines() if "ERROR supervisor:" in line]


def until_valued(demo: Demo, what: str) -> None:
    """Wait until a request that is inserted now has its row, and the stream has written others."""
    asked, began = utc_now(), time.monotonic()
    lake = Lake(demo.lake)
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
    found: list[dict[str, str]] = []

    def told() -> bool:
        with suppress(httpx.HTTPError):
            found[:] = demo.graphql(STREAM_RUNS)["runsOrError"]["results"]
            return True
        return False

    wait_for("the UI answers", told, poll_s=0.5)
    return {run["runId"]: run["status"] for run in found}


def assert_never_two_writers(lake: Path) -> None:
    """Each token is one session's, and no row of an owner follows one of its successor."""
    rows = pl.read_delta(str(lake / "position_updates")).filter(source="STREAM")
    owners = rows.select("fencing_token", "session_id").unique()
    assert owners["fencing_token"].is_unique().all()
    spans = (
        rows.group_by("fencing_token")
        .agg(first=pl.col("timestamp").min(), last=pl.col("timestamp").max())
        .sort("fencing_token")
    )
    later = spans["first"].shift(-1).drop_nulls()
    assert (spans["last"].head(later.len()) <= later).all()


@pytest.mark.timeout(600 * ROUNDS)
def test_after_a_kill_of_the_streams_process_another_streams(home):
    demo = home.running()
    session = streaming(demo, after=None)
    for _ in range(ROUNDS):
        os.kill(session.pid, signal.SIGKILL)
        session = streaming(demo, after=session)
    assert_never_two_writers(demo.lake)
    assert_tables_are_whole(demo.lake)


@pytest.mark.timeout(1200 * ROUNDS)
def test_what_is_killed_beside_the_stream_is_started_again_and_governs_the_stream(home):
    demo = home.running()
    session = streaming(demo, after=None)
    runs = stream_runs(demo)
    for _ in range(ROUNDS):
        for name in SERVICES:
            before, again = len(said(demo)), times_again(demo)
            service(demo, name).kill()
            until_valued(demo, f"a kill of the {name}")
            # A run in progress may value before anything is started again.
            wait_for("it works again", lambda again=again: times_again(demo) > again)
            (line,) = said(demo)[before:]
            assert KILLED in line
    now = streaming(demo, after=None)
    assert (now.session_id, now.pid) == (session.session_id, session.pid)
    assert stream_runs(demo) == runs, "no other stream was started, nor this one called failed"
    assert_never_two_writers(demo.lake)
    assert_tables_are_whole(demo.lake)

    # A daemon that did not start the run ends it.
    process = psutil.Process(session.pid)
    demo.graphql(TERMINATE, run=session.run_id)
    wait_for("its process has ended", lambda: not process.is_running())
    wait_for("the run has ended", lambda: stream_runs(demo)[session.run_id] == "CANCELED")
    dagster_dev.launch(demo.ui_port, "stream_positions", {})
    streaming(demo, after=session)


@pytest.mark.timeout(1200)
def test_what_hangs_is_started_again_and_the_stream_goes_on(home):
    demo = home.running()
    session = streaming(demo, after=None)
    before, again = len(said(demo)), times_again(demo)
    for hanging in [service(demo, name) for name in ("code server", "daemon")]:
        hanging.send_signal(signal.SIGSTOP)
    stopped = utc_now()

    def goes_on() -> bool:
        rows = pl.scan_delta(str(demo.lake / "position_updates"))
        own = rows.filter(session_id=session.session_id).filter(pl.col("timestamp") > stopped)
        return own.head(1).collect().height == 1

    wait_for("the stream writes while they hang", goes_on, poll_s=0.3)
    wait_for("both work again", lambda: times_again(demo) == again + 2)
    until_valued(demo, "a stop of two programs")
    first, second = said(demo)[before:]
    assert "has not answered for" in first
    assert "has not answered for" in second


@pytest.mark.timeout(1200)
def test_a_reload_in_the_ui_loads_the_code_again_and_is_no_outage(home):
    demo = home.running()
    session = streaming(demo, after=None)
    stream_runs(demo)  # a busy machine may have started the UI again, which answers now
    before, loaded = len(said(demo)), service(demo, "code server")
    found = demo.graphql(RELOAD)["reloadRepositoryLocation"]
    assert found == {"loadStatus": "LOADED"}
    wait_for("the server with the code of before has ended", lambda: not loaded.is_running())
    until_valued(demo, "a reload")
    assert said(demo)[before:] == []
    assert streaming(demo, after=None).session_id == session.session_id


@pytest.mark.timeout(1200)
def test_when_its_storage_is_deleted_dagster_works_on_new_files_and_one_stream_follows(home):
    demo = home.running()
    session = streaming(demo, after=None)
    log, before = demo.home / "dagster.log", len(said(demo))
    lines = len(log.read_text(errors="replace").splitlines())
    for file in (demo.home / "dagster_home" / "history").glob("runs.db*"):
        file.unlink()
    until_valued(demo, "the deletion of runs.db")
    (line,) = said(demo)[before:]
    assert "storage were deleted or replaced (runs.db)" in line
    follower = streaming(demo, after=session)
    assert stream_runs(demo) == {follower.run_id: "STARTED"}
    after = log.read_text(errors="replace").splitlines()[lines:]
    # After its time, a line names who has the error, and what it is.
    errors = Counter(text.partition(" - ")[2] for text in after if " - ERROR - " in text)
    repeated = {what: times for what, times in errors.items() if times > 2}
    assert not repeated, "a daemon says the same again and again"
    assert_never_two_writers(demo.lake)
    assert_tables_are_whole(demo.lake)


@pytest.mark.skipif(ROUNDS == 1, reason="of crashes, make test has that of test_stopping.py")
@pytest.mark.timeout(600 * ROUNDS)
@pytest.mark.parametrize("victims", VICTIMS)
def test_after_a_crash_that_leaves_runs_started_the_next_start_streams(home, victims):
    session = None
    for _ in range(ROUNDS):
        demo = home.running()
        session = streaming(demo, after=session)
        kill(demo, victims)
        if victims == "dagster":
            assert demo.process.wait(LIMIT_S) != 0
        demo.ended_without_a_trace()
    demo = home.running()
    streaming(demo, after=session)
    assert_never_two_writers(demo.lake)


def kill(demo: Demo, victims: str) -> None:
    parts = ("dagster_host.services", "multiprocessing")
    for process in demo.processes():
        with suppress(psutil.NoSuchProcess):
            words = " ".join(process.cmdline())
            inside = any(part in words for part in parts) and "processes.reaper" not in words
            if victims == "everything" or (victims == "dagster" and inside):
                process.kill()
    if victims != "dagster":
        demo.process.kill()
