"""The attributes of one element of a statement, as values."""

import math
from collections.abc import Mapping
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from position_sync_dagster.errors import StatementError

STATEMENT_ZONE = ZoneInfo("America/New_York")
"""The times of a statement are New York's, whatever the account's country.

Source: IB, "Flex Queries", times are Eastern.
"""

_REMEDY = (
    "In the Flex query choose the date format yyyyMMdd or yyyy-MM-dd, the time format HHmmss or "
    "HH:mm:ss and the fields that docs/operations.md lists, and download it again."
)


class Fields:
    """The attributes of one element; an empty attribute is unknown.

    Args:
        file, element: For messages.
    """

    def __init__(self, attributes: Mapping[str, str], *, file: str, element: str) -> None:
        self.file = file
        self.element = element
        self._attributes = attributes
        self._last: Fields | None = None

    def statement_days(self, statement: "Fields") -> None:
        """Take the last day of the statement for a record without a day of its own."""
        self._last = statement

    def text(self, name: str) -> str | None:
        """Return a text, None where it is absent, empty or a dash."""
        found = self._attributes.get(name, "").strip()
        return None if found in ("", "-", "--") else found

    def required(self, name: str) -> str:
        """Return a text that must be there.

        Raises:
            StatementError: It is absent.
        """
        found = self.text(name)
        if found is None:
            raise self._error(f"has no {name}")
        return found

    def number(self, name: str) -> float | None:
        """Return a number, None where it is absent or not finite.

        Raises:
            StatementError: It is there and no number.
        """
        found = self.text(name)
        if found is None:
            return None
        try:
            value = float(found.replace(",", ""))
        except ValueError:
            raise self._error(f"has {name}={found[:40]!r}, which is no number") from None
        return value if math.isfinite(value) else None

    def count(self, name: str) -> int:
        """Return a whole number that must be there.

        Raises:
            StatementError: It is absent or no whole number.
        """
        found = self.required(name)
        if not (found.isascii() and found.isdigit()):
            raise self._error(f"has {name}={found[:40]!r}, which is no whole number")
        return int(found)

    def day(self, name: str) -> date:
        """Return a day that must be there, written as yyyyMMdd or yyyy-MM-dd.

        Raises:
            StatementError: It is absent or written otherwise.
        """
        return self._date(name, self.required(name))

    def own_day(self, name: str) -> date:
        """Return the record's day, or the last day of its statement where it names none."""
        found = self.text(name)
        if found is None and self._last is not None:
            return self._last.day("toDate")
        return self.day(name)

    def moment(self, name: str) -> datetime:
        """Return a time that must be there, in UTC; a day alone is its midnight in New York.

        Raises:
            StatementError: It is absent, or written in another way than 20260305;153000.
        """
        text = self.required(name)
        for separator in (";", ",", "T", " "):
            text = text.replace(separator, " ")
        day, *rest = text.split()
        digits = rest[0].replace(":", "") if rest else "000000"
        try:
            clock = datetime.strptime(digits, "%H%M%S").time()  # noqa: DTZ007 - New York's below
        except ValueError:
            raise self._error(f"has {name}={text[:40]!r}, which is no time") from None
        return datetime.combine(self._date(name, day), clock, STATEMENT_ZONE).astimezone(UTC)

    def _date(self, name: str, text: str) -> date:
        try:
            return date.fromisoformat(text)
        except ValueError:
            raise self._error(f"has {name}={text[:40]!r}, which is no day") from None

    def _error(self, what: str) -> StatementError:
        return StatementError(f"{self.file}: {self.element} {what}.", remedy=_REMEDY)
