"""The owners of logins: one at a time, by lease, followed by one with a greater token."""

import asyncio
import threading
from contextlib import nullcontext, suppress
from datetime import datetime, timedelta

import pytest

from position_sync_dagster.domain.gateway_session import Owner, SessionState
from position_sync_dagster.domain.position_update import TradingMode
from position_sync_dagster.errors import (
    LeaseLostError,
    LoginOwnedError,
    StalledError,
    TradingModeError,
)
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.storage import commits as table_commits
from position_sync_dagster.lake.storage.commits import write
from position_sync_dagster.lake.storage.merges import maintain
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.sync.stream.ownership import Ownership
from tests.support.lake_worker import Worker, workers
from tests.support.settings import make_settings
from tests.support.waiting import DEADLINE_S, eventually

LOGIN = "127.0.0.1:7497"
WHO = dict(lease_s=15.0, run_id="run-1", host="box", pid=42)
LIVE = {"lease_s": 15.0, "state": SessionState.LIVE}
LONG = WHO | {"lease_s": 1500.0}
LIVE_LONG = {"lease_s": 1500.0, "state": SessionState.LIVE}


@pytest.fixture
def pair(lake, clock):
    """The sessions of one lake as two processes open them."""
    return lake.sessions, Lake(lake.path, clock=clock).sessions


def test_a_login_has_one_owner_who_is_named_to_the_others(pair):
    here, there = pair
    session = here.acquire(LOGIN, Owner.STREAM, **LONG)
    with pytest.raises(LoginOwnedError, match=r"STREAM \(process 42 on box, .* until"):
        there.acquire(LOGIN, Owner.REFRESH, **LONG)
    current_session = there.current(LOGIN)
    assert current_session.session_id == session.session_id
    assert current_session.fencing_token == 1
    assert there.acquire("127.0.0.1:4001", Owner.REFRESH, **LONG).fencing_token == 1


def test_a_lease_lasts_as_long_as_it_is_renewed(pair, clock):
    here, there = pair
    session = here.renew(here.acquire(LOGIN, Owner.STREAM, **LONG), **LIVE_LONG)
    for _ in range(4):
        clock.advance(1000)
        session = here.renew(session, **LIVE_LONG)
        with pytest.raises(LoginOwnedError):
            there.acquire(LOGIN, Owner.STREAM, **LONG)
    assert session.is_alive(clock.now + timedelta(seconds=1490))
    assert there.current(LOGIN) == session
    assert [held_session.is_alive(clock.now) for held_session in there.history()] == [True]


def test_an_owner_that_is_late_goes_on_until_it_is_followed_by_a_greater_token(pair, clock):
    here, there = pair
    first = here.renew(here.acquire(LOGIN, Owner.STREAM, **LONG), **LIVE_LONG)
    clock.advance(1000)
    first = here.renew(first, **LIVE_LONG)
    clock.advance(1510)
    assert not there.current(LOGIN).is_alive(clock.now)
    first = here.renew(first, **LIVE_LONG)
    assert there.current(LOGIN).is_alive(clock.now)

    clock.advance(1510)
    second = there.acquire(LOGIN, Owner.REFRESH, **LONG)
    assert second.fencing_token == first.fencing_token + 1
    for call in (lambda: here.renew(first, **LIVE_LONG), lambda: here.end(first)):
        with pytest.raises(LeaseLostError, match=r"DRAIN .process .* owns it since"):
            call()
    assert here.current(LOGIN).session_id == second.session_id
    newest, lost = there.history()
    assert newest.session_id == second.session_id
    assert lost.state == SessionState.LOST
    assert clock.now - lost.state_since < timedelta(seconds=2000)  # its last heartbeat


def test_an_ended_session_leaves_the_login_free_at_once(pair, clock):
    here, there = pair
    session = here.renew(here.acquire(LOGIN, Owner.STREAM, **LONG), **LIVE_LONG)
    clock.advance(300)
    ended = here.end(here.renew(session, **LIVE_LONG), detail="rotation")
    current_session = there.current(LOGIN)
    assert current_session.state == SessionState.ENDED
    assert current_session.detail == "rotation"
    with pytest.raises(LeaseLostError, match="ENDED"):
        here.renew(ended, **LIVE_LONG)
    assert there.acquire(LOGIN, Owner.STREAM, **LONG).fencing_token == 2


def test_a_pause_is_told_once_and_read_by_all(pair, clock):
    here, there = pair
    session = here.renew(here.acquire(LOGIN, Owner.STREAM, **LONG), **LIVE_LONG)
    here.annotate(session, "not while it is alive")
    clock.advance(1600)
    here.annotate(session, "paused by a person")
    version = here.table.version()
    there.annotate(session, "paused by a person")
    assert there.current(LOGIN).detail == "paused by a person"
    assert here.table.version() == version


async def test_a_killed_owner_is_followed_when_its_lease_is_over_and_not_before(lake):
    holder = Worker("hold", lake.path)
    sessions = Lake(lake.path).sessions
    with workers(holder):
        await eventually(
            lambda: (session := sessions.current("g")) and session.heartbeat_at > session.started_at
        )
        *_, last, _cut = holder.kill().split("\n")
    ends = datetime.fromisoformat(last) + timedelta(seconds=2)

    def acquired():
        with suppress(LoginOwnedError):
            return sessions.acquire("g", Owner.STREAM, **LONG)

    after = await eventually(acquired)
    assert after.fencing_token == 2
    assert after.started_at >= ends


@pytest.mark.in_store
async def test_a_heartbeat_renews_the_lease_and_records_the_state_of_the_owner(lake, clock):
    session = lake.sessions.acquire(LOGIN, Owner.STREAM, **WHO)
    clock.advance(10)
    live = lake.sessions.renew(session, lines_in_use=20, line_limit=95, **LIVE)
    clock.advance(4)
    again = lake.sessions.renew(session, lease_s=15)
    assert again.state == SessionState.LIVE
    assert again.lines_in_use == 20
    assert again.line_limit == 95
    assert again.state_since == live.heartbeat_at
    assert live.state_since == live.heartbeat_at
    assert (again.expires_at - clock.now).total_seconds() == 15

    blind = lake.sessions.renew(
        session, lease_s=15, state=SessionState.BLIND, detail="1100 connectivity lost"
    )
    assert blind.state_since == clock.now
    assert blind.detail == "1100 connectivity lost"
    back = lake.sessions.renew(blind, **LIVE)
    assert back.detail is None
    assert lake.sessions.renew(back, lease_s=15, detail="a leg is wrong").detail
    back = lake.sessions.renew(back, lease_s=15)
    assert back.state == SessionState.LIVE
    assert back.detail is None
    assert lake.sessions.current(LOGIN) == back
    assert back.is_alive(clock.now)


async def test_a_late_heartbeat_records_since_when_the_owner_sees_the_gateway(lake, clock):
    session = lake.sessions.acquire(LOGIN, Owner.STREAM, **WHO)
    seen = clock.now + timedelta(seconds=2)
    clock.advance(9)
    first = lake.sessions.renew(session, live_since=seen, **LIVE)
    assert first.state_since == seen
    clock.advance(4)
    assert lake.sessions.renew(session, live_since=seen, **LIVE).state_since == seen
    back = clock.now + timedelta(seconds=1)  # an outage between two heartbeats
    clock.advance(4)
    assert lake.sessions.renew(session, live_since=back, **LIVE).state_since == back
    blind = lake.sessions.renew(session, lease_s=15, state=SessionState.BLIND)
    clock.advance(1)
    again = lake.sessions.renew(session, live_since=seen, **LIVE)
    assert again.state_since == blind.state_since  # never before the outage


@pytest.mark.parametrize("cleanly", [True, False])
async def test_the_time_when_the_gateway_was_last_seen_is_kept_across_sessions(
    lake, clock, cleanly
):
    async def follow(session):
        clock.advance(7)
        if cleanly:
            lake.sessions.end(session)
        clock.advance(60)
        return lake.sessions.acquire(LOGIN, Owner.STREAM, **WHO)

    session = lake.sessions.acquire(LOGIN, Owner.STREAM, **WHO)
    assert session.state_since == clock.now
    clock.advance(5)
    session = lake.sessions.renew(session, **LIVE)
    assert session.state_since == clock.now
    clock.advance(10)
    session = lake.sessions.renew(session, **LIVE)
    last_seen = clock.now + timedelta(seconds=7 if cleanly else 0)
    session = await follow(session)
    assert session.state == SessionState.STARTING
    assert session.state_since == last_seen

    session = await follow(session)
    assert session.state_since == last_seen
    session = lake.sessions.renew(session, lease_s=15, state=SessionState.BLIND)
    assert session.state_since == last_seen
    session = await follow(session)
    assert session.state_since == last_seen
    session = lake.sessions.renew(session, **LIVE)
    assert session.state_since == clock.now
    assert all(s.state_since <= last_seen for s in lake.sessions.history()[1:])


async def test_a_lease_from_the_future_holds_for_minutes_and_not_for_hours(lake, clock):
    real = clock.now
    for ahead_s, fails in ((240, True), (4 * 3600, False)):
        clock.advance(ahead_s)
        dead = lake.sessions.acquire(LOGIN, Owner.STREAM, **WHO)
        clock.now = real
        if fails:
            with pytest.raises(LoginOwnedError):
                lake.sessions.acquire(LOGIN, Owner.STREAM, **WHO)
            lake.sessions.end(dead)
    assert not lake.sessions.current(LOGIN).is_alive(clock.now)

    session = lake.sessions.acquire(LOGIN, Owner.STREAM, **WHO)
    assert session.fencing_token == dead.fencing_token + 1
    assert session.state_since <= real
    with pytest.raises(LeaseLostError):
        lake.sessions.renew(dead, lease_s=15)


@pytest.fixture
async def owning(lake, clock):
    """An owner of the login whose lease nothing renews by itself."""
    seconds = [1000.0]
    settings = make_settings(heartbeat_s=3600, session_lease_s=4000)
    own = Ownership(
        lake.sessions, settings, owner=Owner.STREAM, clock=clock, monotonic=lambda: seconds[0]
    )
    async with own:
        yield own, seconds


@pytest.mark.parametrize(
    ("jumps_s", "passes_s"),
    [(7200, 3), (-3600, 4001), (4001, 4001)],
    ids=["the clock goes forward", "it goes back and the process stands still", "it is late"],
)
@pytest.mark.parametrize("is_followed", [False, True])
async def test_an_owner_whose_lease_ran_out_writes_nothing_until_it_is_renewed_late(
    owning, lake, clock, jumps_s, passes_s, is_followed
):
    own, seconds = owning
    clock.advance(jumps_s)
    seconds[0] += passes_s
    with pytest.raises(StalledError, match="was not renewed"):
        own.check()
    if is_followed:
        clock.advance(14_400)
        lake.sessions.acquire(own.session.gateway_id, Owner.STREAM, **WHO)

    own.renew_now()
    if is_followed:
        await asyncio.wait_for(own.lost.wait(), DEADLINE_S)
        with pytest.raises(LeaseLostError):
            own.check()
    else:
        await eventually(lambda: not own.suspended)
        own.check()


async def test_a_clock_that_went_back_ends_no_owner(owning, clock):
    own, seconds = owning
    clock.advance(-3600)
    for _ in range(3):
        own.check()
        own.renew_now()
        await eventually(lambda: own.session.heartbeat_at == clock.now)
        clock.advance(3000)
        seconds[0] += 3000
    own.check()


async def test_a_lease_is_renewed_while_slow_commits_keep_all_threads_of_the_lake(lake, clock):
    settings = make_settings(heartbeat_s=0.05, session_lease_s=4000)
    may_end = threading.Event()
    async with Ownership(lake.sessions, settings, owner=Owner.STREAM, clock=clock) as own:
        slow = [asyncio.create_task(offload(may_end.wait, 60)) for _ in range(8)]
        try:
            clock.advance(1)
            await eventually(lambda: own.session.heartbeat_at == clock.now)
            assert not any(task.done() for task in slow)
        finally:
            may_end.set()
            await asyncio.gather(*slow)


async def test_an_owner_whose_heartbeat_fails_for_any_reason_writes_nothing_more(
    owning, lake, monkeypatch, caplog
):
    def fail(*_, **__):
        raise RuntimeError("a fault that nobody thought of")

    own, _seconds = owning
    monkeypatch.setattr(lake.sessions, "renew", fail)
    own.renew_now()
    await asyncio.wait_for(own.lost.wait(), DEADLINE_S)
    with pytest.raises(LeaseLostError):
        own.check()
    assert f"the lease on {own.session.gateway_id} is no longer renewed" in caplog.text
    assert "a fault that nobody thought of" in caplog.text


@pytest.mark.in_store
async def test_a_login_of_another_trading_mode_is_refused(lake):
    for _ in range(2):
        lake.sessions.claim_mode(TradingMode.PAPER)
    with pytest.raises(TradingModeError, match="PAPER"):
        lake.sessions.claim_mode(TradingMode.LIVE)
    assert lake.sessions.mode() is TradingMode.PAPER


def overtaken_by(other, monkeypatch):
    """Let something else commit right before the next change of the sessions does."""
    commits = []

    def late(*args, **more):
        commits.append(args)
        if len(commits) == 1:
            other()
        write(*args, **more)

    # The writer lock only keeps the order; what is proved here must hold without it.
    monkeypatch.setattr(table_commits, "write", late)
    return commits


def unlocked(lake, monkeypatch):
    monkeypatch.setattr(lake.sessions.table._writer_lock, "fair", nullcontext)
    return lake.sessions


async def test_a_renewal_does_not_wait_for_those_of_other_logins(lake, clock, monkeypatch):
    first, two = [lake.sessions.acquire(f"g:{n}", Owner.STREAM, **WHO) for n in (1, 2)]
    here, there = (unlocked(Lake(lake.path, clock=clock), monkeypatch) for _ in range(2))
    there.renew(two, **LIVE)
    clock.advance(3)
    commits = overtaken_by(
        lambda: there.renew(two, lines_in_use=7, line_limit=10, **LIVE), monkeypatch
    )
    here.renew(first, **LIVE)
    assert len(commits) == 2  # one each
    for login, lines in (("g:1", 0), ("g:2", 7)):
        for reader in (here, there, lake.sessions):
            session = reader.current(login)
            assert session.heartbeat_at == clock.now
            assert session.lines_in_use == lines


async def test_of_two_that_follow_a_dead_owner_at_once_one_is_refused(lake, clock, monkeypatch):
    dead = lake.sessions.acquire(LOGIN, Owner.STREAM, **WHO)
    clock.advance(20)
    here, there = (unlocked(Lake(lake.path, clock=clock), monkeypatch) for _ in range(2))
    won = []
    overtaken_by(lambda: won.append(there.acquire(LOGIN, Owner.STREAM, **WHO)), monkeypatch)
    with pytest.raises(LoginOwnedError):
        here.acquire(LOGIN, Owner.STREAM, **WHO)
    assert [here.current(LOGIN), there.current(LOGIN)] == won * 2
    assert won[0].fencing_token == dead.fencing_token + 1
    with pytest.raises(LeaseLostError):
        here.renew(dead, lease_s=15.0)


@pytest.mark.on_disk  # in a store, its writers merge files earlier
async def test_weeks_of_heartbeats_leave_a_handful_of_files(lake, clock):
    session = lake.sessions.acquire(LOGIN, Owner.STREAM, **WHO)
    for _ in range(30):
        clock.advance(4)
        session = lake.sessions.renew(session, lease_s=15)
    for _ in range(40):
        lake.sessions.end(session)
        session = lake.sessions.acquire(LOGIN, Owner.REFRESH, **WHO)
    result = maintain(lake.sessions.table, clean_now=True)
    assert result.files == 2  # the live session and the past ones
    assert len(lake.sessions.history(100)) == 41
    assert lake.sessions.current(LOGIN) == session


@pytest.mark.parametrize("steps", range(5))
async def test_an_owner_ends_also_in_the_moment_of_a_renewal(lake, clock, steps):
    """With Python 3.11 `asyncio.wait_for` swallows a cancellation then."""
    own = Ownership(lake.sessions, make_settings(), owner=Owner.STREAM, clock=clock)
    await own.begin()
    await asyncio.sleep(0)
    own.renew_now()
    for _ in range(steps):
        await asyncio.sleep(0)
    async with asyncio.timeout(DEADLINE_S):
        await own.end()
