"""The owners of logins: their leases, and fencing tokens that grow with each session.

Sessions begin, are renewed and end by commits into the table, which decides who owns a login. Each
login has a part of the table for itself, so that two renewals at once do not conflict.

A session is *alive* while it has not ended and its lease has not expired. The newest session of a
login is its live row; when another one *follows*, it becomes a finished row.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

import polars as pl
from polars import col

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.gateway_session import ALIVE, GatewaySession, Owner, SessionState
from position_sync_dagster.domain.position_update import TradingMode
from position_sync_dagster.errors import LeaseLostError, LoginOwnedError
from position_sync_dagster.lake.schema import new_ids, part_named, records_of
from position_sync_dagster.lake.storage.commits import bind, mode_of
from position_sync_dagster.lake.storage.data_files import EVERY
from position_sync_dagster.lake.storage.lifecycle_table import Change, LifecycleTable, Snapshot
from position_sync_dagster.lake.storage.table import Table

T = TypeVar("T", GatewaySession, GatewaySession | None)

# Returns what becomes of the newest session of a login (None: it has none yet): the same object, if
# nothing changes; the session as it is changed; or another one, which follows.
Decide = Callable[[GatewaySession | None, datetime], T]


# The columns that say how things are at a heartbeat, and nothing later: each heartbeat clears them,
# unless it sets them anew.
OF_A_HEARTBEAT: dict[str, Any] = dict.fromkeys(
    ("detail", "greeks", "unknown_accounts", "set_aside")
)

# The bucket of sessions that a newer session has followed.
PAST = "past"


class GatewaySessions:
    """The table `gateway_sessions`: leases by which one process at a time owns a login.

    The columns of OF_A_HEARTBEAT, such as `detail`, describe one heartbeat: the next clears them.
    """

    def __init__(self, table: Table, clock: Clock = utc_now) -> None:
        self.table = table
        self._lifecycle = LifecycleTable(table, clock)
        self._clock = clock

    def acquire(
        self, gateway_id: str, owner: Owner, lease_s: float, run_id: str | None, host: str, pid: int
    ) -> GatewaySession:
        """Acquire a login for `lease_s` seconds.

        A session with an expired lease is marked LOST. The fencing token of the new session is
        one above that of the last one. Until the new session is LIVE, its `state_since` is the
        time since which no owner has seen the gateway.

        Raises:
            LoginOwnedError: Another owner holds the lease; the message names it and the end of its
                lease.
        """
        [session_id] = new_ids(self._clock(), 1)

        def begun(last: GatewaySession | None, now: datetime) -> GatewaySession:
            # The session that follows the last one, unless that is alive.
            if last is not None and last.session_id == session_id:
                return last  # the answer to the commit was lost
            if last is not None and last.is_alive(now):
                raise login_owned(last)

            fencing_token = 1
            state_since = now
            if last is not None:
                fencing_token = last.fencing_token + 1
                state_since = last.seen_until(now)
            return GatewaySession(
                gateway_id=gateway_id,
                owner=Owner(owner),
                session_id=session_id,
                run_id=run_id,
                host=host,
                pid=pid,
                fencing_token=fencing_token,
                started_at=now,
                heartbeat_at=now,
                expires_at=now + timedelta(seconds=lease_s),
                state=SessionState.STARTING,
                state_since=state_since,
            )

        return self._change(gateway_id, begun, action="acquire", run_id=run_id or "")

    def renew(
        self,
        session: GatewaySession,
        *,
        lease_s: float,
        state: SessionState | None = None,
        live_since: datetime | None = None,
        **columns: Any,
    ) -> GatewaySession:
        """Renew the lease: it ends `lease_s` seconds from now. Record the state of the owner.

        A lease that has expired is renewed too, if no other session has followed.

        A column that is not named stays as it is, except those of `OF_A_HEARTBEAT`, which are
        cleared.

        Args:
            session: The session of the owner.
            lease_s: How long the lease lasts, in seconds.
            state: The state of the owner; None if it is the same.
            live_since: Since when a LIVE owner has seen the gateway without an interruption.
            columns: Other columns of the session.

        Raises:
            LeaseLostError: The session has ended, or a newer one has followed.
        """

        def change(stored: GatewaySession, now: datetime) -> GatewaySession:
            # `state_since` and `outages` follow from the step from the stored state to this one.
            return replace(
                stored,
                heartbeat_at=now,
                expires_at=now + timedelta(seconds=lease_s),
                state=state or stored.state,
                state_since=stored.since_after(state, live_since, now),
                outages=stored.outages_after(state, live_since, now),
                **OF_A_HEARTBEAT | columns,
            )

        return self._change_own(session, change, "heartbeat")

    def end(self, session: GatewaySession, *, detail: str | None = None) -> GatewaySession:
        """End the session, so that the next owner need not wait for the end of the lease.

        Raises:
            LeaseLostError: A newer session has followed, or this one has ended.
        """

        def change(stored: GatewaySession, now: datetime) -> GatewaySession:
            # Unless it is LIVE, nobody has seen the gateway since an earlier time, which stays.
            is_live = stored.state is SessionState.LIVE
            return replace(
                stored,
                heartbeat_at=now,
                expires_at=min(now, stored.expires_at),
                state=SessionState.ENDED,
                state_since=now if is_live else stored.state_since,
                lines_in_use=0,
                underlying_lines=0,
                **OF_A_HEARTBEAT | {"detail": detail},
            )

        return self._change_own(session, change, "end")

    def claim_mode(self, mode: TradingMode) -> None:
        """Bind the lake to a trading mode permanently.

        Raises:
            TradingModeError: The lake belongs to another trading mode.
        """
        self.table.transact(lambda handle: bind(handle, self.table.path, [mode]))

    def mode(self) -> TradingMode | None:
        """Return the trading mode that the lake is bound to; None: to none yet."""
        return self.table.snapshot(mode_of)

    def annotate(self, session: GatewaySession, detail: str) -> None:
        """Record in `detail` why no other session follows a session that has ended.

        The sensor `supervise_stream` calls it when a person has paused the stream.
        Changes nothing while the session is alive, when another session has followed, or when
        the detail is recorded already.
        """

        def annotated(stored: GatewaySession | None, now: datetime) -> GatewaySession | None:
            # The same object as it was given: nothing changes (`Decide`). The detail of a session
            # that is alive is its owner's.
            if stored is None or stored.session_id != session.session_id:
                return stored
            if stored.is_alive(now) or stored.detail == detail:
                return stored
            return replace(stored, detail=detail)

        self._change(
            session.gateway_id, annotated, action="annotate", session_id=session.session_id
        )

    def current(self, gateway_id: str) -> GatewaySession | None:
        """Return the newest session of a login, alive or not; None if there never was one."""
        return self.current_of([gateway_id]).get(gateway_id)

    def current_of(self, gateway_ids: Iterable[str]) -> dict[str, GatewaySession]:
        """Return the newest session of each login that has had one, by its name.

        The table is read again only if it has changed since the last call.
        """
        rows = self._lifecycle.snapshot().live.filter(col.gateway_id.is_in(list(gateway_ids)))
        return {session.gateway_id: session for session in records_of(GatewaySession, rows)}

    def history(self, limit: int | None = 50, only: pl.Expr = EVERY) -> list[GatewaySession]:
        """Return the newest sessions of all logins, newest first.

        Args:
            limit: Maximum number of sessions; None for all.
            only: Chooses sessions by the columns of the table.
        """
        rows = self._lifecycle.read(lambda stored: pl.concat([stored.live, stored.finished()]))
        rows = rows.filter(only).sort("started_at", "fencing_token", descending=True)
        return records_of(GatewaySession, rows[:limit])

    def _change_own(
        self,
        session: GatewaySession,
        change: Callable[[GatewaySession, datetime], GatewaySession],
        action: str,
    ) -> GatewaySession:
        """Change a session, if it is still the newest of its login and has not ended.

        Args:
            session: The session as its owner has it.
            change: Returns the stored session as it is afterwards.
            action: What the owner does, for the log.

        Raises:
            LeaseLostError: It is not, or has.
        """

        def changed(stored: GatewaySession | None, now: datetime) -> GatewaySession:
            # What is stored decides whether the caller still owns the login.
            if stored is None:
                raise _lease_lost(session, "its row is gone")
            if stored.session_id != session.session_id:
                since = f"{stored.started_at:%Y-%m-%d %H:%M:%S} UTC"
                raise _lease_lost(session, f"{_holder(stored)} owns it since {since}")
            if stored.state not in ALIVE:
                raise _lease_lost(session, f"it is {stored.state}")
            return change(stored, now)

        return self._change(
            session.gateway_id, changed, action=action, session_id=session.session_id
        )

    def _change(self, gateway_id: str, decide: Decide[T], **commit_info: str) -> T:
        """Replace the newest session of a login by what is decided from it, and return that.

        It is changed in the login's part of the table; among all live rows if a new login has none
        yet.
        """

        def step(snapshot: Snapshot) -> Change[T]:
            # When another session follows, the one before goes into the bucket PAST, as finished.
            sessions = records_of(GatewaySession, snapshot.live.filter(gateway_id=gateway_id))
            stored = next(iter(sessions), None)
            now = self._clock()
            after = decide(stored, now)
            if after is None or after is stored:
                return Change(after)

            past = []
            if stored is not None and stored.session_id != after.session_id:
                past.append(stored.as_followed(now))
            return Change(after, [after], {PAST: past})

        return self._lifecycle.change(step, commit_info, part_named(gateway_id))


def login_owned(by: GatewaySession) -> LoginOwnedError:
    """Return the error of whoever wants a login that has an owner, with the owner's name."""
    until = f"{by.expires_at:%Y-%m-%d %H:%M:%S} UTC"
    return LoginOwnedError(
        f"The login {by.gateway_id} is owned by {_holder(by)} until {until}.",
        remedy="Wait until then, or end that process.",
    )


def _holder(session: GatewaySession) -> str:
    """Return who has a session, as STREAM (process 4711 on trader, run 1f3a...)."""
    run = f", run {session.run_id}" if session.run_id else ""
    return f"{session.owner} (process {session.pid} on {session.host}{run})"


def _lease_lost(session: GatewaySession, why: str) -> LeaseLostError:
    """Return the error of a session that no longer owns its login."""
    return LeaseLostError(
        f"The session {session.session_id} no longer owns the login {session.gateway_id}: {why}.",
        remedy="Write nothing more for this login; acquire it again.",
    )
