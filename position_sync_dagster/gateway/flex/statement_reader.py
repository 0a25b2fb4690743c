"""Read a Flex query result: XML, as the broker sends it, to statements.

Source of the names: IB, "Flex Queries" reference, sections Open Positions, Trades and Net Asset
Value in Base.
"""

import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any
from xml.etree import ElementTree as Xml

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.records.statement import Statement
from position_sync_dagster.errors import StatementError, shown
from position_sync_dagster.gateway.flex.fields import FIRST_DAY, Fields
from position_sync_dagster.gateway.flex.records import cash_of, execution_of, position_of
from position_sync_dagster.gateway.flex.responses import refusal

HEAD_BYTES = 4096
"""How much of a file holds the start of its first statement."""

LARGEST_STATEMENT = 512 * 2**20
"""Bytes; a day of 20,000 holdings takes some 15 MB."""

_FROM_DATE = re.compile(r"<FlexStatement\s[^>]*?\bfromDate=[\"']([0-9-]{8,10})[\"']")

_RECORDS: dict[str, tuple[str, Callable[[Fields], Any]]] = {
    "OpenPosition": ("positions", position_of),
    "Trade": ("executions", execution_of),
    "EquitySummaryByReportDateInBase": ("cash", cash_of),
}


def read_statements(data: bytes, file: str, *, clock: Clock = utc_now) -> list[Statement]:
    """Return the statements of a Flex query result, one for each account and period.

    The elements are read as they are parsed, so that a year needs no tree in memory. A document
    type is refused: a statement has none, and entities are declared there.

    Args:
        file: The name of the file, for messages and for the rows.
        clock: What a statement says has happened is not after tomorrow.

    Raises:
        StatementError: It is no Flex statement, it is cut off, or a field cannot be read.
        FlexServiceError: It is an answer of the service instead of a statement: an error, or
            "in progress".
    """
    target = _parsed(data, file, clock().date())
    if target.root == "FlexStatementResponse":
        raise refusal(target.texts, file)
    if target.root != "FlexQueryResponse":
        raise StatementError(
            f"{file} is no Flex statement: its root is {shown(target.root)}.",
            remedy="Put the XML of an activity Flex query into the folder, and nothing else.",
        )
    return target.statements


def first_day(head: bytes, *, clock: Clock = utc_now) -> date | None:
    """Return the first day of the first statement; None where a statement names no such day.

    Args:
        head: The first bytes of a file, `HEAD_BYTES` or more: callers ask at every load.
    """
    found = _FROM_DATE.search(head.decode("utf-8", "replace"))
    try:
        day = None if found is None else date.fromisoformat(found[1])
    except ValueError:
        return None
    latest = clock().date() + timedelta(days=1)
    return day if day is not None and FIRST_DAY <= day <= latest else None


def answer_of(data: bytes) -> dict[str, str]:
    """Return the texts of an answer of the service by name; empty for anything else."""
    try:
        target = _parsed(data, "the answer", utc_now().date())
    except StatementError:
        return {}
    return target.texts if target.root == "FlexStatementResponse" else {}


def _parsed(data: bytes, file: str, today: date) -> "_Target":
    target = _Target(file, today)
    # What the standard parser would load from outside it does not load, and expat bounds the
    # growth of entities; what declares them is refused all the same.
    parser = Xml.XMLParser(target=target)  # noqa: S314
    try:
        parser.feed(data)
        parser.close()
    except Xml.ParseError as error:
        raise StatementError(
            f"{file} is not complete XML: {error}.",
            remedy="Download it again and replace the file.",
        ) from None
    except (LookupError, ValueError) as error:  # an encoding that Python or the parser lacks
        raise StatementError(
            f"{file} cannot be decoded: {str(error)[:80]}.",
            remedy="Download it again and replace the file: the broker writes UTF-8.",
        ) from None
    return target


class _Target:
    """Receives the elements of one file."""

    def __init__(self, file: str, today: date) -> None:
        self.file = file
        self.today = today
        self.root = ""
        self.texts: dict[str, str] = {}
        self.statements: list[Statement] = []
        self._open: Fields | None = None
        self._sections: set[str] = set()
        self._found: dict[str, list[Any]] = {}
        self._text: list[str] = []

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise StatementError(
            f"{self.file} declares a document type, which no statement does.",
            remedy="Remove the file: it was not made by the broker.",
        )

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._text.clear()
        if not self.root:
            self.root = tag
        if tag == "FlexStatement":
            self._open = self._fields(tag, attributes)
            self._sections = set()
            self._found = {"positions": [], "executions": [], "cash": []}
        elif self._open is not None:
            self._sections.add(tag)
            if tag in _RECORDS:
                kind, parse = _RECORDS[tag]
                inherited = {"accountId": self._open.text("accountId") or ""}
                fields = self._fields(tag, {**inherited, **attributes})
                fields.statement_days(self._open)
                record = parse(fields)
                if record is not None:
                    self._found[kind].append(record)

    def data(self, text: str) -> None:
        if self.root == "FlexStatementResponse":
            self._text.append(text)

    def end(self, tag: str) -> None:
        if self.root == "FlexStatementResponse":
            self.texts[tag] = "".join(self._text).strip()
        if tag == "FlexStatement" and self._open is not None:
            self.statements.append(self._statement(self._open))
            self._open = None

    def close(self) -> None:
        """Do nothing: everything was taken as it came."""

    def _fields(self, tag: str, attributes: dict[str, str]) -> Fields:
        return Fields(attributes, file=self.file, element=tag, today=self.today)

    def _statement(self, fields: Fields) -> Statement:
        first, last = fields.day("fromDate"), fields.day("toDate")
        return Statement(
            file=self.file,
            account=fields.required("accountId"),
            first=first,
            last=last,
            generated_at=_generated(fields),
            states_positions="OpenPositions" in self._sections,
            positions=tuple(self._found["positions"]),
            executions=tuple(self._found["executions"]),
            cash=tuple(self._found["cash"]),
        )


def _generated(fields: Fields) -> datetime | None:
    return fields.moment("whenGenerated") if fields.text("whenGenerated") else None
