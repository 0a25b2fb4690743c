"""The days on which New York does not trade, or closes early, as `exchange_calendars` has them.

Run as `python -m tests.support.new_york_days > position_sync_dagster/sync/new_york.txt`.
"""

from datetime import date, timedelta

FIRST = date(1985, 1, 1)
LAST = date(2100, 12, 31)


def new_york_days() -> str:
    """Return the weekdays without a usual close, one a line: those that close early with when."""
    import exchange_calendars  # imports pandas

    calendar = exchange_calendars.get_calendar("XNYS", start=str(FIRST), end=str(LAST))
    closes = {day.date(): close.tz_convert(calendar.tz) for day, close in calendar.closes.items()}
    days = [FIRST + timedelta(days=number) for number in range((LAST - FIRST).days + 1)]
    lines = ""
    for day in days:
        if day.weekday() >= 5:
            continue

        if day not in closes:
            lines += f"{day}\n"
        elif closes[day].hour != 16:
            lines += f"{day} {closes[day]:%H:%M}\n"

    return lines


if __name__ == "__main__":
    print(new_york_days(), end="")
