"""Flex statements of the broker: downloaded from its web service, and read from XML.

Source of the names: IB, "Flex Queries" reference, sections Open Positions, Trades, Option
Exercises, Assignments and Expirations, Corporate Actions, Transfers, Cash Transactions and Net
Asset Value in Base. The parser of the package ibflex is not used: it holds a whole file as a tree,
and refuses one for a code that it does not know, such as GEA.
"""

import json
import logging
import math
import re
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from hashlib import sha256
from http.client import HTTPException
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.parse import quote_plus, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener
from xml.etree import ElementTree as Xml

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from position_sync_dagster.domain import statement
from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.instrument import (
    CONIDS,
    MULTIPLIED_TYPES,
    NEW_YORK,
    RIGHTS,
    zone_of,
)
from position_sync_dagster.errors import FlexServiceError, SettingsError, StatementError, shown
from position_sync_dagster.gateway_settings import FLEX_URL, SECURITY_TYPES, address_flaw

# The earliest day of a statement: the broker's first customers traded later.
FIRST_DAY = date(1990, 1, 1)

# The texts that the broker writes if it has no value. Source of N/A: ibflex, parser.py.
UNKNOWN = ("", "-", "--", "N/A")

# Maximum characters of an attribute. The longest that the broker writes has about 100.
LONGEST_TEXT = 1000

# The times of a statement are New York's, whatever the account's country, unless they name a zone.
#
# Source: IB, "Flex Queries", times are Eastern.
STATEMENT_ZONE = NEW_YORK

# The types of statements that a gateway names otherwise: options with the margin of a future.
SEC_TYPES = {"FSFOP": "FOP", "FSOPT": "OPT"}

# A comma groups thousands only before a decimal point: 2,500 may be two and a half.
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+|\d{1,3}(?:,\d{3})+\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)

_FIELDS = "In the Flex query choose the fields that docs/operations.md lists"
# What to change, by what cannot be read.
_TO_CHOOSE = {
    "number": "In the Client Portal choose numbers with a decimal point and without separators",
    "day": "In the Flex query choose the date format yyyyMMdd or yyyy-MM-dd",
    "time": "In the Flex query choose the date format yyyyMMdd or yyyy-MM-dd and the time format "
    "HHmmss or HH:mm:ss",
    "id": "In the Flex query choose the fields IB Execution ID, Trade ID and Transaction ID",
    "level": "In the Flex query choose Summary for Open Positions and Execution for Trades",
    "model": "In the Flex query leave the field Model of Open Positions out: a part in a model has "
    "a row of its own",
}


def _flaw(what: str, kind: str = "") -> StatementError:
    remedy = f"{_TO_CHOOSE.get(kind, _FIELDS)}, and download it again."
    return StatementError(what, remedy=remedy)


Found = TypeVar("Found")


class Fields:
    """The attributes of one element; an empty attribute is unknown.

    Args:
        file, element: For messages.
        today: The present day in UTC. Dates before 1990 or after tomorrow are refused.
    """

    def __init__(
        self, attributes: Mapping[str, str], *, file: str, element: str, today: date
    ) -> None:
        self.file = file
        self.element = element
        self._latest = today + timedelta(days=1)
        self._attributes = attributes

    def __str__(self) -> str:
        """Return what names the row in a message."""
        names = ("conid", "symbol", "tradeID", "transactionID", "dateTime")
        found = (f"{name} {shown(self._attributes[name])}" for name in names if self.has(name))
        known = ", ".join(found)
        return f"{self.file}: {self.element}{f' ({known})' if known else ''}"

    def has(self, *names: str) -> bool:
        """Return whether one of these attributes has a value."""
        return any(self._attributes.get(name, "").strip() not in UNKNOWN for name in names)

    def first_of(self, *names: str) -> str | None:
        """Return the first of these attributes that has a value, however long it is."""
        return next((self._attributes[name] for name in names if self.has(name)), None)

    def text(self, name: str) -> str | None:
        """Return a text, None where it is absent, empty or a dash.

        Raises:
            StatementError: It is longer than any that the broker writes.
        """
        found = self._attributes.get(name, "").strip()
        if len(found) > LONGEST_TEXT:
            raise self.error(f"has a {name} of {len(found):,} characters")
        return None if found in UNKNOWN else found

    def required(self, name: str) -> str:
        """Return a text that must be there.

        Raises:
            StatementError: It is absent.
        """
        found = self.text(name)
        if found is None:
            raise self.error(f"has no {name}")
        return found

    def number(self, name: str) -> float | None:
        """Return a number, None where it is absent or not finite.

        Raises:
            StatementError: It is there, but not a number with a decimal point.
        """
        found = self.text(name)
        if found is None or found.lower().lstrip("+-") in ("nan", "inf", "infinity"):
            return None
        if _NUMBER.fullmatch(found) is None:
            raise self._no(name, found, "number")
        value = float(found.replace(",", ""))
        return value if math.isfinite(value) else None

    def required_number(self, name: str) -> float:
        """Return a number that must be there.

        Raises:
            StatementError: It is absent, no number or not finite.
        """
        return self._known(name, self.number(name), "number")

    def conid(self) -> int:
        """Return the conid, which must be there.

        Raises:
            StatementError: It is absent or no conid.
        """
        return self._known("conid", self.conid_of("conid"), "conid")

    def conid_of(self, name: str) -> int | None:
        """Return a conid that may be absent, None also where it is no conid."""
        found = self._attributes.get(name, "").strip()
        # More digits are out of range, and Python refuses to parse thousands of them.
        is_number = found.isascii() and found.isdigit() and len(found) <= 10
        return int(found) if is_number and int(found) in CONIDS else None

    def any_of(self, *names: str) -> str | None:
        """Return the first of these texts that is there."""
        return next((found for name in names if (found := self.text(name)) is not None), None)

    def sec_type(self, among: Collection[str] = ()) -> str:
        """Return the type of the contract as a gateway names it.

        Args:
            among: The types that can be read; any by default.

        Raises:
            StatementError: It is absent, or none of these.
        """
        found = self.required("assetCategory")
        kind = SEC_TYPES.get(found, found)
        if among and kind not in among:
            raise self.error(f"has assetCategory={shown(found)}, which is not known")
        return kind

    def as_json(self) -> str:
        """Return the attributes that have a value, as JSON in the order of names."""
        kept = {name: text for name, text in self._attributes.items() if text.strip()}
        return json.dumps(kept, sort_keys=True, ensure_ascii=False)

    def expiry(self) -> date | None:
        """Return the day on which the contract expires, None where it names none.

        Raises:
            StatementError: It is there, but not a day.
        """
        found = self.text("expiry")
        return None if found is None else self._date("expiry", found)

    def day(self, name: str) -> date:
        """Return a past day that must be there, written as yyyyMMdd or yyyy-MM-dd.

        Raises:
            StatementError: It is absent, written otherwise, before 1990 or after tomorrow.
        """
        return self._past(name, self._date(name, self.required(name)))

    def moment(self, name: str, clock: str = "") -> datetime:
        """Return a time that must be there, in UTC; a day alone is its midnight in New York.

        Args:
            name: The field of the time, or of its day.
            clock: The field of its time of day, if that is apart.

        Raises:
            StatementError: It is absent, written in another way than 20260305;153000, of a zone
                that is not known, before 1990 or after tomorrow.
        """
        text = " ".join(filter(None, (self.required(name), self.text(clock))))
        day, *rest = re.sub("[;,T]", " ", text, count=1).split(maxsplit=2) or [""]
        digits = rest[0].replace(":", "") if rest else "000000"
        zone = zone_of(rest[1]) if rest[1:] else STATEMENT_ZONE
        if zone is None:
            raise self.error(f"has {name}={shown(text)}, whose time zone is not known", "time")
        try:
            if len(digits) != 6:  # strptime takes 1530 for 15:03
                raise ValueError
            at = datetime.strptime(digits, "%H%M%S").time()  # noqa: DTZ007 - its zone is below
        except ValueError:
            raise self._no(name, text, "time") from None
        found = self._past(name, self._date(name, day))
        return datetime.combine(found, at, zone).astimezone(UTC)

    def error(self, what: str, kind: str = "") -> StatementError:
        """Return the error of this row."""
        return _flaw(f"{self} {what}.", kind)

    def _date(self, name: str, text: str) -> date:
        try:
            return date.fromisoformat(text)
        except ValueError:
            raise self._no(name, text, "day") from None

    def _known(self, name: str, found: Found | None, kind: str) -> Found:
        if found is None:
            raise self._no(name, self.required(name), kind)
        return found

    def _no(self, name: str, text: str, kind: str) -> StatementError:
        return self.error(f"has {name}={shown(text)}, which is no {kind}", kind)

    def _past(self, name: str, day: date) -> date:
        if not FIRST_DAY <= day <= self._latest:
            raise self.error(f"has {name}={day}, which is before 1990 or after tomorrow", "day")
        return day


def position_of(fields: Fields) -> statement.StatementPosition:
    """Return an OpenPosition.

    Raises:
        StatementError: A field is missing or cannot be read.
    """
    quantity = fields.required_number("position")
    cost = fields.number("costBasisMoney")
    sec_type = fields.sec_type(among=SECURITY_TYPES)
    multiplier = fields.number("multiplier") or 1.0
    if sec_type in MULTIPLIED_TYPES:
        multiplier = fields.required_number("multiplier")
    price = fields.number("costBasisPrice")
    average = price * multiplier if price is not None else None
    if cost is not None and quantity:
        average = abs(cost / quantity)
    return statement.StatementPosition(
        account=fields.required("accountId"),
        day=fields.day("reportDate"),
        conid=fields.conid(),
        symbol=fields.text("underlyingSymbol") or fields.required("symbol"),
        sec_type=sec_type,
        right=RIGHTS.get((fields.text("putCall") or "").upper()),
        strike=fields.number("strike"),
        expiry=fields.expiry(),
        multiplier=multiplier,
        currency=fields.required("currency"),
        local_symbol=fields.text("symbol"),
        position=quantity,
        market_price=fields.number("markPrice"),
        market_value=fields.number("positionValue"),
        average_cost=average if average is not None and math.isfinite(average) else None,
        unrealized_pnl=fields.number("fifoPnlUnrealized"),
    )


def execution_of(fields: Fields) -> statement.Execution:
    """Return a Trade.

    An exercise, an assignment and an expiry have no `ibExecID`: their `tradeID` or
    `transactionID` names them.

    Raises:
        StatementError: A field is missing or cannot be read.
    """
    quantity = fields.required_number("quantity")
    commission = fields.number("ibCommission")
    when = ("dateTime",) if fields.text("dateTime") else ("tradeDate", "tradeTime")
    own_id = fields.any_of(*_TRADE_IDS)
    if own_id is None:
        raise fields.error("has no ibExecID, tradeID or transactionID", "id")
    return statement.Execution(
        execution_id=own_id,
        account=fields.required("accountId"),
        conid=fields.conid(),
        symbol=fields.text("underlyingSymbol") or fields.required("symbol"),
        sec_type=fields.sec_type(),
        time=fields.moment(*when),
        side=statement.Side.SELL if quantity < 0 else statement.Side.BUY,
        quantity=abs(quantity),
        price=fields.number("tradePrice"),
        commission=None if commission is None else 0.0 - commission,
        commission_currency=fields.text("ibCommissionCurrency"),
        realized_pnl=fields.number("fifoPnlRealized"),
        currency=fields.required("currency"),
        source=statement.FLEX,
        statement=fields.file,
        codes=fields.any_of("notes", "code"),
        open_close=fields.text("openCloseIndicator"),
        transaction_type=fields.text("transactionType"),
        order_id=fields.text("ibOrderID"),
        brokerage_order_id=fields.text("brokerageOrderID"),
        trade_id=fields.any_of("tradeID", "transactionID"),
        corrects=fields.any_of("origTradeID", "origTransactionID"),
        fx_rate_to_base=fields.number("fxRateToBase"),
        underlying_conid=fields.conid_of("underlyingConid"),
        attributes=fields.as_json(),
    )


_TRADE_IDS = ("ibExecID", "tradeID", "transactionID")

# The elements that are events.
_KINDS = {
    "OptionEAE": statement.EventKind.OPTION_EVENT,
    "CorporateAction": statement.EventKind.CORPORATE_ACTION,
    "Transfer": statement.EventKind.TRANSFER,
    "CashTransaction": statement.EventKind.CASH,
}


def event_of(fields: Fields) -> statement.StatementEvent:
    """Return an event.

    Raises:
        StatementError: A field is missing or cannot be read.
    """
    dates = ("dateTime", "date", "reportDate")
    at = fields.moment(next((name for name in dates if fields.text(name)), "reportDate"))
    attributes = fields.as_json()
    own_id = fields.any_of("transactionID", "tradeID", "actionID")
    return statement.StatementEvent(
        event_id=f"{fields.element}:{own_id or sha256(attributes.encode()).hexdigest()[:32]}",
        kind=_KINDS[fields.element],
        account=fields.required("accountId"),
        day=at.astimezone(STATEMENT_ZONE).date(),
        time=at if at.astimezone(STATEMENT_ZONE).time() != clock_time() else None,
        type=fields.any_of("transactionType", "type"),
        conid=fields.conid_of("conid"),
        symbol=fields.any_of("underlyingSymbol", "symbol"),
        sec_type=fields.sec_type() if fields.has("assetCategory") else None,
        currency=fields.text("currency"),
        quantity=fields.number("quantity"),
        price=_first(fields, "tradePrice", "transferPrice"),
        amount=_first(fields, "amount", "proceeds", "cashTransfer"),
        realized_pnl=_first(fields, "fifoPnlRealized", "realizedPnl", "pnl"),
        codes=fields.any_of("code", "notes"),
        direction=fields.text("direction"),
        fx_rate_to_base=fields.number("fxRateToBase"),
        description=fields.any_of("actionDescription", "description"),
        attributes=attributes,
        source=statement.FLEX,
        statement=fields.file,
    )


def _first(fields: Fields, *names: str) -> float | None:
    return next((found for name in names if (found := fields.number(name)) is not None), None)


def cash_of(fields: Fields) -> statement.StatementCash:
    """Return net liquidation and cash of an account in its base currency.

    Raises:
        StatementError: A field is missing or cannot be read.
    """
    return statement.StatementCash(
        account=fields.required("accountId"),
        day=fields.day("reportDate"),
        currency=fields.text("currency"),
        net_liquidation=fields.number("total"),
        cash=fields.number("cash"),
    )


# The largest statement, in bytes; a day of 20,000 holdings takes some 15 MB.
LARGEST_STATEMENT = 512 * 2**20

# The number of bytes that are parsed at once.
CHUNK_BYTES = 2**20

_RECORDS: Mapping[str, tuple[str, Callable[[Fields], Any]]] = {
    "OpenPosition": ("positions", position_of),
    "Trade": ("executions", execution_of),
    "EquitySummaryByReportDateInBase": ("cash", cash_of),
} | dict.fromkeys(_KINDS, ("events", event_of))

# The attributes that only say where an element belongs: one with no others is a section.
_PLACE = {"accountId", "acctAlias", "model", "currency", "reportDate", "date", "levelOfDetail"}

# What a lot names and its summary does not. Source: ibflex, Types.py, OpenPosition.
_LOT = ("openDateTime", "holdingPeriodDateTime", "originatingOrderID", "originatingTransactionID")

# The levels of detail that are read; the others repeat them.
_LEVELS = {
    "positions": {"SUMMARY"},
    "executions": {"EXECUTION"},
    "cash": set[str](),
    "events": {"DETAIL", "TRANSFER", "TRANSACTION"},
}

# The elements that state positions and executions, also in the levels of detail that are not read:
# beside them, none at all does not mean that the account is flat or has not traded.
_IN_DETAIL = {
    "positions": {"OpenPosition"},
    "executions": {"Trade", "Order", "SymbolSummary", "AssetSummary", "Lot"},
}

# The elements of an activity statement, at least one of which it has.
_SECTIONS = {
    "OpenPositions", "Trades", "EquitySummaryInBase", "CorporateActions", "Transfers",
    "CashTransactions", *_RECORDS, *_IN_DETAIL["executions"],
}  # fmt: skip


def read_statements(data: bytes, file: str, *, clock: Clock = utc_now) -> list[statement.Statement]:
    """Return the statements of a Flex query result, one for each account and period.

    The elements are read as they are parsed, so that a year needs no tree in memory. A row that
    cannot be read is left out and named with the statement. A document type is refused: a statement
    has none, and entities are declared there.

    Args:
        file: The name of the file, for messages and for the rows.
        clock: The current time; dates after tomorrow are refused.

    Raises:
        StatementError: It is no activity statement, it is cut off, or its days cannot be read.
        FlexServiceError: It is an answer of the service instead of a statement: an error, or
            "in progress".
    """
    target = _parsed(data, file, clock().date())
    if target.root == "FlexStatementResponse":
        raise refusal(target.texts, file)
    if target.root == "FlexQueryResponse" and not target.statements:
        raise StatementError(
            f"{file} has no statement of an account.",
            remedy="Choose at least one account in the Flex query.",
        )
    if target.root != "FlexQueryResponse":
        raise StatementError(
            f"{file} is no Flex statement: its root is {shown(target.root)}.",
            remedy="Put the XML of an activity Flex query into the folder, and nothing else.",
        )
    return target.statements


def answer_of(data: bytes) -> dict[str, str]:
    """Return the texts of an answer of the service by name; empty for anything else."""
    try:
        target = _parsed(data, "the answer", utc_now().date())
    except StatementError:
        return {}
    return target.texts if target.root == "FlexStatementResponse" else {}


def _parsed(data: bytes, file: str, today: date) -> "_Target":
    target = _Target(file, today)
    # The standard parser loads no external entities, and expat bounds the growth of others;
    # their declarations are refused all the same.
    parser = Xml.XMLParser(target=target)  # noqa: S314
    try:
        for start in range(0, len(data), CHUNK_BYTES):  # a copy of the whole would double it
            parser.feed(data[start : start + CHUNK_BYTES])
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A row, and its record or why there is none.

    Attributes:
        of_all: Whether it names no account, as a sum over several does.
        is_sum: Whether that, or an execution without an id, makes it the sum of others.
        is_lot: Whether it is a part of a holding.
    """

    fields: Fields
    conid: int | None
    of_all: bool
    is_sum: bool
    is_lot: bool
    record: Any = None
    flaw: StatementError | None = None

    @property
    def order(self) -> str | None:
        """The id of the order of a trade."""
        return self.fields.first_of("ibOrderID", "brokerageOrderID")


class _Target:
    """Receives the elements of one file."""

    def __init__(self, file: str, today: date) -> None:
        self.file = file
        self.today = today
        self.root = ""
        self.texts: dict[str, str] = {}
        self.statements: list[statement.Statement] = []
        self._open: Fields | None = None
        self._inherited: dict[str, str] = {}
        self._sections: set[str] = set()
        self._found: defaultdict[str, list[_Row]] = defaultdict(list)
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
            account, last = attributes.get("accountId", ""), attributes.get("toDate", "")
            self._inherited = {"accountId": account, "reportDate": last}
            self._sections = set()
            self._found = defaultdict(list)
        elif self._open is not None:
            own = {name: text for name, text in attributes.items() if text.strip() not in UNKNOWN}
            if tag not in _RECORDS or own.keys() - _PLACE:
                self._sections.add(tag)
            if tag in _RECORDS and own.keys() - _PLACE:
                self._row(tag, attributes, own)

    def data(self, text: str) -> None:
        if self.root == "FlexStatementResponse":
            self._text.append(text)

    def end(self, tag: str) -> None:
        if self.root == "FlexStatementResponse":
            self.texts[tag] = "".join(self._text).strip()
        if tag == "FlexStatement" and self._open is not None:
            self.statements.append(self._statement(self._open))
            self._open = None

    def _fields(self, tag: str, attributes: dict[str, str]) -> Fields:
        return Fields(attributes, file=self.file, element=tag, today=self.today)

    def _row(self, tag: str, attributes: Mapping[str, str], own: dict[str, str]) -> None:
        """Read a row. Where it names no account or day, they are the statement's."""
        kind, parse = _RECORDS[tag]
        fields = self._fields(tag, {**self._inherited, **own})
        level = own.get("levelOfDetail")
        lots = kind == "positions" and (level == "LOT" or (level is None and fields.has(*_LOT)))
        if level is not None and level not in _LEVELS[kind] and not lots:
            return
        of_all = attributes.get("accountId", "").strip() in ("-", "--")
        no_id = kind == "executions" and level is None and not fields.has(*_TRADE_IDS)
        row = _Row(
            fields=fields,
            conid=fields.conid_of("conid"),
            of_all=of_all,
            is_sum=of_all or no_id,
            is_lot=lots,
        )
        try:
            row = replace(row, record=parse(fields))
        except StatementError as error:
            row = replace(row, flaw=error)
        self._found[kind].append(row)

    def _statement(self, fields: Fields) -> statement.Statement:
        first, last = fields.day("fromDate"), fields.day("toDate")
        made = fields.moment("whenGenerated") if fields.has("whenGenerated") else None
        account = fields.required("accountId")
        if not self._sections & _SECTIONS:
            listed = ", ".join(sorted(self._sections)[:5]) or "nothing"
            raise StatementError(
                f"{self.file} is no activity statement: it has {shown(listed)}, and none of Open "
                "Positions, Trades and the other sections that are read.",
                remedy="Put the XML of an activity Flex query into the folder, and nothing else.",
            )
        rows = {kind: _without_sums(kind, found) for kind, found in self._found.items()}
        positions, flaws = _holdings(rows.get("positions", []))
        no_trades = [one.flaw for one in rows.get("executions", []) if one.flaw]
        for kind, tags in _IN_DETAIL.items():
            if not self._found[kind] and (found := tags & self._sections):
                listed = ", ".join(sorted(found))
                flaw = _flaw(f"{self.file}: {account} has no {kind}, but {listed}.", "level")
                (flaws if kind == "positions" else no_trades).append(flaw)
        events, of_events = _records(rows.get("events", []))
        cash, of_cash = _records(rows.get("cash", []))
        executions, _ = _records(rows.get("executions", []))
        every = [*flaws, *no_trades, *(flaw for _, flaw in (*of_events, *of_cash))]
        is_idle = not no_trades and all(tag == "CashTransaction" for tag, _ in of_events)
        return statement.Statement(
            file=self.file,
            account=account,
            first=first,
            last=last,
            generated_at=made,
            states_positions="OpenPositions" in self._sections and not flaws,
            states_trades="Trades" in self._sections and is_idle,
            positions=tuple(positions),
            executions=tuple(replace(one, stated_at=made) for one in executions),
            cash=tuple(cash),
            events=tuple(replace(one, stated_at=made) for one in events),
            lacks_positions=bool(flaws),
            left_out=tuple((one.what, one.remedy) for one in every),
        )


def _without_sums(kind: str, rows: Collection[_Row]) -> list[_Row]:
    """Return rows without the sums of others.

    A sum over accounts names none. A sum of executions has no id where its level is not written.
    """
    if kind == "events":
        return [one for one in rows if not one.of_all]
    details = [one for one in rows if not one.is_sum]
    conids = {one.conid for one in details}
    totals: defaultdict[tuple[int | None, str | None], float] = defaultdict(float)
    for one in details:
        if kind == "executions" and one.flaw is None:
            for order in {None, one.order}:
                totals[one.conid, order] += one.record.change

    def is_repeated(one: _Row) -> bool:
        if one.of_all or kind != "executions":
            return one.conid in conids
        with suppress(StatementError):
            total = totals.get((one.conid, one.order))
            return total is not None and one.fields.number("quantity") == total
        return False

    return [one for one in rows if not (one.is_sum and is_repeated(one))]


def _records(rows: Iterable[_Row]) -> tuple[list[Any], list[tuple[str, StatementError]]]:
    """Return the records of rows, and the elements and errors of those that cannot be read."""
    listed = list(rows)
    flaws = [(one.fields.element, one.flaw) for one in listed if one.flaw is not None]
    return [one.record for one in listed if one.flaw is None], flaws


def _holdings(rows: Iterable[_Row]) -> tuple[list[Any], list[StatementError]]:
    """Return one position for each holding and day; its lots, which it sums up, are left out."""
    found: list[Any] = []
    flaws: list[StatementError] = []
    groups: defaultdict[tuple[str, date, int], list[_Row]] = defaultdict(list)
    for one in rows:
        if one.flaw is not None:
            flaws.append(one.flaw)
        else:
            groups[one.record.account, one.record.day, one.record.conid].append(one)
    for (account, day, conid), of_one in groups.items():
        sums = [one for one in of_one if not one.is_lot]
        if len(sums) == 1:
            found.append(sums[0].record)
        elif sums:
            what = f"{sums[0].fields}: {account} has conid {conid} twice on {day}."
            flaws.append(_flaw(what, "model"))
        else:
            flaws.append(of_one[0].fields.error("is a lot, and its summary is not there", "level"))
    return found, flaws


IN_PROGRESS = "1019"
TOO_MANY_REQUESTS = "1018"

# Codes after which the same request may succeed.
#
# Source: IB, "Flex Web Service", error codes.
_LATER = {
    "1001", "1003", "1004", "1005", "1006", "1007", "1008", "1009", TOO_MANY_REQUESTS, IN_PROGRESS,
    "1021",
}  # fmt: skip

_SETTINGS = "(POSITION_SYNC_FLEX_TOKEN, POSITION_SYNC_FLEX_QUERY_ID)"
_REMEDIES = {
    "1010": "Use an activity Flex query of the present kind: legacy queries are not served.",
    "1011": "Activate the Flex Web Service in the Client Portal (Settings, Reporting).",
    "1012": f"Make a new token in the Client Portal and set it {_SETTINGS}.",
    "1013": "Allow this machine's address for the token in the Client Portal, or remove the limit.",
    "1014": f"Correct the query id {_SETTINGS}; the Client Portal shows it beside the query.",
    "1015": f"Correct the token {_SETTINGS}; the Client Portal shows it.",
    "1016": "Use token and query of the same login.",
    "1017": "Request the statement again: the reference is not known any more.",
    TOO_MANY_REQUESTS: "Wait ten minutes: one request a second and ten a minute are allowed.",
    IN_PROGRESS: "Wait a few minutes and download it again; replace the file, if it is one.",
    "1020": f"Correct token and query id {_SETTINGS}.",
}


class _LaterError(FlexServiceError):
    """An answer after which the same request may succeed."""


def refusal(texts: Mapping[str, str], what: str) -> FlexServiceError:
    """Return the error of an answer that is no statement.

    Args:
        texts: The elements of the answer, by name.
        what: The file or the query, for the message.
    """
    code = texts.get("ErrorCode") or texts.get("code") or "no code"
    said = (texts.get("ErrorMessage") or "no statement and no error")[:200].rstrip(".")
    kind = _LaterError if code in _LATER else FlexServiceError
    return kind(
        f"{what}: the Flex service answered {code}: {said}.",
        remedy=_REMEDIES.get(code, "See the error codes of IB's Flex Web Service."),
    )


logger = logging.getLogger(__name__)

# The service refuses requests without one.
USER_AGENT = "Python/3"

# The shortest token that is searched for in a statement: a shorter text may be there by chance.
# The broker's tokens have some 25 characters.
LEAST_TOKEN = 12

FIRST_WAIT_S = 2.0
LONGEST_WAIT_S = 30.0


# The domains of IB, to whose hosts a token may be sent.
_BROKER = ("interactivebrokers.com", "interactivebrokers.co.uk", "ibkr.com")


def _host(url: str) -> str:
    with suppress(ValueError):
        return urlsplit(url).hostname or ""
    return ""


def is_of_broker(url: str) -> bool:
    """Return whether an address is one of IB's, over https.

    >>> is_of_broker("https://gdcdyn.interactivebrokers.com/Universal/servlet/GetStatement")
    True
    >>> is_of_broker("https://interactivebrokers.com.example/GetStatement")
    False
    """
    if not url.startswith("https://") or "?" in url or address_flaw(url) is not None:
        return False
    host, port = _host(url), urlsplit(url).port
    return port in (None, 443) and any(host == one or host.endswith(f".{one}") for one in _BROKER)


class _NoRedirects(HTTPRedirectHandler):
    """Makes a redirect an error: the request has the token in its address."""

    def redirect_request(self, *_: object) -> None:
        return None


_OPENER = build_opener(_NoRedirects)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlexService:
    """The service that makes statements; neither its messages nor its logs contain the token.

    Args:
        url: Its address; https, or http on this machine.
        timeout_s: Longest wait for one answer.
        patience_s: Longest wait for a statement that is being made, and for a busy service.
        sleep: Waits between two requests.

    Example:
        data = FlexService().download(token, "123456")
    """

    url: str = field(default=FLEX_URL, repr=False)
    timeout_s: float = 30.0
    patience_s: float = 300.0
    sleep: Callable[[float], None] = time.sleep

    def download(self, token: str, query_id: str) -> bytes:
        """Return the XML of a statement that is complete.

        Raises:
            FlexServiceError: The service refused, or was not ready in time; it names the query,
                the code and the remedy.
            SettingsError: The address would send the token in the clear, or holds a password.
        """
        flaw = address_flaw(self.url)
        if flaw is not None:
            raise SettingsError(
                f"The address of the Flex service {flaw}.", remedy="Use an https address."
            )
        asked = answer_of(
            self._until_ready(f"{self.url.rstrip('/')}/SendRequest", token, query_id, query_id)
        )
        reference = asked.get("ReferenceCode", "")
        if not reference:
            raise refusal(_without(token, asked), f"query {query_id}")
        logger.info("the Flex service makes the statement of query %s", query_id)
        named, url = asked.get("Url", ""), f"{self.url.rstrip('/')}/GetStatement"
        if follows := is_of_broker(named):
            url = named
        data = self._until_ready(url, token, reference, query_id)
        if named and not follows and b"<FlexQueryResponse" not in data[:4096]:
            raise FlexServiceError(
                f"query {query_id}: the Flex service names {shown(_host(named))} "
                "for the statement, which is not IB's over https and is not asked; "
                f"{urlsplit(url).hostname} has no statement.",
                remedy="See whether a proxy answers for the service, and try again later.",
            )
        if len(token) >= LEAST_TOKEN and token.encode() in data:
            raise FlexServiceError(
                f"query {query_id}: the statement has the token in it, and is not stored.",
                remedy="Make a new token, and see whether a proxy answers for the service.",
            )
        return data

    def _ask(self, url: str, token: str, subject: str, query_id: str) -> bytes:
        address = f"{url}?" + urlencode({"t": token, "q": subject, "v": 3})
        request = Request(address, headers={"User-Agent": USER_AGENT})  # noqa: S310 - checked above
        try:
            with _OPENER.open(request, timeout=self.timeout_s) as answer:
                data: bytes = answer.read(LARGEST_STATEMENT)
        except HTTPError as error:
            error.close()
            why = "a redirect, which is refused" if 300 <= error.code < 400 else "HTTP"
            later = error.code >= 500 or error.code == 429
            raise self._unreachable(query_id, f"{why} {error.code}", later=later) from None
        except (HTTPException, OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            why = _without(token, {"": str(reason)})[""]
            raise self._unreachable(query_id, why, later=True) from None
        texts = _without(token, answer_of(data))
        if texts and texts.get("Status") != "Success":
            raise refusal(texts, f"query {query_id}")
        return data

    def _until_ready(self, *request: str) -> bytes:
        attempts = Retrying(
            retry=retry_if_exception_type(_LaterError),
            stop=stop_after_delay(self.patience_s),
            wait=wait_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S),
            sleep=self.sleep,
            reraise=True,
        )
        return attempts(self._ask, *request)

    def _unreachable(self, query_id: str, why: str, *, later: bool) -> FlexServiceError:
        host = urlsplit(self.url).hostname
        return (_LaterError if later else FlexServiceError)(
            f"query {query_id}: the Flex service at {host} gave no answer: {why}.",
            remedy="Try again later; check the network.",
        )


def _without(token: str, texts: Mapping[str, str]) -> dict[str, str]:
    """Return texts of the service without the token, which it may repeat."""
    hidden = {name: text.replace(token, "***") for name, text in texts.items()}
    return {name: text.replace(quote_plus(token), "***") for name, text in hidden.items()}
