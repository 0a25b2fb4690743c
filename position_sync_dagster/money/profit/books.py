"""The books of a day: how net liquidation moved, and what of it nothing explains.

Net liquidation of the statement − that of the statement before = profit of holdings + income + fees
+ interest + accruals + effect of exchange rates + what the owner moved + difference.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from math import fsum
from typing import Any

from polars import DataFrame, String, col, when

from position_sync_dagster.lake.derived import same_rows
from position_sync_dagster.lake.lake import rows_of_logins
from position_sync_dagster.lake.schema import DAILY_POSITIONS, frame_of
from position_sync_dagster.money.lake import MoneyLake, derived_rows
from position_sync_dagster.money.past.closes import EventKind
from position_sync_dagster.money.past.movement_book import movements_with_inferred
from position_sync_dagster.money.past.movements import (
    INCOME,
    OWNERS_CASH,
    MovementKind,
    known_sum,
    times,
)
from position_sync_dagster.money.profit.moved_between import with_values_in_kind
from position_sync_dagster.money.profit.profit import rows_to_explain, with_values_on_the_way
from position_sync_dagster.money.tables import BOOKS, PROFIT_EXPLAINED
from position_sync_dagster.money.trading_days import session_before
from position_sync_dagster.settings import Settings

# A difference is to be explained if it is more than the larger of these: in the base currency, and
# as a part of net liquidation.
LARGEST_DIFFERENCE = 1.0
LARGEST_PART = 0.0001

# What explains a change of net liquidation.
EXPLAINS = ("profit", "income", "fees", "interest", "accruals", "rates", "owner")

# The cash in each of these.
_CASH_OF = {
    "income": (MovementKind.DIVIDEND, MovementKind.WITHHOLDING),
    "fees": (MovementKind.FEE, MovementKind.OTHER),
    "interest": (MovementKind.INTEREST,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedWorth:
    """What the newest statement says that an account was worth at the end of a day.

    Attributes:
        currency: Base currency of the account; None: the statement does not say it.
        total: Net liquidation.
        accruals: Dividends and interest that are due and not paid; None: it names no parts.
        statement: The file's name.
        cash: By currency; it has none of those that are not there. Empty: not stated. Unit: that
            currency.
        rates: What a unit of a currency is worth; of the base currency 1. Unit: base currency.
    """

    currency: str | None
    total: float
    accruals: float | None
    statement: str
    cash: Mapping[str, float]
    rates: Mapping[str, float]


def close_books(lake: MoneyLake, settings: Settings, day: date) -> DataFrame:
    """Return the rows of `books` of a trading day: one for each account; blocks.

    Args:
        lake: The tables; `profit_explained` is filled for the day.
        settings: Says which logins count.
        day: The trading day.

    Raises:
        LakeError: A table cannot be used.
    """
    before = session_before(settings.calendar, day)
    first = _stated_worth(lake, before)
    last = _stated_worth(lake, day)
    accounts = DataFrame({"account": sorted(first.keys() & last.keys())}, {"account": String})
    explained = _of_day(lake, PROFIT_EXPLAINED, day)
    held_before, held = (_of_day(lake, DAILY_POSITIONS, session) for session in (before, day))
    movements = movements_with_inferred(lake, None, col.session_date == day)
    movements = with_values_on_the_way(lake, settings, movements)
    ends = (rows_to_explain(lake, settings, rows) for rows in (held_before, held))
    movements = with_values_in_kind(movements, *ends)
    rows = []
    for account in rows_of_logins(accounts, settings)["account"]:
        moved = Moved(
            explained=explained.filter(account=account),
            movements=movements.filter(account=account),
            held_before=held_before.filter(account=account),
            held=held.filter(account=account),
        )
        parts = book_parts(first[account], last[account], moved)
        rows.append(parts | {"session_date": day, "account": account})
    return frame_of(BOOKS, rows)


def being_made(lake: MoneyLake, settings: Settings, rows: DataFrame) -> bool:
    """Return whether what the books of a day rest on changed after they were made; blocks.

    Args:
        rows: The rows of a trading day, as they were read.
    """
    days = rows["session_date"].unique()
    return any(not same_rows(rows, close_books(lake, settings, day)) for day in days)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What the tables have of one account and trading day.

    Attributes:
        explained: Rows of `profit_explained`.
        movements: Rows of `movements`, each transfer with its value.
        held_before: Rows of `daily_positions` of the trading day before.
        held: Those of the day.
    """

    explained: DataFrame
    movements: DataFrame
    held_before: DataFrame
    held: DataFrame

    @property
    def lacks_profit(self) -> bool:
        """Whether something was held or moved, and no row says what it earned."""
        is_money_alone = col.kind.is_in([*INCOME, *OWNERS_CASH])
        moves = self.movements.drop_nulls("conid").filter(~is_money_alone)
        return self.explained.is_empty() and bool(
            moves.height + self.held_before.height + self.held.height
        )

    @property
    def lacks_open_profit(self) -> bool:
        """Whether the open profit of a CFD is not known: it is what the account has of it."""
        return self.held_before.filter(sec_type="CFD")["unrealized_pnl"].has_nulls()

    @property
    def conversions(self) -> DataFrame:
        """The movements that are one currency for another."""
        return self.movements.filter(kind=MovementKind.CONVERSION.value)


def _of_day(lake: MoneyLake, spec: Any, day: date) -> DataFrame:
    return derived_rows(lake.derived_table(spec), chosen=col("partition.session_date") == day)


def _stated_worth(lake: MoneyLake, day: date) -> dict[str, StatedWorth]:
    """Return what the newest statement says of each account at the end of a day."""
    kinds = [EventKind.NET_LIQUIDATION.value, EventKind.CASH_BALANCE.value, EventKind.RATE.value]
    events = lake.statement_events.rows(day, col.kind.is_in(kinds) & (col.day == day))
    events = events.drop_nulls("amount").sort("stated_at", nulls_last=False)
    of_currencies = events.drop_nulls("currency").rows_by_key(("account", "kind"), named=True)

    worth = {}
    # The newest one of a name counts.
    for event in events.filter(kind=EventKind.NET_LIQUIDATION.value).iter_rows(named=True):
        account, base = event["account"], event["currency"]
        parts = json.loads(event["attributes"])
        accruals = sum(amount for name, amount in parts.items() if name.endswith("Accruals"))
        cash = of_currencies[account, EventKind.CASH_BALANCE.value]
        rates = of_currencies[account, EventKind.RATE.value]
        in_base = {rate["currency"]: rate["amount"] for rate in rates if rate["type"] == base}
        worth[account] = StatedWorth(
            currency=base,
            total=event["amount"],
            accruals=accruals if parts else None,
            statement=event["statement"],
            cash={balance["currency"]: balance["amount"] for balance in cash},
            rates={} if base is None else in_base | {base: 1.0},
        )
    return worth


def book_parts(first: StatedWorth, last: StatedWorth, moved: Moved) -> dict[str, Any]:
    """Return what explains the change of net liquidation of one account, and the difference; pure.

    Where a part is not known, the difference is not known either. Amounts of a currency count at
    its rate of the day; what the account had of it before gained or lost by the change of the rate.

    Args:
        first: What it was worth at the close before.
        last: What it was worth at the close.
        moved: What the tables have of the account and day.
    """
    foreign = _foreign_currencies(moved, first, last.currency)
    rated = first.rates.keys() & last.rates.keys()
    without_rates = [code for code in foreign if code not in rated]
    conversions = moved.conversions.select("cash", "quantity")
    owner = _moved_by_owner(moved, last.rates)
    lacking = {
        "its base currency": last.currency is None or first.currency != last.currency,
        "its cash by currency": not first.cash,  # a statement without its section Cash Report
        f"the effect of the rates of {', '.join(without_rates)}": without_rates,
        "the open profit of its CFDs": foreign and moved.lacks_open_profit,
        "the profit of its holdings": moved.explained["profit"].has_nulls() or moved.lacks_profit,
        "what a conversion paid": conversions.height > conversions.drop_nulls().height,
        "what the owner moved": owner is None,
    }
    unknown = [reason for reason, is_lacking in lacking.items() if is_lacking]

    # What has no amount is unknown above, or makes a profit unknown.
    cash = moved.movements.filter(col.cash != 0)

    change = last.total - first.total
    difference = None
    parts: dict[str, Any] = dict.fromkeys(EXPLAINS)
    parts["owner"] = owner
    if not unknown:
        rates = last.rates
        commissions = _in_base(moved.explained, "fees", rates)
        profit = _in_base(moved.explained, "profit", rates)

        for name, kinds in _CASH_OF.items():
            parts[name] = _in_base(cash.filter(col.kind.is_in(kinds)), "cash", rates)

        parts["fees"] += commissions
        parts["profit"] = profit - commissions - _in_base(moved.explained, "cash", rates)
        parts["rates"] = _effect_of_rates(moved, first, last)
        # Where a statement names no parts, what they moved is in the difference.
        if first.accruals is not None and last.accruals is not None:
            parts["accruals"] = last.accruals - first.accruals
        difference = change - sum(filter(None, parts.values()))

    return {
        **parts,
        "currency": last.currency,
        "net_liquidation_before": first.total,
        "net_liquidation": last.total,
        "change": change,
        "difference": difference,
        "why_unknown": "; ".join(unknown) or None,
        "statement": last.statement,
    }


def _foreign_currencies(moved: Moved, first: StatedWorth, base: str | None) -> list[str]:
    """Return the currencies but the base one in which the account has or had something."""
    frames = (moved.explained, moved.movements, moved.held_before, moved.held)
    currencies = {currency for frame in frames for currency in frame["currency"]}
    currencies |= {currency for currency, amount in first.cash.items() if amount}
    currencies |= {_bought(symbol) for symbol in moved.conversions["symbol"]}
    return sorted(currencies - {None, base})


def _effect_of_rates(moved: Moved, first: StatedWorth, last: StatedWorth) -> float:
    """Return what the account gained by rates: on what it had, and by what it converted."""
    # The value of a future is notional: its profit is in the cash. That of a CFD is too: the
    # account has its open profit.
    worth = moved.held_before.filter(col.sec_type != "FUT")
    value_of_it = when(sec_type="CFD").then("unrealized_pnl").otherwise("market_value")
    had = defaultdict(float, first.cash)
    for currency, value in worth.group_by("currency").agg(value_of_it.sum()).iter_rows():
        had[currency] += value

    effect = sum(
        amount * (last.rates[currency] - first.rates[currency])
        for currency, amount in had.items()
        if amount
    )

    # A conversion costs what its own rate differs from that of the day.
    for conversion in moved.conversions.iter_rows(named=True):
        effect += conversion["quantity"] * last.rates[_bought(conversion["symbol"])]
        effect += conversion["cash"] * last.rates[conversion["currency"]]
    return effect


def _bought(symbol: str) -> str:
    """Return the currency of which a conversion has the quantity: the first of a pair.

    >>> _bought("EUR.USD")
    'EUR'
    """
    return symbol.partition(".")[0]


def _in_base(rows: DataFrame, name: str, rates: Mapping[str, float]) -> float:
    """Return the sum of amounts that are all known, in the base currency."""
    amounts = rows.group_by("currency").agg(col(name).sum()).iter_rows()
    return fsum(amount * rates[currency] for currency, amount in amounts if amount)


def _moved_by_owner(moved: Moved, rates: Mapping[str, float]) -> float | None:
    """Return what the owner brought, in cash and in kind, less what was taken; None: not known."""
    in_kind = moved.movements.filter(kind=MovementKind.TRANSFER.value).select("currency", "value")
    in_cash = moved.movements.filter(col.kind.is_in(OWNERS_CASH)).select("currency", "cash")
    in_base = []
    for currency, value in (*in_cash.iter_rows(), *in_kind.iter_rows()):
        rate = rates.get(currency)
        in_base.append(None if rate is None else times(value, rate))
    return known_sum(in_base)


def is_closed(row: Mapping[str, Any]) -> bool:
    """Return whether the books of a row close, or cannot be closed since a part is not known."""
    if row["difference"] is None:
        return True
    allowed: float = max(LARGEST_DIFFERENCE, LARGEST_PART * abs(row["net_liquidation"]))
    difference: float = row["difference"]
    return abs(difference) <= allowed


def open_books(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each account whose books do not close."""
    sentences = []
    for row in rows:
        if is_closed(row):
            continue

        largest = max(EXPLAINS, key=lambda name: abs(row[name] or 0.0))
        title = f"{row['account']} on {row['session_date']}"
        difference = f"{row['difference']:+,.2f} {row['currency']}"
        missing = f"{difference} of {row['change']:+,.2f}"
        most = f"{largest} with {row[largest] or 0.0:+,.2f}"
        sentences.append(f"{title}: {missing} are not explained; the largest part is {most}")
    return sentences
