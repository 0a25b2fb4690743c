"""Heartbeats of the owners of logins in Postgres, which spare the object store a commit each.

The table `gateway_sessions` remains what decides: sessions begin, change their state and end in it,
and it numbers them. A row here says only that a session was alive later than the table knows. A
lease ends at the later of the two times, and whoever acquires a login looks at both.

All times are measured by the clock of Postgres, as spans: from a heartbeat until now, and from now
to the end of the lease. A machine whose own clock is wrong comes to the same result. The addresses
come from the variables of Postgres itself (`PGHOST`, `PGPASSWORD` …), as in `deploy/dagster.yaml`.
"""

import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from typing import Any
from uuid import uuid4

from pydantic import TypeAdapter
from sqlalchemy import Connection, Engine, Row, TextClause, create_engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from position_sync_dagster.domain.clock import Clock
from position_sync_dagster.domain.gateway_session import GatewaySession
from position_sync_dagster.errors import HeartbeatsUnavailableError, SettingsError

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

_TABLE = text("SELECT to_regclass('position_sync_heartbeats')")
_CREATE = text("""
CREATE TABLE IF NOT EXISTS position_sync_heartbeats (
    lake text NOT NULL,
    gateway_id text NOT NULL,
    fencing_token bigint NOT NULL,
    heartbeat_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    session text NOT NULL,
    PRIMARY KEY (lake, gateway_id)
)""")

_NAME_DATABASE = text(
    "INSERT INTO position_sync_heartbeats VALUES "
    "('', '', 0, clock_timestamp(), clock_timestamp(), :name) "
    "ON CONFLICT DO NOTHING RETURNING lake"
)
_DATABASE = text("SELECT session FROM position_sync_heartbeats WHERE lake = ''")

_RENEW = text(
    "UPDATE position_sync_heartbeats SET session = :session, heartbeat_at = clock_timestamp(), "
    "expires_at = clock_timestamp() + make_interval(secs => :left_s) "
    "WHERE lake = :lake AND gateway_id = :gateway_id AND fencing_token = :token "
    "AND expires_at > clock_timestamp() RETURNING gateway_id"
)
_PUT = text(
    "INSERT INTO position_sync_heartbeats AS old VALUES (:lake, :gateway_id, :token, "
    "clock_timestamp() - make_interval(secs => :age_s), "
    "clock_timestamp() + make_interval(secs => :left_s), :session) "
    "ON CONFLICT (lake, gateway_id) DO UPDATE SET fencing_token = excluded.fencing_token, "
    "heartbeat_at = excluded.heartbeat_at, expires_at = excluded.expires_at, "
    "session = excluded.session WHERE old.fencing_token <= excluded.fencing_token "
    "RETURNING gateway_id"
)
_READ = text(
    "SELECT gateway_id, session, "
    "CAST(extract(epoch FROM clock_timestamp() - heartbeat_at) AS double precision) AS age_s, "
    "CAST(extract(epoch FROM expires_at - clock_timestamp()) AS double precision) AS left_s "
    "FROM position_sync_heartbeats WHERE lake = :lake "
    "AND (CAST(:gateway_id AS text) IS NULL OR gateway_id = :gateway_id)"
)

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

    @cached_property
    def database(self) -> str:
        """The id of the database, by which a lake knows where its leases are renewed.

        It is a row of the database, so that a backup and a replica have it too.
        """
        self._execute(_NAME_DATABASE, {"name": str(uuid4())})
        return str(self._execute(_DATABASE, {})[0].session)

    def renew(self, lake: str, session: GatewaySession, lease_s: float) -> GatewaySession | None:
        """Renew a lease that has not ended; None where it has, or where Postgres knows none.

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

    def _row(self, lake: str, session: GatewaySession) -> dict[str, object]:
        return {
            "lake": lake,
            "gateway_id": session.gateway_id,
            "token": session.fencing_token,
            "session": _sessions.dump_json(session).decode(),
        }

    @cached_property
    def _engine(self) -> Engine:
        try:
            # A stream needs one connection, and a sensor that looks at many logins a few.
            engine = create_engine(
                URL,
                connect_args=_OPTIONS,
                pool_size=CONNECTIONS,
                max_overflow=0,
                pool_timeout=ANSWER_S,
                isolation_level="AUTOCOMMIT",
            )
        except ImportError as error:
            raise SettingsError(
                f"POSITION_SYNC_HEARTBEATS=postgres needs a module that is missing: {error}.",
                remedy="Install position-sync-dagster[postgres].",
            ) from None
        try:
            _create(engine)
        except IntegrityError:  # another process created it at the same moment
            _create(engine)
        return engine

    def _execute(self, statement: TextClause, values: Mapping[str, object]) -> Sequence[Row[Any]]:
        try:
            try:
                return self._ask(statement, values)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                return self._ask(statement, values)  # Postgres had ended a connection of the pool
        except SQLAlchemyError as error:
            # The text of SQLAlchemy has the statement; that of the driver names no password.
            reason = " ".join(str(getattr(error, "orig", None) or type(error).__name__).split())
            raise HeartbeatsUnavailableError(
                f"Postgres, where heartbeats are kept, cannot be used: {reason}.",
                remedy="Start it, or correct PGHOST, PGUSER, PGPASSWORD and PGDATABASE.",
            ) from None

    def _ask(self, statement: TextClause, values: Mapping[str, object]) -> Sequence[Row[Any]]:
        with self._engine.connect() as connection, _cut_when_late(connection):
            return connection.execute(statement, values).all()


@contextmanager
def _cut_when_late(connection: Connection) -> Iterator[None]:
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


def _create(engine: Engine) -> None:
    with engine.connect() as connection, _cut_when_late(connection):
        if connection.scalar(_TABLE) is None:
            connection.execute(_CREATE)
