"""Flex statements of the broker, read from XML.

Source of the names: IB, "Flex Queries" reference, sections Open Positions, Trades, Option
Exercises, Assignments and Expirations, Corporate Actions, Transfers, Cash Transactions and Net
Asset Value in Base. The parser of the package ibflex is not used: it holds a whole file as a tree,
and refuses one for a code that it does not know, such as GEA.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import time as clock_time
from enum import StrEnum
from functools import partial
from hashlib import sha256
from io import BytesIO
from operator import attrgetter
from typing import IO, Any, NamedTuple
from xml.etree import ElementTree as Xml

from position_sync_dagster.domain import instrument
from position_sync_dagster.domain.execution import Execution, Side
from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.errors import shown
from position_sync_dagster.money.past.closes import (
    FLEX,
    EventKind,
    Statement,
    StatementEvent,
    StatementPosition,
)
from position_sync_dagster.money.past.flex_fields import (
    DAY,
    NUMBER,
    STATEMENT_ZONE,
    TEXT,
    TIME_FIELD,
    FieldColumn,
    Fields,
    StatementError,
    columns_of,
    flaw,
    with_values,
)
from position_sync_dagster.money.past.flex_movements import joined, movements_of
from position_sync_dagster.money.past.flex_service import answer_of, refusal
from position_sync_dagster.money.past.movements import (
    FACE_OF_BILL,
    SECTION_OF,
    Movement,
    Section,
    times,
)

_POSITION = columns_of(
    StatementPosition,
    account="accountId", day="reportDate", conid="conid", symbol="underlyingSymbol symbol",
    sec_type="assetCategory", right="putCall", strike="strike", expiry="expiry",
    currency="currency", local_symbol="symbol", position="position", market_price="markPrice",
    market_value="positionValue", unrealized_pnl="fifoPnlUnrealized",
)  # fmt: skip


def position_of(fields: Fields) -> StatementPosition:
    """Return an OpenPosition.

    Raises:
        StatementError: A field is missing or cannot be read.
    """
    row = fields.row(_POSITION)
    multiplier = fields.get(NUMBER, "multiplier") or 1.0
    if row["sec_type"] in instrument.MULTIPLIED_TYPES:
        multiplier = fields.required(NUMBER, "multiplier")

    if row["sec_type"] == "BILL":
        row["position"] /= FACE_OF_BILL
        multiplier *= FACE_OF_BILL

    cost = fields.get(NUMBER, "costBasisMoney")
    average = times(fields.get(NUMBER, "costBasisPrice"), multiplier)
    if cost is not None and row["position"]:
        average = abs(cost / row["position"])

    return StatementPosition(
        **row, multiplier=multiplier, average_cost=average, statement=fields.file
    )


_EXECUTION = columns_of(
    Execution,
    account="accountId", conid="conid", symbol="underlyingSymbol symbol", sec_type="assetCategory",
    price="tradePrice", commission_currency="ibCommissionCurrency", realized_pnl="fifoPnlRealized",
    currency="currency", codes="notes code", open_close="openCloseIndicator",
    transaction_type="transactionType", order_id="ibOrderID",
    brokerage_order_id="brokerageOrderID", trade_id="tradeID transactionID",
    corrects="origTradeID origTransactionID", fx_rate_to_base="fxRateToBase",
    underlying_conid="underlyingConid",
)  # fmt: skip


def execution_of(fields: Fields) -> Execution:
    """Return a Trade.

    An exercise, an assignment and an expiry have no `ibExecID`: their `tradeID` or
    `transactionID` names them.

    Raises:
        StatementError: A field is missing or cannot be read.
    """
    quantity = fields.required(NUMBER, "quantity")
    execution_id = fields.get(TEXT, "ibExecID", "tradeID", "transactionID")
    if not execution_id:
        raise fields.error("has no ibExecID, tradeID or transactionID", _IDS)

    # The time is in one field or in two.
    written = fields.attributes
    day_and_clock = f"{written.get('tradeDate', '')} {written.get('tradeTime', '')}"
    timed = replace(fields, attributes={"dateTime": day_and_clock, **written})
    return Execution(
        **fields.row(_EXECUTION),
        execution_id=execution_id,
        time=timed.required(TIME_FIELD, "dateTime"),
        side=Side.SELL if quantity < 0 else Side.BUY,
        quantity=abs(quantity),
        commission=times(fields.get(NUMBER, "ibCommission"), -1.0),
        source=FLEX,
        statement=fields.file,
        stated_at=fields.stated_at,
        attributes=fields.as_json(),
    )


_EVENT = columns_of(
    StatementEvent,
    account="accountId", type="transactionType type", conid="conid",
    symbol="underlyingSymbol symbol", sec_type="assetCategory", currency="currency",
    quantity="quantity", price="tradePrice transferPrice", amount="amount proceeds cashTransfer",
    realized_pnl="fifoPnlRealized realizedPnl pnl", codes="code notes", direction="direction",
    fx_rate_to_base="fxRateToBase", description="actionDescription description",
)  # fmt: skip

# The elements that are events.
_KINDS = {
    "OptionEAE": EventKind.OPTION_EVENT,
    "CorporateAction": EventKind.CORPORATE_ACTION,
    "Transfer": EventKind.TRANSFER,
    "CashTransaction": EventKind.CASH,
}


def event_of(fields: Fields) -> StatementEvent:
    """Return an event.

    Raises:
        StatementError: A field is missing or cannot be read.
    """
    at = fields.required(TIME_FIELD, "dateTime", "date", "reportDate")
    local = at.astimezone(STATEMENT_ZONE)
    has_time = local.time() != clock_time()

    attributes = fields.as_json()
    event_id = fields.get(TEXT, "transactionID", "tradeID", "actionID")
    if not event_id:
        event_id = _digest(attributes)

    kind = _KINDS[fields.element]
    if kind is EventKind.CASH:
        fields.required(TEXT, "currency")  # money of no currency is in no sum

    row = fields.row(_EVENT)
    row.update(
        event_id=f"{fields.element}:{event_id}",
        day=local.date(),
        time=at if has_time else None,
        attributes=attributes,
    )
    return _event_of_account(kind, fields, row)


# What an EquitySummaryByReportDateInBase says of where it stands, and the sums of its parts.
_NO_PART = {
    "accountId", "acctAlias", "model", "currency", "reportDate", "levelOfDetail", "total",
}  # fmt: skip


_EQUITY = columns_of(
    StatementEvent,
    account="accountId", day="reportDate", currency="currency", amount="total",
)  # fmt: skip


class RowKind(StrEnum):
    """What the rows of an element become; STATED: events that moved nothing."""

    POSITIONS = "positions"
    EXECUTIONS = "executions"
    EVENTS = "events"
    STATED = "stated"


def equity_event(fields: Fields) -> StatementEvent:
    """Return net liquidation and its parts as an event.

    A part that is split again into Long and Short is counted once; brokerCashComponent and the like
    repeat what another part has.

    Raises:
        StatementError: A field is missing or cannot be read.
    """
    of_sides = ("Long", "Short", "Component")
    parts = {
        name: fields.required(NUMBER, name)
        for name in fields.attributes
        if name not in _NO_PART and not name.endswith(of_sides)
    }

    row = fields.row(_EQUITY)
    row["attributes"] = json.dumps(parts, sort_keys=True)
    return _event_of_account(EventKind.NET_LIQUIDATION, fields, row)


_BALANCE = columns_of(
    StatementEvent,
    account="accountId", day="toDate reportDate", currency="currency", amount="endingCash",
)  # fmt: skip
_RATE = columns_of(
    StatementEvent,
    account="accountId", day="reportDate", currency="fromCurrency", amount="rate",
    type="toCurrency",
)  # fmt: skip


def _event_in_currency(
    kind: EventKind, columns: Mapping[str, FieldColumn], fields: Fields
) -> StatementEvent:
    """Return the event of an account, a day and a currency that a row is.

    Raises:
        StatementError: A field is missing or cannot be read.
    """
    row = fields.row(columns, all_required=True)
    return _event_of_account(kind, fields, row, row["currency"])


_CLOSED_LOT = columns_of(
    StatementEvent,
    account="accountId", conid="conid", symbol="underlyingSymbol symbol", sec_type="assetCategory",
    currency="currency", quantity="quantity", price="tradePrice", time="openDateTime",
    amount="cost", realized_pnl="fifoPnlRealized", codes="notes code",
)  # fmt: skip


def closed_lot_event(fields: Fields) -> StatementEvent | None:
    """Return a closed lot, with the sign of what was held; None if it does not say what it cost.

    Its side is that of the close, its quantity and cost are of the opening and may have no sign.
    Its profit is after fees. Source: closed lots beside the executions of the same statements.

    Raises:
        StatementError: A field cannot be read.
    """
    row = fields.row(_CLOSED_LOT)
    side_of_close = fields.get(TEXT, "buySell") or ""
    side = {"BUY": -1.0, "SELL": 1.0}.get(side_of_close.upper())
    names = ("quantity", "time", "amount", "realized_pnl")
    if side is None or any(row[name] is None for name in names):
        return None

    row["quantity"] = side * abs(row["quantity"])
    row["amount"] = abs(row["amount"])
    if fields.has_report_date:
        day = fields.required(DAY, "reportDate")
    else:
        day = fields.required(TIME_FIELD, "dateTime", "tradeDate").astimezone(STATEMENT_ZONE).date()
    content = "|".join(map(str, (day, *row.values())))
    row.update(event_id=f"Lot:{_digest(content)}", day=day, attributes=fields.as_json())
    return _event_of_account(EventKind.CLOSED_LOT, fields, row)


def _digest(text: str) -> str:
    """Return what names a text, the same each time."""
    return sha256(text.encode()).hexdigest()[:32]


def _event_of_account(
    kind: EventKind, fields: Fields, row: dict[str, Any], *name: str
) -> StatementEvent:
    """Return an event of an account and a day; `name` makes its id, besides these."""
    row.setdefault("event_id", ":".join((kind, row["account"], str(row["day"]), *name)))
    row.setdefault("attributes", "{}")
    return StatementEvent(
        **row, kind=kind, source=FLEX, statement=fields.file, stated_at=fields.stated_at
    )


# The level, or the currency, of a sum over all currencies.
_IN_BASE = frozenset({"BASECURRENCY", "BASE_CURRENCY", "BASE_SUMMARY"})
_LOTS = frozenset({"LOT", "LOTS", "CLOSED_LOT", "CLOSED_LOTS", "WASH_SALE", "WASH_SALES"})

# The levels whose rows say again what others say: in a section that does not have its rows at this
# level they are not read.
_REPEATED = (
    frozenset({"ORDER", "SUMMARY", "SYMBOL_SUMMARY", "ASSET_SUMMARY", "ASSET_CLASS"})
    | _LOTS
    | _IN_BASE
)


class _Element(NamedTuple):
    """How the rows of an element are read.

    Attributes:
        becomes: What they become.
        record_of: Returns what a row becomes; None: nothing.
        levels: The levels of detail that are read.
    """

    becomes: RowKind
    record_of: Callable[[Fields], Any]
    levels: Collection[str] = ()


# The elements that are read.
_ELEMENTS = {
    "OpenPosition": _Element(RowKind.POSITIONS, position_of, ["SUMMARY"]),
    "Trade": _Element(RowKind.EXECUTIONS, execution_of, ["EXECUTION", "EXECUTIONS"]),
    "EquitySummaryByReportDateInBase": _Element(
        RowKind.STATED, equity_event, ["SUMMARY", "DETAIL", "BASE_SUMMARY"]
    ),
    "CashReportCurrency": _Element(
        RowKind.STATED,
        partial(_event_in_currency, EventKind.CASH_BALANCE, _BALANCE),
        ["CURRENCY", "DETAIL", "SUMMARY"],
    ),
    "ConversionRate": _Element(RowKind.STATED, partial(_event_in_currency, EventKind.RATE, _RATE)),
    "Lot": _Element(RowKind.STATED, closed_lot_event, ["CLOSED_LOT", "CLOSED_LOTS"]),
    **dict.fromkeys(
        _KINDS,
        _Element(
            RowKind.EVENTS,
            event_of,
            ["DETAIL", "DETAILS", "TRANSFER", "TRANSACTION", "TRANSACTIONS"],
        ),
    ),
}

# The attributes that only say where an element belongs: one with no others is a section.
_PLACE = {"accountId", "acctAlias", "model", "currency", "reportDate", "date", "levelOfDetail"}

# What a lot names and its summary does not. Source: ibflex, Types.py, OpenPosition.
_LOT = {"openDateTime", "holdingPeriodDateTime", "originatingOrderID", "originatingTransactionID"}

# The elements that state positions and executions, also in the levels of detail that are not read:
# beside them, none at all does not mean that the account is flat or has not traded.
_IN_DETAIL = {
    RowKind.POSITIONS: {"OpenPosition"},
    RowKind.EXECUTIONS: {"Trade", "Order", "SymbolSummary", "AssetSummary", "Lot"},
}

# The elements of an activity statement, at least one of which it has.
_SECTIONS = {
    "OpenPositions", "Trades", "EquitySummaryInBase", "CorporateActions", "Transfers",
    "CashTransactions", *_ELEMENTS, *_IN_DETAIL[RowKind.EXECUTIONS],
}  # fmt: skip

_LEVELS = "In the Flex query choose Summary for Open Positions and Execution for Trades"
_IDS = (
    "In the Flex query choose the fields IB Execution ID, Trade ID and Transaction ID, and Level "
    "of Detail: sums of trades have no id"
)
_AS_XML = "In the Flex query choose the format XML, download it again and replace the file."
_MODELS = (
    "In the Flex query leave the field Model of Open Positions out: a part in a model has a row of "
    "its own"
)
_ONE_FILE = "Put the XML of an activity Flex query into the folder, and nothing else."

# What is read of a file to tell what it is, in bytes: an answer of the service is shorter.
_BEGIN = 65_536


def every_account(_account: str) -> bool:
    """Return that each account is served."""
    return True


def level_of(text: str) -> str:
    """Return a level of detail in one form, whatever letters and separators it is written in.

    >>> level_of("Closed Lots"), level_of("execution")
    ('CLOSED_LOTS', 'EXECUTION')
    """
    return re.sub(r"[\s_-]+", "_", text.strip()).upper()


class _StatementReader:
    """Reads the elements of one statement.

    Args:
        fields: Those of the element around them.
        serves: Whether the rows of an account are read.
    """

    def __init__(self, fields: Fields, serves: Callable[[str], bool]) -> None:
        self._fields = replace(fields, stated_at=fields.get(TIME_FIELD, "whenGenerated"))
        self._account = fields.required(TEXT, "accountId")
        self._first = fields.required(DAY, "fromDate")
        self._last = fields.required(DAY, "toDate")
        written = fields.attributes
        self._inherited = {"accountId": written["accountId"], "reportDate": written["toDate"]}
        self._serves = serves

        self._sections: set[str] = set()
        self._served_elements: set[str] = set()
        self._accounts = set(filter(serves, [self._account]))

        self._rows = defaultdict[RowKind, list[Any]](list)
        self._movements: list[Movement] = []
        self._flaws = defaultdict[RowKind, list[StatementError]](list)

    def add(self, tag: str, attributes: Mapping[str, str]) -> None:
        """Read an element. Where a row names no account or day, they are the statement's.

        A row that names a dash as its account is a sum over several.
        """
        element = _ELEMENTS.get(tag)
        written = with_values(attributes)
        if element is not None and not written.keys() - _PLACE:
            return

        self._sections.add(tag)
        if attributes.get("accountId", "").strip() in ("-", "--"):
            return

        if not self._serves(written.get("accountId", self._account).strip()):
            return

        self._served_elements.add(tag)
        if element is None:
            return

        inherited = self._inherited.keys() - written.keys()
        attributes = self._inherited | written
        fields = replace(self._fields, attributes=attributes, element=tag, inherited=inherited)
        try:
            self._read(fields, element)
        except StatementError as error:
            self._flaws[element.becomes].append(error)

    def finished(self) -> Statement:
        """Return the statement, after its last element.

        Raises:
            StatementError: It is no activity statement.
        """
        if not self._sections & _SECTIONS:
            listed = ", ".join(sorted(self._sections)[:5]) or "nothing"
            message = (
                f"{self._fields.file} is no activity statement: it has {shown(listed)}, and none "
                "of Open Positions, Trades and the other sections that are read."
            )
            raise StatementError(message, remedy=_ONE_FILE)

        positions = self._single_positions()
        self._check_that_sections_say_something()

        days = {position.day for position in positions}
        if "OpenPositions" in self._sections and not self._flaws[RowKind.POSITIONS]:
            days.add(self._last)

        events = [*self._rows[RowKind.EVENTS], *self._rows[RowKind.STATED]]
        # What such a statement does not name did not happen.
        has_flaws = self._flaws[RowKind.EXECUTIONS] or self._flaws[RowKind.EVENTS]
        covered = {SECTION_OF[tag] for tag in self._sections & SECTION_OF.keys()}
        if "Trades" in self._sections and not has_flaws and self._serves(self._account):
            covered.add(Section.TRADES)
            events.append(self._coverage(EventKind.PERIOD, self._account))
        names = json.dumps(sorted(covered))
        events += [self._coverage(EventKind.SECTIONS, account, names) for account in self._accounts]

        flaws = [error for kind in RowKind for error in self._flaws[kind]]
        return Statement(
            file=self._fields.file,
            account=self._account,
            first=self._first,
            last=self._last,
            generated_at=self._fields.stated_at,
            days=frozenset(days),
            accounts=frozenset(self._accounts),
            positions=tuple(positions),
            executions=tuple(self._rows[RowKind.EXECUTIONS]),
            events=tuple(events),
            movements=joined(self._movements, events, self._first, self._last),
            lacks_positions=bool(self._flaws[RowKind.POSITIONS]),
            left_out=tuple((error.what, error.remedy) for error in flaws),
        )

    def _read(self, fields: Fields, element: _Element) -> None:
        """Read a row, if its level of detail does not repeat what others say.

        Raises:
            StatementError: It cannot be read.
        """
        written = fields.attributes
        level = level_of(written.get("levelOfDetail", ""))
        is_lot = level in _LOTS or (not level and written.keys() & _LOT)
        if is_lot and element.becomes is RowKind.POSITIONS:
            return
        if level_of(written.get("currency", "")) in _IN_BASE:
            return

        if level and level not in element.levels:
            if level in _REPEATED:
                return
            named = shown(written["levelOfDetail"])
            raise fields.error(f"has levelOfDetail={named}, which is not known", _LEVELS)

        self._accounts.add(written["accountId"].strip())
        record = element.record_of(fields)
        if record is None:
            return
        self._rows[element.becomes].append(record)
        if element.becomes in (RowKind.EXECUTIONS, RowKind.EVENTS):
            self._movements += movements_of(fields, record)

    def _single_positions(self) -> list[StatementPosition]:
        """Return the holdings of each day, without those that are there twice."""
        listed = grouped(attrgetter("account", "day", "conid"), self._rows[RowKind.POSITIONS])
        for (account, day, conid), positions in listed.items():
            if len(positions) > 1:
                fault = f"{self._fields.file}: {account} has conid {conid} twice on {day}."
                self._flaws[RowKind.POSITIONS].append(flaw(fault, _MODELS))
        return [position for [position, *more] in listed.values() if not more]

    def _check_that_sections_say_something(self) -> None:
        """Name the sections that have rows, of which none was read."""
        for becomes, tags in _IN_DETAIL.items():
            present = tags & self._served_elements
            if present and not self._rows[becomes] and not self._flaws[becomes]:
                listed = ", ".join(sorted(present))
                fault = f"{self._fields.file}: {self._account} has no {becomes}, but {listed}."
                self._flaws[becomes].append(flaw(fault, _LEVELS))

    def _coverage(self, kind: EventKind, account: str, attributes: str = "{}") -> StatementEvent:
        """Return what the statement covers of an account; one that is made again has another."""
        event_id = f"{kind}:{account}:{self._first}:{self._last}"
        made = self._fields.stated_at
        if made:
            event_id += f":{made.isoformat()}"
        row = {
            "event_id": event_id, "account": account, "day": self._last, "first_day": self._first,
            "attributes": attributes,
        }  # fmt: skip
        return _event_of_account(kind, self._fields, row)


class _FileReader:
    """Takes the elements of a file as the parser meets them: a year needs little memory."""

    def __init__(self, file: str, serves: Callable[[str], bool]) -> None:
        self.root = ""
        self.statements: list[Statement] = []
        self._file = file
        self._serves = serves
        self._reader: _StatementReader | None = None

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.root = self.root or tag
        if tag == "FlexStatement":
            fields = Fields(attributes=with_values(attributes), file=self._file, element=tag)
            self._reader = _StatementReader(fields, self._serves)
        elif self._reader is not None:
            self._reader.add(tag, attributes)

    def end(self, tag: str) -> None:
        if tag == "FlexStatement" and self._reader is not None:
            self.statements.append(self._reader.finished())
            self._reader = None


def read_statements(
    data: bytes | IO[bytes],
    file: str,
    *,
    serves: Callable[[str], bool] = every_account,
) -> list[Statement]:
    """Return the statements of a Flex query result, one for each account and period.

    A row that cannot be read is left out and named with the statement. The standard parser loads no
    external entities, and expat bounds the growth of others.

    Args:
        data: The content, or a file that is open at its begin.
        file: The name of the file, for messages and for the rows.
        serves: Whether the rows of an account are read.

    Raises:
        StatementError: It is no activity statement, it is cut off, or its days cannot be read.
        FlexServiceError: It is an answer of the service instead of a statement: an error, or
            "in progress".
        OSError: The file cannot be read.
    """
    source = BytesIO(data) if isinstance(data, bytes) else data
    answer = answer_of(source.read(_BEGIN))
    source.seek(0)
    if answer:
        raise refusal(answer, file)

    reader = _FileReader(file, serves)
    try:
        Xml.parse(source, Xml.XMLParser(target=reader))  # noqa: S314
    except (Xml.ParseError, LookupError, ValueError) as error:  # an encoding that Python lacks too
        reason = str(error)[:80]
        raise StatementError(
            f"{file} is not complete XML in UTF-8: {reason}.",
            remedy=_AS_XML,
        ) from None

    if not reader.statements:
        raise StatementError(
            f"{file} has no statement of an account: its root is {shown(reader.root)}.",
            remedy=f"Choose at least one account in the Flex query. {_ONE_FILE}",
        )
    return reader.statements
