"""Sums of money, and positions, as tables for a terminal of any width.

A table shows the columns that fit into the width.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import polars as pl
from rich.cells import cell_len
from rich.console import Group
from rich.text import Text

from position_sync_dagster.sync.reports.book import KEY, Book, BookMoney, Sums
from position_sync_dagster.sync.reports.exposure import figure_of, summed
from position_sync_dagster.sync.reports.status import seconds_since
from position_sync_dagster.terminal.text import (
    amounts,
    duration,
    foreign,
    greeks_age,
    money_lines,
    number,
    quantity,
)

# Characters; in a terminal of this width or more, two spaces separate the columns.
WIDE = 110


@dataclass(frozen=True, slots=True)
class FittedColumn:
    """One column of a table; one without any text is not shown.

    Attributes:
        cells: One text per row.
        rank: 0 for a column that is always shown; the others are shown if they fit, lowest rank
            first.
        left: Whether the cells are aligned to the left.
        signed: Whether a negative number is red and a positive one green.
        most: The most characters of a cell in a narrow table; None for no limit.
    """

    heading: str
    cells: Sequence[str]
    rank: int = 0
    _: KW_ONLY
    left: bool = False
    signed: bool = False
    most: int | None = None


def fitted_table(columns: Iterable[FittedColumn], width: int, *, totals: int = 0) -> Group:
    """Return a table of the columns that fit, in their order, one line of text a row.

    The live status draws it again and again; a table of Rich, which measures each cell, takes four
    times as long.

    Args:
        totals: The number of rows at the end that are totals.
    """
    gap, room = (2 if width >= WIDE else 1), width
    sized = [(column, _width(column, width)) for column in columns if any(column.cells)]
    chosen = set()
    for at, (column, wide) in sorted(enumerate(sized), key=lambda one: one[1][0].rank):
        room -= wide + gap
        if column.rank and room + gap < 0:
            break  # a column of a higher rank does not take the place of this one
        chosen.add(at)
    shown = [sized[at] for at in sorted(chosen)]
    rows = len(shown[0][0].cells) if shown else 0

    def line(cells: Sequence[Text], style: str) -> Text:
        for cell, (column, wide) in zip(cells, shown, strict=True):
            cell.align("left" if column.left else "right", wide)
        found = Text(" " * gap).join(cells)
        found.style, found.no_wrap, found.overflow = style, True, "ellipsis"
        return found

    def cells_of(row: int) -> list[Text]:
        return [
            Text(_cut(column, column.cells[row], width), style=_colour(column, row))
            for column, _wide in shown
        ]

    headings = line([Text(column.heading) for column, _wide in shown], "bold")
    styles = [*[""] * (rows - totals), *["bold"] * totals]
    return Group(headings, *(line(cells_of(row), style) for row, style in enumerate(styles)))


def _width(column: FittedColumn, width: int) -> int:
    return max(cell_len(_cut(column, text, width)) for text in (column.heading, *column.cells))


def _cut(column: FittedColumn, text: str, width: int) -> str:
    if column.most is None or width >= WIDE or len(text) <= column.most:
        return text
    return text[: column.most - 1] + "…"


def _colour(column: FittedColumn, row: int) -> str:
    text = column.cells[row]
    if not column.signed or not any(char in "123456789" for char in text):
        return ""
    return "red" if text.startswith("-") else "green"


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


def sums_table(heading: str, rows: Iterable[Sums], width: int, *, totals: int = 0) -> Group:
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


def positions_table(rows: pl.DataFrame, book: Book, width: int) -> Group:
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
    return Group(table, Text(f"greeks of {known} of {options} options{share}", style="dim"))


def _source(row: Mapping[str, Any]) -> str:
    """Return which price valued a row, such as MARK, or the source of a value without a price."""
    words = (row["price_kind"] or row["value_source"], row["feed"])
    return " ".join(str(word) for word in words if word not in (None, "live"))
