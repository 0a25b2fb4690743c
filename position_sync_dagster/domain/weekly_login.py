"""The login that IB asks for once a week: when it is due, from what connections show of a gateway.

IB invalidates the tokens of all logins each Sunday at 01:00 in New York. A gateway runs on until
its next restart, which then needs the user name, the password and, on a live login, the second
factor (ibkrguides.com, "Auto Restart Considerations"). Restarts before it need nobody. Until a
person confirms the login, the gateway refuses connections (IbcAlpha/IBC issues/246, issues/290;
Lean.Brokerages.InteractiveBrokers issues/246).
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

RESTART_TAKES = timedelta(seconds=10)
"""A gateway that was out of sight for no longer was not restarted: an automatic restart takes about
35 s (Lean.Brokerages.InteractiveBrokers issues/246)."""

RESTART_LASTS = timedelta(minutes=10)
"""A gateway that is out of sight for longer than this does more than an automatic restart."""

CONFIRM = (
    "Restart the gateway on Sunday after 01:00 in New York, and confirm the login with the second "
    "factor (IBKR Mobile)."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayRun:
    """What connections show of the process of a gateway.

    Attributes:
        running_since: Since when it is known to run without a restart.
        started_at: When it was last seen to accept a connection after it had refused others.
        refused: It has refused a connection since it was seen last.
    """

    running_since: datetime | None = None
    started_at: datetime | None = None
    refused: bool = False

    def after_refusal(self) -> "GatewayRun":
        """Return what is known after a refused connection.

        One before the first connection shows no restart: the address may have been wrong, or the
        API disabled.
        """
        seen = self.running_since is not None or self.started_at is not None
        return replace(self, refused=seen)

    def after_connection(self, now: datetime, seen_at: datetime) -> "GatewayRun":
        """Return what is known after an accepted connection.

        Args:
            seen_at: When the connection before ended.
        """
        if self.refused:
            return GatewayRun(running_since=now, started_at=now)
        if self.running_since is not None and now - seen_at <= RESTART_TAKES:
            return self
        return replace(self, running_since=now)


class WeekState(StrEnum):
    """Whether the login of the present week was made.

    MADE: the gateway was started in this week. DUE: it has run since before; its next restart asks
    for the login. WAITING: it is out of sight, and probably asks for it. UNKNOWN: nobody saw.
    """

    MADE = "MADE"
    DUE = "DUE"
    WAITING = "WAITING"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeeklyLogin:
    """The login of the week, at one moment.

    Attributes:
        began_at: When the present week began: Sunday, 01:00 in New York.
        ends_at: When it ends.
        asks: A person has something to do now or soon.
    """

    state: WeekState
    began_at: datetime
    ends_at: datetime
    asks: bool

    @property
    def text(self) -> str:
        """The state in words; what to do is CONFIRM."""
        began, ends = _moment(self.began_at), _moment(self.ends_at)
        if self.state is WeekState.WAITING:
            return (
                f"the login of the week, which IB asks for since {began}, was not seen, and the "
                "gateway is out of sight: it may wait for the second factor"
            )
        if self.state is WeekState.DUE:
            return (
                f"the login is due: its week ended on {began}, and the gateway has run since "
                "before. Its next restart asks for the second factor"
            )
        made = "made" if self.state is WeekState.MADE else "not known whether it was made"
        return (
            f"the week of the login ends on {ends} ({made} since {began}); the first restart "
            "after it asks for the second factor"
        )


def weekly_login(
    run: GatewayRun, now: datetime, *, blind_since: datetime | None, notice: timedelta
) -> WeeklyLogin:
    """Return whether the login of the week was made, and when the week ends.

    Args:
        run: What is known of the gateway.
        blind_since: Since when nobody has seen the gateway connected to IB; None while it is.
        notice: How long before the end of the week it is said.

    Example:
        >>> monday = datetime(2026, 11, 23, 12, tzinfo=UTC)
        >>> run = GatewayRun(started_at=datetime(2026, 11, 22, 15, tzinfo=UTC))
        >>> week = weekly_login(run, monday, blind_since=None, notice=timedelta(days=1))
        >>> str(week.state), str(week.ends_at), week.asks
        ('MADE', '2026-11-29 06:00:00+00:00', False)
    """
    began_at = _week_began(now)
    ends_at = _week_began(began_at + timedelta(days=8))
    if run.started_at is not None and run.started_at >= began_at:
        state = WeekState.MADE
    elif blind_since is not None and now - blind_since > RESTART_LASTS:
        state = WeekState.WAITING
    elif run.running_since is not None and run.running_since < began_at:
        state = WeekState.DUE
    else:
        state = WeekState.UNKNOWN
    asks = state in (WeekState.DUE, WeekState.WAITING) or now >= ends_at - notice
    return WeeklyLogin(state=state, began_at=began_at, ends_at=ends_at, asks=asks)


def _week_began(now: datetime) -> datetime:
    """Return the last Sunday, 01:00 in New York, that is not after `now`."""
    zone = ZoneInfo("America/New_York")
    local = now.astimezone(zone)
    sunday = local.date() - timedelta(days=local.isoweekday() % 7)
    began_at = datetime.combine(sunday, time(1), zone).astimezone(UTC)
    if began_at > now:
        began_at = datetime.combine(sunday - timedelta(days=7), time(1), zone).astimezone(UTC)
    return began_at


def _moment(at: datetime) -> str:
    return f"{at:%A %Y-%m-%d %H:%M} UTC"
