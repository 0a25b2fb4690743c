"""Leases of logins, with heartbeats in the tables and in Postgres: the same promises."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import psycopg2
import pytest
from psycopg2 import sql
from typer.testing import CliRunner

from position_sync_dagster.cli.app import app
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import LineUse, Owner, SessionState
from position_sync_dagster.domain.update import PositionUpdate
from position_sync_dagster.errors import (
    HeartbeatsElsewhereError,
    HeartbeatsUnavailableError,
    LeaseLostError,
    LoginOwnedError,
)
from position_sync_dagster.lake import sessions as sessions_module
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.sessions import GatewaySessions, Heartbeats
from tests.support import postgres
from tests.support.clock import HandClock
from tests.support.empty_lakes import put_tables
from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(postgres.programs() is None, reason=postgres.MISSING)

LOGIN = "127.0.0.1:7497"
LEASE_S = 1500.0
"""Long, since the clock of Postgres cannot be stopped: a busy machine must not end a lease."""
WHO = {"lease_s": LEASE_S, "run_id": "run-1", "host": "box", "pid": 42}
LIVE = {"lease_s": LEASE_S, "state": SessionState.LIVE}


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Postgres]:
    with postgres.running() as found:
        yield found


@pytest.fixture
def database(server: postgres.Postgres, monkeypatch: pytest.MonkeyPatch) -> postgres.Postgres:
    """Return a server that knows no heartbeat, and which the environment names."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    server.execute("DROP TABLE IF EXISTS position_sync_heartbeats")
    return server


def age(database: postgres.Postgres, seconds: float) -> None:
    """Let time pass for Postgres."""
    span = sql.Literal(f"{seconds} s")
    database.execute(
        sql.SQL(
            "UPDATE position_sync_heartbeats SET heartbeat_at = heartbeat_at - interval {0}, "
            "expires_at = expires_at - interval {0} WHERE lake <> ''"
        ).format(span)
    )


@dataclass
class Leases:
    """The leases of one lake, as several processes see them."""

    path: Path
    heartbeats: str
    clock: HandClock
    database: postgres.Postgres | None

    def sessions(self, clock: Callable[[], datetime] | None = None) -> GatewaySessions:
        """Return the leases as another process opens them."""
        return Lake(
            self.path, clock=clock or self.clock, heartbeats=self.heartbeats, fsync=False
        ).sessions

    def pass_time(self, seconds: float) -> None:
        """Advance the clocks of the machines, and that of Postgres."""
        self.clock.advance(seconds)
        if self.database is not None:
            age(self.database, seconds)


@pytest.fixture(params=["tables", "postgres"])
def leases(request: pytest.FixtureRequest, tmp_path: Path) -> Leases:
    put_tables(tmp_path)
    database = request.getfixturevalue("database") if request.param == "postgres" else None
    return Leases(tmp_path, request.param, HandClock(), database)


@pytest.fixture
def in_postgres(tmp_path: Path, database: postgres.Postgres) -> Leases:
    put_tables(tmp_path)
    return Leases(tmp_path, "postgres", HandClock(), database)


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
    session = here.renew(here.acquire(LOGIN, Owner.STREAM, **WHO), detail="all is well", **LIVE)
    for _ in range(4):
        leases.pass_time(1000)
        session = here.renew(session, lines=LineUse(session.lines_in_use + 1, 95), **LIVE)
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


def test_of_many_that_follow_a_dead_owner_at_once_one_owns_the_login(leases):
    dead = leases.sessions().acquire(LOGIN, Owner.STREAM, **WHO)
    leases.pass_time(1600)
    racers = [leases.sessions() for _ in range(4)]
    start = threading.Barrier(len(racers))

    def race(sessions):
        start.wait()
        try:
            return sessions.acquire(LOGIN, Owner.STREAM, **WHO)
        except LoginOwnedError:
            return None

    with ThreadPoolExecutor(len(racers)) as pool:
        won = [session for session in pool.map(race, racers) if session is not None]
    assert [session.fencing_token for session in won] == [dead.fencing_token + 1]
    assert {racer.current(LOGIN).session_id for racer in racers} == {won[0].session_id}


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
sessions = Lake(sys.argv[1], heartbeats=sys.argv[2], fsync=False).sessions
session = sessions.acquire("g", Owner.STREAM, lease_s=2, run_id=None, host="here", pid=1)
while True:
    session = sessions.renew(session, lease_s=2, state=SessionState.LIVE)
    print(session.heartbeat_at, flush=True)
    time.sleep(0.2)
"""


async def test_a_killed_owner_is_followed_when_its_lease_is_over_and_not_before(leases):
    words = [sys.executable, "-c", HOLDER, str(leases.path), leases.heartbeats]
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


def test_heartbeats_in_postgres_make_no_commit_and_changes_of_the_state_do(in_postgres):
    sessions = in_postgres.sessions()
    session = sessions.renew(sessions.acquire(LOGIN, Owner.STREAM, **WHO), **LIVE)
    version = sessions.table.version()
    for _ in range(5):
        in_postgres.pass_time(400)
        session = sessions.renew(session, **LIVE)
    assert sessions.table.version() == version
    sessions.renew(session, lease_s=LEASE_S, state=SessionState.BLIND, detail="1100")
    assert sessions.table.version() == version + 1
    assert in_postgres.sessions().current(LOGIN).state is SessionState.BLIND


def test_an_owner_outlives_postgres_and_nobody_takes_its_login_meanwhile_or_afterwards(
    in_postgres, database, caplog
):
    here, there = in_postgres.sessions(), in_postgres.sessions()
    session = here.renew(here.acquire(LOGIN, Owner.STREAM, **WHO), **LIVE)
    there.current(LOGIN)
    with database.away():
        for _ in range(4):
            in_postgres.clock.advance(1000)
            session = here.renew(session, **LIVE)
            assert there.current(LOGIN).is_alive(in_postgres.clock.now)
        with pytest.raises(HeartbeatsUnavailableError, match="Start it, or correct PGHOST"):
            there.acquire(LOGIN, Owner.REFRESH, **WHO)
        with pytest.raises(HeartbeatsUnavailableError):
            there.history()
    age(database, 4000)  # as much time has passed for Postgres
    assert there.current(LOGIN).is_alive(in_postgres.clock.now)
    with pytest.raises(LoginOwnedError):
        there.acquire(LOGIN, Owner.STREAM, **WHO)
    session = here.renew(session, **LIVE)  # by the table, once more
    version = here.table.version()
    session = here.renew(session, **LIVE)
    assert here.table.version() == version
    told = [line for line in caplog.messages if "renewed in the tables meanwhile" in line]
    assert len(told) == 1
    assert postgres.PASSWORD not in caplog.text


def test_a_postgres_that_hangs_keeps_no_owner_from_renewing_its_lease(
    in_postgres, database, monkeypatch
):
    monkeypatch.setattr(sessions_module, "ANSWER_S", 0.2)
    sessions = in_postgres.sessions()
    session = sessions.renew(sessions.acquire(LOGIN, Owner.STREAM, **WHO), **LIVE)
    version = sessions.table.version()
    with closing(psycopg2.connect(**database.arguments)) as other:
        other.cursor().execute("LOCK TABLE position_sync_heartbeats")
        session = sessions.renew(session, **LIVE)
    assert sessions.table.version() == version + 1
    sessions.renew(session, **LIVE)
    assert sessions.table.version() == version + 1


def test_an_owner_that_is_late_in_an_outage_of_postgres_has_lost_its_lease(in_postgres, database):
    sessions = in_postgres.sessions()
    session = sessions.renew(sessions.acquire(LOGIN, Owner.STREAM, **WHO), **LIVE)
    with database.away():
        in_postgres.clock.advance(1500)
        with pytest.raises(LeaseLostError, match="its lease has expired"):
            sessions.renew(session, **LIVE)


def test_a_postgres_that_lost_its_last_transactions_lets_no_older_owner_write(
    in_postgres, database, make_row
):
    here, there = in_postgres.sessions(), in_postgres.sessions()
    first = here.renew(here.acquire(LOGIN, Owner.STREAM, **WHO), **LIVE)
    lake = Lake(in_postgres.path, clock=in_postgres.clock, fsync=False)
    lake.updates.sync.fence(LOGIN, first.fencing_token)
    lake.updates.sync.append([make_row(first)])
    # Its newest heartbeats are lost: it believes in a lease that nobody else sees.
    in_postgres.clock.advance(100)
    database.execute(
        "UPDATE position_sync_heartbeats SET expires_at = clock_timestamp() WHERE lake <> ''"
    )
    in_postgres.clock.advance(1450)
    first = replace(first, expires_at=in_postgres.clock.now + timedelta(seconds=1000))
    second = there.acquire(LOGIN, Owner.STREAM, **WHO)
    lake.updates.sync.fence(LOGIN, second.fencing_token)
    with pytest.raises(LeaseLostError, match="newer owner"):
        lake.updates.sync.append([make_row(first)])
    with pytest.raises(LeaseLostError, match="a newer session has followed"):
        here.renew(first, **LIVE)
    # All of it is lost: the table knows the session, and its owner goes on.
    database.execute("DELETE FROM position_sync_heartbeats WHERE lake <> ''")
    second = there.renew(second, **LIVE)
    assert here.current(LOGIN).is_alive(in_postgres.clock.now)
    assert there.renew(second, **LIVE).is_alive(in_postgres.clock.now)


@pytest.fixture
def make_row(in_postgres):
    def make(session):
        return PositionUpdate(
            1, "SPY", None, 1.0, 1.0, float(session.fencing_token), 1.0, 1.0,
            in_postgres.clock(),
            gateway_id=LOGIN,
            fencing_token=session.fencing_token,
        )  # fmt: skip

    return make


def test_an_owner_that_stood_still_after_its_commit_hides_no_newer_session(in_postgres):
    here, there = in_postgres.sessions(), in_postgres.sessions()
    first = here.acquire(LOGIN, Owner.STREAM, **WHO)
    in_postgres.pass_time(1600)
    second = there.acquire(LOGIN, Owner.STREAM, **WHO)
    lake = here.table.snapshot(lambda handle: str(handle.metadata().id))
    heartbeats = Heartbeats(in_postgres.clock)
    heartbeats.put(lake, replace(first, expires_at=in_postgres.clock.now + timedelta(seconds=900)))
    assert heartbeats.read(lake)[LOGIN].session_id == second.session_id
    assert heartbeats.renew(lake, first, LEASE_S) is None


@pytest.mark.parametrize("wrong_s", [-3600.0, 3600.0])
def test_a_wrong_clock_neither_lengthens_nor_shortens_a_lease(in_postgres, database, wrong_s):
    def wrong():
        return in_postgres.clock() + timedelta(seconds=wrong_s)

    here, there = in_postgres.sessions(), in_postgres.sessions(wrong)
    session = here.renew(here.acquire(LOGIN, Owner.STREAM, **WHO), **LIVE)
    here.renew(session, **LIVE)
    assert there.current(LOGIN).is_alive(wrong())
    with pytest.raises(LoginOwnedError):
        there.acquire(LOGIN, Owner.STREAM, **WHO)
    in_postgres.pass_time(1510)
    assert not there.current(LOGIN).is_alive(wrong())
    assert there.acquire(LOGIN, Owner.STREAM, **WHO).fencing_token == 2


def test_a_program_that_looks_for_heartbeats_elsewhere_is_refused_by_name(
    in_postgres, database, monkeypatch
):
    tables = replace(in_postgres, heartbeats="tables").sessions()
    with_tables = tables.acquire(LOGIN, Owner.STREAM, **WHO)
    for call in (lambda s: s.acquire("g", Owner.STREAM, **WHO), lambda s: s.record_place()):
        with pytest.raises(HeartbeatsElsewhereError, match=r"in its tables \(STREAM of 127"):
            call(in_postgres.sessions())
    tables.end(with_tables)
    session = in_postgres.sessions().acquire(LOGIN, Owner.STREAM, **WHO)
    for call in (
        lambda s: s.acquire(LOGIN, Owner.STREAM, **WHO),
        lambda s: s.renew(session, **LIVE),
        lambda s: s.end(session),
        lambda s: s.annotate(session, "x"),
        lambda s: s.current(LOGIN),
        lambda s: s.history(),
    ):
        with pytest.raises(HeartbeatsElsewhereError, match="would look for them in its tables"):
            call(replace(in_postgres, heartbeats="tables").sessions())
        # One that had the table open already.
        with pytest.raises(HeartbeatsElsewhereError, match="in the Postgres database"):
            call(tables)
    database.execute("CREATE DATABASE another")
    monkeypatch.setenv("PGDATABASE", "another")
    for call in (
        lambda s: s.acquire(LOGIN, Owner.STREAM, **WHO),
        lambda s: s.current(LOGIN),
    ):
        with pytest.raises(
            HeartbeatsElsewhereError,
            match=r"in the Postgres database .* in the Postgres database .*--move-heartbeats",
        ):
            call(in_postgres.sessions())


def test_heartbeats_move_when_every_owner_has_ended(in_postgres):
    here = in_postgres.sessions()
    session = here.acquire(LOGIN, Owner.STREAM, **WHO)
    back = replace(in_postgres, heartbeats="tables").sessions()
    with pytest.raises(LoginOwnedError):
        back.record_place(moved=True)
    here.end(session)
    back.record_place(moved=True)
    after = back.acquire(LOGIN, Owner.STREAM, **WHO)
    assert after.fencing_token == 2
    for sessions in (here, in_postgres.sessions()):
        with pytest.raises(HeartbeatsElsewhereError):
            sessions.acquire(LOGIN, Owner.STREAM, **WHO)
    back.end(after)
    assert in_postgres.sessions().acquire(LOGIN, Owner.STREAM, **WHO).fencing_token == 3


def test_heartbeats_do_not_move_from_an_owner_that_only_postgres_knows(in_postgres):
    here = in_postgres.sessions()
    session = here.acquire(LOGIN, Owner.STREAM, **WHO)
    in_postgres.pass_time(1000)
    session = here.renew(session, lease_s=LEASE_S)
    in_postgres.pass_time(1000)  # by the table its lease is over
    back = replace(in_postgres, heartbeats="tables").sessions()
    with pytest.raises(LoginOwnedError):
        back.record_place(moved=True)
    assert here.renew(session, lease_s=LEASE_S).is_alive(in_postgres.clock.now)


def test_without_postgres_its_owners_cannot_be_asked_and_heartbeats_move(
    in_postgres, database, caplog
):
    here = in_postgres.sessions()
    here.end(here.acquire(LOGIN, Owner.STREAM, **WHO))
    with database.away():
        replace(in_postgres, heartbeats="tables").sessions().record_place(moved=True)
    assert "not asked for living owners" in caplog.text


def test_a_reader_creates_nothing_in_a_database_that_no_owner_has_used(
    in_postgres, database, monkeypatch
):
    def tables() -> object:
        return database.query("SELECT to_regclass('position_sync_heartbeats')")[0][0]

    assert in_postgres.sessions().current(LOGIN) is None
    assert in_postgres.sessions().wakes() == 0
    assert tables() is None
    in_postgres.sessions().acquire(LOGIN, Owner.STREAM, **WHO)
    assert tables() is not None
    database.execute("DROP TABLE position_sync_heartbeats")
    with pytest.raises(HeartbeatsElsewhereError, match="no owner has used"):
        in_postgres.sessions().current(LOGIN)
    assert tables() is None


def test_a_command_that_looks_elsewhere_says_so_and_doctor_moves_the_heartbeats(
    in_postgres, monkeypatch
):
    sessions = in_postgres.sessions(utc_now)
    session = sessions.acquire(LOGIN, Owner.STREAM, **WHO)
    monkeypatch.setenv("POSITION_SYNC_LAKE", str(in_postgres.path))
    refused = CliRunner().invoke(app, ["status"])
    assert isinstance(refused.exception, HeartbeatsElsewhereError)
    assert "position-sync doctor --move-heartbeats" in str(refused.exception)
    sessions.end(session)
    moved = CliRunner().invoke(app, ["doctor", "--move-heartbeats"])
    assert (moved.exit_code, moved.output) == (0, "From now on, heartbeats are in tables.\n")
    back = replace(in_postgres, heartbeats="tables").sessions(utc_now)
    assert back.current(LOGIN).session_id == session.session_id


async def test_requests_that_are_enqueued_wake_the_drain_of_another_process(in_postgres):
    def lake() -> Lake:
        return Lake(in_postgres.path, clock=in_postgres.clock, heartbeats="postgres", fsync=False)

    producer, drain = lake(), lake().sessions
    assert drain.wakes() == 0
    for number in (1, 2):
        producer.queue.sync.insert(number, "SPY")
        await eventually(lambda number=number: drain.wakes() == number)
    assert drain.history() == [], "it is no lease"


async def test_without_postgres_requests_are_enqueued_and_nobody_is_woken(
    in_postgres, database, monkeypatch
):
    monkeypatch.setattr(sessions_module, "ANSWER_S", 0.2)
    lake = Lake(in_postgres.path, clock=in_postgres.clock, heartbeats="postgres", fsync=False)
    lake.queue.sync.insert(1, "SPY")
    await eventually(lambda: lake.sessions.wakes() == 1)
    with database.away():
        assert lake.queue.sync.insert(2, "SPY")
        lake.sessions.wake_drain()
        assert lake.sessions.wakes() is None
    lake.queue.sync.insert(3, "SPY")
    await eventually(lambda: (lake.sessions.wakes() or 0) >= 2)
    assert lake.queue.sync.overview().claimable == 3


def test_nobody_counts_requests_where_heartbeats_are_in_the_tables(tmp_path):
    put_tables(tmp_path)
    lake = Lake(tmp_path, fsync=False)
    lake.queue.sync.insert(1, "SPY")
    assert lake.sessions.wakes() is None
