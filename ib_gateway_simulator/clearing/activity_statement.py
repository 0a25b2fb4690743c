"""Activity statements: closed books, written as the XML of a Flex query.

The names of elements and attributes are those of IB. What the samples in public show is kept: an
option on an index is closed at 0 and paid by a row "Cash Settlement" of the section OptionEAE; a
delivery is a trade without an execution id; transfers state a quantity without the sign of the
direction, and their value as positionAmount; bonds are quoted in percent; London in pounds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from xml.etree import ElementTree as Xml

from ib_gateway_simulator.clearing.back_office import ClosedBooks
from ib_gateway_simulator.clearing.entries import (
    EXECUTED,
    ZERO,
    ActionEntry,
    CashEntry,
    Entry,
    TradeEntry,
    TransferEntry,
)
from ib_gateway_simulator.clearing.securities import Category, Security

# The sections that a query can have.
POSITIONS = "OpenPositions"
TRADES = "Trades"
CASH = "CashTransactions"
TRANSFERS = "Transfers"
ACTIONS = "CorporateActions"
ENDS = "OptionEAE"
EQUITY = "EquitySummaryInBase"
RATES = "ConversionRates"
CASH_REPORT = "CashReport"
ALL_SECTIONS = frozenset(
    {POSITIONS, TRADES, CASH, TRANSFERS, ACTIONS, ENDS, EQUITY, RATES, CASH_REPORT}
)

# The component of net liquidation to which the value of a security belongs.
_COMPONENTS = {
    Category.STOCK: "stock",
    Category.OPTION: "options",
    Category.FUTURE_OPTION: "options",
    Category.BOND: "bonds",
    Category.BILL: "bills",
    Category.FUND: "funds",
}

_ENDS = {"A": "Assignment", "Ex": "Exercise", "Ep": "Expiration"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FlexQuery:
    """What a person chose in a query.

    Attributes:
        without: Names of fields that its rows do not have, such as transactionID or reportDate.
        date_format: How dates are written.
        futures_at_notional: Whether the proceeds of futures are their notional, or 0.
    """

    name: str = "daily"
    sections: frozenset[str] = ALL_SECTIONS
    without: frozenset[str] = frozenset()
    date_format: str = "%Y%m%d"
    futures_at_notional: bool = True


def statement_xml(
    books: Sequence[ClosedBooks],
    securities: Mapping[int, Security],
    *,
    made: datetime,
    query: FlexQuery = FlexQuery(),
) -> bytes:
    """Return the statement of one account over sessions that follow each other.

    Positions and cash are those of the last session.

    Args:
        books: The closed books of the sessions, oldest first.
        securities: What conids mean.
        made: When the broker made it, in New York.
        query: What the statement has.
    """
    return _Writer(books, securities, query).written(made)


class _Writer:
    def __init__(
        self, books: Sequence[ClosedBooks], securities: Mapping[int, Security], query: FlexQuery
    ) -> None:
        self._books = books
        self._securities = securities
        self._query = query
        self._last = books[-1]

    def written(self, made: datetime) -> bytes:
        entries = [(day, entry) for day in self._books for entry in day.entries]
        first_days = [entry.report_day for _day, entry in entries]
        first = min([self._books[0].session, *first_days])
        root = Xml.Element("FlexQueryResponse", queryName=self._query.name, type="AF")
        statements = Xml.SubElement(root, "FlexStatements", count="1")
        statement = Xml.SubElement(
            statements,
            "FlexStatement",
            accountId=self._last.account,
            fromDate=self._date(first),
            toDate=self._date(self._last.session),
            period="LastBusinessDay" if len(self._books) == 1 else "Custom",
            whenGenerated=self._time(made),
        )
        Xml.SubElement(
            statement, "AccountInformation", accountId=self._last.account, currency=self._last.base
        )
        if EQUITY in self._query.sections:
            self._add_equity(Xml.SubElement(statement, EQUITY))
        if CASH_REPORT in self._query.sections:
            self._add_cash_report(Xml.SubElement(statement, CASH_REPORT))

        if POSITIONS in self._query.sections:
            self._add_positions(Xml.SubElement(statement, POSITIONS))
        for section in (TRADES, ENDS, ACTIONS, TRANSFERS, CASH):
            if section in self._query.sections:
                parent = Xml.SubElement(statement, section)
                for day, entry in entries:
                    self._add_entry(parent, section, day, entry)
        if RATES in self._query.sections:
            self._add_rates(Xml.SubElement(statement, RATES))
        content: bytes = Xml.tostring(root, encoding="utf-8", xml_declaration=True)
        return content

    # -- state at the close -------------------------------------------------------------------

    def _add_equity(self, parent: Xml.Element) -> None:
        for day in self._books:
            parts: defaultdict[str, Decimal] = defaultdict(lambda: ZERO)
            for currency, amount in day.cash.items():
                parts["cash"] += amount * day.rates[currency]
            for conid, held in day.quantities.items():
                security = self._securities[conid]
                component = _COMPONENTS.get(security.category)
                if component is not None:
                    value = security.worth(held, day.marks[conid])
                    parts[component] += value * day.rates[security.currency]
            for kind, amount in day.accruals.items():
                parts[kind] += amount

            named = ("cash", *sorted({*_COMPONENTS.values()}), "commodities")
            accrued = ("dividendAccruals", "interestAccruals")
            self._row(
                parent,
                "EquitySummaryByReportDateInBase",
                accountId=day.account,
                currency=day.base,
                reportDate=day.session,
                **{name: parts[name] for name in (*named, *accrued)},
                total=day.net_liquidation,
            )

    def _add_cash_report(self, parent: Xml.Element) -> None:
        day = self._last
        in_base = sum((day.cash[name] * day.rates[name] for name in day.cash), ZERO)
        amounts = {"BASE_SUMMARY": in_base, **day.cash}
        for currency, amount in amounts.items():
            self._row(
                parent,
                "CashReportCurrency",
                accountId=day.account,
                currency=currency,
                fromDate=self._books[0].session,
                toDate=day.session,
                endingCash=amount,
                endingSettledCash=amount,
            )

    def _add_positions(self, parent: Xml.Element) -> None:
        day = self._last
        for conid, held in sorted(day.quantities.items()):
            security = self._securities[conid]
            value = security.worth(held, day.marks[conid])
            cost = day.costs[conid]
            basis = security.worth(held, cost)
            self._row(
                parent,
                "OpenPosition",
                **self._of_security(day, security),
                reportDate=day.session,
                position=held,
                markPrice=day.marks[conid],
                positionValue=value,
                openPrice=cost,
                costBasisPrice=cost,
                costBasisMoney=basis,
                fifoPnlUnrealized=value - basis,
                side="Long" if held > 0 else "Short",
                levelOfDetail="SUMMARY",
            )

    def _add_rates(self, parent: Xml.Element) -> None:
        for day in self._books:
            for currency, rate in day.rates.items():
                self._row(
                    parent,
                    "ConversionRate",
                    reportDate=day.session,
                    fromCurrency=currency,
                    toCurrency=day.base,
                    rate=rate,
                )

    # -- entries ------------------------------------------------------------------------------

    def _add_entry(self, parent: Xml.Element, section: str, day: ClosedBooks, entry: Entry) -> None:
        if isinstance(entry, TradeEntry) and section == TRADES:
            self._add_trade(parent, day, entry)
        elif isinstance(entry, TradeEntry) and section == ENDS:
            self._add_end(parent, day, entry)
        elif isinstance(entry, ActionEntry) and section == ACTIONS:
            self._add_action(parent, day, entry)
        elif isinstance(entry, TransferEntry) and section == TRANSFERS:
            self._add_transfer(parent, day, entry)
        elif isinstance(entry, CashEntry) and section == CASH:
            self._add_cash(parent, day, entry)

    def _add_trade(self, parent: Xml.Element, day: ClosedBooks, entry: TradeEntry) -> None:
        security = entry.security
        proceeds = entry.proceeds
        is_future = security.category is Category.FUTURE
        net = proceeds
        if is_future:
            net = ZERO

        if entry.commission_currency == security.currency:
            net -= entry.commission
        if is_future and not self._query.futures_at_notional:
            proceeds = ZERO
        opens = "O" in entry.codes.split(";")
        self._row(
            parent,
            "Trade",
            **self._of_security(day, security),
            tradeID=_trade_id(entry),
            transactionID=entry.number,
            ibExecID=entry.execution_id,
            ibOrderID=entry.order,
            reportDate=entry.report_day,
            tradeDate=entry.at.date(),
            dateTime=entry.at,
            transactionType=entry.kind,
            exchange="SMART" if entry.kind == EXECUTED else "--",
            buySell="BUY" if entry.quantity > 0 else "SELL",
            quantity=entry.quantity,
            tradePrice=entry.price,
            tradeMoney=-entry.proceeds,
            proceeds=proceeds,
            taxes="0",
            ibCommission=-entry.commission,
            ibCommissionCurrency=entry.commission_currency,
            netCash=net,
            fifoPnlRealized=entry.realized,
            openCloseIndicator="O" if opens else "C",
            notes="" if entry.codes in ("O", "C") else entry.codes,
            levelOfDetail="EXECUTION",
        )

    def _add_end(self, parent: Xml.Element, day: ClosedBooks, entry: TradeEntry) -> None:
        """Add the rows of an option's end; what it delivers has one as well."""
        code = entry.codes.split(";")[0]
        security = entry.security
        if code not in _ENDS:
            return
        kind = _ENDS[code]
        if not security.is_option:
            kind = "Sell"
            if entry.quantity > 0:
                kind = "Buy"
        rows = [(kind, entry.quantity, entry.price, entry.proceeds)]
        if entry.settlement:
            rows.append(("Cash Settlement", ZERO, ZERO, entry.settlement))
        for name, quantity, price, proceeds in rows:
            self._row(
                parent,
                "OptionEAE",
                **self._of_security(day, security),
                date=entry.report_day,
                transactionType=name,
                quantity=quantity,
                tradePrice=price,
                proceeds=proceeds,
                commisionsAndTax="0",
                costBasis="0",
                realizedPnl="0",
                tradeID=_trade_id(entry) if quantity else "",
            )

    def _add_action(self, parent: Xml.Element, day: ClosedBooks, entry: ActionEntry) -> None:
        self._row(
            parent,
            "CorporateAction",
            **self._of_security(day, entry.security),
            reportDate=entry.report_day,
            dateTime=entry.at,
            actionDescription=f"{entry.security.symbol} {entry.kind}",
            amount=-entry.proceeds,
            proceeds=entry.proceeds,
            value="0",
            quantity=entry.quantity,
            fifoPnlRealized="0",
            mtmPnl="0",
            type=entry.kind,
            actionID=entry.action,
            transactionID=entry.number,
            levelOfDetail="DETAIL",
        )

    def _add_transfer(self, parent: Xml.Element, day: ClosedBooks, entry: TransferEntry) -> None:
        stated = {}
        if entry.amount is not None:
            rate = day.rates[entry.security.currency]
            stated["positionAmount"] = entry.amount
            stated["positionAmountInBase"] = entry.amount * rate
        self._row(
            parent,
            "Transfer",
            **self._of_security(day, entry.security),
            reportDate=entry.report_day,
            date=entry.at.date(),
            dateTime=entry.at,
            type="ACATS",
            direction="IN" if entry.quantity > 0 else "OUT",
            quantity=entry.quantity,
            transferPrice="0",
            **stated,
            cashTransfer="0",
            transactionID=entry.number,
            levelOfDetail="TRANSFER",
        )

    def _add_cash(self, parent: Xml.Element, day: ClosedBooks, entry: CashEntry) -> None:
        security = self._of_security(day, entry.security) if entry.security else {}
        of_money = {
            "accountId": day.account,
            "currency": entry.currency,
            "fxRateToBase": day.rates[entry.currency],
            "description": entry.description,
        }
        self._row(
            parent,
            "CashTransaction",
            **{**security, **of_money},
            reportDate=entry.report_day,
            settleDate=entry.at.date(),
            dateTime=entry.at,
            amount=entry.amount,
            type=entry.type,
            transactionID=entry.number,
            levelOfDetail="DETAIL",
        )

    # -- fields -------------------------------------------------------------------------------

    def _row(self, parent: Xml.Element, name: str, **fields: object) -> None:
        written = {
            field: self._written(value)
            for field, value in fields.items()
            if field not in self._query.without
        }
        Xml.SubElement(parent, name, written)

    def _written(self, value: object) -> str:
        """Return a value as statements write it; None is empty."""
        if isinstance(value, datetime):
            return self._time(value)
        if isinstance(value, date):
            return self._date(value)
        if isinstance(value, Decimal):
            return _text(value)
        if value is None:
            return ""

        return str(value)

    def _of_security(self, day: ClosedBooks, security: Security) -> dict[str, object]:
        under = security.underlying
        return {
            "accountId": day.account,
            "currency": security.currency,
            "fxRateToBase": day.rates[security.currency],
            "assetCategory": security.category.value,
            "symbol": security.symbol,
            "description": security.description or security.symbol,
            "conid": security.conid,
            "underlyingConid": under.conid if under else "",
            "underlyingSymbol": under.symbol if under else security.symbol,
            "multiplier": security.multiplier,
            "strike": security.strike,
            "expiry": security.expiry,
            "putCall": security.right,
        }

    def _date(self, day: object) -> str:
        return f"{day:{self._query.date_format}}"

    def _time(self, at: datetime) -> str:
        return f"{self._date(at)};{at:%H%M%S}"


def _trade_id(entry: TradeEntry) -> int:
    return entry.number - 1_000_000_000


def _text(number: Decimal) -> str:
    """Return a number without an exponent and without zeros at its end."""
    return f"{number.normalize() + 0:f}"
