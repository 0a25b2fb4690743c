"""The owners of logins: their leases, and fencing tokens that grow with each session.

Sessions begin, change their state and end in the table, which decides who owns a login. Where
`POSITION_SYNC_HEARTBEATS` says `postgres`, the heartbeats between these changes go there instead,
which spares the object store a commit each. If the table and Postgres give different ends of a
lease, the later one counts. If Postgres fails, the owner renews its lease in the table. The table
names the database, and a process with another database is refused. Postgres also counts when
requests were enqueued, so that a drain need not ask the store each time.

Times in Postgres are measured by its own clock, as spans: from a heartbeat until now, and from now
to the end of the lease. A machine whose own clock is wrong comes to the same result. The addresses
come from the variables of Postgres itself (`PGHOST`, `PGPASSWORD` …), as in `deploy/dagster.yaml`.
"""

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from enum import Enum, auto
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import polars as pl
from deltalake import DeltaTable
from pydantic import TypeAdapter

from position_sync_dagster import errors
from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.gateway_session import (
    ALIVE,
    GatewayRun,
    GatewaySession,
    LineUse,
    Owner,
    SessionState,
)
from position_sync_dagster.domain.update import TradingMode
from position_sync_dagster.lake.schema import codec
from position_sync_dagster.lake.storage import lifecycle_table
from position_sync_dagster.lake.storage.opening import check_mode, mode_of, set_properties
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.outage_log import OutageLog

if TYPE_CHECKING:  # SQLAlchemy takes a sixth of the start of a command, and few lakes need it
    import sqlalchemy as sa

logger = logging.getLogger(__name__)
T = TypeVar("T")

URL = "postgresql+psycopg2://"

ANSWER_S = 3
"""Longest wait for a connection or an answer, in seconds. Two of them, and a commit into the table
after that, fit between a heartbeat (4 s) and the end of the lease (15 s)."""

CONNECTIONS = 4
"""The most connections of a process; they are opened when they are needed."""

_OPTIONS = {
    "connect_timeout": ANSWER_S,
    "tcp_user_timeout": ANSWER_S * 1000,
    "keepalives_idle": ANSWER_S,
    "keepalives_interval": 1,
    "keepalives_count": ANSWER_S,
    "application_name": "position-sync heartbeats",
}

_NO_TABLE = "42P01"
"""The code of Postgres for a table that does not exist."""

_CREATE = """
CREATE TABLE IF NOT EXISTS position_sync_heartbeats (
    lake text NOT NULL,
    gateway_id text NOT NULL,
    fencing_token bigint NOT NULL,
    heartbeat_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    session text NOT NULL,
    PRIMARY KEY (lake, gateway_id)
)"""

_NAME_DATABASE = (
    "INSERT INTO position_sync_heartbeats VALUES "
    "('', '', 0, clock_timestamp(), clock_timestamp(), :name) "
    "ON CONFLICT DO NOTHING RETURNING lake"
)
_DATABASE = "SELECT session FROM position_sync_heartbeats WHERE lake = ''"

_RENEW = (
    "UPDATE position_sync_heartbeats SET session = :session, heartbeat_at = clock_timestamp(), "
    "expires_at = clock_timestamp() + make_interval(secs => :left_s) "
    "WHERE lake = :lake AND gateway_id = :gateway_id AND fencing_token = :token "
    "AND expires_at > clock_timestamp() RETURNING gateway_id"
)
_PUT = (
    "INSERT INTO position_sync_heartbeats AS old VALUES (:lake, :gateway_id, :token, "
    "clock_timestamp() - make_interval(secs => :age_s), "
    "clock_timestamp() + make_interval(secs => :left_s), :session) "
    "ON CONFLICT (lake, gateway_id) DO UPDATE SET fencing_token = excluded.fencing_token, "
    "heartbeat_at = excluded.heartbeat_at, expires_at = excluded.expires_at, "
    "session = excluded.session WHERE old.fencing_token <= excluded.fencing_token "
    "RETURNING gateway_id"
)
_READ = (
    "SELECT gateway_id, session, "
    "CAST(extract(epoch FROM clock_timestamp() - heartbeat_at) AS double precision) AS age_s, "
    "CAST(extract(epoch FROM expires_at - clock_timestamp()) AS double precision) AS left_s "
    "FROM position_sync_heartbeats WHERE lake = :lake "
    "AND (CAST(:gateway_id AS text) IS NULL OR gateway_id = :gateway_id)"
)

_REQUESTS = "requests of "
"""The prefix of a lake's id in the row that counts how often requests were enqueued."""

_COUNT = (
    "INSERT INTO position_sync_heartbeats AS old VALUES "
    "(:lake, '', 1, clock_timestamp(), clock_timestamp(), '') "
    "ON CONFLICT (lake, gateway_id) DO UPDATE SET fencing_token = old.fencing_token + 1, "
    "heartbeat_at = excluded.heartbeat_at RETURNING fencing_token"
)
_COUNTED = "SELECT fencing_token FROM position_sync_heartbeats WHERE lake = :lake"

_sessions = TypeAdapter(GatewaySession)


class Heartbeats:
    """The last heartbeat of each login, in the Postgres that the environment names.

    Args:
        clock: The clock of the times that are returned.

    Raises:
        HeartbeatsUnavailableError: Postgres does not answer, or refuses; from every method.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._database = ""

    def database(self, *, create: bool = True) -> str:
        """Return the id of the database, by which a lake knows where its leases are renewed.

        It is a row of the database, so that a backup and a replica have it too.

        Args:
            create: Whether to write an id where there is none; without it the id is empty.
        """
        if not self._database and create:
            self._execute(_NAME_DATABASE, {"name": str(uuid4())})
        if not self._database:
            self._database = "".join(str(row.session) for row in self._execute(_DATABASE, {}))
        return self._database

    def renew(self, lake: str, session: GatewaySession, lease_s: float) -> GatewaySession | None:
        """Renew a lease that has not ended; None if it has ended, or if Postgres knows no lease.

        Args:
            lake: The id of the lake's table of sessions.
            session: The session as it is to be stored.
            lease_s: How long the lease lasts, in seconds.

        Returns:
            The session. Its lease is counted from the start of the request: it ends no later than
            others see.
        """
        before = self._clock()
        if not self._execute(_RENEW, self._row(lake, session) | {"left_s": lease_s}):
            return None
        until = before + timedelta(seconds=lease_s)
        return replace(session, heartbeat_at=before, expires_at=until)

    def put(self, lake: str, session: GatewaySession) -> None:
        """Store a session as the table has it, unless a newer session has followed."""
        now = self._clock()
        spans = {
            "age_s": (now - session.heartbeat_at).total_seconds(),
            "left_s": (session.expires_at - now).total_seconds(),
        }
        self._execute(_PUT, self._row(lake, session) | spans)

    def read(self, lake: str, gateway_id: str | None = None) -> dict[str, GatewaySession]:
        """Return the last session of each login, or of one, by its `gateway_id`."""
        rows = self._execute(_READ, {"lake": lake, "gateway_id": gateway_id})
        now = self._clock()
        return {
            row.gateway_id: replace(
                _sessions.validate_json(row.session),
                heartbeat_at=now - timedelta(seconds=row.age_s),
                expires_at=now + timedelta(seconds=row.left_s),
            )
            for row in rows
        }

    def count_requests(self, lake: str) -> None:
        """Count that requests were enqueued, which wakes the drain that waits."""
        self._execute(_COUNT, {"lake": _REQUESTS + lake})

    def counted_requests(self, lake: str) -> int:
        """Return how often requests were enqueued."""
        found = self._execute(_COUNTED, {"lake": _REQUESTS + lake})
        return int(found[0].fencing_token) if found else 0

    def _row(self, lake: str, session: GatewaySession) -> dict[str, object]:
        return {
            "lake": lake,
            "gateway_id": session.gateway_id,
            "token": session.fencing_token,
            "session": _sessions.dump_json(session).decode(),
        }

    @cached_property
    def _engine(self) -> "sa.Engine":
        import sqlalchemy as sa

        try:
            # A stream needs one connection, and a sensor that looks at many logins a few.
            return sa.create_engine(
                URL,
                connect_args=_OPTIONS,
                pool_size=CONNECTIONS,
                max_overflow=0,
                pool_timeout=ANSWER_S,
                isolation_level="AUTOCOMMIT",
            )
        except ImportError as error:
            raise errors.SettingsError(
                f"POSITION_SYNC_HEARTBEATS=postgres needs a module that is missing: {error}.",
                remedy="Install position-sync-dagster[postgres].",
            ) from None

    def _execute(self, sql: str, values: Mapping[str, object]) -> "Sequence[sa.Row[Any]]":
        """Execute a statement; one that writes creates the table where there is none."""
        import sqlalchemy as sa

        statement = sa.text(sql)
        try:
            try:
                return self._ask(statement, values)
            except sa.exc.DBAPIError as error:
                if getattr(error.orig, "pgcode", None) == _NO_TABLE:
                    if sql.startswith("SELECT"):
                        return []
                    with suppress(sa.exc.IntegrityError):  # another process creates it
                        self._ask(sa.text(_CREATE), {})
                elif not error.connection_invalidated:
                    raise
                return self._ask(statement, values)  # Postgres had ended a connection of the pool
        except sa.exc.SQLAlchemyError as error:
            # The text of SQLAlchemy has the statement; that of the driver names no password.
            reason = " ".join(str(getattr(error, "orig", None) or type(error).__name__).split())
            raise errors.HeartbeatsUnavailableError(
                f"Postgres, where heartbeats are kept, cannot be used: {reason}.",
                remedy="Start it, or correct PGHOST, PGUSER, PGPASSWORD and PGDATABASE.",
            ) from None

    def _ask(
        self, statement: "sa.TextClause", values: Mapping[str, object]
    ) -> "Sequence[sa.Row[Any]]":
        with self._engine.connect() as connection, _cut_when_late(connection):
            found = connection.execute(statement, values)
            return found.all() if found.returns_rows else []


@contextmanager
def _cut_when_late(connection: "sa.Connection") -> Iterator[None]:
    """End a connection that does not answer: a Postgres that hangs must not keep the caller."""
    opened: Any = connection.connection.dbapi_connection
    with socket.socket(fileno=os.dup(opened.fileno())) as same:
        timer = threading.Timer(ANSWER_S, _cut, (same,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):  # it ended at the same moment
        connection.shutdown(socket.SHUT_RDWR)


HEARTBEATS_PROPERTY = "positionSync.heartbeats"
"""The property of the table that names the database of the heartbeats; without it, the table has
them."""


class Detail(Enum):
    """A choice for the detail of a session in `renew`, besides a text and None."""

    KEPT = auto()
    """The detail stays, until the state changes."""


PAST = "past"
"""The bucket of sessions that a newer session has followed."""


class GatewaySessions:
    """The table `gateway_sessions`: leases by which one process at a time owns a login.

    Args:
        heartbeats: Where leases are renewed while nothing else changes; None for the table.
    """

    def __init__(
        self, table: Table, clock: Clock = utc_now, heartbeats: Heartbeats | None = None
    ) -> None:
        self.table = table
        self._lifecycle = lifecycle_table.LifecycleTable(table, clock, check=self._check_place)
        self._clock = clock
        self._heartbeats = heartbeats
        self._is_recorded = False
        self._outage = OutageLog(logger)

    def acquire(
        self,
        gateway_id: str,
        owner: Owner,
        *,
        lease_s: float,
        run_id: str | None,
        host: str,
        pid: int,
    ) -> GatewaySession:
        """Acquire a login for `lease_s` seconds.

        A session with an expired lease is marked LOST. The fencing token of the new session is
        one above that of the last one. Until the new session is LIVE, its `state_since` is the
        time since which no owner has seen the gateway.

        Raises:
            LoginOwnedError: Another owner holds the lease; the message names it and the end of its
                lease.
            HeartbeatsUnavailableError: Postgres may know of a later heartbeat, and does not answer.
            HeartbeatsElsewhereError: The owners of the lake keep their heartbeats elsewhere.
        """
        [session_id] = codec.new_ids(self._clock(), 1)

        def step(snapshot: lifecycle_table.Snapshot) -> lifecycle_table.Change[GatewaySession]:
            before = codec.records_of(GatewaySession, snapshot.live)
            stored = _newest_of(before, gateway_id)
            if stored is not None and stored.session_id == session_id:
                return lifecycle_table.Change(stored)  # the answer to the commit was lost
            # Read within the step: a step that runs again sees heartbeats that came meanwhile.
            beat, now = self._read(gateway_id).get(gateway_id), self._clock()
            last = _later(stored, beat, now)
            if last is not None and last.is_alive(now):
                raise _login_owned(last)
            session = GatewaySession(
                gateway_id=gateway_id,
                owner=Owner(owner),
                session_id=session_id,
                run_id=run_id,
                host=host,
                pid=pid,
                fencing_token=last.fencing_token + 1 if last else 1,
                started_at=now,
                heartbeat_at=now,
                expires_at=now + timedelta(seconds=lease_s),
                state=SessionState.STARTING,
                state_since=last.seen_until(now) if last else now,
                # A refresh looks for a moment only: a restart may go unseen before and after it.
                gateway_running_since=last.gateway_running_since
                if last and owner is Owner.STREAM
                else None,
                gateway_started_at=last.gateway_started_at if last else None,
            )
            past = [last.as_followed(now)] if last else []
            moved = codec.session_rows(past).with_columns(bucket=pl.lit(PAST))
            return lifecycle_table.Change(session, _live_rows(before, session), moved)

        acquired = self._change(gateway_id, step, action="acquire", run_id=run_id or "")
        self._put(acquired)
        return acquired

    def renew(
        self,
        session: GatewaySession,
        *,
        lease_s: float,
        state: SessionState | None = None,
        live_since: datetime | None = None,
        lines: LineUse | None = None,
        detail: str | Detail | None = Detail.KEPT,
        greeks: str | None = None,
        gateway: GatewayRun | None = None,
        late: bool = False,
    ) -> GatewaySession:
        """Renew the lease: it ends `lease_s` seconds from now. Record the state of the owner.

        An argument that is None changes nothing, except `detail`.

        Args:
            session: The session of the owner.
            lease_s: How long the lease lasts, in seconds.
            state: The state of the owner.
            live_since: Since when a LIVE owner has seen the gateway without an interruption.
            lines: The market data lines of the owner.
            greeks: What is known of computed greeks; it is replaced in any case.
            detail: The state in words, for a person; None clears it. KEPT keeps it until the state
                changes.
            gateway: What connections have shown of the gateway's process.
            late: Whether to renew a lease that has expired, if no other session has followed.

        Raises:
            LeaseLostError: The lease has expired, or a newer session has followed.
        """

        def renewed(known: GatewaySession, now: datetime) -> GatewaySession:
            entered = state is not None and state is not known.state
            used = lines or LineUse(
                known.lines_in_use, known.line_limit, known.underlying_lines or 0
            )
            kept = None if entered else known.detail
            run = gateway or known.gateway_run
            return replace(
                known,
                heartbeat_at=now,
                expires_at=now + timedelta(seconds=lease_s),
                state=state or known.state,
                state_since=known.since_after(state, live_since, now),
                outages=known.outages_after(state, live_since, now),
                lines_in_use=used.in_use,
                line_limit=used.limit,
                underlying_lines=used.underlyings,
                greeks=greeks,
                detail=kept if detail is Detail.KEPT else detail,
                gateway_running_since=run.running_since,
                gateway_started_at=run.started_at,
            )

        def change(stored: GatewaySession, now: datetime) -> GatewaySession:
            known = stored if self._heartbeats is None else _later(stored, session, now) or stored
            if now >= known.expires_at and not late:
                raise _lease_lost(known, "its lease has expired")
            return renewed(known, now)

        after = renewed(session, self._clock())
        if not late and (after.state, after.detail) == (session.state, session.detail):
            beaten = self._try(lambda beats, lake: beats.renew(lake, after, lease_s))
            if beaten is not None:
                return beaten
        return self._change_own(session, change, "heartbeat")

    def end(
        self,
        session: GatewaySession,
        state: SessionState = SessionState.ENDED,
        detail: str | None = None,
    ) -> GatewaySession:
        """End the session, so that the next owner need not wait for the end of the lease.

        Raises:
            LeaseLostError: A newer session has followed, or this one has ended.
        """

        def change(stored: GatewaySession, now: datetime) -> GatewaySession:
            return replace(
                stored,
                heartbeat_at=now,
                expires_at=min(now, stored.expires_at),
                state=state,
                state_since=now if stored.state is SessionState.LIVE else stored.state_since,
                lines_in_use=0,
                underlying_lines=0,
                greeks=None,
                detail=detail,
            )

        return self._change_own(session, change, "end")

    def claim_mode(self, mode: TradingMode) -> None:
        """Bind the lake to a trading mode permanently.

        Raises:
            TradingModeError: The lake belongs to another trading mode.
        """
        self.table.transact(lambda handle: check_mode(handle, [mode], self.table.path))

    def mode(self) -> TradingMode | None:
        """Return the trading mode that the lake is bound to; None before the first connection."""
        return self.table.snapshot(mode_of)

    def annotate(self, session: GatewaySession, detail: str) -> None:
        """Record in `detail` why no other session follows a session that has ended.

        Changes nothing while the session is alive, when another session has followed, or when
        the detail is recorded already.
        """

        def step(
            snapshot: lifecycle_table.Snapshot,
        ) -> lifecycle_table.Change[GatewaySession | None]:
            before = codec.records_of(GatewaySession, snapshot.live)
            beat = self._read(session.gateway_id).get(session.gateway_id)
            stored = _later(_newest_of(before, session.gateway_id), beat, self._clock())
            if stored is None or stored.session_id != session.session_id:
                return lifecycle_table.Change(None)
            if stored.is_alive(self._clock()) or stored.detail == detail:
                return lifecycle_table.Change(None)
            annotated = replace(stored, detail=detail)
            return lifecycle_table.Change(annotated, _live_rows(before, annotated))

        annotated = self._change(
            session.gateway_id, step, action="annotate", session_id=session.session_id
        )
        if annotated is not None:
            self._put(annotated)

    def current(self, gateway_id: str) -> GatewaySession | None:
        """Return the newest session of a login, alive or not; None if there never was one.

        While Postgres does not answer, it is the session as the table has it.
        """
        return self.current_of([gateway_id]).get(gateway_id)

    def current_of(self, gateway_ids: Iterable[str]) -> dict[str, GatewaySession]:
        """Return the newest session of each login that has had one, by its name.

        All are read at once; those that have not changed since the last call are not read again.
        While Postgres does not answer, they are the sessions as the table has them.
        """
        wanted = set(gateway_ids)
        beats: Mapping[str, GatewaySession] = {}
        try:
            beats = self._read()
            self._outage.fault = None
        except errors.HeartbeatsUnavailableError as error:
            self._outage.report(str(error), level=logging.WARNING)
        now = self._clock()
        alive = {one: beats[one] for one in wanted & beats.keys() if beats[one].is_alive(now)}
        if len(alive) == len(wanted):
            return alive
        others = wanted - alive.keys()
        rows = self._lifecycle.parts([codec.part_named(one) for one in others])
        stored = {one.gateway_id: one for one in codec.records_of(GatewaySession, rows)}
        latest = {one: _later(stored.get(one), beats.get(one), now) for one in others}
        return alive | {one: session for one, session in latest.items() if session is not None}

    def history(self, limit: int | None = 50, only: pl.Expr | None = None) -> list[GatewaySession]:
        """Return the newest sessions of all logins, newest first.

        Args:
            limit: Maximum number of sessions; None for all.
            only: Chooses sessions by the columns of the table.

        Raises:
            HeartbeatsUnavailableError: Postgres may know which of them are alive.
        """
        beats = {beat.session_id: beat for beat in self._read().values()}
        rows = pl.concat(
            [
                self._lifecycle.snapshot().live,
                self._lifecycle.finished(codec.in_bucket(PAST)),
            ]
        )
        rows = rows if only is None else rows.filter(only)
        newest = rows.sort("started_at", "fencing_token", descending=True)
        newest = newest.unique("session_id", keep="first", maintain_order=True)
        found = codec.records_of(GatewaySession, newest[:limit])
        now = self._clock()
        return [_later(one, beats.get(one.session_id), now) or one for one in found]

    def _change_own(
        self,
        session: GatewaySession,
        change: Callable[[GatewaySession, datetime], GatewaySession],
        action: str,
    ) -> GatewaySession:
        def step(snapshot: lifecycle_table.Snapshot) -> lifecycle_table.Change[GatewaySession]:
            before = codec.records_of(GatewaySession, snapshot.live)
            stored = _newest_of(before, session.gateway_id)
            if stored is None or stored.session_id != session.session_id:
                raise _lease_lost(session, "a newer session has followed")
            if stored.state not in ALIVE:
                raise _lease_lost(session, f"it is {stored.state.value}")
            after = change(stored, self._clock())
            return lifecycle_table.Change(after, _live_rows(before, after))

        done = self._change(session.gateway_id, step, action=action, session_id=session.session_id)
        self._put(done)
        return done

    def _put(self, session: GatewaySession) -> None:
        """Show Postgres what the table has, if it answers: readers look there first."""
        self._try(lambda beats, lake: beats.put(lake, session))

    def _try(self, call: Callable[[Heartbeats, str], T]) -> T | None:
        """Call Postgres with the id of the lake; None if it does not answer, or is not used."""
        if self._heartbeats is None:
            return None
        try:
            done = call(self._heartbeats, self._lake_id)
        except errors.HeartbeatsUnavailableError as error:
            text = f"leases are renewed in the tables meanwhile: {error}"
            self._outage.report(str(error), text=text, level=logging.WARNING)
            return None
        self._outage.fault = None
        return done

    def _read(self, gateway_id: str | None = None) -> "dict[str, GatewaySession]":
        """Return what Postgres knows of the sessions; nothing if heartbeats are in the table."""
        if self._heartbeats is None:
            return {}
        return self._heartbeats.read(self._lake_id, gateway_id)

    def wake_drain(self) -> None:
        """Notify the drain that waits that requests were enqueued, if Postgres answers.

        Otherwise it finds them by itself, when it looks at the queue.
        """
        if self._heartbeats is not None:
            with suppress(errors.LakeError):
                self._heartbeats.count_requests(self._lake_id)

    def wakes(self) -> int | None:
        """Return a number that grows when requests are enqueued; None if nobody counts them."""
        if self._heartbeats is None:
            return None
        with suppress(errors.HeartbeatsUnavailableError):
            return self._heartbeats.counted_requests(self._lake_id)
        return None

    @cached_property
    def _lake_id(self) -> str:
        """The id of the table, by which the lakes of a database are told apart."""
        return self.table.snapshot(lambda handle: str(handle.metadata().id))

    def record_place(self, *, moved: bool = False) -> None:
        """Record in the lake where its heartbeats are, before the first change of this process.

        Args:
            moved: Whether to replace another record; every owner must have ended before.

        Raises:
            HeartbeatsElsewhereError: They are elsewhere, or an owner renews its lease in the table.
            LoginOwnedError: They are to be moved, and an owner is alive.
        """
        ours = None if self._heartbeats is None else self._heartbeats.database()
        beats: list[GatewaySession] = []
        if moved and self.table.snapshot(_place_of):
            # The table has the lease of an owner that is alive in Postgres as it was long ago.
            try:
                before = self._heartbeats or Heartbeats(self._clock)
                beats += before.read(self._lake_id).values()
            except (errors.HeartbeatsUnavailableError, errors.SettingsError) as error:
                logger.warning("Postgres was not asked for living owners: %s", error)

        def step(handle: DeltaTable) -> None:
            place = _place_of(handle)
            if place == ours:
                return
            if place is not None and not moved:
                raise _elsewhere(self.table.path, place, ours)
            live = codec.records_of(GatewaySession, self.table.scan(handle, codec.IS_LIVE))
            alive = next((one for one in [*live, *beats] if one.is_alive(self._clock())), None)
            if alive is not None and moved:
                raise _login_owned(alive)
            if alive is not None:
                raise _elsewhere(self.table.path, place, ours, alive)
            set_properties(handle, {HEARTBEATS_PROPERTY: ours or ""}, action="heartbeats")

        self.table.transact(step)
        self._is_recorded = True

    def _check_place(self, handle: DeltaTable) -> None:
        """Refuse a lake whose owners keep their heartbeats elsewhere, for reading too."""
        place = _place_of(handle)
        if place is None and not self._is_recorded:
            return
        try:
            ours = None if self._heartbeats is None else self._heartbeats.database(create=False)
        except errors.HeartbeatsUnavailableError:
            return  # reached only by a reader that began while Postgres is away
        if place != ours:
            raise _elsewhere(self.table.path, place, ours)

    def _change(self, gateway_id: str, step: lifecycle_table.Step[T], **commit_info: str) -> T:
        """Change a login's session in its part; in the whole table if a new login has none yet."""
        if self._heartbeats is not None and not self._is_recorded:
            self.record_place()
        done = self._lifecycle.change_part(codec.part_named(gateway_id), step, commit_info)
        return self._lifecycle.change(step, commit_info) if done is None else done


def _place_of(handle: DeltaTable) -> str | None:
    """Return the Postgres database of the heartbeats that the table names; None for the table."""
    return handle.metadata().configuration.get(HEARTBEATS_PROPERTY) or None


def _newest_of(sessions: list[GatewaySession], gateway_id: str) -> GatewaySession | None:
    return next((s for s in sessions if s.gateway_id == gateway_id), None)


def _later(
    stored: GatewaySession | None, beat: GatewaySession | None, now: datetime
) -> GatewaySession | None:
    """Return what is known of a login's newest session, from the table and from a heartbeat.

    The session is alive if either says so: the table has times of the owner's clock, which may be
    wrong.
    """
    if stored is None or beat is None:
        return stored or beat
    if stored.fencing_token != beat.fencing_token:
        return max(stored, beat, key=lambda one: one.fencing_token)
    if stored.state not in ALIVE:
        return stored  # it ended while Postgres was away
    return beat if beat.is_alive(now) else max(stored, beat, key=lambda one: one.expires_at)


def _live_rows(before: list[GatewaySession], session: GatewaySession) -> pl.DataFrame:
    """Return the live rows, with this session as the newest of its gateway."""
    return codec.session_rows([*(s for s in before if s.gateway_id != session.gateway_id), session])


def _login_owned(by: GatewaySession) -> errors.LoginOwnedError:
    run = f", run {by.run_id}" if by.run_id else ""
    return errors.LoginOwnedError(
        f"The login {by.gateway_id} is owned by {by.owner.value} (process {by.pid} on "
        f"{by.host}{run}) until {by.expires_at:%Y-%m-%d %H:%M:%S} UTC.",
        remedy="Wait until then, or end that process.",
    )


def _elsewhere(
    path: str, place: str | None, ours: str | None, owner: GatewaySession | None = None
) -> errors.HeartbeatsElsewhereError:
    def named(database: str | None) -> str:
        if database is None:
            return "in its tables"
        return f"in the Postgres database {database or '(one that no owner has used)'}"

    by = f" ({owner.owner.value} of {owner.gateway_id} on {owner.host})" if owner else ""
    return errors.HeartbeatsElsewhereError(
        f"The owners of {path.rpartition('/')[0]} keep their heartbeats {named(place)}{by}, and "
        f"this program would look for them {named(ours)}.",
        remedy="Give each program of the lake the same POSITION_SYNC_HEARTBEATS, PGHOST and "
        "PGDATABASE. To move them, end every program of the lake, then run `position-sync doctor "
        "--move-heartbeats`.",
    )


def _lease_lost(session: GatewaySession, why: str) -> errors.LeaseLostError:
    return errors.LeaseLostError(
        f"The session {session.session_id} no longer owns the login {session.gateway_id}: {why}.",
        remedy="Write nothing more for this login; acquire it again.",
    )
