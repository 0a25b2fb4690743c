"""The status of the whole product at one moment.

It is read from the tables alone, and includes problems that need attention, such as failed
requests.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import date, datetime
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel

from position_sync_dagster import dagster_files
from position_sync_dagster.domain import gateway_session
from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.domain.clock import seconds_since
from position_sync_dagster.domain.closes import counted_ends
from position_sync_dagster.domain.gateway_session import CONFIRM, GatewaySession, SessionState
from position_sync_dagster.domain.leg import ActiveContract, Leg, LegState
from position_sync_dagster.domain.position_update import Source, TradingMode
from position_sync_dagster.domain.queue_request import QueueStatus
from position_sync_dagster.errors import StrategiesFileError
from position_sync_dagster.lake.lake import Lake, all_broker_rows
from position_sync_dagster.lake.strategies_file import load_strategies
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.propose_strategies import next_step
from position_sync_dagster.sync.reports.book import KEY, Book, read_book, written_by
from position_sync_dagster.yaml_file import saved_state


@lru_cache(maxsize=4)
def _strategies_problem(path: Path, _state: tuple[int, int, int]) -> str | None:
    """Return why a file in this state cannot be read; cached, since a live status asks often."""
    try:
        load_strategies(path)
    except StrategiesFileError as error:
        return f"{error.what} {error.remedy}"
    return None


NOT_LOOKED_UP = "its contract has not been looked up yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginStatus:
    """The state of a login and its owner.

    Attributes:
        gateway_id: The login.
        session_state: The owner's state (STARTING, LIVE, BLIND); ENDED or LOST while there is no
            owner; None when the login never had an owner.
        session_since: While LIVE, the start of the connection; `blind_since` while a live owner is
            not connected to the gateway.
        blind_since: Since when no owner has been connected; None while the session is LIVE.
        lines_in_use, line_limit: The lines of the live owner; None without one.
        underlying_lines: The lines in use that are held for underlyings.
        greeks: The number of options with computed greeks, and why others have none.
        login: Until when the login of the week lasts, or that it is due; None for a login without
            a second factor.
        login_asks: A person has to confirm the login, now or soon.
    """

    gateway_id: str
    session_state: str | None = None
    session_owner: str | None = None
    session_since: datetime | None = None
    session_detail: str | None = None
    run_id: str | None = None
    blind_since: datetime | None = None
    lines_in_use: int | None = None
    line_limit: int | None = None
    underlying_lines: int | None = None
    greeks: str | None = None
    login: str | None = None
    login_asks: bool = False

    @property
    def lines_text(self) -> str | None:
        """The lines in use, such as "25 of 100 (5 for underlyings)"; None without an owner."""
        if self.lines_in_use is None or self.line_limit is None:
            return None
        others = f" ({self.underlying_lines} for underlyings)" if self.underlying_lines else ""
        return f"{self.lines_in_use} of {self.line_limit}{others}"

    @property
    def gateway(self) -> dict[str, Any]:
        """The state of the login in the JSON of figures."""
        return {name: getattr(self, of) for name, of in _GATEWAY.items()}


# The names in the JSON of figures, and those of the status of a login.
_GATEWAY = {
    "gateway_id": "gateway_id", "state": "session_state", "since": "session_since",
    "blind_since": "blind_since", "reason": "session_detail", "owner": "session_owner",
    "run_id": "run_id", "lines": "lines_in_use", "line_limit": "line_limit",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Status(LoginStatus):
    """The state of the logins, the queue and the ledger.

    The fields of a login are those of the only login. With several, they are those of the login
    that has been without its gateway longest, with the lines of all; `logins` has each.

    Attributes:
        active_legs: Conids of active strategies; a conid in several strategies counts once.
        legs_held: The number of these that are held.
        legs_closed: What happened to the legs that were held and are gone for a known reason, such
            as "one expired on 2026-11-20".
        unresolved_legs: Active legs without a conid, each with the reason if it is known.
        positions: Holdings in the broker's last download.
        oldest_pending_age_s: Age of the oldest waiting request, in seconds.
        updates_rows, updates_version: Rows and Delta version of `position_updates`.
        legs_streamed: Holdings whose newest row the stream wrote recently.
        legs_queued: Holdings whose newest row the queue wrote, if that was written or confirmed
            within the last two refresh intervals.
        last_drained_at: When a request was last answered by a row.
        accounts: The newest net liquidation and profit of each account.
        attention: The problems that need attention, and the hints.
        hints: Those of them that one may leave as they are: what is in no strategy.
        programs: When each program of Dagster last did its work.
        logins: Each login, if there are several.
    """

    at: datetime
    lake: str
    active_legs: int
    legs_held: int
    unresolved_legs: tuple[str, ...]
    positions: int
    queue: dict[str, int]
    oldest_pending_age_s: float | None
    updates_rows: int
    updates_version: int
    legs_streamed: int
    legs_queued: int
    last_drained_at: datetime | None
    trading_mode: str | None
    accounts: tuple[AccountSummary, ...]
    attention: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    programs: dagster_files.Programs = dagster_files.NONE
    logins: tuple[LoginStatus, ...] = ()
    legs_closed: str | None = None

    @property
    def each_login(self) -> tuple[LoginStatus, ...]:
        """Each login, also if there is only one."""
        return self.logins or (self,)

    @property
    def legs_without_line(self) -> str | None:
        """How many active legs that are held have no line, and why; None: each has one.

        It is not known while no owner is connected.
        """
        if self.lines_in_use is None or self.session_state != SessionState.LIVE:
            return None

        count = self.legs_held - (self.lines_in_use - (self.underlying_lines or 0))
        if count <= 0:
            return None
        reason = self.session_detail or "none is free, or it is being requested"
        return f"{count} active held {'leg' if count == 1 else 'legs'} without one: {reason}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; times as ISO 8601."""
        return dict(plain(self))


def read_status(
    lake: Lake, settings: Settings, now: datetime, *, book: Book | None = None
) -> Status:
    """Read the status from the tables, without changing them and without the gateway.

    Args:
        book: The holdings and the strategies, if the caller has them.

    Raises:
        LakeError: A table cannot be used.
    """
    book = read_book(lake, settings, now) if book is None else book
    mode = lake.sessions.mode()
    logins = tuple(
        _login_status(lake.sessions.current(login.gateway_id), login, mode, now)
        for login in settings.logins
    )
    programs = dagster_files.read()
    worst = max(
        logins,
        key=lambda one: (one.session_state is None, seconds_since(one.blind_since, now) or 0.0),
    )
    overview = lake.queue.sync.overview()
    active = {leg.conid for leg in book.legs}
    positions = all_broker_rows(lake, settings).filter(pl.col("position") != 0)
    held = set(positions.get_column("conid"))
    ends = {leg.conid: book.closes.end_of(leg) for leg in book.legs if leg.conid not in held}
    hint = next_step(lake, settings, now)
    hints = () if hint is None else (hint,)
    streamed, queued = (
        written_by(source, book.priced, settings, now).height
        for source in (Source.STREAM, Source.QUEUE)
    )
    return Status(
        at=now,
        lake=settings.lake,
        **asdict(worst) | {name: _sum(getattr(one, name) for one in logins) for name in _OF_LINES},
        active_legs=len(active),
        legs_held=len(active & held),
        legs_closed=counted_ends(filter(None, ends.values())),
        unresolved_legs=tuple(
            f"{leg.described} of strategy {leg.strategy_id}: {leg.problem or NOT_LOOKED_UP}"
            for leg in lake.registry.unresolved
        ),
        positions=positions.height,
        queue={status.value: overview.counts.get(status, 0) for status in QueueStatus},
        oldest_pending_age_s=seconds_since(overview.oldest_pending_at, now),
        updates_rows=lake.updates.sync.count(),
        updates_version=lake.updates.sync.version(),
        legs_streamed=streamed,
        legs_queued=queued,
        last_drained_at=overview.last_success_at,
        trading_mode=mode,
        accounts=book.accounts,
        attention=(
            *programs.problems,
            *(f"{one.gateway_id}: {one.login}. {CONFIRM}" for one in logins if one.login_asks),
            *_attention(settings.strategies_file, overview.counts.get(QueueStatus.FAILED, 0)),
            *hints,
        ),
        hints=hints,
        programs=programs,
        logins=logins if len(logins) > 1 else (),
    )


def _attention(strategies_file: Path | None, failed: int) -> Iterator[str]:
    """Yield the problems of the strategies file and of FAILED requests."""
    if strategies_file is not None and (
        problem := _strategies_problem(strategies_file, saved_state(strategies_file))
    ):
        yield f"{problem} The active legs stay as they were read last."
    if failed:
        requests = "1 request is" if failed == 1 else f"{failed:,} requests are"
        yield (
            f"{requests} FAILED: `position-sync queue list --status FAILED` shows why, and "
            "`queue retry` tries again."
        )


def leg_states(
    legs: Iterable[Leg], lake: Lake, settings: Settings, now: datetime
) -> list[LegState]:
    """Return the state of each active leg, in order, as far as the tables show it.

    ARMED: the broker reports no holding of it, in the leg's account if it names one. A leg with a
    mistyped conid stays ARMED, as does a leg without a conid until its contract is found. STREAMED:
    the stream wrote the newest row of a holding recently. OVERFLOW: held, and not streamed. CLOSED:
    it was held, and it is known why it is gone.

    Raises:
        LakeError: A table cannot be used.
    """
    book = read_book(lake, settings, now)
    opened = all_broker_rows(lake, settings).filter(pl.col("position") != 0)
    held = dict(opened.group_by("conid").agg("account").iter_rows())
    rows = written_by(Source.STREAM, book.priced, settings, now)
    streamed = set(rows.select(KEY).iter_rows())

    def state(leg: Leg) -> LegState:
        if not isinstance(leg, ActiveContract):
            return LegState.ARMED
        accounts = [one for one in held.get(leg.conid, ()) if leg.account in (None, one)]
        if not accounts:
            return LegState.ARMED if book.closes.end_of(leg) is None else LegState.CLOSED
        by_stream = any((account, leg.conid) in streamed for account in accounts)
        return LegState.STREAMED if by_stream else LegState.OVERFLOW

    return [state(leg) for leg in legs]


def plain(value: Any) -> Any:
    """Return a value for JSON: times in ISO 8601, numbers that are not finite as null.

    A record of pydantic has the names that its fields have in the JSON of figures.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str | int) or value is None:
        return value
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, BaseModel):
        return plain(value.model_dump(by_alias=True))
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return {one.name: plain(getattr(value, one.name)) for one in fields(value)}


def _login_status(
    session: GatewaySession | None, login: Settings, mode: TradingMode | None, now: datetime
) -> LoginStatus:
    if session is None:
        return LoginStatus(gateway_id=login.gateway_id)
    alive, ended = session.is_alive(now), session.state not in gateway_session.ALIVE
    week = session.login_week(now, mode, login.login_notice_h)
    since = session.heartbeat_at if ended else min(session.expires_at, now)
    return LoginStatus(
        gateway_id=login.gateway_id,
        # A session whose lease has expired is LOST, whatever its row says.
        session_state=session.state if alive or ended else gateway_session.SessionState.LOST,
        session_owner=session.owner,
        session_since=session.state_since if alive else since,
        session_detail=session.detail,
        run_id=session.run_id,
        blind_since=None if session.is_live(now) else session.seen_until(now),
        **({name: getattr(session, name) for name in _OF_OWNER} if alive else {}),
        login=week.text if week else None,
        login_asks=week is not None and week.asks,
    )


_OF_LINES = ("lines_in_use", "line_limit", "underlying_lines")
# The fields that are known only while the owner is alive.
_OF_OWNER = (*_OF_LINES, "greeks")


def _sum(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
