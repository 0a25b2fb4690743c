"""The trading days of an exchange: which days they are, and when each one closes.

`exchange_calendars` calls a trading day a session; here a session is the lease of a gateway owner.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

from position_sync_dagster.domain.exchange_time import NEW_YORK, beginning_of
from position_sync_dagster.errors import PositionSyncError, SettingsError

# Delay from the close to the recording of a day: index options trade for another 15 minutes.
SETTLE = timedelta(minutes=20)

# New York was closed for a week in September 2001; others close for Lunar New Year, or a Golden
# Week.
LONGEST_CLOSED = timedelta(days=14)

# New York: every command asks for its days. They are listed, since `exchange_calendars` takes
# seconds to import.
LISTED = "XNYS"

# The weekdays from 1985 to 2100 on which New York does not trade, and those on which it closes
# early, with the time. `exchange_calendars` says so: a test compares them.
NEW_YORK_DAYS = Path(__file__).with_name("new_york.txt")


class NoTradingDayError(PositionSyncError):
    """The requested day is no trading day.

    Choose another day.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeDays:
    """The data of an exchange for the partitions and their schedule.

    Attributes:
        calendar: Market identifier code (ISO 10383), for example "XNYS".
        closes_at: The usual close in local time; half days close earlier. Midnight ends a day.
        weekdays: From the first to the last on which it trades, as in cron: Sunday is 0.
        holidays: Days among the weekdays on which it does not trade, ascending.
    """

    calendar: str
    timezone: str
    closes_at: time
    weekdays: range
    holidays: tuple[date, ...]

    @property
    def zone(self) -> ZoneInfo:
        """Return the time zone of the exchange."""
        return ZoneInfo(self.timezone)

    @property
    def settled_at(self) -> time:
        """The local time from which a day can be recorded; half days close earlier.

        A day that ends at midnight is recorded before, and with its end in the following night.
        """
        if self.closes_at == time.min:
            return time(23, 59)
        return (datetime.combine(date.min, self.closes_at) + SETTLE).time()

    def cron_days(self, *, days_later: int = 0) -> str:
        """Return the weekdays, or those some days later, as cron has them: Sunday is 7 as well."""
        return f"{self.weekdays[0] + days_later}-{self.weekdays[-1] + days_later}"

    def holidays_at(self, at: time) -> list[datetime]:
        """Return each holiday at a local time."""
        return [datetime.combine(day, at, self.zone) for day in self.holidays]

    def is_trading_day(self, day: date) -> bool:
        """Return whether the exchange trades on a day."""
        return _number_of(day) in self.weekdays and day not in self.holidays

    def trading_days(self, first: date, last: date) -> list[date]:
        """Return the days from one to another on which the exchange trades."""
        return [day for day in days_between(first, last) if self.is_trading_day(day)]


def days_between(first: date, last: date) -> list[date]:
    """Return each calendar day from one to another, both included."""
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def exchange_days(calendar: str, first: date, last: date) -> ExchangeDays:
    """Return the days of an exchange from `first` to `last`.

    `exchange_calendars` knows the holidays of one year ahead: later ones are not among them.

    Raises:
        SettingsError: The calendar is not known.
    """
    exchange = _exchange(calendar)
    days = days_between(max(first, exchange.first), min(last, exchange.last))
    is_open = {day: exchange.trades_on(day) for day in days}
    numbers = exchange.weekdays.union(_number_of(day) for day in days if is_open[day])
    weekdays = range(min(numbers), max(numbers) + 1)
    return ExchangeDays(
        calendar=calendar,
        timezone=exchange.timezone,
        closes_at=exchange.closes_at,
        weekdays=weekdays,
        holidays=tuple(day for day in days if not is_open[day] and _number_of(day) in weekdays),
    )


def require_known(calendar: str) -> None:
    """Check that an exchange is known: without its days, Dagster loads no definition at all.

    Raises:
        SettingsError: It is not.
    """
    _exchange(calendar)


def closing_times(calendar: str, days: Iterable[date]) -> dict[date, datetime]:
    """Return the time, in UTC, at which each trading day closes; half days included.

    Raises:
        NoTradingDayError: One of the days is no trading day.
        SettingsError: The calendar is not known.
    """
    exchange = _exchange(calendar)
    closes = {}
    for day in days:
        if not exchange.trades_on(day):
            raise NoTradingDayError(
                f"{calendar} does not trade on {day}.", remedy="Choose a trading day."
            )
        closes[day] = exchange.close_of(day)
    return closes


def session_before(calendar: str, day: date) -> date:
    """Return the last trading day before a day.

    Raises:
        SettingsError: The calendar is not known.
    """
    begin = day - LONGEST_CLOSED
    return exchange_days(calendar, begin, day).trading_days(begin, day - timedelta(days=1))[-1]


@cache
def session_of(calendar: str, day: date) -> date:
    """Return the trading day to which a day belongs: that day, or the next one that is one.

    Raises:
        SettingsError: The calendar is not known.
    """
    last = day + LONGEST_CLOSED
    return exchange_days(calendar, day, last).trading_days(day, last)[0]


def day_of(calendar: str, at: datetime) -> date:
    """Return the day of an exchange at a moment: of the present one, what is called today.

    Raises:
        SettingsError: The calendar is not known.
    """
    return at.astimezone(time_zone_of(calendar)).date()


def day_began(calendar: str, now: datetime) -> datetime:
    """Return when today began at an exchange: the last midnight there (UTC).

    Raises:
        SettingsError: The calendar is not known.
    """
    return beginning_of(day_of(calendar, now), time_zone_of(calendar))


def time_zone_of(calendar: str) -> ZoneInfo:
    """Return the time zone of an exchange.

    Raises:
        SettingsError: The calendar is not known.
    """
    return ZoneInfo(_exchange(calendar).timezone)


def _exchange(calendar: str) -> "NewYork | OtherExchange":
    return NewYork() if calendar == LISTED else OtherExchange(calendar)


def _number_of(day: date) -> int:
    """Return the weekday of a day as cron has it: Sunday is 0."""
    return day.isoweekday() % 7


class NewYork:
    """New York, by the list of its days.

    Attributes:
        weekdays: On which it trades lately, as in cron.
        first: The first day that is known.
    """

    timezone = str(NEW_YORK)
    closes_at = time(16, 0)
    weekdays = frozenset(range(1, 6))
    first = date.min
    last = date.max

    def trades_on(self, day: date) -> bool:
        """Return whether it trades on a day."""
        return _number_of(day) in self.weekdays and self._close(day) is not None

    def close_of(self, day: date) -> datetime:
        """Return when a trading day closes, in UTC."""
        return datetime.combine(day, self._close(day) or time.max, NEW_YORK).astimezone(UTC)

    def _close(self, day: date) -> time | None:
        return _listed_days().get(day, self.closes_at)


@cache
def _listed_days() -> dict[date, time | None]:
    """Return when New York closes on the days of the list; None where it does not trade."""
    lines = NEW_YORK_DAYS.read_text(encoding="ascii").splitlines()
    return {
        date.fromisoformat(day): time.fromisoformat(closes) if closes else None
        for day, _space, closes in (line.partition(" ") for line in lines)
    }


class OtherExchange:
    """An exchange of `exchange_calendars`, with the attributes of `NewYork`."""

    def __init__(self, calendar: str) -> None:
        self._calendar = exchange = _calendar(calendar)
        self.timezone = str(exchange.tz)
        _, self.closes_at = exchange.close_times[-1]  # since when each one counts, and the time
        self.weekdays = frozenset(map(_number_of, exchange.sessions[-LONGEST_CLOSED.days :].date))
        self.first: date = exchange.first_session.date()
        self.last: date = exchange.last_session.date()

    def trades_on(self, day: date) -> bool:
        """Return whether it trades on a day, as far as that is known."""
        is_known = self.first <= day <= self.last
        return is_known and bool(self._calendar.is_session(day.isoformat()))

    def close_of(self, day: date) -> datetime:
        """Return when a trading day closes, in UTC."""
        close: datetime = self._calendar.session_close(day.isoformat()).to_pydatetime()
        return close.astimezone(UTC)


def _calendar(calendar: str):  # type: ignore[no-untyped-def]
    """Return a calendar of `exchange_calendars`, which is imported for other exchanges alone."""
    import exchange_calendars

    try:
        with warnings.catch_warnings():
            # Its use of pandas is deprecated; our users cannot change that.
            warnings.simplefilter("ignore", DeprecationWarning)
            return exchange_calendars.get_calendar(calendar)
    except exchange_calendars.errors.InvalidCalendarName:
        raise SettingsError(
            f"POSITION_SYNC_CALENDAR={calendar!r} is not a known exchange.",
            remedy='Use a market identifier code such as "XNYS"; `ecal --help` lists them.',
        ) from None
    except (ValueError, NotImplementedError):
        raise SettingsError(
            f"POSITION_SYNC_CALENDAR={calendar!r} has days that exchange_calendars contradicts.",
            remedy="Install a version of exchange-calendars in which `ecal` shows that exchange.",
        ) from None
