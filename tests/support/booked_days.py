"""Days that statements book, and the profit that the program makes of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from position_sync_dagster.lake.schema import DAILY_POSITIONS
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.movement_book import MovementBook
from position_sync_dagster.money.past.statement_days import StatementDays
from position_sync_dagster.money.past.statement_folder import import_statements
from position_sync_dagster.money.profit.moved_between import TradingDay
from position_sync_dagster.money.profit.profit import explain_days
from position_sync_dagster.money.tables import PROFIT_EXPLAINED
from position_sync_dagster.money.trading_days import session_before
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.exchange_days import closing_times
from tests.support.derived_rows import put_rows
from tests.support.flex_files import ACCOUNT, element

# Sessions of one week and the Monday after it.
THURSDAY = date(2026, 3, 5)
FRIDAY = date(2026, 3, 6)
MONDAY = date(2026, 3, 9)

STOCK = dict(assetCategory="STK", symbol="AAPL", conid="10", currency="USD")
MES = dict(assetCategory="FUT", symbol="MESM6", conid="20", multiplier="5") | {
    "currency": "USD", "underlyingSymbol": "MES",
}  # fmt: skip
ES = MES | dict(symbol="ESM6", conid="21", multiplier="50", underlyingSymbol="ES")
ES_PUT = ES | dict(
    assetCategory="FOP", symbol="ES P6600", conid="22", strike="6600",
    putCall="P", expiry="20260306", underlyingConid="21",
)  # fmt: skip
SPX_CALL = dict(
    assetCategory="OPT", symbol="SPX C6000", conid="30", multiplier="100",
    strike="6000", putCall="C", expiry="20260306", currency="USD",
    underlyingSymbol="SPX", underlyingConid="31",
)  # fmt: skip
SPY_PUT = SPX_CALL | dict(
    symbol="SPY P600", conid="40", strike="600", putCall="P",
    underlyingSymbol="SPY", underlyingConid="41",
)  # fmt: skip
SPY = STOCK | {"symbol": "SPY", "conid": "41"}
VOD = STOCK | {"symbol": "VOD", "conid": "50", "currency": "GBP"}
FUND = STOCK | dict(assetCategory="FUND", symbol="VFIAX", conid="60", multiplier="1")
BOND = STOCK | dict(assetCategory="BOND", symbol="T 4 1/2", conid="70", multiplier="1")
EURUSD = dict(assetCategory="CASH", symbol="EUR.USD", conid="80", currency="USD")

Contract = dict[str, str]


def held(contract: Contract, quantity: float, mark: float, **more: str) -> str:
    """Return a position at the end of a day; its value is stated too."""
    size = float(contract.get("multiplier", "1")) / (
        100 if contract["assetCategory"] == "BOND" else 1
    )
    amounts = {"position": f"{quantity:g}", "markPrice": f"{mark:g}"}
    value = {"positionValue": f"{quantity * mark * size:.4f}", "levelOfDetail": "SUMMARY"}
    return element("OpenPosition", contract | amounts | value | more)


def traded(contract: Contract, quantity: float, price: float, day: date, **more: str) -> str:
    """Return a trade at noon; commission and what else differs are attributes."""
    named = f"{contract['conid']}-{quantity:g}-{price:g}-{day}"
    fields = dict(
        ibExecID=f"e{named}", tradeID=f"t{named}", transactionID=f"x{named}",
        dateTime=f"{day:%Y%m%d};120000", reportDate=f"{day:%Y%m%d}",
        quantity=f"{quantity:g}", tradePrice=f"{price:g}", ibCommission="0",
        ibCommissionCurrency=contract["currency"], transactionType="ExchTrade",
        levelOfDetail="EXECUTION",
    )  # fmt: skip
    written = contract | fields | more
    return element("Trade", {name: text for name, text in written.items() if text != ""})


def booked(contract: Contract, quantity: float, price: float, day: date, codes: str) -> str:
    """Return what the broker books after the close of a day."""
    at = f"{day:%Y%m%d};162000"
    return traded(
        contract, quantity, price, day, dateTime=at, transactionType="BookTrade", notes=codes
    )


def paid(kind: str, amount: float, day: date, **more: str) -> str:
    """Return a cash transaction."""
    fields = dict(
        type=kind, amount=f"{amount:g}", currency="USD", reportDate=f"{day:%Y%m%d}",
        dateTime=f"{day:%Y%m%d}", transactionID=f"c{kind}-{day}",
        levelOfDetail="DETAIL",
    )  # fmt: skip
    written = fields | more
    return element("CashTransaction", {name: text for name, text in written.items() if text != ""})


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """What a statement says of its last day.

    Attributes:
        cash, actions, transfers, events: Rows of these sections; None: it has no such section.
        worth: Net liquidation and its parts; None: it has no such section.
        balances: Cash by currency; None: it has no such section.
        rates: What a unit of each currency is worth in USD; None: it has no such section.
    """

    held: Iterable[str] = ()
    trades: Iterable[str] | None = ()
    cash: Iterable[str] | None = None
    actions: Iterable[str] | None = None
    transfers: Iterable[str] | None = None
    events: Iterable[str] | None = None
    worth: dict[str, float] | None = None
    balances: dict[str, float] | None = None
    rates: dict[str, float] | None = None

    def xml(self, first: date, last: date, generated: str, account: str) -> str:
        sections = {
            "OpenPositions": self.held, "Trades": self.trades, "CashTransactions": self.cash,
            "CorporateActions": self.actions, "Transfers": self.transfers,
            "OptionEAE": self.events,
        }  # fmt: skip
        if self.worth is not None:
            total = {"currency": "USD", "reportDate": f"{last:%Y%m%d}"}
            written = total | {name: f"{amount:.2f}" for name, amount in self.worth.items()}
            sections["EquitySummaryInBase"] = [element("EquitySummaryByReportDateInBase", written)]
        if self.balances is not None:
            balances = {"BASE_SUMMARY": 0.0} | self.balances
            sections["CashReport"] = [
                element("CashReportCurrency", {"currency": code, "endingCash": f"{amount:.2f}"})
                for code, amount in balances.items()
            ]
        if self.rates is not None:
            fixed = {"reportDate": f"{last:%Y%m%d}", "toCurrency": "USD"}
            sections["ConversionRates"] = [
                element("ConversionRate", fixed | {"fromCurrency": code, "rate": f"{rate}"})
                for code, rate in self.rates.items()
            ]

        texts = [
            f"<{name}>{''.join(rows)}</{name}>"
            for name, rows in sections.items()
            if rows is not None
        ]
        return (
            '<FlexQueryResponse queryName="q" type="AF"><FlexStatements count="1">'
            f'<FlexStatement accountId="{account}" fromDate="{first:%Y%m%d}" '
            f'toDate="{last:%Y%m%d}" period="LastBusinessDay" whenGenerated="{generated}">'
            f"{''.join(texts)}</FlexStatement></FlexStatements></FlexQueryResponse>"
        )


@dataclass
class Books:
    """A folder of statements, the lake that they are imported into, and its profits."""

    lake: MoneyLake
    settings: Settings
    folder: Path
    written: int = field(default=0)

    def state(
        self, day: date, booked_day: Booked, *, first: date | None = None, name: str = "",
        generated: str = "", account: str = ACCOUNT,
    ) -> None:  # fmt: skip
        """Write a statement of a day, newer than all before it, and import the folder."""
        self.written += 1
        made = generated or f"20260310;{self.written:06d}"
        text = booked_day.xml(first or day, day, made, account)
        (self.folder / f"{name or f's{self.written}'}.xml").write_text(text)
        import_statements(self.lake, self.settings)

    def end_day(self, day: date, **booked: Any) -> None:
        """Write the statement of a day, of the fields of `Booked`, and import the folder."""
        self.state(day, Booked(**booked))

    def fill(self, *days: date) -> None:
        filled = StatementDays(self.lake, self.settings).collect(days).filled
        table = self.lake.derived_table(DAILY_POSITIONS)
        put_rows(table, {day: closed.rows for day, closed in filled.items()})

    def explained(self, day: date) -> pl.DataFrame:
        """Fill a day and the one before, and return the rows of its profit."""
        return self.explain([day])[day]

    def explain(self, days: Sequence[date]) -> dict[date, pl.DataFrame]:
        """Fill days and those before them, and record and return the rows of their profits."""
        calendar = self.settings.calendar
        before = [session_before(calendar, day) for day in days]
        self.fill(*sorted({*before, *days}))
        MovementBook(self.lake).update()
        closes = closing_times(calendar, [*before, *days])
        trading_days = [
            TradingDay(day=day, before=earlier, since=closes[earlier], closed=closes[day])
            for day, earlier in zip(days, before, strict=True)
        ]
        rows = explain_days(self.lake, self.settings, trading_days)
        put_rows(self.lake.derived_table(PROFIT_EXPLAINED), rows)
        return rows

    def profit(self, day: date) -> dict[str, float | None]:
        """Return the profit of a day by currency; None where it is not known."""
        rows = self.explained(day)
        return {
            currency: None if of_currency["profit"].has_nulls() else of_currency["profit"].sum()
            for (currency,), of_currency in rows.group_by("currency")
        }
