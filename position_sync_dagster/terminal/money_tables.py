"""Sums of money, and positions, as tables for a terminal of any width.

A table shows the columns that fit into the width.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import polars as pl
from rich.text import Text

from position_sync_dagster.sync.reports.book import KEY, Book, BookMoney, Sums
from position_sync_dagster.sync.reports.exposure import figure_of, summed
from position_sync_dagster.sync.reports.status import seconds_since
from position_sync_dagster.terminal.output import FittedColumn, fitted_table
from position_sync_dagster.terminal.text import (
    amounts,
    duration,
    foreign,
    greeks_age,
    money_lines,
    number,
    quantity,
)

# The heading of each sum, its name, and the rank of its column.
_SUMS = (
    ("value", "value", 0),
    ("unreal", "unrealized_pnl", 0),
    ("daily", "daily_pnl", 0),
    ("$delta", "dollar_delta", 1),
    ("$gamma 1%", "gamma_1pct", 3),
    ("theta", "theta", 1),
    ("vega", "vega", 2),
    ("β $delta", "beta_delta", 2),
    ("realised", "realized_pnl", 3),
    ("campaign", "campaign_pnl", 2),
)
# These columns are shown where a value is known.
_NOT_ALWAYS = ("beta_delta", "realized_pnl", "campaign_pnl")


def sums_table(heading: str, rows: Iterable[Sums], width: int, *, totals: int = 0) -> list[Text]:
    """Return sums of strategies or of underlyings, and those of totals below them.

    A star marks a sum that leaves out a holding.

    Args:
        heading: What the rows are sums of.
        totals: The number of rows at the end that are totals.
    """
    lines = [
        one
        | {
            "campaign_pnl": one["campaign"] and one["campaign"]["profit"],
            "ages": _ages(one, one["oldest_age_s"], one["oldest_greeks_s"]),
        }
        for one in rows
    ]
    several = len({one["account"] for one in lines if one["account"]}) > 1

    def name(one: Sums) -> str:
        account = f" {one['account']}" if several and one["account"] else ""
        return foreign(f"{one['name']}{account}")

    def texts(
        heading: str, text: Callable[[Sums], str], rank: int = 0, **more: Any
    ) -> FittedColumn:
        return FittedColumn(heading, [text(one) for one in lines], rank, **more)

    def sums(heading: str, name: str, rank: int) -> FittedColumn:
        values = [one[name] for one in lines]
        cells = amounts(values, [name in one["unknown"] for one in lines])
        shown = name not in _NOT_ALWAYS or any(value is not None for value in values)
        return FittedColumn(heading, cells if shown else [], rank, signed=name.endswith("_pnl"))

    def short(one: Sums) -> str:
        unknown = f" + {one['short_unknown']}?" if one["short_unknown"] else ""
        return f"{one['short_in_money']}{unknown}"

    def known(one: Sums) -> str:
        modelled = f" ({one['options_modelled']} MODEL)" if one["options_modelled"] else ""
        return f"{one['options_with_greeks']}/{one['options']}{modelled}"

    columns = [
        texts(heading, name, left=True, most=18),
        texts("", lambda one: one["currency"] or "–", left=True),
        texts("legs", lambda one: f"{one['legs_held']}/{one['legs']}"),
        *(sums(*of) for of in _SUMS),
        texts("lines", lambda one: quantity(one["lines"]), 4),
        texts("with greeks", known, 6),
        texts("expiry", lambda one: f"{at:%d%b%y}" if (at := one["nearest_expiry"]) else "", 5),
        texts("short ITM", short, 5),
        texts("no value", lambda one: str(one["unvalued"] or ""), 5),
        texts("oldest", lambda one: one["ages"][0]),
        texts("greeks", lambda one: one["ages"][1]),
    ]
    return fitted_table(columns, width, totals=totals)


def _ages(one: Mapping[str, Any], age_s: float | None, greeks_s: float | None) -> tuple[str, str]:
    """Return the ages of a sum as texts: of the price, and of the greeks where it differs."""
    age = _price_age(age_s, "delayed" if one["delayed"] else None)
    return age, greeks_age(greeks_s, age_s, has_greeks=one["options_with_greeks"] > 0)


def _price_age(age_s: float | None, feed: str | None) -> str:
    """Return the age of a price, and whether it is of delayed or frozen data."""
    if feed in (None, "live"):
        return duration(age_s)
    return str(feed) if age_s is None else f"{duration(age_s)} {feed}"


def money_notes(money: BookMoney) -> list[Text]:
    """Return what has no column in the tables of the money, one line each."""
    return [
        Text(foreign(line, 1000), style="dim", no_wrap=True, overflow="ellipsis")
        for line in money_lines(money)
    ]


_GREEKS = ("delta", "gamma", "theta", "vega")


def positions_table(rows: pl.DataFrame, book: Book, width: int) -> list[Text]:
    """Return positions of a book (`open_positions`), with a total for each currency.

    The greeks are those of the whole position: per unit × quantity × multiplier.
    """
    size = pl.col("position") * pl.col("multiplier")
    rows = rows.with_columns(*(pl.col(name) * size for name in _GREEKS), notional="market_value")
    lines = rows.to_dicts()
    parts = book.split.parts.join(rows, on=KEY, how="semi")
    totals = summed(parts, ["currency"], book.now).to_dicts()
    several = len(totals) > 1 or rows.get_column("account").n_unique() > 1

    def texts(
        heading: str,
        text: Callable[[Mapping[str, Any]], str],
        rank: int = 0,
        of_totals: Sequence[str] = (),
        **more: Any,
    ) -> FittedColumn:
        cells = [foreign(text(one)) for one in lines] + [*(of_totals or [""] * len(totals))]
        return FittedColumn(heading, cells, rank, **{"most": 40, **more})

    def sums(heading: str, name: str, rank: int = 0) -> FittedColumn:
        has = rows.with_columns(has=figure_of(name)).get_column("has")
        summable = name not in _GREEKS  # the total of greeks is of no use across underlyings
        cells = amounts(
            [*rows.get_column(name), *(one[name] if summable else None for one in totals)],
            [*[False] * len(lines), *(one[f"without_{name}"] > 0 for one in totals)],
        )
        there = [*has, *[summable and any(has)] * len(totals)]
        shown = [cell if one else "" for cell, one in zip(cells, there, strict=True)]
        return FittedColumn(heading, shown, rank, signed=name.endswith("_pnl"))

    def age_of_greeks(one: Mapping[str, Any]) -> str:
        return greeks_age(one["greeks_age_s"], one["age_s"], has_greeks=one["delta"] is not None)

    ages = [
        _ages(one, *(seconds_since(one[at], book.now) for at in ("priced_at", "greeks_at")))
        for one in totals
    ]
    columns = [
        texts("account", lambda one: one["account"], 3 if several else 8, left=True),
        texts("conid", lambda one: str(one["conid"]), 6),
        texts(
            "leg", lambda one: one["name"], 0, [f"total {one['currency']}" for one in totals],
            left=True, most=None,
        ),
        texts("qty", lambda one: quantity(one["position"])),
        texts("price", lambda one: number(one["market_price"])),
        sums("value", "market_value"),
        sums("notional", "notional", 3),
        sums("unreal", "unrealized_pnl"),
        sums("daily", "daily_pnl", 1),
        sums("delta", "delta"),
        sums("gamma", "gamma", 9),
        sums("theta", "theta"),
        sums("vega", "vega", 7),
        texts("currency", lambda one: one["currency"], 4 if several else 10, left=True),
        texts("strategy", lambda one: ",".join(one["strategies"]), left=True, most=12),
        texts("by", lambda one: one["source"], 5, left=True),
        texts("source", _source, 2, left=True),
        texts("age", lambda one: _price_age(one["age_s"], one["feed"]), 0, [a for a, _g in ages]),
        texts("greeks", age_of_greeks, 0, [greeks for _age, greeks in ages]),
    ]  # fmt: skip
    table = fitted_table(columns, width, totals=len(totals))
    counts = ("options", "options_with_greeks", "options_modelled")
    options, known, modelled = (sum(one[name] for one in totals) for name in counts)
    if known == options and not modelled:
        return table
    share = f", {modelled} of them MODEL" if modelled else ""
    return [*table, Text(f"greeks of {known} of {options} options{share}", style="dim")]


def _source(row: Mapping[str, Any]) -> str:
    """Return which price valued a row, such as MARK, or the source of a value without a price."""
    words = (row["price_kind"] or row["value_source"], row["feed"])
    return " ".join(str(word) for word in words if word not in (None, "live"))
