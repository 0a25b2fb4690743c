"""The session of a gateway owner, and the login that IB asks for each week.

The session says which process may write for a login, and until when. IB invalidates the tokens of
all logins each Sunday at 01:00 in New York. A gateway runs on until its next restart, which then
needs the user name, the password and, on a live login, the second factor (ibkrguides.com, "Auto
Restart Considerations"). Restarts before it need nobody. Until a person confirms the login, the
gateway refuses connections (IbcAlpha/IBC issues/246, issues/290).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from typing import Any

from position_sync_dagster.domain.clock import SKEW
from position_sync_dagster.domain.exchange_time import NEW_YORK
from position_sync_dagster.domain.holding import Key
from position_sync_dagster.domain.position_update import TradingMode

# The beginning of a session's detail if its stream was terminated.
PAUSED = "paused by a person"

CONFIRM = (
    "Restart the gateway on Sunday after 01:00 in New York, and confirm the login with the second "
    "factor (IBKR Mobile)."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeeklyLogin:
    """The login of the week, at one moment.

    Attributes:
        ends_at: When the week ends: Sunday, 01:00 in New York.
        asks: A person has something to do soon.
    """

    ends_at: datetime
    asks: bool

    @property
    def text(self) -> str:
        """The end of the week in words; what to do is CONFIRM."""
        return (
            f"the week of the login ends on {self.ends_at:%A %Y-%m-%d %H:%M} UTC; the first "
            "restart after it asks for the second factor"
        )


def weekly_login(now: datetime, mode: TradingMode | None, notice_h: float) -> WeeklyLogin | None:
    """Return when the week of a login ends; None for a login without a second factor.

    A paper login has none (IbcAlpha/IBC issues/246).

    Args:
        now: The time.
        mode: The trading mode of the login.
        notice_h: How long before the end of the week a person is asked, in hours; 0 for a login
            without a second factor.
    """
    if mode is not TradingMode.LIVE or not notice_h:
        return None
    # A day later than the next Sunday: by a change of the clocks a week may be an hour longer.
    ends_at = _week_began(_week_began(now) + timedelta(days=8))
    return WeeklyLogin(ends_at=ends_at, asks=now >= ends_at - timedelta(hours=notice_h))


def _week_began(now: datetime) -> datetime:
    """Return the last Sunday, 01:00 in New York, that is not after `now`."""
    # Until 01:00, by the clock there, a Sunday belongs to the week before.
    day = (now.astimezone(NEW_YORK) - timedelta(hours=1)).date()
    sunday = day - timedelta(days=day.isoweekday() % 7)
    return datetime.combine(sunday, time(1), NEW_YORK).astimezone(UTC)


class Owner(StrEnum):
    """The kind of process that owns the login."""

    STREAM = "STREAM"
    # A program that uses the package as a library. It need not write `broker_positions`.
    LIBRARY = "LIBRARY"
    # A short refresh by a drain of an earlier release, stored as DRAIN.
    REFRESH = "DRAIN"


# How many outages a session keeps: the last ones.
MOST_OUTAGES = 50


class SessionState(StrEnum):
    """The state of a session: STARTING → LIVE ⇄ BLIND → ENDED | LOST.

    BLIND: the owner has no gateway, or one that has lost IB. LOST: the lease expired before the
    owner ended the session.
    """

    STARTING = "STARTING"
    LIVE = "LIVE"
    BLIND = "BLIND"
    ENDED = "ENDED"
    LOST = "LOST"


# The states of a session that has not ended.
ALIVE = frozenset({SessionState.STARTING, SessionState.LIVE, SessionState.BLIND})


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySession:
    """One owner's lease on one login: the columns of the table `gateway_sessions`.

    Attributes:
        gateway_id: The login: its name in the gateways file, or "host:port" without one.
        owner: STREAM, LIBRARY for a program of its own, or DRAIN for a refresh by an earlier
            release.
        session_id: Unique id of the session.
        run_id: The Dagster run of the owner; null outside Dagster.
        host: Host of the owning process.
        pid: Process id of the owner on that host.
        fencing_token: One above that of the gateway's session before; rows of the owner carry it.
        started_at: When the lease was acquired (UTC).
        heartbeat_at: When the lease was last renewed, or when the session ended (UTC).
        expires_at: End of the lease (UTC); the owner must renew it before.
        state: STARTING, LIVE, BLIND (no gateway, or one without IB), ENDED or LOST.
        state_since: LIVE: since when the gateway is seen without an interruption. Any other state:
            the time after which nobody has seen it, also across sessions (UTC).
        lines_in_use: Market data lines that the owner has in use.
        line_limit: Market data lines that the owner may use.
        detail: Why the session is BLIND, what is wrong while it is LIVE, or how it ended, for a
            person.
        underlying_lines: Of the lines in use, those of underlyings of held options; null in rows of
            older releases.
        greeks: How many options without greeks of IB have computed ones; why others have none.
        outages: JSON: the last outages of the session that are over, each as [from, until, why];
            null without one.
        unknown_accounts: JSON: the accounts whose holdings are unknown, each with account, reason
            (EMPTIED, NOT_MANAGED) and number of holdings; null without one, or while not LIVE.
        set_aside: JSON: how many holdings have a newest row that cannot be used, and the first of
            them with account, conid and why; null without one, or while not LIVE.
    """

    gateway_id: str
    owner: Owner
    session_id: str
    run_id: str | None
    host: str
    pid: int
    fencing_token: int
    started_at: datetime
    heartbeat_at: datetime
    expires_at: datetime
    state: SessionState
    state_since: datetime
    lines_in_use: int = 0
    line_limit: int = 0
    detail: str | None = None
    underlying_lines: int | None = 0
    greeks: str | None = None
    outages: str | None = None
    unknown_accounts: str | None = None
    set_aside: str | None = None

    @property
    def outages_over(self) -> list[tuple[datetime, datetime, str | None]]:
        """Return the last outages that are over: from, until and why, the oldest first."""
        return [
            (datetime.fromisoformat(began), datetime.fromisoformat(ended), why)
            for began, ended, why in json.loads(self.outages or "[]")
        ]

    def outages_after(
        self, state: SessionState | None, live_since: datetime | None, now: datetime
    ) -> str | None:
        """Return `outages` after a heartbeat: an outage is over when a BLIND owner is LIVE again.

        Args:
            state: The state now; None if it is the same.
            live_since: When a LIVE owner connected, with which the outage ended.
            now: When the heartbeat is recorded.

        >>> at = datetime(2027, 1, 4, tzinfo=UTC)
        >>> session = GatewaySession(
        ...     gateway_id="g", owner=Owner.STREAM, session_id="s", run_id=None, host="h", pid=1,
        ...     fencing_token=1, started_at=at, heartbeat_at=at, expires_at=at,
        ...     state=SessionState.BLIND, state_since=at, detail="1100",
        ... )
        >>> session.outages_after(SessionState.LIVE, None, at + timedelta(seconds=1))
        '[["2027-01-04T00:00:00+00:00", "2027-01-04T00:00:01+00:00", "1100"]]'
        """
        if self.state is not SessionState.BLIND or state is not SessionState.LIVE:
            return self.outages
        until = self.since_after(state, live_since, now)
        known = json.loads(self.outages or "[]")
        over = [self.state_since.isoformat(), until.isoformat(), self.detail]
        return json.dumps([*known, over][-MOST_OUTAGES:])

    def is_alive(self, now: datetime) -> bool:
        """Return whether the lease is valid at `now`."""
        # A heartbeat in the future would make the lease last too long.
        is_ahead = self.heartbeat_at > now + SKEW
        return self.state in ALIVE and now < self.expires_at and not is_ahead

    def is_live(self, now: datetime) -> bool:
        """Return whether an owner sees the gateway at `now`."""
        return self.state is SessionState.LIVE and self.is_alive(now)

    def seen_until(self, now: datetime) -> datetime:
        """Return the last time at which an owner saw the gateway; `now` while it is LIVE.

        It is asked of the newest session by whoever says since when a login is not followed:
        `status`, the checks, and the next session, which begins with it as `state_since`.
        """
        if self.state is not SessionState.LIVE:
            return min(now, self.state_since)
        if self.is_alive(now):
            return now

        return min(now, self.heartbeat_at)  # it was LIVE when its lease was renewed last

    def as_followed(self, now: datetime) -> "GatewaySession":
        """Return the session as stored when its successor starts: LOST if it has not ended."""
        if self.state not in ALIVE:
            return self
        detail = self.detail or f"lease expired at {self.expires_at:%Y-%m-%d %H:%M:%S} UTC"
        return replace(
            self, state=SessionState.LOST, state_since=self.seen_until(now), detail=detail
        )

    def since_after(
        self, state: SessionState | None, live_since: datetime | None, now: datetime
    ) -> datetime:
        """Return the `state_since` after a heartbeat.

        Args:
            state: The state now; None if it is the same.
            live_since: When a LIVE owner connected. The heartbeat that records it may be later;
                values that the broker confirmed in between count.
            now: When the heartbeat is recorded.
        """
        if state is SessionState.LIVE and live_since is not None:
            return max(live_since, self.state_since)
        # Between two states that are not LIVE nobody has seen the gateway since the same time.
        changed = state not in (None, self.state)
        if changed and SessionState.LIVE in (state, self.state):
            return now

        return self.state_since


class UnknownReason(StrEnum):
    """Why the holdings of an account are unknown.

    EMPTIED: one list of positions names none of them, and nothing else has closed them yet.
    NOT_MANAGED: the login does not manage the account now, and an earlier login did.
    """

    EMPTIED = "EMPTIED"
    NOT_MANAGED = "NOT_MANAGED"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownAccount:
    """An account whose holdings are unknown, and how many they were.

    >>> unknown = UnknownAccount(account="DU1", reason=UnknownReason.NOT_MANAGED, holdings=4)
    >>> unknown.text
    'account DU1 is not managed by this login now: its 4 holdings are unknown'
    """

    account: str
    reason: UnknownReason
    holdings: int

    @property
    def text(self) -> str:
        """The fact in words."""
        if self.reason is UnknownReason.EMPTIED:
            return (
                f"account {self.account} has none of its holdings in the list of positions: "
                f"all {self.holdings} are unknown until a second list or trades confirm it"
            )
        return (
            f"account {self.account} is not managed by this login now: "
            f"its {self.holdings} holdings are unknown"
        )


# How many of the holdings that are set aside a session names.
SET_ASIDE_NAMED = 3

# The holdings that are set aside: their number (`count`), and the `first` of them, as stored.
SetAside = dict[str, Any]


def set_aside_of(reasons: Mapping[Key, str]) -> SetAside | None:
    """Return the holdings that are set aside, given why each of them is; None without one.

    The newest row of such a holding cannot be used. The first `SET_ASIDE_NAMED` are named.

    >>> set_aside_of({("DU1", 7): "no symbol"})
    {'count': 1, 'first': [{'account': 'DU1', 'conid': 7, 'why': 'no symbol'}]}
    """
    if not reasons:
        return None

    first = [
        {"account": account, "conid": conid, "why": why}
        for (account, conid), why in sorted(reasons.items())[:SET_ASIDE_NAMED]
    ]
    return {"count": len(reasons), "first": first}


def _text_of(set_aside: SetAside) -> str:
    """Return the holdings that are set aside in words: those named, and how many more there are."""
    named = [
        f"conid {row['conid']} of {row['account'] or 'no account'} ({row['why']})"
        for row in set_aside["first"]
    ]
    count = set_aside["count"]
    unnamed = count - len(named)
    more = f" and {unnamed} more" if unnamed else ""
    noun = "holding is" if count == 1 else "holdings are"
    return f"{count} {noun} set aside: {', '.join(named)}{more}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnusableHoldings:
    """What the gateway sent of holdings that cannot be used now, or is unknown.

    Attributes:
        unknown_accounts: The accounts whose holdings are unknown.
        set_aside: The holdings whose newest rows cannot be used.
    """

    unknown_accounts: tuple[UnknownAccount, ...] = ()
    set_aside: SetAside | None = None

    @property
    def texts(self) -> list[str]:
        """The facts in words."""
        texts = [unknown.text for unknown in self.unknown_accounts]
        if self.set_aside is None:
            return texts

        return [*texts, _text_of(self.set_aside)]

    def as_columns(self) -> dict[str, str | None]:
        """Return the columns of a session that store them; see `GatewaySession`."""
        accounts = [asdict(unknown) for unknown in self.unknown_accounts]
        return {
            "unknown_accounts": json.dumps(accounts) if accounts else None,
            "set_aside": json.dumps(self.set_aside) if self.set_aside else None,
        }


def unusable_holdings_of(session: GatewaySession) -> UnusableHoldings:
    """Read the columns of a session that `UnusableHoldings.as_columns` wrote.

    >>> at = datetime(2027, 1, 4, tzinfo=UTC)
    >>> unknown = UnknownAccount(account="DU1", reason=UnknownReason.EMPTIED, holdings=3)
    >>> unusable = UnusableHoldings(unknown_accounts=(unknown,))
    >>> session = GatewaySession(
    ...     gateway_id="g", owner=Owner.STREAM, session_id="s", run_id=None, host="h", pid=1,
    ...     fencing_token=1, started_at=at, heartbeat_at=at, expires_at=at,
    ...     state=SessionState.LIVE, state_since=at, **unusable.as_columns(),
    ... )
    >>> unusable_holdings_of(session) == unusable
    True
    """
    accounts = [
        UnknownAccount(**{**stored, "reason": UnknownReason(stored["reason"])})
        for stored in json.loads(session.unknown_accounts or "[]")
    ]
    return UnusableHoldings(
        unknown_accounts=tuple(accounts), set_aside=json.loads(session.set_aside or "null")
    )
