"""Flex statements of the broker: downloaded from its web service, and read from XML.

Source of the names: IB, "Flex Queries" reference, sections Open Positions, Trades, Option
Exercises, Assignments and Expirations, Corporate Actions, Transfers, Cash Transactions and Net
Asset Value in Base. The parser of the package ibflex is not used: it holds a whole file as a tree,
and refuses one for a code that it does not know, such as GEA.
"""

import json
import logging
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from hashlib import sha256
from http.client import HTTPException
from io import BytesIO
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote_plus, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener
from xml.etree import ElementTree as Xml

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from position_sync_dagster.domain import statement
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.instrument import (
    CONIDS,
    MULTIPLIED_TYPES,
    NEW_YORK,
    RIGHTS,
    zone_of,
)
from position_sync_dagster.errors import FlexServiceError, SettingsError, StatementError, shown
from position_sync_dagster.settings import FLEX_URL, SECURITY_TYPES, address_flaw

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


def _known(attributes: Mapping[str, str]) -> dict[str, str]:
    """Return the attributes that have a value."""
    return {name: text for name, text in attributes.items() if text.strip() not in UNKNOWN}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """The attributes of one element that have a value.

    Attributes:
        file, element: For messages.
    """

    attributes: Mapping[str, str]
    file: str
    element: str

    def __str__(self) -> str:
        """Return what names the row in a message."""
        names = ("conid", "symbol", "tradeID", "transactionID", "dateTime")
        found = (f"{n} {shown(self.attributes[n])}" for n in names if n in self.attributes)
        known = ", ".join(found)
        return f"{self.file}: {self.element}{f' ({known})' if known else ''}"

    def text(self, *names: str) -> str | None:
        """Return the first of these texts that is there.

        Raises:
            StatementError: It is longer than any that the broker writes.
        """
        name = next((name for name in names if name in self.attributes), None)
        if name is None:
            return None
        found = self.attributes[name].strip()
        if len(found) > LONGEST_TEXT:
            raise self.error(f"has a {name} of {len(found):,} characters")
        return found

    def required(self, *names: str) -> str:
        """Return the first of these texts that is there.

        Raises:
            StatementError: None is.
        """
        found = self.text(*names)
        if found is None:
            raise self.error(f"has no {names[-1]}")
        return found

    def number(self, *names: str) -> float | None:
        """Return the first of these numbers that is there.

        Raises:
            StatementError: It is not a number with a decimal point.
        """
        name = next((name for name in names if name in self.attributes), None)
        if name is None:
            return None
        if _NUMBER.fullmatch(found := self.required(name)) is None:
            raise self._no(name, "number")
        return float(found.replace(",", ""))

    def required_number(self, name: str) -> float:
        """Return a number that must be there.

        Raises:
            StatementError: It is absent or no number.
        """
        found = self.number(name)
        if found is None:
            raise self._no(name, "number")
        return found

    def conid(self) -> int:
        """Return the conid, which must be there.

        Raises:
            StatementError: It is absent or no conid.
        """
        found = self.conid_of("conid")
        if found is None:
            raise self._no("conid", "conid")
        return found

    def conid_of(self, name: str) -> int | None:
        """Return a conid that may be absent, None also where it is no conid."""
        found = self.attributes.get(name, "").strip()
        # More digits are out of range, and Python refuses to parse thousands of them.
        is_number = found.isascii() and found.isdigit() and len(found) <= 10
        return int(found) if is_number and int(found) in CONIDS else None

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
        """Return the attributes as JSON in the order of names."""
        return json.dumps(self.attributes, sort_keys=True, ensure_ascii=False)

    def expiry(self) -> date | None:
        """Return the day on which the contract expires, None where it names none.

        Raises:
            StatementError: It is there, but not a day.
        """
        return self._date("expiry", found) if (found := self.text("expiry")) else None

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
            raise self._no(name, "time") from None
        found = self._past(name, self._date(name, day))
        return datetime.combine(found, at, zone).astimezone(UTC)

    def error(self, what: str, kind: str = "") -> StatementError:
        """Return the error of this row."""
        return _flaw(f"{self} {what}.", kind)

    def _date(self, name: str, text: str) -> date:
        try:
            return date.fromisoformat(text)
        except ValueError:
            raise self._no(name, "day") from None

    def _no(self, name: str, kind: str) -> StatementError:
        """Return the error of a text that is of another kind; raise one where it is absent."""
        return self.error(f"has {name}={shown(self.required(name))}, which is no {kind}", kind)

    def _past(self, name: str, day: date) -> date:
        if not FIRST_DAY <= day <= utc_now().date() + timedelta(days=1):
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
        symbol=fields.required("underlyingSymbol", "symbol"),
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
        average_cost=average,
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
    return statement.Execution(
        execution_id=fields.text("ibExecID", "tradeID", "transactionID") or "",
        account=fields.required("accountId"),
        conid=fields.conid(),
        symbol=fields.required("underlyingSymbol", "symbol"),
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
        codes=fields.text("notes", "code"),
        open_close=fields.text("openCloseIndicator"),
        transaction_type=fields.text("transactionType"),
        order_id=fields.text("ibOrderID"),
        brokerage_order_id=fields.text("brokerageOrderID"),
        trade_id=fields.text("tradeID", "transactionID"),
        corrects=fields.text("origTradeID", "origTransactionID"),
        fx_rate_to_base=fields.number("fxRateToBase"),
        underlying_conid=fields.conid_of("underlyingConid"),
        attributes=fields.as_json(),
    )


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
    own_id = fields.text("transactionID", "tradeID", "actionID")
    return statement.StatementEvent(
        event_id=f"{fields.element}:{own_id or sha256(attributes.encode()).hexdigest()[:32]}",
        kind=_KINDS[fields.element],
        account=fields.required("accountId"),
        day=at.astimezone(STATEMENT_ZONE).date(),
        time=at if at.astimezone(STATEMENT_ZONE).time() != clock_time() else None,
        type=fields.text("transactionType", "type"),
        conid=fields.conid_of("conid"),
        symbol=fields.text("underlyingSymbol", "symbol"),
        sec_type=fields.sec_type() if fields.text("assetCategory") else None,
        currency=fields.text("currency"),
        quantity=fields.number("quantity"),
        price=fields.number("tradePrice", "transferPrice"),
        amount=fields.number("amount", "proceeds", "cashTransfer"),
        realized_pnl=fields.number("fifoPnlRealized", "realizedPnl", "pnl"),
        codes=fields.text("code", "notes"),
        direction=fields.text("direction"),
        fx_rate_to_base=fields.number("fxRateToBase"),
        description=fields.text("actionDescription", "description"),
        attributes=attributes,
        source=statement.FLEX,
        statement=fields.file,
    )


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

_RECORDS: Mapping[str, tuple[str, Callable[[Fields], Any]]] = {
    "OpenPosition": ("positions", position_of),
    "Trade": ("executions", execution_of),
    "EquitySummaryByReportDateInBase": ("cash", cash_of),
} | dict.fromkeys(_KINDS, ("events", event_of))

# The attributes that only say where an element belongs: one with no others is a section.
_PLACE = {"accountId", "acctAlias", "model", "currency", "reportDate", "date", "levelOfDetail"}

# What a lot names and its summary does not. Source: ibflex, Types.py, OpenPosition.
_LOT = {"openDateTime", "holdingPeriodDateTime", "originatingOrderID", "originatingTransactionID"}

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

_ONE_FILE = "Put the XML of an activity Flex query into the folder, and nothing else."


class _Content:
    """The rows of one statement, as they are read.

    Args:
        fields: Those of the element around them.
    """

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        own = fields.attributes
        self._inherited = _known(
            {"accountId": own.get("accountId", ""), "reportDate": own.get("toDate", "")}
        )
        self._sections: set[str] = set()
        self._rows: defaultdict[str, list[tuple[Fields, Any]]] = defaultdict(list)
        self._flaws: defaultdict[str, list[StatementError]] = defaultdict(list)
        self._is_idle = True

    def add(self, tag: str, attributes: Mapping[str, str]) -> None:
        """Read an element. Where a row names no account or day, they are the statement's.

        A row that names a dash as its account is a sum over several.
        """
        own = _known(attributes)
        if tag in _RECORDS and not own.keys() - _PLACE:
            return
        self._sections.add(tag)
        if tag not in _RECORDS or attributes.get("accountId", "").strip() in ("-", "--"):
            return
        kind, parse = _RECORDS[tag]
        level = own.get("levelOfDetail")
        is_lot = level == "LOT" or (level is None and bool(own.keys() & _LOT))
        if kind == "positions" and is_lot:
            kind = "lots"
        elif level is not None and level not in _LEVELS[kind]:
            return
        fields = replace(self._fields, attributes=self._inherited | own, element=tag)
        try:
            self._rows[kind].append((fields, parse(fields)))
        except StatementError as error:
            self._flaws["positions" if kind == "lots" else kind].append(error)
            self._is_idle &= kind != "events" or tag == "CashTransaction"

    def stated(self) -> statement.Statement:
        """Return what was read.

        Raises:
            StatementError: It is no activity statement, or its days cannot be read.
        """
        fields = self._fields
        first, last = fields.day("fromDate"), fields.day("toDate")
        made = fields.moment("whenGenerated") if fields.text("whenGenerated") else None
        account = fields.required("accountId")
        if not self._sections & _SECTIONS:
            listed = ", ".join(sorted(self._sections)[:5]) or "nothing"
            raise StatementError(
                f"{fields.file} is no activity statement: it has {shown(listed)}, and none of Open "
                "Positions, Trades and the other sections that are read.",
                remedy=_ONE_FILE,
            )
        positions, executions = self._holdings(), self._executions()
        for kind, tags in _IN_DETAIL.items():
            unread = not self._rows[kind] and not self._flaws[kind]
            if unread and (found := tags & self._sections):
                listed = ", ".join(sorted(found))
                flaw = _flaw(f"{fields.file}: {account} has no {kind}, but {listed}.", "level")
                self._flaws[kind].append(flaw)
        lacks_positions, lacks_trades = (bool(self._flaws[kind]) for kind in _IN_DETAIL)
        every = (flaw for kind in _LEVELS for flaw in self._flaws[kind])
        return statement.Statement(
            file=fields.file,
            account=account,
            first=first,
            last=last,
            generated_at=made,
            states_positions="OpenPositions" in self._sections and not lacks_positions,
            states_trades="Trades" in self._sections and not lacks_trades and self._is_idle,
            positions=tuple(positions),
            executions=tuple(replace(one, stated_at=made) for one in executions),
            cash=tuple(one for _, one in self._rows["cash"]),
            events=tuple(replace(one, stated_at=made) for _, one in self._rows["events"]),
            lacks_positions=lacks_positions,
            left_out=tuple((one.what, one.remedy) for one in every),
        )

    def _holdings(self) -> list[statement.StatementPosition]:
        """Return one position for each holding and day, without the lots that it sums up."""
        groups: defaultdict[tuple[str, date, int], list[tuple[Fields, Any]]] = defaultdict(list)
        for fields, one in self._rows["positions"]:
            groups[one.account, one.day, one.conid].append((fields, one))
        lots = {(one.account, one.day, one.conid): fields for fields, one in self._rows["lots"]}
        self._flaws["positions"] += [
            _flaw(f"{found[0][0]}: {account} has conid {conid} twice on {day}.", "model")
            for (account, day, conid), found in groups.items()
            if len(found) > 1
        ] + [
            fields.error("is a lot, and its summary is not there", "level")
            for key, fields in lots.items()
            if key not in groups
        ]
        return [found[0][1] for found in groups.values() if len(found) == 1]

    def _executions(self) -> list[statement.Execution]:
        """Return the executions. A row without an id and a level may be the sum of others."""
        totals: Counter[tuple[int, str | None]] = Counter()
        found: list[statement.Execution] = []
        for _fields, one in self._rows["executions"]:
            if one.execution_id:
                found.append(one)
                for order in {None, one.order_id or one.brokerage_order_id}:
                    totals[one.conid, order] += one.change
        for fields, one in self._rows["executions"]:
            key = (one.conid, one.order_id or one.brokerage_order_id)
            is_sum = fields.text("levelOfDetail") is None and totals.get(key) == one.change
            if not one.execution_id and not is_sum:
                flaw = fields.error("has no ibExecID, tradeID or transactionID", "id")
                self._flaws["executions"].append(flaw)
        return found


def read_statements(data: bytes, file: str) -> list[statement.Statement]:
    """Return the statements of a Flex query result, one for each account and period.

    Each element is emptied after it was read, so that a year needs little memory. A row that
    cannot be read is left out and named with the statement. The standard parser loads no external
    entities, and expat bounds the growth of others.

    Args:
        file: The name of the file, for messages and for the rows.

    Raises:
        StatementError: It is no activity statement, it is cut off, or its days cannot be read.
        FlexServiceError: It is an answer of the service instead of a statement: an error, or
            "in progress".
    """
    if answer := answer_of(data):
        raise refusal(answer, file)
    found: list[statement.Statement] = []
    root, content = "", None
    try:
        for event, element in Xml.iterparse(BytesIO(data), ("start", "end")):  # noqa: S314
            tag, root = element.tag, root or element.tag
            if event == "end":
                if tag == "FlexStatement" and content is not None:
                    found.append(content.stated())
                    content = None
                element.clear()
            elif tag == "FlexStatement":
                fields = Fields(attributes=_known(element.attrib), file=file, element=tag)
                content = _Content(fields)
            elif content is not None:
                content.add(tag, element.attrib)
    except (Xml.ParseError, LookupError, ValueError) as error:  # an encoding that Python lacks too
        raise StatementError(
            f"{file} is not complete XML in UTF-8: {str(error)[:80]}.",
            remedy="Download it again and replace the file.",
        ) from None
    if root == "FlexQueryResponse" and not found:
        raise StatementError(
            f"{file} has no statement of an account.",
            remedy="Choose at least one account in the Flex query.",
        )
    if root != "FlexQueryResponse":
        raise StatementError(
            f"{file} is no Flex statement: its root is {shown(root)}.", remedy=_ONE_FILE
        )
    return found


def answer_of(data: bytes) -> dict[str, str]:
    """Return the texts of an answer of the service by name; empty for anything else."""
    if b"<FlexStatementResponse" in data[:4096]:
        with suppress(Xml.ParseError, LookupError, ValueError):
            return {one.tag: (one.text or "").strip() for one in Xml.fromstring(data)}  # noqa: S314
    return {}


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

FIRST_WAIT_S = 2.0
LONGEST_WAIT_S = 30.0


# The domains of IB, to whose hosts a token may be sent.
_BROKER = ("interactivebrokers.com", "interactivebrokers.co.uk", "ibkr.com")


def is_of_broker(url: str) -> bool:
    """Return whether an address is one of IB's, over https.

    >>> is_of_broker("https://gdcdyn.interactivebrokers.com/Universal/servlet/GetStatement")
    True
    >>> is_of_broker("https://interactivebrokers.com.example/GetStatement")
    False
    """
    if not url.startswith("https://") or "?" in url or address_flaw(url) is not None:
        return False
    host, port = urlsplit(url).hostname or "", urlsplit(url).port
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
        named = asked.get("Url", "")
        url = named if is_of_broker(named) else f"{self.url.rstrip('/')}/GetStatement"
        return self._until_ready(url, token, reference, query_id)

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
