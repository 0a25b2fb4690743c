"""The trading days of an exchange: which days they are, and when each one closes.

`exchange_calendars` calls a trading day a session; here a session is the lease of a gateway owner.
"""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

from position_sync_dagster.domain.exchange_time import NEW_YORK
from position_sync_dagster.errors import PositionSyncError, SettingsError

# Delay from the close to the recording of a day: index options trade for another 15 minutes.
SETTLE = timedelta(minutes=20)

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
class Exchange:
    """An exchange, and its trading days.

    Attributes:
        calendar: Market identifier code (ISO 10383), for example "XNYS".
        closes_at: The usual close in local time; half days close earlier. 00:00 is the end of a
            day, not its begin.
        weekdays: From the first to the last on which it has traded, as in cron: Sunday is 0.
        known_until: The last day of which it is known whether it trades.
        close_on: Returns when it closes on a day, in UTC; None where it does not trade.
    """

    calendar: str
    timezone: str
    closes_at: time
    weekdays: range
    known_until: date
    close_on: Callable[[date], datetime | None]

    @property
    def settled_at(self) -> time:
        """The local time from which a day can be recorded, also of half days, which close earlier.

        It is SETTLE after the usual close: index options trade on. A day that ends at midnight is
        recorded a minute before; the following night, when each day is recorded again, adds its
        end.
        """
        if self.closes_at == time.min:
            return time(23, 59)
        settled = datetime.combine(date.min, self.closes_at) + SETTLE
        # Never on the hour: the minute before it, the window of a partition, is of the same hour
        # (`exchange_partitions` of `defs/assets/past_days.py`).
        return settled.replace(minute=settled.minute or 1).time()

    def cron_days(self, *, days_later: int = 0) -> str:
        """Return the weekdays, or those some days later, as cron has them: Sunday is 7 as well."""
        return f"{self.weekdays[0] + days_later}-{self.weekdays[-1] + days_later}"

    def is_trading_day(self, day: date) -> bool:
        """Return whether the exchange trades on a day."""
        return self.close_on(day) is not None

    def trading_days(self, first: date, last: date) -> list[date]:
        """Return the days from one to another on which the exchange trades."""
        return list(filter(self.is_trading_day, days_between(first, last)))

    def longest_closed(self, near: date) -> timedelta:
        """Return the longest time from a trading day to the next, within a year of a day."""
        year = timedelta(days=365)
        days = self.trading_days(near - year, min(near + year, self.known_until))
        return max(later - earlier for earlier, later in pairwise(days))

    def holidays(self, first: date, last: date) -> list[date]:
        """Return the known days among the weekdays on which it does not trade."""
        return [
            day
            for day in days_between(first, min(last, self.known_until))
            if day.isoweekday() % 7 in self.weekdays and not self.is_trading_day(day)
        ]


def days_between(first: date, last: date) -> list[date]:
    """Return each calendar day from one to another, both included."""
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


@cache
def exchange_of(calendar: str) -> Exchange:
    """Return an exchange; of others than New York, the holidays of one year ahead are known.

    Raises:
        SettingsError: The calendar is not known: without its days, Dagster loads no definition.
    """
    if calendar == LISTED:  # "XNYS": we list the days of New York ourselves
        return _new_york()

    exchange = _calendar(calendar)
    closes = {day.date(): close.to_pydatetime() for day, close in exchange.closes.items()}
    numbers = {day.isoweekday() % 7 for day in closes}
    _, closes_at = exchange.close_times[-1]  # since when each one counts, and the time
    return Exchange(
        calendar=calendar,
        timezone=str(exchange.tz),
        closes_at=closes_at,
        weekdays=range(min(numbers), max(numbers) + 1),
        known_until=max(closes),
        close_on=closes.get,
    )


def _new_york() -> Exchange:
    """Return New York, by the list of its holidays (no time) and early closes."""
    closes_at = time(16, 0)
    lines = NEW_YORK_DAYS.read_text(encoding="ascii").splitlines()
    listed = {
        date.fromisoformat(day): time.fromisoformat(closes) if closes else None
        for day, _space, closes in (line.partition(" ") for line in lines)
    }

    def close_on(day: date) -> datetime | None:
        """Return when it closes on a day; outside the listed years on every weekday."""
        at = listed.get(day, closes_at)
        if at is None or day.weekday() >= 5:
            return None
        return datetime.combine(day, at, NEW_YORK).astimezone(UTC)

    return Exchange(
        calendar=LISTED,
        timezone=str(NEW_YORK),
        closes_at=closes_at,
        weekdays=range(1, 6),
        known_until=max(listed),
        close_on=close_on,
    )


def closing_times(calendar: str, days: Iterable[date]) -> dict[date, datetime]:
    """Return the time, in UTC, at which each trading day closes; half days included.

    Raises:
        NoTradingDayError: One of the days is no trading day.
        SettingsError: The calendar is not known.
    """
    closes = {}
    for day in days:
        close = exchange_of(calendar).close_on(day)
        if close is None:
            raise NoTradingDayError(
                f"{calendar} does not trade on {day}.", remedy="Choose a trading day."
            )
        closes[day] = close
    return closes


def day_of(calendar: str, at: datetime) -> date:
    """Return the day of an exchange at a moment: of the present one, what is called today.

    Raises:
        SettingsError: The calendar is not known.
    """
    return at.astimezone(time_zone_of(calendar)).date()


def time_zone_of(calendar: str) -> ZoneInfo:
    """Return the time zone of an exchange.

    Raises:
        SettingsError: The calendar is not known.
    """
    return ZoneInfo(exchange_of(calendar).timezone)


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
        # As when it lists a special close on a day that its own rules make a holiday.
        raise SettingsError(
            f"POSITION_SYNC_CALENDAR={calendar!r} has days that exchange_calendars contradicts.",
            remedy="Install a version of exchange-calendars in which `ecal` shows that exchange.",
        ) from None
