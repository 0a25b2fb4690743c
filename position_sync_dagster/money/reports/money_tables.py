"""The columns and notes in which money and positions are shown on a terminal."""

from collections.abc import Iterable, Sequence

import polars as pl
from polars import col

from position_sync_dagster.money.reports.book import BEFORE, Book
from position_sync_dagster.money.reports.columns import (
    Column,
    Row,
    amount,
    duration,
    percent,
    price,
    readable,
)
from position_sync_dagster.money.reports.exposure import figure_of
from position_sync_dagster.money.reports.money_sums import AMOUNTS, BaseTotal, MoneySum


def _currency(sums: Row) -> str:
    return sums["currency"] or "–"


def _legs_held(sums: Row) -> str:
    return f"{sums['legs_held']}/{sums['legs']}"


def _short_in_money(sums: Row) -> str:
    in_money = sums["short_in_money"]
    unknown = sums["short_unknown"]
    if unknown:
        return f"{in_money} + {unknown}?"
    return f"{in_money}"


def _strategies(row: Row) -> str:
    return ",".join(row["strategies"])


def _price_age(row: Row) -> str:
    """Return the age of a price, and whether it is of delayed or frozen data."""
    age = duration(row["age_s"])
    if row["feed"] in (None, "live"):
        return age
    if row["age_s"] is None:
        return str(row["feed"])
    return f"{age} {row['feed']}"


def _nearest_expiry(sums: Row) -> str:
    day = sums["nearest_expiry"]
    if day:
        return f"{day:%d%b%y}"
    return ""


def _source(row: Row) -> str:
    """Return which price valued a row, such as MARK, or the source of a value without a price."""
    source = row["price_kind"] or row["value_source"] or ""
    if row["feed"] in (None, "live"):
        return str(source)
    return f"{source} {row['feed']}".lstrip()


_PRICE_AGE = Column("age", "age_s", _price_age)

# The columns of sums, behind their names, the most important first: those that fit are shown.
SUM_COLUMNS = (
    Column("", "currency", _currency, left=True),
    Column("legs", "legs", _legs_held),
    Column("value", "value"),
    Column("unreal", "unrealized_pnl", signed=True),
    Column("daily", "daily_pnl", signed=True),
    Column("oldest", "age_s", _price_age),
    Column("$delta", "dollar_delta"),
    Column("theta", "theta"),
    Column("vega", "vega"),
    Column("$gamma 1%", "gamma_1pct"),
    Column("β $delta", "beta_delta"),
    Column("since first leg", "pnl_since_first_leg", signed=True),
    Column("cost/share", "cost_per_share", lambda sums: price(sums["cost_per_share"])),
    Column("reached", "profit_reached", lambda row: percent(row["profit_reached"])),
    Column("realised", "realized_pnl", signed=True),
    Column("expiry", "nearest_expiry", _nearest_expiry),
    Column("short ITM", "short_in_money", _short_in_money),
)
# These columns are shown where a value is known.
_NOT_ALWAYS = (
    "beta_delta", "realized_pnl", "pnl_since_first_leg", "cost_per_share", "profit_reached",
)  # fmt: skip

POSITIONS = (
    Column("leg", "name", left=True),
    Column("qty", "position", lambda row: readable(row["position"])),
    Column("price", "market_price", lambda row: price(row["market_price"])),
    Column("value", "market_value"),
    Column("unreal", "unrealized_pnl", signed=True),
    Column("daily", "daily_pnl", signed=True),
    Column("delta", "delta"),
    _PRICE_AGE,
    Column("theta", "theta"),
    Column("strategy", "strategies", _strategies, left=True),
    Column("source", "value_source", _source, left=True),
    Column("notional", "notional"),
    Column("account", "account", left=True),
    Column("conid", "conid", left=True),
    Column("currency", "currency", left=True),
    Column("vega", "vega"),
    Column("gamma", "gamma"),
)


def sums_table(
    heading: str, sums: Iterable[MoneySum], *, is_past: bool = False
) -> tuple[list[Column], list[Row]]:
    """Return columns and rows of sums; a star marks a sum that leaves out a holding.

    Args:
        heading: What the rows are sums of.
        sums: The sums of strategies or of underlyings, and totals.
        is_past: Whether they are of a past moment: what is not what was shown then is marked.
    """
    listed = list(sums)
    accounts = {row_sums.account for row_sums in listed if row_sums.account}
    are_several = len(accounts) > 1
    rows = [_sums_row(each, has_accounts=are_several, is_past=is_past) for each in listed]

    shown = [Column(heading, "title", left=True)]
    for column in SUM_COLUMNS:
        if column.name in _NOT_ALWAYS and all(row.get(column.name) is None for row in rows):
            continue
        shown.append(column)
    return shown, rows


def _sums_row(sums: MoneySum, *, has_accounts: bool, is_past: bool) -> Row:
    """Return the cells of a row of sums, by the names of columns."""
    title = sums.name
    if has_accounts and sums.account:
        title += f" {sums.account}"
    if is_past and sums.not_kept:
        title += f" {BEFORE}"
    return {
        **sums.model_dump(),
        "title": title,
        "pnl_since_first_leg": sums.since_first_leg and sums.since_first_leg.profit,
        "age_s": sums.oldest_age_s,
        "feed": "delayed" if sums.delayed else None,
    }


_GREEKS = ("delta", "gamma", "theta", "vega")


def position_cells(positions: pl.DataFrame, *, is_past: bool = False) -> Sequence[Row]:
    """Return rows for POSITIONS of `open_positions`; of a past moment some are marked.

    The greeks are those of the whole position: per unit × quantity × multiplier. A position lacks
    the figures that it does not have, as cash its greeks.
    """
    size = col.position * col.multiplier
    positions = positions.with_columns(col(_GREEKS) * size, notional="market_value")
    if is_past:
        marked = pl.format(f"{{}} {BEFORE}", "name")
        positions = positions.with_columns(name=pl.when("kept").then("name").otherwise(marked))
    rows = positions.to_dicts()
    for name in (*_GREEKS, "market_value", "notional"):
        has_figure = positions.select(figure_of(name)).to_series()
        for row, has in zip(rows, has_figure, strict=True):
            if not has:
                del row[name]
    return rows


def not_in_sums(book: Book) -> list[str]:
    """Return a line about holdings whose present quantity is in no sum; none without any."""
    count = book.unwritten.height
    if not count:
        return []
    holdings = "1 holding is"
    if count > 1:
        holdings = f"{count} holdings are"
    return [f"{holdings} new or changed: the sums have the quantity from before, or nothing"]


def money_lines(book: Book) -> list[str]:
    """Return what has no column in the tables of the money."""
    lines = [*not_in_sums(book), *map(base_line, book.in_base)]
    for strategy in (*book.strategies, *book.rest):
        lines += _lines_of_strategy(strategy)
    return lines


def base_line(total: BaseTotal) -> str:
    """Return a total over currencies, with the rates that it rests on, or why it is not known."""
    subject = "all"
    if total.account:
        subject += f" {total.account}"
    subject += f" in {total.currency or 'base currency'}"

    amounts = []
    headings = {column.name: column.heading for column in SUM_COLUMNS}
    for name in AMOUNTS:
        value = getattr(total, name)
        if value is not None:
            amounts.append(f"{headings[name]} {amount(value)}")
    known = ", ".join(amounts) or "not known"

    notes = []
    for currency, rate in total.rates.items():
        if rate is None or rate == 1:
            continue

        notes.append(f"1 {currency} = {rate:g}")
    if total.why_unknown:
        notes.append(total.why_unknown)
    return f"{subject}: {known} ({'; '.join(notes)})"


def _lines_of_strategy(sums: MoneySum) -> list[str]:
    texts: list[str] = []
    if sums.differences:
        texts = sums.differences.split("; ")
    if sums.closed:
        missing = sums.legs - sums.legs_held - sums.legs_closed
        text = f"{sums.legs_held} of {sums.legs} legs"
        text += f", {sums.closed}"
        if missing:
            text += f", {'one' if missing == 1 else missing} missing"
        texts.insert(0, text)
    return [f"{sums.name}: {text}" for text in texts]
