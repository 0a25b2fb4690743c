"""The fields of a Flex statement: how the broker writes numbers, days, times and types."""

import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, NamedTuple, get_args, get_type_hints

from position_sync_dagster.dagster_files import document
from position_sync_dagster.domain import instrument
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.exchange_time import NEW_YORK, in_zone, zone_of
from position_sync_dagster.errors import UnreadableSourceError, shown


class StatementError(UnreadableSourceError):
    """A statement cannot be read; the message names its file."""

    page = "docs/do/statements.md"


class ForeignStatementError(StatementError):
    """A statement is of an account that the lake does not hold."""


# The earliest day of a statement: the broker's first customers traded later.
FIRST_DAY = date(1990, 1, 1)

# The texts that the broker writes if it has no value. Source of N/A: ibflex, parser.py.
UNKNOWN_TEXTS = ("", "-", "--", "N/A")

# The times of a statement are New York's, whatever the account's country, unless they name a zone.
#
# Source: IB, "Flex Queries", times are Eastern.
STATEMENT_ZONE = NEW_YORK

# The types of statements that a gateway names otherwise: options with the margin of a future, and
# contracts for difference on a currency.
SEC_TYPES = {"FSFOP": "FOP", "FSOPT": "OPT", "FXCFD": "CFD"}

# A comma groups thousands only before a decimal point: 2,500 may be two and a half.
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+|\d{1,3}(?:,\d{3})+\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def _number(text: str) -> float:
    if _NUMBER.fullmatch(text) is None:
        raise ValueError(text)

    number = float(text.replace(",", ""))
    if not math.isfinite(number):  # 1e400 is infinite to a computer, and no amount
        raise ValueError(text)
    return number


def _conid(text: str) -> int | None:
    # More digits are out of range, and Python refuses to parse thousands of them.
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        return None
    conid = int(text)
    return conid if conid in instrument.CONIDS else None


def _day(text: str) -> date:
    day = date.fromisoformat(text)
    if not FIRST_DAY <= day <= utc_now().date():  # New York's day is never later
        raise ValueError(text)
    return day


def _moment(text: str) -> datetime:
    """Return a time such as 20260305;153000 in UTC; a day alone is its midnight in New York."""
    words = re.sub("[;,T]", " ", text, count=1).split(maxsplit=2)
    day, clock, named_zone = [*words, "", ""][:3]
    digits = clock.replace(":", "") or "000000"
    zone = zone_of(named_zone) if named_zone else STATEMENT_ZONE
    if zone is None or len(digits) != 6:  # strptime takes 1530 for 15:03
        raise ValueError(text)

    at = datetime.strptime(digits, "%H%M%S").time()  # noqa: DTZ007 - its zone is below
    return in_zone(datetime.combine(_day(day), at), zone, named_zone).astimezone(UTC)


def security_type(text: str) -> str:
    """Return the type of a statement as a gateway names it, in whatever letters it is written.

    >>> security_type("Stk"), security_type("FSFOP")
    ('STK', 'FOP')
    """
    written = text.upper()
    return SEC_TYPES.get(written, written)


_DAYS = "In the Flex query choose the date format yyyyMMdd or yyyy-MM-dd"


class FieldKind(NamedTuple):
    """A kind of value: how it is read, its name in a message, and what to choose in the query.

    `parse` raises ValueError for a text that is of another kind, or returns None if that is no
    error.
    """

    parse: Callable[[str], Any]
    noun: str
    remedy: str | None = None


TEXT = FieldKind(str, "text")
NUMBER = FieldKind(
    _number,
    "number",
    "In the Client Portal choose numbers with a decimal point and without separators",
)
CONID = FieldKind(_conid, "conid")
DAY = FieldKind(_day, "day from 1990 to today", _DAYS)
TIME_FIELD = FieldKind(
    _moment,
    "time from 1990 to today, in a zone that is known",
    f"{_DAYS}, the time format HHmmss or HH:mm:ss, and ; as their separator",
)
SEC_TYPE = FieldKind(security_type, "type")

_RIGHT = FieldKind(lambda text: instrument.RIGHTS.get(text.upper()), "right")
_OF_TYPE = {
    str: TEXT, float: NUMBER, int: CONID, date: DAY, datetime: TIME_FIELD, instrument.Right: _RIGHT,
}  # fmt: skip
EXPIRY = FieldKind(date.fromisoformat, "day", _DAYS)
_OF_COLUMN = {"sec_type": SEC_TYPE, "expiry": EXPIRY}


class FieldColumn(NamedTuple):
    """How a column of a record is read: from the first of these fields that is there."""

    kind: FieldKind
    is_required: bool
    fields: Sequence[str]


def columns_of(record: type, **fields: str) -> dict[str, FieldColumn]:
    """Return how columns of a record are read; their types say of what kind they are.

    A column that cannot be None is required.
    """
    types = get_type_hints(record)
    columns = {}
    for name, written in fields.items():
        kind, *none = get_args(types[name]) or (types[name],)
        field_kind = _OF_COLUMN.get(name, _OF_TYPE[kind])
        columns[name] = FieldColumn(field_kind, not none, written.split())
    return columns


def flaw(fault: str, remedy: str | None = None) -> StatementError:
    """Return the error of what a statement lacks or spoils, with what to choose in the query."""
    if remedy is None:
        remedy = f"In the Flex query choose the fields that {document(StatementError.page)} lists"
    return StatementError(fault, remedy=f"{remedy}, and download it again.")


def with_values(attributes: Mapping[str, str]) -> dict[str, str]:
    """Return the attributes that have a value."""
    return {name: text for name, text in attributes.items() if text.strip() not in UNKNOWN_TEXTS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """The attributes of one element that have a value.

    Attributes:
        file, element: For messages.
        stated_at: When the statement was made; None: it does not say.
        inherited: The attributes that are the statement's: the row does not have them.
    """

    attributes: Mapping[str, str]
    file: str
    element: str
    stated_at: datetime | None = None
    inherited: Collection[str] = ()

    def __str__(self) -> str:
        """Return what names the row in a message."""
        naming = ("conid", "symbol", "tradeID", "transactionID", "dateTime")
        named = [
            f"{name} {shown(self.attributes[name])}" for name in naming if name in self.attributes
        ]

        row = f"{self.file}: {self.element}"
        if named:
            return f"{row} ({', '.join(named)})"
        return row

    def get(self, kind: FieldKind, *names: str, is_required: bool = False) -> Any:
        """Return the value of the first of these fields that is there; None if none is.

        Raises:
            StatementError: It is of another kind, or it is required and not there.
        """
        value = None
        for name in names:
            if name in self.attributes:
                value = self._parsed(kind, name)
                break

        if value is None and is_required:
            raise self.error(f"has no valid {names[-1]}", kind.remedy)
        return value

    def required(self, kind: FieldKind, *names: str) -> Any:
        """Return the value of the first of these fields that is there; see `get`."""
        return self.get(kind, *names, is_required=True)

    def row(
        self, columns: Mapping[str, FieldColumn], *, all_required: bool = False
    ) -> dict[str, Any]:
        """Return the values of columns; see `get`."""
        return {
            name: self.get(kind, *fields, is_required=is_required or all_required)
            for name, (kind, is_required, fields) in columns.items()
        }

    def as_json(self) -> str:
        """Return the attributes as JSON in the order of names.

        The day of the statement is among them only if the row names none: the same booking has the
        same text in every statement that names it.
        """
        written = dict(self.attributes)
        if not self.has_report_date:
            written.pop("reportDate", None)
        return json.dumps(written, sort_keys=True, ensure_ascii=False)

    @property
    def has_report_date(self) -> bool:
        """Return whether `reportDate` is of the row: that of the statement, where it has no day."""
        is_dated = not self.attributes.keys().isdisjoint({"dateTime", "tradeDate", "date"})
        return "reportDate" in self.attributes and not (is_dated and "reportDate" in self.inherited)

    def error(self, fault: str, remedy: str | None = None) -> StatementError:
        """Return the error of this row."""
        return flaw(f"{self} {fault}.", remedy)

    def _parsed(self, kind: FieldKind, name: str) -> Any:
        text = self.attributes[name].strip()
        try:
            return kind.parse(text)
        except ValueError:
            fault = f"has {name}={shown(text)}, which is no {kind.noun}"
            raise self.error(fault, kind.remedy) from None
