"""Whatever is killed, the stream comes back by itself, and never are there two.

One round in the suite, where a kill of everything is a test of its own (`test_endings.py`);
`make chaos` asks for ten rounds of each.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import polars as pl
import psutil
import pytest

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import GatewaySession, SessionState
from position_sync_dagster.lake import Lake
from tests.support.demo_program import LIMIT_S, STREAMED, Demo, assert_tables_are_whole, wait_for

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "1"))
VICTIMS = ["dagster", "everything"] if ROUNDS > 1 else ["dagster"]


def streaming(demo: Demo, *, after: GatewaySession | None) -> GatewaySession:
    """Wait for a stream that is another than the one before."""
    lake = Lake(demo.lake)

    def lives() -> GatewaySession | None:
        demo.check()
        found = lake.sessions.sync.history(1) if (demo.lake / "gateway_sessions").exists() else []
        if not found or (after is not None and found[0].session_id == after.session_id):
            return None
        session = found[0]
        alive = session.is_alive(utc_now()) and session.state is SessionState.LIVE
        return session if alive and session.lines_in_use == STREAMED else None

    began = time.monotonic()
    session: GatewaySession = wait_for("streaming again", lives, poll_s=0.3)
    print(f"{STREAMED} lines again after {time.monotonic() - began:.1f} s")  # shown by `make chaos`
    wait_for("the broker agrees", lambda: demo.lines() == STREAMED)
    return session


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


@pytest.mark.timeout(600 * ROUNDS)
@pytest.mark.parametrize("victims", VICTIMS)
def test_after_a_crash_that_leaves_runs_started_the_next_start_streams(home, victims):
    session = None
    for _ in range(ROUNDS):
        demo = home.running()
        session = streaming(demo, after=session)
        kill(demo, victims)
        if victims != "everything":
            assert demo.process.wait(LIMIT_S) != 0
        demo.ended_without_a_trace()
    demo = home.running()
    streaming(demo, after=session)
    assert_never_two_writers(demo.lake)


def kill(demo: Demo, victims: str) -> None:
    for process in demo.processes():
        with suppress(psutil.NoSuchProcess):
            words = " ".join(process.cmdline())
            dagster = "dagster dev" in words or "dagster" in words.split("/")[-1]
            inside = dagster or "multiprocessing" in words or "_daemon" in words
            if victims == "everything" or (inside and "processes.reaper" not in words):
                process.kill()
    if victims == "everything":
        demo.process.kill()
