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
from collections.abc import Callable, Mapping
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
from position_sync_dagster.domain.instrument import CONIDS, MULTIPLIED_TYPES, NEW_YORK, RIGHTS
from position_sync_dagster.errors import FlexServiceError, SettingsError, StatementError, shown
from position_sync_dagster.gateway_settings import FLEX_URL, address_flaw

FIRST_DAY = date(1990, 1, 1)
"""The earliest day of a statement: the broker's first customers traded later."""

UNKNOWN = ("", "-", "--", "N/A")
"""The texts that the broker writes if it has no value. Source of N/A: ibflex, parser.py."""

LONGEST_TEXT = 1000
"""Maximum characters of an attribute. The longest that the broker writes has about 100."""

STATEMENT_ZONE = NEW_YORK
"""The times of a statement are New York's, whatever the account's country.

Source: IB, "Flex Queries", times are Eastern.
"""

EASTERN: tuple[list[str], ...] = ([], ["EST"], ["EDT"])
"""What may follow a time: the formats with *TimeZone* name it."""

_REMEDY = (
    "In the Flex query choose the date format yyyyMMdd or yyyy-MM-dd, the time format HHmmss or "
    "HH:mm:ss and the fields that docs/operations.md lists, and download it again."
)


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

    def text(self, name: str) -> str | None:
        """Return a text, None where it is absent, empty or a dash.

        Raises:
            StatementError: It is longer than any that the broker writes.
        """
        found = self._attributes.get(name, "").strip()
        if len(found) > LONGEST_TEXT:
            raise self._error(f"has a {name} of {len(found):,} characters")
        return None if found in UNKNOWN else found

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
            StatementError: It is there, but not a number.
        """
        found = self.text(name)
        if found is None:
            return None
        try:
            value = float(found.replace(",", ""))
        except ValueError:
            raise self._no(name, found, "number") from None
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
        found = self.text(name) or ""
        # More digits are out of range, and Python refuses to parse thousands of them.
        is_number = found.isascii() and found.isdigit() and len(found) <= 10
        return int(found) if is_number and int(found) in CONIDS else None

    def any_of(self, *names: str) -> str | None:
        """Return the first of these texts that is there."""
        return next((found for name in names if (found := self.text(name)) is not None), None)

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
            StatementError: It is absent, written in another way than 20260305;153000, of another
                zone, before 1990 or after tomorrow.
        """
        text = " ".join(filter(None, (self.required(name), self.text(clock))))
        day, *rest = re.sub("[;,T]", " ", text, count=1).split() or [""]
        digits = rest[0].replace(":", "") if rest else "000000"
        try:
            if len(digits) != 6 or rest[1:] not in EASTERN:  # strptime takes 1530 for 15:03
                raise ValueError
            at = datetime.strptime(digits, "%H%M%S").time()  # noqa: DTZ007 - New York's below
        except ValueError:
            raise self._no(name, text, "time of New York") from None
        found = self._past(name, self._date(name, day))
        return datetime.combine(found, at, STATEMENT_ZONE).astimezone(UTC)

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
        return self._error(f"has {name}={shown(text)}, which is no {kind}")

    def _past(self, name: str, day: date) -> date:
        if not FIRST_DAY <= day <= self._latest:
            raise self._error(f"has {name}={day}, which is before 1990 or after tomorrow")
        return day

    def _error(self, what: str) -> StatementError:
        return StatementError(f"{self.file}: {self.element} {what}.", remedy=_REMEDY)


def position_of(fields: Fields) -> statement.StatementPosition | None:
    """Return an OpenPosition; None for a lot, which its summary includes.

    Raises:
        StatementError: A field is missing or cannot be read.
    """
    if fields.text("levelOfDetail") not in (None, "SUMMARY"):
        return None
    quantity = fields.required_number("position")
    cost = fields.number("costBasisMoney")
    sec_type = fields.required("assetCategory")
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


def execution_of(fields: Fields) -> statement.Execution | None:
    """Return a Trade; None for a sum over several, which is no execution.

    An exercise, an assignment and an expiry have no `ibExecID`: their `tradeID` or
    `transactionID` names them.

    Raises:
        StatementError: A field is missing or cannot be read.
    """
    if fields.text("levelOfDetail") not in (None, "EXECUTION"):
        return None
    quantity = fields.required_number("quantity")
    commission = fields.number("ibCommission")
    when = ("dateTime",) if fields.text("dateTime") else ("tradeDate", "tradeTime")
    own_id = fields.text("ibExecID") or fields.text("tradeID")
    return statement.Execution(
        execution_id=own_id or fields.required("transactionID"),
        account=fields.required("accountId"),
        conid=fields.conid(),
        symbol=fields.text("underlyingSymbol") or fields.required("symbol"),
        sec_type=fields.required("assetCategory"),
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


_KINDS = {
    "OptionEAE": statement.EventKind.OPTION_EVENT,
    "CorporateAction": statement.EventKind.CORPORATE_ACTION,
    "Transfer": statement.EventKind.TRANSFER,
    "CashTransaction": statement.EventKind.CASH,
}
"""The elements that are events."""


def event_of(fields: Fields) -> statement.StatementEvent | None:
    """Return an event; None for a sum over several.

    Raises:
        StatementError: A field is missing or cannot be read.
    """
    if fields.text("levelOfDetail") == "SUMMARY":
        return None
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
        sec_type=fields.text("assetCategory"),
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


HEAD_BYTES = 4096
"""The number of bytes at the start of a file that hold the start of its first statement."""

LARGEST_STATEMENT = 512 * 2**20
"""The largest statement, in bytes; a day of 20,000 holdings takes some 15 MB."""

CHUNK_BYTES = 2**20
"""The number of bytes that are parsed at once."""

_FROM_DATE = re.compile(r"<FlexStatement\s[^>]*?\bfromDate=[\"']([0-9-]{8,10})[\"']")

_RECORDS: dict[str, tuple[str, Callable[[Fields], Any]]] = {
    "OpenPosition": ("positions", position_of),
    "Trade": ("executions", execution_of),
    "EquitySummaryByReportDateInBase": ("cash", cash_of),
} | dict.fromkeys(_KINDS, ("events", event_of))


_IN_DETAIL = {
    "positions": {"OpenPosition"},
    "executions": {"Trade", "Order", "SymbolSummary", "AssetSummary", "Lot"},
}
"""The elements that state positions and executions, also in the levels of detail that are not read:
beside them, none at all does not mean that the account is flat or has not traded."""


def read_statements(data: bytes, file: str, *, clock: Clock = utc_now) -> list[statement.Statement]:
    """Return the statements of a Flex query result, one for each account and period.

    The elements are read as they are parsed, so that a year needs no tree in memory. A document
    type is refused: a statement has none, and entities are declared there.

    Args:
        file: The name of the file, for messages and for the rows.
        clock: The current time; dates after tomorrow are refused.

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
        self._found: defaultdict[str, list[Any]] = defaultdict(list)
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
            self._sections, self._found = set(), defaultdict(list)
        elif self._open is not None:
            self._sections.add(tag)
            if tag in _RECORDS:
                kind, parse = _RECORDS[tag]
                # Where a record names no account or day, they are the statement's.
                own = {name: text for name, text in attributes.items() if text not in UNKNOWN}
                record = parse(self._fields(tag, {**self._inherited, **own}))
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

    def _fields(self, tag: str, attributes: dict[str, str]) -> Fields:
        return Fields(attributes, file=self.file, element=tag, today=self.today)

    def _statement(self, fields: Fields) -> statement.Statement:
        first, last = fields.day("fromDate"), fields.day("toDate")
        made = fields.moment("whenGenerated") if fields.text("whenGenerated") else None
        for kind, tags in _IN_DETAIL.items():
            if not self._found[kind] and (found := tags & self._sections):
                raise StatementError(
                    f"{self.file}: {fields.element} has no {kind}, but {', '.join(sorted(found))}.",
                    remedy="In the Flex query choose Summary for Open Positions and Execution for "
                    "Trades, and download it again.",
                )
        named: set[tuple[str, date, int]] = set()
        for one in self._found["positions"]:
            if (key := (one.account, one.day, one.conid)) in named:
                raise StatementError(
                    f"{self.file}: {one.account} has conid {one.conid} twice on {one.day}.",
                    remedy="In the Flex query leave the field Model of Open Positions out: a part "
                    "in a model has a row of its own. Then download it again.",
                )
            named.add(key)
        return statement.Statement(
            file=self.file,
            account=fields.required("accountId"),
            first=first,
            last=last,
            generated_at=made,
            states_positions="OpenPositions" in self._sections,
            states_trades="Trades" in self._sections,
            positions=tuple(self._found["positions"]),
            executions=tuple(replace(one, stated_at=made) for one in self._found["executions"]),
            cash=tuple(self._found["cash"]),
            events=tuple(replace(one, stated_at=made) for one in self._found["events"]),
        )


IN_PROGRESS = "1019"
TOO_MANY_REQUESTS = "1018"

_LATER = {
    "1001", "1003", "1004", "1005", "1006", "1007", "1008", "1009", TOO_MANY_REQUESTS, IN_PROGRESS,
    "1021",
}  # fmt: skip
"""Codes after which the same request may succeed.

Source: IB, "Flex Web Service", error codes.
"""

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

USER_AGENT = "Python/3"
"""The service refuses requests without one."""

LEAST_TOKEN = 12
"""The shortest token that is searched for in a statement: a shorter text may be there by chance.
The broker's tokens have some 25 characters."""

FIRST_WAIT_S = 2.0
LONGEST_WAIT_S = 30.0


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
        asked = answer_of(self._until_ready("SendRequest", token, query_id, query_id))
        reference = asked.get("ReferenceCode", "")
        if not reference:
            raise refusal(_without(token, asked), f"query {query_id}")
        logger.info("the Flex service makes the statement of query %s", query_id)
        data = self._until_ready("GetStatement", token, reference, query_id)
        if len(token) >= LEAST_TOKEN and token.encode() in data:
            raise FlexServiceError(
                f"query {query_id}: the statement has the token in it, and is not stored.",
                remedy="Make a new token, and see whether a proxy answers for the service.",
            )
        return data

    def _ask(self, step: str, token: str, subject: str, query_id: str) -> bytes:
        address = f"{self.url.rstrip('/')}/{step}?" + urlencode({"t": token, "q": subject, "v": 3})
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
