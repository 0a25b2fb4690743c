"""The status of the whole product at one moment.

It is read from the tables alone, and includes problems that need attention, such as failed
requests.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import date, datetime
from enum import Enum
from operator import attrgetter
from pathlib import Path
from typing import Any

from polars import col
from pydantic import BaseModel

from position_sync_dagster.domain import gateway_session
from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.domain.clock import FOREVER, SKEW, seconds_since
from position_sync_dagster.domain.gateway_session import (
    CONFIRM,
    PAUSED,
    GatewaySession,
    SessionState,
)
from position_sync_dagster.domain.holding import KEY
from position_sync_dagster.domain.leg import NOT_LOOKED_UP, ActiveContract, Leg, LegState
from position_sync_dagster.domain.line import QUEUED_TEXT
from position_sync_dagster.domain.position_update import Source, TradingMode
from position_sync_dagster.domain.queue_request import QueueStatus
from position_sync_dagster.errors import StrategiesFileError
from position_sync_dagster.lake.schema import is_ahead
from position_sync_dagster.money.cents import MONEY, cents
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.closes import counted_ends
from position_sync_dagster.money.reports import signs_of_life
from position_sync_dagster.money.reports.book import Book, read_undivided, written_by
from position_sync_dagster.money.reports.columns import age, printable
from position_sync_dagster.money.strategies.propose_strategies import first_step
from position_sync_dagster.money.strategies.strategies_file import saved_file
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.failed_requests import read_failed

NO_FREE_LINE = "no market data line is free, or one is being requested"


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
        login: Until when the login of the week lasts; None for a login without
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
    def is_live(self) -> bool:
        """Whether an owner is connected to the gateway."""
        return self.session_state == SessionState.LIVE

    @property
    def is_paused(self) -> bool:
        """Whether a person terminated the stream: nothing is wrong with the gateway."""
        is_ended = self.session_state == SessionState.ENDED
        return is_ended and (self.session_detail or "").startswith(PAUSED)

    @property
    def lines_text(self) -> str | None:
        """The lines in use, such as "25 of 100 (5 for underlyings)"; None without an owner."""
        if self.lines_in_use is None or self.line_limit is None:
            return None

        text = f"{self.lines_in_use} of {self.line_limit}"
        if self.underlying_lines:
            text += f" ({self.underlying_lines} for underlyings)"
        return text

    @property
    def gateway(self) -> dict[str, Any]:
        """The state of the login in the JSON of figures."""
        return {
            "gateway_id": self.gateway_id,
            "state": self.session_state,
            "since": self.session_since,
            "blind_since": self.blind_since,
            "reason": self.session_detail,
            "owner": self.session_owner,
            "run_id": self.run_id,
            "lines": self.lines_in_use,
            "line_limit": self.line_limit,
        }


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
        positions: Holdings of the followed types in the broker's last download.
        queue_unanswered: FAILED requests of the last day whose holding has had no value since.
        oldest_pending_age_s: Age of the oldest waiting request, in seconds.
        updates_rows, updates_version: Rows and Delta version of `position_updates`.
        legs_streamed: Holdings whose newest row the stream wrote recently.
        legs_queued: Holdings whose newest row the queue wrote recently, or confirmed.
        last_drained_at: When a request was last answered by a row.
        accounts: The newest net liquidation and profit of each account.
        attention: The problems that need attention, and the hints.
        hints: Those of them that one may leave as they are: the first step of a new user, and rows
            that a clock ahead wrote.
        programs: When each program of Dagster last did its work.
        tick_parts_s: What each part of the last tick of `drain_queue` took, in seconds.
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
    programs: signs_of_life.Programs = signs_of_life.NONE
    logins: tuple[LoginStatus, ...] = ()
    legs_closed: str | None = None
    queue_unanswered: int = 0
    tick_parts_s: Mapping[str, float] = field(default_factory=dict)

    @property
    def each_login(self) -> tuple[LoginStatus, ...]:
        """Each login, also if there is only one."""
        return self.logins or (self,)

    def gateway_line(self, login: LoginStatus) -> str:
        """Return the state of a login, since when, and its reason."""
        mode = f", {self.trading_mode}" if self.trading_mode else ""
        if login.session_state is None:
            return f"{login.gateway_id}: nobody has connected yet{mode}"
        if login.is_paused:
            return f"{login.gateway_id}: {printable(login.session_detail or '')}"

        text = f"{login.gateway_id}: {login.session_state}"
        text += f" for {age(login.session_since, self.at)}"
        if login.session_owner:
            text += f" ({login.session_owner}{mode})"
        if login is not self and login.lines_in_use is not None:
            text += f", {login.lines_text} lines"
        if login.session_detail:
            text += f" – {printable(login.session_detail)}"
        return text

    @property
    def legs_without_line(self) -> str | None:
        """How many active legs that are held have no line, and why; None: each has one.

        It is not known while no owner is connected.
        """
        if self.lines_in_use is None or not self.is_live:
            return None

        count = self.legs_held - (self.lines_in_use - (self.underlying_lines or 0))
        if count <= 0:
            return None
        # The first sentence of a session says most; the stream has counted what was refused.
        reason, _separator, _others = (self.session_detail or NO_FREE_LINE).partition("; ")
        if QUEUED_TEXT in reason:
            return reason
        if count == 1:
            return f"1 leg {QUEUED_TEXT}: {reason}"
        return f"{count} legs {QUEUED_TEXT}: {reason}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; times as ISO 8601."""
        return dict(plain(self))


def read_status(
    lake: MoneyLake, settings: Settings, now: datetime, *, book: Book | None = None
) -> Status:
    """Read the status from the tables, without changing them and without the gateway.

    Args:
        book: The holdings and the strategies, if the caller has them.

    Raises:
        LakeError: A table cannot be used.
    """
    if book is None:
        book = read_undivided(lake, settings, now)
    mode = lake.sessions.mode()
    logins = []
    for login in settings.logins:
        session = lake.sessions.current(login.gateway_id)
        logins.append(_login_status(session, login, mode, now))

    programs = signs_of_life.read()
    overview = lake.queue.sync.overview()
    unanswered = 0
    if overview.counts.get(QueueStatus.FAILED):
        unanswered = read_failed(lake, settings, now).filter(~col.never_held).height

    active = {leg.conid for leg in book.legs}
    positions = book.reported.filter(col.position != 0)
    held = set(positions["conid"])
    unresolved = [
        f"{leg.described} of strategy {leg.strategy_id}: {leg.problem or NOT_LOOKED_UP}"
        for leg in lake.registry.unresolved
    ]

    hints = tuple(filter(None, [first_step(lake, settings), _rows_ahead(lake, book)]))
    problems = [*programs.problems, *_asked(logins)]
    problems += _attention(settings.strategies_file, unanswered, now)

    queue = {status.value: overview.counts.get(status, 0) for status in QueueStatus}
    streamed = written_by(Source.STREAM, book.priced, now)
    queued = written_by(Source.QUEUE, book.priced, now)
    updates = lake.updates.sync
    return Status(
        at=now,
        lake=settings.lake,
        **_of_all_logins(logins, now),
        active_legs=len(active),
        legs_held=len(active & held),
        legs_closed=_closed_legs(book, held),
        unresolved_legs=tuple(unresolved),
        positions=positions.height,
        queue=queue,
        queue_unanswered=unanswered,
        oldest_pending_age_s=seconds_since(overview.oldest_pending_at, now),
        updates_rows=updates.count(),
        updates_version=updates.version(),
        legs_streamed=streamed.height,
        legs_queued=queued.height,
        last_drained_at=overview.last_success_at,
        trading_mode=mode,
        accounts=book.accounts,
        attention=(*problems, *hints),
        hints=hints,
        programs=programs,
        tick_parts_s={part.name: part.last_s for part in signs_of_life.parts_of_ticks()},
        logins=tuple(logins) if len(logins) > 1 else (),
    )


def _asked(logins: Iterable[LoginStatus]) -> Iterator[str]:
    """Yield which logins a person has to confirm."""
    for login in logins:
        if login.login_asks:
            yield f"{login.gateway_id}: {login.login}. {CONFIRM}"


def _rows_ahead(lake: MoneyLake, book: Book) -> str | None:
    """Return how many rows a clock ahead wrote, and of how many holdings they still count."""
    rows = lake.updates.sync.between(book.now + SKEW, FOREVER, columns=())
    if rows.is_empty():
        return None

    still_newest = book.priced.filter(col.position != 0, is_ahead("timestamp", book.now))
    return (
        f"{rows.height:,} rows of position_updates are dated up to "
        f"{rows['timestamp'][-1]:%Y-%m-%d %H:%M} UTC: a clock was ahead, or was set back since. "
        "A row that is written now is newer than they are; "
        f"{still_newest.height:,} open holdings have none yet."
    )


def _of_all_logins(logins: Sequence[LoginStatus], now: datetime) -> dict[str, Any]:
    """Return the fields of the login that is worst off, with the lines of all logins."""

    def trouble(login: LoginStatus) -> tuple[bool, float]:
        return (login.session_state is None, seconds_since(login.blind_since, now) or 0.0)

    worst = asdict(max(logins, key=trouble))
    for name in _OF_LINES:
        worst[name] = _sum(map(attrgetter(name), logins))
    return worst


def _closed_legs(book: Book, held: set[int]) -> str | None:
    """Return what happened to the active legs that are not held and closed for a known reason."""
    ends = {}
    for leg in book.legs:
        end = None if leg.conid in held else book.closes.end_of(leg)
        if end is not None:
            ends[leg.conid] = end
    return counted_ends(ends.values())


def _attention(strategies_file: Path | None, unanswered: int, now: datetime) -> Iterator[str]:
    """Yield the problems of the strategies file and of FAILED requests of holdings."""
    if strategies_file is not None:
        try:
            saved_file(strategies_file).legs(now)
        except StrategiesFileError as error:
            yield f"{error.what} {error.remedy} The active legs stay as they were read last."

    if unanswered:
        requests = "1 request is"
        if unanswered > 1:
            requests = f"{unanswered:,} requests are"
        yield (
            f"{requests} FAILED, without a value since: `position-sync queue list --status FAILED` "
            "shows why, and `queue retry` tries again."
        )


def leg_states(legs: Iterable[Leg], book: Book) -> list[LegState]:
    """Return the state of each active leg, in order, as far as the tables show it.

    ARMED: the broker reports no holding of it, in the leg's account if it names one. A leg with a
    mistyped conid stays ARMED, as does a leg without a conid until its contract is found. STREAMED:
    the stream wrote the newest row of a holding recently. OVERFLOW: held, and not streamed. CLOSED:
    it was held, and it is known why it is gone.
    """
    opened = book.reported.filter(col.position != 0)
    by_stream = written_by(Source.STREAM, book.priced, book.now)
    streamed = set(by_stream.select(KEY).iter_rows())
    accounts_of = dict(opened.group_by("conid").agg("account").iter_rows())

    def state_of(leg: Leg) -> LegState:
        if not isinstance(leg, ActiveContract):
            return LegState.ARMED

        is_held = False
        for account in accounts_of.get(leg.conid, ()):
            if leg.account not in (None, account):
                continue
            if (account, leg.conid) in streamed:
                return LegState.STREAMED
            is_held = True

        if is_held:
            return LegState.OVERFLOW
        if book.closes.end_of(leg) is None:
            return LegState.ARMED
        return LegState.CLOSED

    return [state_of(leg) for leg in legs]


def status_not_kept(settings: Settings, at: datetime) -> Status:
    """Return the state at a past moment: tables that are replaced do not say it."""
    logins = tuple(LoginStatus(gateway_id=login.gateway_id) for login in settings.logins)
    return Status(
        gateway_id=logins[0].gateway_id, at=at, lake=settings.lake, active_legs=0, legs_held=0,
        unresolved_legs=(), positions=0, queue={}, oldest_pending_age_s=None, updates_rows=0,
        updates_version=0, legs_streamed=0, legs_queued=0, last_drained_at=None,
        trading_mode=None, accounts=(), logins=logins,
    )  # fmt: skip


# Nearly all values are of one of these kinds.
_PLAIN = frozenset((str, int, bool, type(None)))
_MAPPINGS = (dict, Mapping)  # to ask first whether it is a dict takes a tenth of the time


def plain(value: Any, name: Any = None) -> Any:
    """Return a value for JSON: times in ISO 8601, sums of money in cents.

    Numbers that are not finite are null. A record of pydantic has the names that its fields have in
    the JSON of figures.

    Args:
        name: The name of the value, which says whether it is a sum of money.
    """
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return cents(value) if name in MONEY else value
    if type(value) in _PLAIN:
        return value
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, _MAPPINGS):
        return {
            key: part if type(part) in _PLAIN else plain(part, key) for key, part in value.items()
        }
    if isinstance(value, list | tuple):
        return [plain(part, name) for part in value]
    if isinstance(value, BaseModel):
        return plain(value.model_dump(by_alias=True))
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str | int):
        return value
    if isinstance(value, Path):
        return str(value)
    return plain({field.name: getattr(value, field.name) for field in fields(value)})


def _login_status(
    session: GatewaySession | None, login: Settings, mode: TradingMode | None, now: datetime
) -> LoginStatus:
    if session is None:
        return LoginStatus(gateway_id=login.gateway_id)

    is_alive = session.is_alive(now)
    if is_alive:
        state = session.state
        since = session.state_since
    elif session.state not in gateway_session.ALIVE:
        state = session.state
        since = session.heartbeat_at
    else:  # its lease has expired, whatever its row says
        state = SessionState.LOST
        since = min(session.expires_at, now)

    of_owner: dict[str, Any] = {}
    if is_alive:
        of_owner = {name: getattr(session, name) for name in (*_OF_LINES, "greeks")}

    week = gateway_session.weekly_login(now, mode, login.login_notice_h)
    if week is not None:
        of_owner |= {"login": week.text, "login_asks": week.asks}

    if not session.is_live(now):
        of_owner["blind_since"] = session.seen_until(now)
    return LoginStatus(
        gateway_id=login.gateway_id,
        session_state=state,
        session_owner=session.owner,
        session_since=since,
        session_detail=session.detail,
        run_id=session.run_id,
        **of_owner,
    )


_OF_LINES = ("lines_in_use", "line_limit", "underlying_lines")


def _sum(values: Iterable[int | None]) -> int | None:
    """Return the sum of the values that are not None; None if all are."""
    numbers = [value for value in values if value is not None]
    if not numbers:
        return None
    return sum(numbers)
