"""The attributes of one element of a statement, as values."""

import math
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from position_sync_dagster.domain.instrument import CONIDS
from position_sync_dagster.errors import StatementError, shown

FIRST_DAY = date(1990, 1, 1)
"""No statement is of a day before: the broker's first customers traded later."""

LONGEST_TEXT = 1000
"""Characters of an attribute. The longest that the broker writes, a description, has some 100."""

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
        today: The present day in UTC. What happened is from 1990 to tomorrow.
    """

    def __init__(
        self, attributes: Mapping[str, str], *, file: str, element: str, today: date
    ) -> None:
        self.file = file
        self.element = element
        self._latest = today + timedelta(days=1)
        self._attributes = attributes
        self._last: Fields | None = None

    def statement_days(self, statement: "Fields") -> None:
        """Take the last day of the statement for a record without a day of its own."""
        self._last = statement

    def text(self, name: str) -> str | None:
        """Return a text, None where it is absent, empty or a dash.

        Raises:
            StatementError: It is longer than any that the broker writes.
        """
        found = self._attributes.get(name, "").strip()
        if len(found) > LONGEST_TEXT:
            raise self._error(f"has a {name} of {len(found):,} characters")
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
            raise self._error(f"has {name}={shown(found)}, which is no number") from None
        return value if math.isfinite(value) else None

    def required_number(self, name: str) -> float:
        """Return a number that must be there.

        Raises:
            StatementError: It is absent, no number or not finite.
        """
        found = self.number(name)
        if found is None:
            raise self._error(f"has {name}={shown(self.required(name))}, which is no number")
        return found

    def conid(self) -> int:
        """Return the conid, which must be there.

        Raises:
            StatementError: It is absent or no conid.
        """
        found = self.required("conid")
        # A number of so many digits is out of range, and Python refuses to read thousands of them.
        if found.isascii() and found.isdigit() and len(found) <= 10 and int(found) in CONIDS:
            return int(found)
        raise self._error(f"has conid={shown(found)}, which is no conid")

    def expiry(self) -> date | None:
        """Return the day on which the contract expires, None where it names none.

        Raises:
            StatementError: It is there and no day.
        """
        found = self.text("expiry")
        return None if found is None else self._date("expiry", found)

    def day(self, name: str) -> date:
        """Return a past day that must be there, written as yyyyMMdd or yyyy-MM-dd.

        Raises:
            StatementError: It is absent, written otherwise, before 1990 or after tomorrow.
        """
        return self._past(name, self._date(name, self.required(name)))

    def own_day(self, name: str) -> date:
        """Return the record's day, or the last day of its statement where it names none."""
        found = self.text(name)
        if found is None and self._last is not None:
            return self._last.day("toDate")
        return self.day(name)

    def moment(self, name: str) -> datetime:
        """Return a time that must be there, in UTC; a day alone is its midnight in New York.

        Raises:
            StatementError: It is absent, written in another way than 20260305;153000, before 1990
                or after tomorrow.
        """
        text = self.required(name)
        for separator in (";", ",", "T", " "):
            text = text.replace(separator, " ")
        day, *rest = text.split() or [""]
        digits = rest[0].replace(":", "") if rest else "000000"
        try:
            clock = datetime.strptime(digits, "%H%M%S").time()  # noqa: DTZ007 - New York's below
        except ValueError:
            raise self._error(f"has {name}={shown(text)}, which is no time") from None
        found = self._past(name, self._date(name, day))
        return datetime.combine(found, clock, STATEMENT_ZONE).astimezone(UTC)

    def _date(self, name: str, text: str) -> date:
        try:
            return date.fromisoformat(text)
        except ValueError:
            raise self._error(f"has {name}={shown(text)}, which is no day") from None

    def _past(self, name: str, day: date) -> date:
        if not FIRST_DAY <= day <= self._latest:
            raise self._error(f"has {name}={day}, which is before 1990 or after tomorrow")
        return day

    def _error(self, what: str) -> StatementError:
        return StatementError(f"{self.file}: {self.element} {what}.", remedy=_REMEDY)
