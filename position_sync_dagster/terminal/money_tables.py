"""Sums of money, and positions, as tables for a terminal of any width.

A table shows the columns that fit into the width.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import polars as pl
from rich.cells import cell_len
from rich.console import Group
from rich.text import Text

from position_sync_dagster.sync.reports.book import Book, BookMoney, Sums, seconds_since
from position_sync_dagster.sync.reports.exposure import figure_of, summed
from position_sync_dagster.sync.reports.positions import KEY
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
)
# These columns are shown where a value is known.
_NOT_ALWAYS = ("beta_delta", "realized_pnl")


def sums_table(heading: str, rows: Sequence[Sums], width: int, *, totals: int = 0) -> Group:
    """Return sums of strategies or of underlyings, and those of totals below them.

    A star marks a sum that leaves out a holding.

    Args:
        heading: What the rows are sums of.
        totals: The number of rows at the end that are totals.
    """
    several = len({one["account"] for one in rows if one["account"]}) > 1

    def texts(heading: str, text: Callable[[Sums], str], rank: int = 0) -> FittedColumn:
        return FittedColumn(heading, [text(one) for one in rows], rank)

    def sums(heading: str, name: str, rank: int) -> FittedColumn:
        values = [one[name] for one in rows]
        cells = amounts(values, [name in one["unknown"] for one in rows])
        if name in _NOT_ALWAYS and not any(value is not None for value in values):
            cells = []
        return FittedColumn(heading, cells, rank, signed=name.endswith("_pnl"))

    def short(one: Sums) -> str:
        unknown = f" + {one['short_unknown']}?" if one["short_unknown"] else ""
        return f"{one['short_in_money']}{unknown}"

    def known(one: Sums) -> str:
        modelled = f" ({one['options_modelled']} MODEL)" if one["options_modelled"] else ""
        return f"{one['options_with_greeks']}/{one['options']}{modelled}"

    campaigns = [one["campaign"] for one in rows]
    earned = amounts([one and one["profit"] for one in campaigns]) if any(campaigns) else []
    return fitted_table(
        [
            FittedColumn(heading, [_name(one, several) for one in rows], left=True, most=18),
            FittedColumn("", [one["currency"] or "–" for one in rows], left=True),
            texts("legs", lambda one: f"{one['legs_held']}/{one['legs']}"),
            *(sums(*of) for of in _SUMS),
            FittedColumn("campaign", earned, 2, signed=True),
            texts("lines", lambda one: quantity(one["lines"]), 4),
            texts("with greeks", known, 6),
            texts("expiry", lambda one: f"{at:%d%b%y}" if (at := one["nearest_expiry"]) else "", 5),
            texts("short ITM", short, 5),
            texts("no value", lambda one: str(one["unvalued"] or ""), 5),
            *_age_columns(
                "oldest",
                [
                    (
                        one["oldest_age_s"],
                        "delayed" if one["delayed"] else None,
                        one["oldest_greeks_s"],
                        one["options_with_greeks"] > 0,
                    )
                    for one in rows
                ],
            ),
        ],
        width,
        totals=totals,
    )


def _name(one: Sums, several: bool) -> str:
    return foreign(f"{one['name']} {one['account']}" if several and one["account"] else one["name"])


# The age of a price, the kind of its feed, the age of greeks, and whether there are any.
_Ages = tuple[float | None, str | None, float | None, bool]


def _age_columns(heading: str, ages: Sequence[_Ages]) -> list[FittedColumn]:
    """Return the columns of ages; that of greeks has a text where it differs from the price's."""
    priced = [_price_age(age, feed) for age, feed, *_ in ages]
    greeks = [greeks_age(at, age, has_greeks=has) for age, _feed, at, has in ages]
    return [FittedColumn(heading, priced), FittedColumn("greeks", greeks)]


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
    size, now = pl.col("position") * pl.col("multiplier"), book.now
    rows = rows.with_columns(*(pl.col(name) * size for name in _GREEKS), notional="market_value")
    lines = rows.to_dicts()
    parts = book.split.parts.join(rows, on=KEY, how="semi")
    totals = summed(parts, ["currency"], now).to_dicts()
    several = len(totals) > 1 or rows.get_column("account").n_unique() > 1

    def texts(
        heading: str, text: Callable[[dict[str, Any]], str], rank: int = 0, **more: Any
    ) -> FittedColumn:
        cells = [*(foreign(text(one)) for one in lines), *("" for _ in totals)]
        return FittedColumn(heading, cells, rank, **{"most": 40, **more})

    def sums(heading: str, name: str, rank: int = 0) -> FittedColumn:
        has = rows.with_columns(has=figure_of(name)).get_column("has")
        of_total = [None if name in _GREEKS else one[name] for one in totals]
        cells = amounts(
            [*rows.get_column(name), *of_total],
            [*[False] * len(lines), *(one[f"without_{name}"] > 0 for one in totals)],
        )
        there = [*has, *(name not in _GREEKS and any(has) for _ in totals)]
        shown = [cell if one else "" for cell, one in zip(cells, there, strict=True)]
        return FittedColumn(heading, shown, rank, signed=name.endswith("_pnl"))

    names = [*(foreign(one["name"]) for one in lines), *(f"total {o['currency']}" for o in totals)]
    ages: list[_Ages] = [
        *(
            (one["age_s"], one["feed"], one["greeks_age_s"], one["delta"] is not None)
            for one in lines
        ),
        *(
            (
                seconds_since(one["priced_at"], now),
                "delayed" if one["delayed"] else None,
                seconds_since(one["greeks_at"], now),
                one["options_with_greeks"] > 0,
            )
            for one in totals
        ),
    ]
    columns = [
        texts("account", lambda one: one["account"], 3 if several else 8, left=True),
        texts("conid", lambda one: str(one["conid"]), 6),
        FittedColumn("leg", names, left=True),
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
        *_age_columns("age", ages),
    ]
    table = fitted_table(columns, width, totals=len(totals))
    counts = ("options", "options_with_greeks", "options_modelled")
    options, known, modelled = (sum(one[name] for one in totals) for name in counts)
    if known == options and not modelled:
        return table
    share = f", {modelled} of them MODEL" if modelled else ""
    return Group(table, Text(f"greeks of {known} of {options} options{share}", style="dim"))


def _source(row: dict[str, Any]) -> str:
    """Return which price valued a row, such as MARK, or the source of a value without a price."""
    words = (row["price_kind"] or row["value_source"], row["feed"])
    return " ".join(str(word) for word in words if word not in (None, "live"))
