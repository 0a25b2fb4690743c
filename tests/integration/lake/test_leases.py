"""Leases of logins: one owner at a time, who is followed with a greater token."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import Owner, SessionState
from position_sync_dagster.errors import LeaseLostError, LoginOwnedError
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.sessions import GatewaySessions
from tests.support.clock import HandClock
from tests.support.empty_lakes import put_tables
from tests.support.waiting import eventually

LOGIN = "127.0.0.1:7497"
LEASE_S = 1500.0
WHO = {"lease_s": LEASE_S, "run_id": "run-1", "host": "box", "pid": 42}
LIVE = {"lease_s": LEASE_S, "state": SessionState.LIVE}


@dataclass
class Leases:
    """The leases of one lake, as several processes see them."""

    path: Path
    clock: HandClock

    def sessions(self, clock: Callable[[], datetime] | None = None) -> GatewaySessions:
        """Return the leases as another process opens them."""
        return Lake(self.path, clock=clock or self.clock, fsync=False).sessions

    def pass_time(self, seconds: float) -> None:
        """Advance the clocks of the machines."""
        self.clock.advance(seconds)


@pytest.fixture
def leases(tmp_path: Path) -> Leases:
    put_tables(tmp_path)
    return Leases(tmp_path, HandClock())


def test_a_login_has_one_owner_who_is_named_to_the_others(leases):
    here, there = leases.sessions(), leases.sessions()
    session = here.acquire(LOGIN, Owner.STREAM, **WHO)
    with pytest.raises(LoginOwnedError, match=r"STREAM \(process 42 on box, .* until"):
        there.acquire(LOGIN, Owner.REFRESH, **WHO)
    found = there.current(LOGIN)
    assert (found.session_id, found.fencing_token) == (session.session_id, 1)
    assert there.acquire("127.0.0.1:4001", Owner.REFRESH, **WHO).fencing_token == 1


def test_a_lease_lasts_as_long_as_it_is_renewed(leases):
    here, there = leases.sessions(), leases.sessions()
    session = here.renew(here.acquire(LOGIN, Owner.STREAM, **WHO), **LIVE)
    for _ in range(4):
        leases.pass_time(1000)
        lines = session.lines_in_use + 1
        session = here.renew(session, lines_in_use=lines, detail="all is well", **LIVE)
        with pytest.raises(LoginOwnedError):
            there.acquire(LOGIN, Owner.STREAM, **WHO)
    assert session.is_alive(leases.clock.now + timedelta(seconds=1490))
    found = there.current(LOGIN)
    assert found.is_alive(leases.clock.now + timedelta(seconds=1400))
    assert (found.state, found.lines_in_use, found.detail) == (SessionState.LIVE, 4, "all is well")
    assert [one.is_alive(leases.clock.now) for one in there.history()] == [True]


def test_an_owner_that_is_late_has_lost_its_lease_and_is_followed_by_a_greater_token(leases):
    here, there = leases.sessions(), leases.sessions()
    first = here.renew(here.acquire(LOGIN, Owner.STREAM, **WHO), **LIVE)
    leases.pass_time(1000)
    first = here.renew(first, **LIVE)
    leases.pass_time(1510)
    assert not there.current(LOGIN).is_alive(leases.clock.now)
    with pytest.raises(LeaseLostError, match="its lease has expired"):
        here.renew(first, **LIVE)
    second = there.acquire(LOGIN, Owner.REFRESH, **WHO)
    assert second.fencing_token == first.fencing_token + 1
    for call in (lambda: here.renew(first, **LIVE), lambda: here.end(first)):
        with pytest.raises(LeaseLostError, match="a newer session has followed"):
            call()
    assert here.current(LOGIN).session_id == second.session_id
    newest, lost = there.history()
    assert (newest.session_id, lost.state) == (second.session_id, SessionState.LOST)
    assert leases.clock.now - lost.state_since < timedelta(seconds=2000)  # its last heartbeat


def test_an_ended_session_leaves_the_login_free_at_once(leases):
    here, there = leases.sessions(), leases.sessions()
    session = here.renew(here.acquire(LOGIN, Owner.STREAM, **WHO), **LIVE)
    leases.pass_time(300)
    ended = here.end(here.renew(session, **LIVE), detail="rotation")
    found = there.current(LOGIN)
    assert (found.state, found.detail) == (SessionState.ENDED, "rotation")
    with pytest.raises(LeaseLostError, match="ENDED"):
        here.renew(ended, **LIVE)
    assert there.acquire(LOGIN, Owner.STREAM, **WHO).fencing_token == 2


def test_a_pause_is_told_once_and_read_by_all(leases):
    here, there = leases.sessions(), leases.sessions()
    session = here.renew(here.acquire(LOGIN, Owner.STREAM, **WHO), **LIVE)
    here.annotate(session, "not while it is alive")
    leases.pass_time(1600)
    here.annotate(session, "paused by a person")
    version = here.table.version()
    there.annotate(session, "paused by a person")
    assert there.current(LOGIN).detail == "paused by a person"
    assert here.table.version() == version


HOLDER = """
import sys, time
from position_sync_dagster.domain.gateway_session import Owner, SessionState
from position_sync_dagster.lake.lake import Lake
sessions = Lake(sys.argv[1], fsync=False).sessions
session = sessions.acquire("g", Owner.STREAM, lease_s=2, run_id=None, host="here", pid=1)
while True:
    session = sessions.renew(session, lease_s=2, state=SessionState.LIVE)
    print(session.heartbeat_at, flush=True)
    time.sleep(0.2)
"""


async def test_a_killed_owner_is_followed_when_its_lease_is_over_and_not_before(leases):
    words = [sys.executable, "-c", HOLDER, str(leases.path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            for _ in range(3):
                first = process.stdout.readline()
        finally:
            process.kill()
        last = (first + process.stdout.read()).split("\n")
    ends = datetime.fromisoformat(last[-2]) + timedelta(seconds=2)
    sessions = leases.sessions(utc_now)

    def acquired():
        with suppress(LoginOwnedError):
            return sessions.acquire("g", Owner.STREAM, **WHO)

    after = await eventually(acquired)
    assert after.fencing_token == 2
    assert after.started_at >= ends
