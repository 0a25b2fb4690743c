"""The books of a day: how net liquidation moved, and what of it nothing explains.

Net liquidation of the statement − that of the statement before = profit of holdings + income + fees
+ interest + accruals + effect of exchange rates + what the owner moved + difference.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import polars as pl

from position_sync_dagster.domain.closes import EventKind
from position_sync_dagster.domain.movements import OWNERS_CASH, MovementKind
from position_sync_dagster.lake.lake import Lake, rows_of_logins
from position_sync_dagster.lake.schema import BOOKS, DAILY_POSITIONS, PROFIT_EXPLAINED, frame_of
from position_sync_dagster.settings import Settings

# A difference is to be explained if it is more than the larger of these: in the base currency, and
# as a part of net liquidation.
LARGEST_DIFFERENCE = 1.0
LARGEST_PART = 0.0001

# What explains a change of net liquidation.
EXPLAINS = ("profit", "income", "fees", "interest", "accruals", "rates", "owner")

_INCOME = [MovementKind.DIVIDEND.value, MovementKind.WITHHOLDING.value]
_FEES = [MovementKind.FEE.value, MovementKind.OTHER.value]
_INTEREST = [MovementKind.INTEREST.value]
_OWN = [kind.value for kind in OWNERS_CASH]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetLiquidation:
    """What a statement says that an account was worth at the end of a day.

    Attributes:
        currency: Base currency of the account; None: the statement does not say it.
        accruals: Dividends and interest that are due and not paid; None: it names no parts.
        statement: The file's name.
    """

    account: str
    currency: str | None
    total: float
    accruals: float | None
    statement: str


def close_books(lake: Lake, settings: Settings, day: date, *, before: date) -> pl.DataFrame:
    """Return the rows of `books` of a trading day: one for each account; blocks.

    Args:
        lake: The tables; `profit_explained` is filled for the day.
        settings: Says which logins count.
        day: The trading day.
        before: The trading day before it.

    Raises:
        LakeError: A table cannot be used.
    """
    first = _net_liquidations(lake, before)
    last = _net_liquidations(lake, day)
    accounts = pl.DataFrame({"account": sorted(first.keys() & last.keys())}, {"account": pl.String})
    rows: list[dict[str, Any]] = []
    for account in rows_of_logins(accounts, settings)["account"]:
        explained = _of_account(lake, PROFIT_EXPLAINED, account, day)
        positions = _of_account(lake, DAILY_POSITIONS, account, day)
        is_of_day = (pl.col("account") == account) & (pl.col("session_date") == day)
        movements = lake.movements.rows(only=is_of_day)
        parts = book_parts(first[account], last[account], explained, movements, positions)
        rows.append({"session_date": day, "account": account} | parts)
    return frame_of(BOOKS, rows)


def _of_account(lake: Lake, spec: Any, account: str, day: date) -> pl.DataFrame:
    table = lake.derived_table(spec)
    is_of_day = (pl.col("account") == account) & (pl.col("session_date") == day)
    return table.rows(is_of_day) if table.exists() else spec.empty


def _net_liquidations(lake: Lake, day: date) -> dict[str, NetLiquidation]:
    """Return what the newest statement says of each account at the end of a day."""
    is_stated = (pl.col("kind") == EventKind.NET_LIQUIDATION.value) & (pl.col("day") == day)
    events = lake.statement_events.rows(day, is_stated).sort("stated_at", nulls_last=False)
    newest: dict[str, NetLiquidation] = {}
    for event in events.drop_nulls("amount").iter_rows(named=True):
        parts = json.loads(event["attributes"])
        accruals = [amount for name, amount in parts.items() if name.endswith("Accruals")]
        newest[event["account"]] = NetLiquidation(
            account=event["account"],
            currency=event["currency"],
            total=event["amount"],
            accruals=sum(accruals) if parts else None,
            statement=event["statement"],
        )
    return newest


def book_parts(
    first: NetLiquidation,
    last: NetLiquidation,
    explained: pl.DataFrame,
    movements: pl.DataFrame,
    positions: pl.DataFrame,
) -> dict[str, Any]:
    """Return what explains the change of net liquidation of one account, and the difference; pure.

    Where a part is not known, the difference is not known either. An account with money in several
    currencies gains or loses by their rates: by how much is not known.

    Args:
        first: Net liquidation at the close before.
        last: That at the close.
        explained: The rows of `profit_explained` of the account and day.
        movements: The rows of `movements` of the account and day.
        positions: The rows of `daily_positions` of the account and day.
    """
    currencies = {*explained["currency"], *movements["currency"], *positions["currency"]} - {None}
    foreign = sorted(currencies - {last.currency})
    unknown: list[str] = []
    if last.currency is None or first.currency != last.currency:
        unknown.append("its base currency")
    if foreign:
        unknown.append(f"the effect of the rates of {', '.join(foreign)}")
    if explained["profit"].has_nulls():
        unknown.append("the profit of its holdings")

    cash = movements.filter(pl.col("cash") != 0)
    owned = _owners(cash, positions, movements)
    if owned is None:
        unknown.append("the value of a transfer")

    parts: dict[str, float | None] = dict.fromkeys(EXPLAINS)
    if not unknown:
        commissions = _total(explained["fees"])
        of_holdings = _total(explained["profit"]) - commissions - _total(explained["cash"])
        parts |= {
            "profit": of_holdings,
            "income": _sum_of(cash, _INCOME),
            "fees": _sum_of(cash, _FEES) + commissions,
            "interest": _sum_of(cash, _INTEREST),
            "rates": 0.0,
            "owner": owned,
        }
        parts["accruals"] = _change_of_accruals(first, last)

    change = last.total - first.total
    known = [amount for amount in parts.values() if amount is not None]
    return parts | {
        "currency": last.currency,
        "net_liquidation_before": first.total,
        "net_liquidation": last.total,
        "change": change,
        "difference": None if unknown else change - sum(known),
        "why_unknown": "; ".join(unknown) or None,
        "statement": last.statement,
    }


def _sum_of(cash: pl.DataFrame, kinds: Sequence[str]) -> float:
    return _total(cash.filter(pl.col("kind").is_in(list(kinds)))["cash"])


def _total(amounts: pl.Series) -> float:
    """Return the sum of amounts that are all known."""
    return float(amounts.sum())


def _change_of_accruals(first: NetLiquidation, last: NetLiquidation) -> float | None:
    """Return the change of accruals; None where a statement names no parts.

    What they moved is in the difference then.
    """
    if first.accruals is None or last.accruals is None:
        return None
    return last.accruals - first.accruals


def _owners(cash: pl.DataFrame, positions: pl.DataFrame, movements: pl.DataFrame) -> float | None:
    """Return what the owner brought or took, in cash and in kind; None where it is not known."""
    transfers = movements.filter(kind=MovementKind.TRANSFER.value)
    marks = positions.filter(pl.col("position") != 0).select(
        "conid", mark=pl.col("market_value") / pl.col("position")
    )
    stated = pl.coalesce("value", pl.col("quantity") * pl.col("price") * pl.col("multiplier"))
    values = transfers.join(marks, on="conid", how="left").select(
        pl.coalesce(stated, pl.col("quantity") * pl.col("mark"))
    )
    in_kind = values.to_series()
    return None if in_kind.has_nulls() else _sum_of(cash, _OWN) + _total(in_kind)


def is_closed(row: Mapping[str, Any]) -> bool:
    """Return whether the books of a row close, or cannot be closed since a part is not known."""
    if row["difference"] is None:
        return True
    allowed: float = max(LARGEST_DIFFERENCE, LARGEST_PART * abs(row["net_liquidation"]))
    difference: float = row["difference"]
    return abs(difference) <= allowed


def open_books(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each account whose books do not close."""
    sentences: list[str] = []
    for row in rows:
        if is_closed(row):
            continue

        largest = max(EXPLAINS, key=lambda name: abs(row[name] or 0.0))
        sentences.append(
            f"{row['account']} on {row['session_date']}: {row['difference']:+,.2f} "
            f"{row['currency']} of {row['change']:+,.2f} are not explained; the largest part is "
            f"{largest} with {row[largest] or 0.0:+,.2f}"
        )
    return sentences
