"""Trading days beside a day, today's begin, and how a contract ends: its last day, and in cash."""

from datetime import date, datetime, time, timedelta
from functools import cache, lru_cache

from position_sync_dagster.domain.exchange_time import NEW_YORK, beginning_of, zone_of
from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.sync.exchange_days import day_of, exchange_of, time_zone_of

# New York was closed for a week in September 2001; others close for Lunar New Year, or a Golden
# Week.
LONGEST_CLOSED = timedelta(days=14)


def session_before(calendar: str, day: date) -> date:
    """Return the last trading day before a day.

    Raises:
        SettingsError: The calendar is not known.
    """
    sessions = exchange_of(calendar).trading_days(day - LONGEST_CLOSED, day - timedelta(days=1))
    return sessions[-1]


@cache
def session_of(calendar: str, day: date) -> date:
    """Return the trading day to which a day belongs: that day, or the next one that is one.

    Raises:
        SettingsError: The calendar is not known.
    """
    return exchange_of(calendar).trading_days(day, day + LONGEST_CLOSED)[0]


def closed_day_note(calendar: str, now: datetime, days: float) -> str | None:
    """Return that so many days later is no trading day, with those beside it; None: it is one.

    It is None too where nobody has said yet whether the exchange trades then.

    Raises:
        SettingsError: The calendar is not known.
    """
    today = day_of(calendar, now)
    day = day_of(calendar, now + timedelta(days=days))
    if day + LONGEST_CLOSED > exchange_of(calendar).known_until:
        return None

    following = session_of(calendar, day)
    if day in (today, following):
        return None

    sessions = [each for each in (session_before(calendar, day), following) if each >= today]
    beside = " and ".join(f"{(each - today).days} ({each:%a %d %b})" for each in sessions)
    return f"In {days:g} days is {day:%a %d %b %Y}, no trading day: take --days {beside}."


def day_began(calendar: str, now: datetime) -> datetime:
    """Return when today began at an exchange: the last midnight there (UTC).

    Raises:
        SettingsError: The calendar is not known.
    """
    return beginning_of(day_of(calendar, now), time_zone_of(calendar))


# When an option expires whose details name no time or no zone, in New York.
USUAL_LAST_TRADE = time(16)


@lru_cache(maxsize=4096)
def expiry_moment(
    day: date,
    clock: str | None = None,
    time_zone: str | None = None,
    *,
    usual: time = USUAL_LAST_TRADE,
) -> datetime:
    """Return when a contract can be traded last; thousands of options share a few moments.

    Args:
        day: The last day.
        clock: The time of its last trade, as the broker writes it ("15:00:00").
        time_zone: The zone of that time.
        usual: The time in New York that counts where one of the two is not known.

    >>> expiry_moment(date(2028, 12, 15), "15:00:00", "US/Central").isoformat()
    '2028-12-15T15:00:00-06:00'
    """
    zone = zone_of(time_zone)
    try:
        at = time.fromisoformat(clock or "")
    except ValueError:
        zone = None  # without a time its zone says nothing: the usual one counts in New York
    return datetime.combine(day, usual if zone is None else at, zone or NEW_YORK)


def last_day(details: ContractDetails) -> date | None:
    """Return the last trading day; of a contract that is named by its month alone, its expiry."""
    return details.last_trade_date or details.expires_on


def settles_in_cash(details: ContractDetails | None) -> bool:
    """Return whether an option is known to be settled in cash, as all options on an index."""
    return details is not None and details.under_sec_type == "IND"


def is_settled_at_the_open(details: ContractDetails) -> bool:
    """Return whether the settlement is known to follow the last trading day."""
    last = details.last_trade_date
    return details.expires_on is not None and last is not None and details.expires_on > last
