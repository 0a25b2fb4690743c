"""When the stream gets a new run."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from dagster import DagsterRunStatus as RunState

from position_sync_dagster.defs.stream import JobRun, Supervision, supervise
from position_sync_dagster.domain.gateway_session import GatewaySession, Owner, SessionState
from tests.support.holdings import make_session

NOW = datetime(2026, 3, 9, 15, 0, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def lease(run_id: str | None = "new", *, left_s: float = 10.0, age_s: float = 600.0, **more: Any):
    renewed = {"heartbeat_at": ago(15 - left_s), "expires_at": ago(-left_s)}
    return make_session(ago(age_s), run_id=run_id, **renewed, **more)


def run(
    state: RunState, *, began_s: float = 600.0, ended_s: float | None = None, name: str = "new"
) -> JobRun:
    ended_at = None
    if ended_s is not None:
        ended_at = ago(ended_s)

    own_fault = state is RunState.FAILURE
    times = {"since": ago(began_s), "ended_at": ended_at}
    return JobRun(run_id=name, state=state, own_fault=own_fault, **times)


def decide(*runs: JobRun, session: GatewaySession | None = None, **more: Any) -> Supervision:
    usual = {"supervised_since": ago(3600), "rotate_after_s": 21600.0}
    return supervise(runs, session, now=NOW, **usual | more)


ENDED = run(RunState.SUCCESS, ended_s=1)
FAILED = run(RunState.FAILURE, began_s=20, ended_s=0)
KILLED = [replace(FAILED, run_id=str(number), own_fault=False) for number in range(8)]
PAUSED = replace(run(RunState.CANCELED, ended_s=100, name="old"), terminated_at=ago(100))
LONG = [
    run(RunState.FAILURE, began_s=600, ended_s=0, name="0"),
    run(RunState.FAILURE, began_s=1300, ended_s=700, name="1"),
]


STARTED = {
    "none": ([], None),
    "a clean end, before the end of its lease": ([ENDED], lease("new", left_s=12)),
    "a clean end, and a drain owns the login": ([ENDED], lease("x", owner=Owner.REFRESH)),
    "a launch by hand after a pause": ([ENDED, PAUSED], None),
    "one failure": ([run(RunState.FAILURE, began_s=5, ended_s=0)], None),
    "runs that were killed": (KILLED, None),
    "failures after a long life": (LONG, None),
}


@pytest.mark.parametrize(("runs", "session"), STARTED.values(), ids=STARTED)
def test_a_run_is_started_at_once_after(runs, session) -> None:
    assert decide(*runs, session=session).start


NEXT = [run(RunState.STARTED, began_s=40, name="next"), run(RunState.STARTED)]


WAITED_FOR = {
    "a run that is queued": ([run(RunState.QUEUED, began_s=4000)], lease("old", left_s=-100)),
    "a run that is starting": ([run(RunState.STARTING, began_s=5)], None),
    "a run that has started": ([run(RunState.STARTED, began_s=5)], None),
    "a run that is being terminated": ([run(RunState.CANCELING)], lease(left_s=-5)),
    "a successor that waits for the lease": (NEXT, lease(age_s=595)),
}


@pytest.mark.parametrize(("runs", "session"), WAITED_FOR.values(), ids=WAITED_FOR)
def test_no_run_is_started_or_lost_beside(runs, session) -> None:
    decided = decide(*runs, session=session, rotate_after_s=600)
    assert decided.start is False
    assert decided.lost == ()


def test_a_run_whose_lease_holds_is_left_alone() -> None:
    decided = decide(run(RunState.STARTED), session=lease())
    assert not decided.start
    assert "its lease holds 10 s" in decided.reason


ENDED_JUST_NOW = lease(state=SessionState.ENDED, left_s=13)
ENDED_LONG_AGO = lease(state=SessionState.ENDED, left_s=-25)
RUNNING = run(RunState.STARTED)


def starting(began_s: float) -> JobRun:
    return run(RunState.STARTING, began_s=began_s)


LOST = {
    "its lease ended": (RUNNING, lease(left_s=-1), True),
    "it was killed before it had a lease": (starting(61), None, True),
    "it has no lease yet": (starting(59), None, False),
    "it began in the future, and has no lease": (starting(-3600), None, True),
    "it began a little ahead of this clock": (starting(-20), None, False),
    "its session ended cleanly long ago": (RUNNING, ENDED_LONG_AGO, True),
    "its session ended cleanly just now": (RUNNING, ENDED_JUST_NOW, False),
}
NEVER_SUBMITTED = run(RunState.NOT_STARTED, began_s=61)
CREATED_JUST_NOW = run(RunState.NOT_STARTED, began_s=59)
LOST |= {
    "it was never submitted": (NEVER_SUBMITTED, None, True),
    "it was never submitted, beside another": (NEVER_SUBMITTED, lease("old"), True),
    "it was created just now": (CREATED_JUST_NOW, lease("old"), False),
}


@pytest.mark.parametrize(("one", "session", "is_lost"), LOST.values(), ids=LOST)
def test_a_run_is_reported_as_lost_and_followed_if(one, session, is_lost) -> None:
    decided = decide(one, session=session)
    assert decided.lost == (("new",) if is_lost else ())
    is_owned = session is not None and session.run_id == "old"
    assert decided.start is (is_lost and not is_owned)


def test_several_runs_left_behind_by_a_host_crash_are_all_reported() -> None:
    left = run(RunState.STARTED, name="b"), run(RunState.STARTED, name="a", began_s=9000)
    decided = decide(*left, session=lease("b", left_s=-60))
    assert decided.lost == ("b", "a")
    assert decided.start is True


def test_a_stream_outside_dagster_is_not_doubled() -> None:
    decided = decide(session=lease(None))
    assert not decided.start
    assert "process 4711 on here" in decided.reason


def test_a_terminated_run_is_a_pause_until_the_sensor_is_switched_on_again() -> None:
    decided = decide(PAUSED, session=lease(state=SessionState.ENDED))
    assert not decided.start
    assert "paused by a person" in decided.reason
    assert decide(PAUSED, supervised_since=ago(50)).start


@pytest.mark.parametrize(("crashes", "pause_s"), [(2, 10), (3, 20), (4, 40), (8, 120)])
def test_the_delay_of_a_crash_loop_grows(crashes: int, pause_s: int) -> None:
    def crashed(last_s: float) -> list[JobRun]:
        ends = [last_s + n * 200 for n in range(crashes)]
        return [run(RunState.FAILURE, began_s=s + 5, ended_s=s, name=str(s)) for s in ends]

    early = decide(*crashed(pause_s - 1))
    assert not early.start
    assert f"{crashes} runs failed in a row" in early.reason
    assert decide(*crashed(pause_s + 1)).start


def test_a_crash_loop_is_not_paused_for_longer_because_the_clock_went_back() -> None:
    runs = [
        run(RunState.FAILURE, began_s=-3595 + n, ended_s=-3600 + n, name=str(n)) for n in range(8)
    ]
    assert decide(*runs).start
    again = run(RunState.FAILURE, began_s=6, ended_s=1, name="again")
    early = decide(again, *runs)
    assert not early.start
    assert "next in 119 s" in early.reason


def test_a_lease_from_the_future_counts_for_nothing() -> None:
    """A clock was set back: a living owner ends with its run, and its successor waits for it."""
    running = run(RunState.STARTED)
    for ahead_s in (0, 250):
        assert not decide(running, session=lease(left_s=ahead_s + 15)).start
    decided = decide(running, session=lease(left_s=7200))
    assert decided.start is True
    assert decided.lost == ("new",)


def test_a_successor_starts_shortly_before_the_end_of_a_session() -> None:
    running = run(RunState.STARTED)
    assert not decide(running, session=lease(age_s=569), rotate_after_s=600).start
    assert decide(running, session=lease(age_s=571), rotate_after_s=600).start
