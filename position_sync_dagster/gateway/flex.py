"""Flex statements of the broker: downloaded from its web service, and read from XML.

Source of the names: IB, "Flex Queries" reference, sections Open Positions, Trades, Option
Exercises, Assignments and Expirations, Corporate Actions, Transfers, Cash Transactions and Net
Asset Value in Base. The parser of the package ibflex is not used: it holds a whole file as a tree,
and refuses one for a code that it does not know, such as GEA.
"""

import json
import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from hashlib import sha256
from http.client import HTTPException
from io import BytesIO
from typing import Any, NamedTuple, get_args, get_type_hints
from urllib.error import HTTPError
from urllib.parse import quote_plus, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener
from xml.etree import ElementTree as Xml

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from position_sync_dagster.domain import closes, instrument
from position_sync_dagster.domain.account_values import AccountSource, AccountSummary
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.exchange_time import NEW_YORK, zone_of
from position_sync_dagster.domain.statement import BookedAmounts, StatedEquity
from position_sync_dagster.errors import FlexServiceError, StatementError, shown
from position_sync_dagster.settings import SECURITY_TYPES

# The earliest day of a statement: the broker's first customers traded later.
FIRST_DAY = date(1990, 1, 1)

# The texts that the broker writes if it has no value. Source of N/A: ibflex, parser.py.
UNKNOWN = ("", "-", "--", "N/A")

# The times of a statement are New York's, whatever the account's country, unless they name a zone.
#
# Source: IB, "Flex Queries", times are Eastern.
STATEMENT_ZONE = NEW_YORK

# The time in New York that the values of a statement's day get: a statement has only the date.
STATED_AT = clock_time(16, 0)

# The types of statements that a gateway names otherwise: options with the margin of a future.
SEC_TYPES = {"FSFOP": "FOP", "FSOPT": "OPT"}

# A comma groups thousands only before a decimal point: 2,500 may be two and a half.
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+|\d{1,3}(?:,\d{3})+\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def _number(text: str) -> float:
    if _NUMBER.fullmatch(text) is None:
        raise ValueError(text)
    number = float(text.replace(",", ""))
    if not math.isfinite(number):  # 1e400
        raise ValueError(text)
    return number


def _conid(text: str) -> int | None:
    # More digits are out of range, and Python refuses to parse thousands of them.
    is_number = text.isascii() and text.isdigit() and len(text) <= 10
    return int(text) if is_number and int(text) in instrument.CONIDS else None


def _day(text: str) -> date:
    found = date.fromisoformat(text)
    if not FIRST_DAY <= found <= utc_now().date() + timedelta(days=1):
        raise ValueError(text)
    return found


def _moment(text: str) -> datetime:
    """Return a time such as 20260305;153000 in UTC; a day alone is its midnight in New York."""
    day, clock, *zone = [*re.sub("[;,T]", " ", text, count=1).split(maxsplit=2), ""][:3]
    digits = (clock or "000000").replace(":", "")
    known = zone_of(zone[0]) if zone and zone[0] else STATEMENT_ZONE
    if known is None or len(digits) != 6:  # strptime takes 1530 for 15:03
        raise ValueError(text)
    at = datetime.strptime(digits, "%H%M%S").time()  # noqa: DTZ007 - its zone is below
    return datetime.combine(_day(day), at, known).astimezone(UTC)


_FIELDS = "In the Flex query choose the fields that docs/operations.md lists"
_DAYS = "In the Flex query choose the date format yyyyMMdd or yyyy-MM-dd"


class _Kind(NamedTuple):
    """A kind of value: how it is read, its name in a message, and what to choose in the query.

    `parse` raises ValueError for a text that is of another kind, or returns None if that is no
    error.
    """

    parse: Callable[[str], Any]
    noun: str
    remedy: str = _FIELDS


TEXT = _Kind(str, "text")
NUMBER = _Kind(
    _number,
    "number",
    "In the Client Portal choose numbers with a decimal point and without separators",
)
CONID = _Kind(_conid, "conid")
DAY = _Kind(_day, "day from 1990 to tomorrow", _DAYS)
TIME = _Kind(
    _moment,
    "time from 1990 to tomorrow, in a zone that is known",
    f"{_DAYS} and the time format HHmmss or HH:mm:ss",
)

_OF_TYPE = {str: TEXT, float: NUMBER, int: CONID, date: DAY, datetime: TIME} | {
    instrument.Right: _Kind(lambda text: instrument.RIGHTS.get(text.upper()), "right")
}
_OF_COLUMN = {
    "sec_type": _Kind(lambda text: SEC_TYPES.get(text, text), "type"),
    "expiry": _Kind(date.fromisoformat, "day", _DAYS),
}


# A column of a record: its kind, whether it is required, and the fields of which the first that is
# there has its value.
_Columns = dict[str, tuple[_Kind, bool, Sequence[str]]]


def _columns(record: type, **fields: str) -> _Columns:
    """Return how columns of a record are read; their types say of what kind they are.

    A column that cannot be None is required.
    """
    types, found = get_type_hints(record), _Columns()
    for name, written in fields.items():
        kind, *optional = get_args(types[name]) or (types[name],)
        found[name] = (_OF_COLUMN.get(name, _OF_TYPE[kind]), not optional, written.split())
    return found


def _flaw(what: str, remedy: str = _FIELDS) -> StatementError:
    return StatementError(what, remedy=f"{remedy}, and download it again.")


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

    def get(self, kind: _Kind, *names: str, is_required: bool = False) -> Any:
        """Return the value of the first of these fields that is there; None if none is.

        Raises:
            StatementError: It is of another kind, or it is required and not there.
        """
        found, name = None, next((one for one in names if one in self.attributes), None)
        if name is not None:
            text = self.attributes[name].strip()
            try:
                found = kind.parse(text)
            except ValueError:
                what = f"has {name}={shown(text)}, which is no {kind.noun}"
                raise self.error(what, kind.remedy) from None
        if found is None and is_required:
            raise self.error(f"has no valid {names[-1]}", kind.remedy)
        return found

    def required(self, kind: _Kind, *names: str) -> Any:
        """Return the value of the first of these fields that is there; see `get`."""
        return self.get(kind, *names, is_required=True)

    def row(self, columns: _Columns) -> dict[str, Any]:
        """Return the values of columns; see `get`."""
        return {
            name: self.get(kind, *fields, is_required=is_required)
            for name, (kind, is_required, fields) in columns.items()
        }

    def as_json(self) -> str:
        """Return the attributes as JSON in the order of names."""
        return json.dumps(self.attributes, sort_keys=True, ensure_ascii=False)

    def error(self, what: str, remedy: str = _FIELDS) -> StatementError:
        """Return the error of this row."""
        return _flaw(f"{self} {what}.", remedy)


_POSITION = _columns(
    closes.StatementPosition,
    account="accountId", day="reportDate", conid="conid", symbol="underlyingSymbol symbol",
    sec_type="assetCategory", right="putCall", strike="strike", expiry="expiry",
    currency="currency", local_symbol="symbol", position="position", market_price="markPrice",
    market_value="positionValue", unrealized_pnl="fifoPnlUnrealized",
)  # fmt: skip


def position_of(fields: Fields) -> closes.StatementPosition:
    """Return an OpenPosition.

    Raises:
        StatementError: A field is missing or cannot be read.
    """
    row = fields.row(_POSITION)
    if row["sec_type"] not in SECURITY_TYPES:
        raise fields.error(f"has assetCategory={shown(row['sec_type'])}, which is not known")
    multiplier = fields.get(NUMBER, "multiplier") or 1.0
    if row["sec_type"] in instrument.MULTIPLIED_TYPES:
        multiplier = fields.required(NUMBER, "multiplier")
    cost, price = (fields.get(NUMBER, name) for name in ("costBasisMoney", "costBasisPrice"))
    average = None if price is None else price * multiplier
    if cost is not None and row["position"]:
        average = abs(cost / row["position"])
    return closes.StatementPosition(**row, multiplier=multiplier, average_cost=average)


_EXECUTION = _columns(
    closes.Execution,
    account="accountId", conid="conid", symbol="underlyingSymbol symbol", sec_type="assetCategory",
    price="tradePrice", commission_currency="ibCommissionCurrency", realized_pnl="fifoPnlRealized",
    currency="currency", codes="notes code", open_close="openCloseIndicator",
    transaction_type="transactionType", order_id="ibOrderID",
    brokerage_order_id="brokerageOrderID", trade_id="tradeID transactionID",
    corrects="origTradeID origTransactionID", fx_rate_to_base="fxRateToBase",
    underlying_conid="underlyingConid",
)  # fmt: skip


def execution_of(fields: Fields) -> closes.Execution:
    """Return a Trade.

    An exercise, an assignment and an expiry have no `ibExecID`: their `tradeID` or
    `transactionID` names them.

    Raises:
        StatementError: A field is missing or cannot be read.
    """
    quantity = fields.required(NUMBER, "quantity")
    commission = fields.get(NUMBER, "ibCommission")
    parts = (fields.attributes.get(name, "") for name in ("tradeDate", "tradeTime"))
    dated = replace(fields, attributes={"dateTime": " ".join(parts), **fields.attributes})
    return closes.Execution(
        **fields.row(_EXECUTION),
        execution_id=fields.get(TEXT, "ibExecID", "tradeID", "transactionID") or "",
        time=dated.required(TIME, "dateTime"),
        side=closes.Side.SELL if quantity < 0 else closes.Side.BUY,
        quantity=abs(quantity),
        commission=None if commission is None else 0.0 - commission,
        source=closes.FLEX,
        statement=fields.file,
        attributes=fields.as_json(),
    )


_EVENT = _columns(
    closes.StatementEvent,
    account="accountId", type="transactionType type", conid="conid",
    symbol="underlyingSymbol symbol", sec_type="assetCategory", currency="currency",
    quantity="quantity", price="tradePrice transferPrice", amount="amount proceeds cashTransfer",
    realized_pnl="fifoPnlRealized realizedPnl pnl", codes="code notes", direction="direction",
    fx_rate_to_base="fxRateToBase", description="actionDescription description",
)  # fmt: skip

# The elements that are events.
_KINDS = {
    "OptionEAE": closes.EventKind.OPTION_EVENT,
    "CorporateAction": closes.EventKind.CORPORATE_ACTION,
    "Transfer": closes.EventKind.TRANSFER,
    "CashTransaction": closes.EventKind.CASH,
}


def event_of(fields: Fields) -> closes.StatementEvent:
    """Return an event.

    Raises:
        StatementError: A field is missing or cannot be read.
    """
    at = fields.required(TIME, "dateTime", "date", "reportDate")
    local = at.astimezone(STATEMENT_ZONE)
    attributes = fields.as_json()
    own_id = fields.get(TEXT, "transactionID", "tradeID", "actionID")
    return closes.StatementEvent(
        **fields.row(_EVENT),
        event_id=f"{fields.element}:{own_id or sha256(attributes.encode()).hexdigest()[:32]}",
        kind=_KINDS[fields.element],
        day=local.date(),
        time=at if local.time() != clock_time() else None,
        attributes=attributes,
        source=closes.FLEX,
        statement=fields.file,
    )


_CASH = _columns(
    AccountSummary, account="accountId", currency="currency", net_liquidation="total", cash="cash"
)


def cash_of(fields: Fields) -> AccountSummary:
    """Return net liquidation and cash of an account in its base currency.

    Raises:
        StatementError: A field is missing or cannot be read.
    """
    at = datetime.combine(fields.required(DAY, "reportDate"), STATED_AT, STATEMENT_ZONE)
    return AccountSummary(
        **fields.row(_CASH), timestamp=at.astimezone(UTC), source=AccountSource.FLEX
    )


_AMOUNTS = _columns(
    BookedAmounts,
    report_date="reportDate", settle_date="settleDateTarget settleDate", multiplier="multiplier",
    proceeds="proceeds", net_cash="netCash", amount="amount", value="value",
    cash_transfer="cashTransfer", position_amount="positionAmount", transfer_price="transferPrice",
    taxes="taxes", commission="ibCommission", commission_currency="ibCommissionCurrency",
    transaction_id="transactionID", trade_id="tradeID", action_id="actionID",
    level_of_detail="levelOfDetail",
)  # fmt: skip


def booked_amounts(attributes: Mapping[str, str], element: str, file: str) -> BookedAmounts:
    """Return what a row of `executions` or `statement_events` says of money.

    Args:
        attributes: As the row has them in its JSON.
        element: Trade, Transfer, …; for messages.
        file: For messages.

    Raises:
        StatementError: A field cannot be read.
    """
    fields = Fields(attributes=_known(attributes), file=file, element=element)
    return BookedAmounts(**fields.row(_AMOUNTS))


# What an EquitySummaryByReportDateInBase says of where it stands, and the sums of its parts.
_NO_PART = {"accountId", "acctAlias", "model", "currency", "reportDate", "total"}


def equity_of(fields: Fields) -> StatedEquity:
    """Return net liquidation and its parts.

    A part that is split again into Long and Short is counted once; brokerCashComponent and the like
    repeat what another part has.

    Raises:
        StatementError: A field is missing or cannot be read.
    """
    parts = {
        name: fields.required(NUMBER, name)
        for name in fields.attributes
        if name not in _NO_PART and not name.endswith(("Long", "Short", "Component"))
    }
    return StatedEquity(
        account=fields.required(TEXT, "accountId"),
        day=fields.required(DAY, "reportDate"),
        currency=fields.get(TEXT, "currency"),
        total=fields.get(NUMBER, "total"),
        parts=parts,
    )


# The largest statement, in bytes; a day of 20,000 holdings takes some 15 MB.
LARGEST_STATEMENT = 512 * 2**20


class _Record(NamedTuple):
    """An element that is read: what it is, and the levels of detail that do not repeat others."""

    kind: str
    parse: Callable[[Fields], Any]
    levels: Collection[str] = ("DETAIL", "TRANSFER", "TRANSACTION")


_RECORDS = {
    "OpenPosition": _Record("positions", position_of, ("SUMMARY",)),
    "Trade": _Record("executions", execution_of, ("EXECUTION",)),
    "EquitySummaryByReportDateInBase": _Record(
        "cash", lambda fields: (cash_of(fields), equity_of(fields)), ()
    ),
    **dict.fromkeys(_KINDS, _Record("events", event_of)),
    "CashTransaction": _Record("money", event_of),
}

# The attributes that only say where an element belongs: one with no others is a section.
_PLACE = {"accountId", "acctAlias", "model", "currency", "reportDate", "date", "levelOfDetail"}

# What a lot names and its summary does not. Source: ibflex, Types.py, OpenPosition.
_LOT = {"openDateTime", "holdingPeriodDateTime", "originatingOrderID", "originatingTransactionID"}

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

_LEVELS = "In the Flex query choose Summary for Open Positions and Execution for Trades"
_IDS = "In the Flex query choose the fields IB Execution ID, Trade ID and Transaction ID"
_MODELS = (
    "In the Flex query leave the field Model of Open Positions out: a part in a model has a row of "
    "its own"
)
_ONE_FILE = "Put the XML of an activity Flex query into the folder, and nothing else."


class _Content:
    """The rows of one statement, as they are read.

    Args:
        fields: Those of the element around them.
    """

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        names = {"accountId": "accountId", "toDate": "reportDate"}
        self._inherited = {names[it]: text for it, text in fields.attributes.items() if it in names}
        self._sections: set[str] = set()
        self._rows: defaultdict[str, list[tuple[Fields, Any]]] = defaultdict(list)
        self._flaws: defaultdict[str, list[StatementError]] = defaultdict(list)

    def add(self, tag: str, attributes: Mapping[str, str]) -> None:
        """Read an element. Where a row names no account or day, they are the statement's.

        A row that names a dash as its account is a sum over several.
        """
        own, record = _known(attributes), _RECORDS.get(tag)
        if record is not None and not own.keys() - _PLACE:
            return
        self._sections.add(tag)
        if record is None or attributes.get("accountId", "").strip() in ("-", "--"):
            return
        kind, level = record.kind, own.get("levelOfDetail")
        is_lot = level == "LOT" or (level is None and bool(own.keys() & _LOT))
        if kind == "positions" and is_lot:
            kind = "lots"
        elif level is not None and level not in record.levels:
            return
        fields = replace(self._fields, attributes=self._inherited | own, element=tag)
        try:
            self._rows[kind].append((fields, record.parse(fields)))
        except StatementError as error:
            self._flaws[record.kind].append(error)

    def stated(self) -> closes.Statement:
        """Return what was read.

        Raises:
            StatementError: It is no activity statement, or its days cannot be read.
        """
        fields, made = self._fields, self._fields.get(TIME, "whenGenerated")
        first, last = (fields.required(DAY, name) for name in ("fromDate", "toDate"))
        account = fields.required(TEXT, "accountId")
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
                what = f"{fields.file}: {account} has no {kind}, but {listed}."
                self._flaws[kind].append(_flaw(what, _LEVELS))
        events = [one for kind in ("events", "money") for _fields, one in self._rows[kind]]
        if "Trades" in self._sections and not self._flaws["executions"] + self._flaws["events"]:
            again = f":{made.isoformat()}" if made else ""
            events.append(
                closes.StatementEvent(
                    event_id=f"{closes.EventKind.PERIOD}:{account}:{first}:{last}{again}",
                    kind=closes.EventKind.PERIOD,
                    account=account,
                    day=last,
                    first_day=first,
                    attributes="{}",
                    source=closes.FLEX,
                    statement=fields.file,
                )
            )
        days = {one.day for one in positions}
        if "OpenPositions" in self._sections and not self._flaws["positions"]:
            days.add(last)
        return closes.Statement(
            file=fields.file,
            account=account,
            first=first,
            last=last,
            generated_at=made,
            days=frozenset(days),
            accounts=frozenset(one.account for one in (*positions, *executions, *events))
            | {account},
            positions=tuple(positions),
            executions=tuple(replace(one, stated_at=made) for one in executions),
            cash=tuple(cash for _fields, (cash, _equity) in self._rows["cash"]),
            equity=tuple(equity for _fields, (_cash, equity) in self._rows["cash"]),
            sections=frozenset(self._sections),
            events=tuple(replace(one, stated_at=made) for one in events),
            lacks_positions=bool(self._flaws["positions"]),
            left_out=tuple((one.what, one.remedy) for ones in self._flaws.values() for one in ones),
        )

    def _holdings(self) -> list[closes.StatementPosition]:
        """Return one position for each holding and day, without the lots that it sums up."""
        groups: defaultdict[tuple[str, date, int], list[tuple[Fields, Any]]] = defaultdict(list)
        for fields, one in self._rows["positions"]:
            groups[one.account, one.day, one.conid].append((fields, one))
        lots = {(one.account, one.day, one.conid): fields for fields, one in self._rows["lots"]}
        self._flaws["positions"] += [
            _flaw(f"{found[0][0]}: {account} has conid {conid} twice on {day}.", _MODELS)
            for (account, day, conid), found in groups.items()
            if len(found) > 1
        ] + [
            fields.error("is a lot, and its summary is not there", _LEVELS)
            for key, fields in lots.items()
            if key not in groups
        ]
        return [found[0][1] for found in groups.values() if len(found) == 1]

    def _executions(self) -> list[closes.Execution]:
        """Return the executions. A row without an id and a level may be the sum of others."""
        totals: Counter[tuple[int, str | None]] = Counter()
        found: list[closes.Execution] = []
        for _fields, one in self._rows["executions"]:
            if one.execution_id:
                found.append(one)
                for order in {None, one.order_id or one.brokerage_order_id}:
                    totals[one.conid, order] += one.change
        for fields, one in self._rows["executions"]:
            key = (one.conid, one.order_id or one.brokerage_order_id)
            is_sum = "levelOfDetail" not in fields.attributes and totals.get(key) == one.change
            if not one.execution_id and not is_sum:
                flaw = fields.error("has no ibExecID, tradeID or transactionID", _IDS)
                self._flaws["executions"].append(flaw)
        return found


def read_statements(data: bytes, file: str) -> list[closes.Statement]:
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
    found: list[closes.Statement] = []
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
    if not found:
        raise StatementError(
            f"{file} has no statement of an account: its root is {shown(root)}.",
            remedy=f"Choose at least one account in the Flex query. {_ONE_FILE}",
        )
    return found


def answer_of(data: bytes) -> dict[str, str]:
    """Return the texts of an answer of the service by name; empty for anything else."""
    if b"<FlexStatementResponse" in data[:4096]:
        with suppress(Xml.ParseError, LookupError, ValueError):
            return {one.tag: (one.text or "").strip() for one in Xml.fromstring(data)}  # noqa: S314
    return {}


# Codes after which the same request may succeed.
#
# Source: IB, "Flex Web Service", error codes.
_LATER = {
    "1001", "1003", "1004", "1005", "1006", "1007", "1008", "1009", "1018", "1019", "1021",
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
    "1018": "Wait ten minutes: one request a second and ten a minute are allowed.",
    "1019": "Wait a few minutes and download it again; replace the file, if it is one.",
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


# The addresses of IB, to which a token may be sent.
_OF_BROKER = re.compile(
    r"https://([a-z0-9-]+\.)*(interactivebrokers\.(com|co\.uk)|ibkr\.com)(:443)?/[^?#@\s]*", re.I
)


def is_of_broker(url: str) -> bool:
    """Return whether an address is one of IB's, over https.

    >>> is_of_broker("https://gdcdyn.interactivebrokers.com/Universal/servlet/GetStatement")
    True
    >>> is_of_broker("https://interactivebrokers.com.example/GetStatement")
    False
    """
    return _OF_BROKER.fullmatch(url) is not None


# Source: IB, "Flex Web Service" (version 3).
FLEX_URL = "https://ndcdyn.interactivebrokers.com/AccountManagement/FlexWebService"


class _NoRedirects(HTTPRedirectHandler):
    """Makes a redirect an error: the request has the token in its address."""

    def redirect_request(self, *_: object) -> None:
        return None


_OPENER = build_opener(_NoRedirects)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlexService:
    """The service that makes statements; neither its messages nor its logs contain the token.

    Args:
        url: Its address.
        timeout_s: Longest wait for one answer.
        patience_s: Longest wait for a statement that is being made, and for a busy service.
        sleep: Waits between two requests.

    Example:
        data = FlexService().download(token, "123456")
    """

    url: str = FLEX_URL
    timeout_s: float = 30.0
    patience_s: float = 300.0
    sleep: Callable[[float], None] = time.sleep

    def download(self, token: str, query_id: str) -> bytes:
        """Return the XML of a statement that is complete.

        Raises:
            FlexServiceError: The service refused, or was not ready in time; it names the query,
                the code and the remedy.
        """
        url = f"{self.url}/SendRequest"
        asked = answer_of(self._until_ready(url, token, query_id, query_id))
        reference = asked.get("ReferenceCode", "")
        if not reference:
            raise refusal(_without(token, asked), f"query {query_id}")
        named = asked.get("Url", "")
        url = named if is_of_broker(named) else f"{self.url}/GetStatement"
        return self._until_ready(url, token, reference, query_id)

    def _ask(self, url: str, token: str, subject: str, query_id: str) -> bytes:
        address = f"{url}?" + urlencode({"t": token, "q": subject, "v": 3})
        # The service refuses requests without a User-Agent.
        request = Request(address, headers={"User-Agent": "Python/3"})  # noqa: S310 - checked
        try:
            with _OPENER.open(request, timeout=self.timeout_s) as answer:
                data: bytes = answer.read(LARGEST_STATEMENT)
        except (HTTPException, OSError, ValueError) as error:
            kind: type[FlexServiceError] = _LaterError
            reason = getattr(error, "reason", None) or type(error).__name__
            why = _without(token, {"": str(reason)})[""]
            if isinstance(error, HTTPError):
                error.close()
                is_redirect = 300 <= error.code < 400
                why = f"{'a redirect, which is refused' if is_redirect else 'HTTP'} {error.code}"
                kind = _LaterError if error.code >= 500 or error.code == 429 else FlexServiceError
            host = urlsplit(self.url).hostname
            raise kind(
                f"query {query_id}: the Flex service at {host} gave no answer: {why}.",
                remedy="Try again later; check the network.",
            ) from None
        texts = _without(token, answer_of(data))
        if texts and texts.get("Status") != "Success":
            raise refusal(texts, f"query {query_id}")
        return data

    def _until_ready(self, *request: str) -> bytes:
        attempts = Retrying(
            retry=retry_if_exception_type(_LaterError),
            stop=stop_after_delay(self.patience_s),
            wait=wait_exponential(multiplier=2.0, max=30.0),
            sleep=self.sleep,
            reraise=True,
        )
        return attempts(self._ask, *request)


def _without(token: str, texts: Mapping[str, str]) -> dict[str, str]:
    """Return texts of the service without the token, which it may repeat."""
    hidden = {name: text.replace(token, "***") for name, text in texts.items()}
    return {name: text.replace(quote_plus(token), "***") for name, text in hidden.items()}
