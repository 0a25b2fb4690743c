"""Strategies and positions with their money, as tables for a terminal of any width.

A table shows the columns that fit into the width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Group
from rich.text import Text

from position_sync_dagster.domain.closures import Closure
from position_sync_dagster.sync.reports.book import BookMoney, Money
from position_sync_dagster.sync.reports.exposure import add
from position_sync_dagster.sync.reports.positions import PositionList
from position_sync_dagster.terminal.text import (
    amount,
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
    """One column of a table.

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
    _: KW_ONLY
    rank: int = 0
    left: bool = False
    signed: bool = False
    most: int | None = None


def fitted_table(columns: Sequence[FittedColumn], width: int, *, totals: int = 0) -> Group:
    """Return a table of the columns that fit, in their order, one line of text a row.

    The live status draws it again and again; a table of Rich, which measures each cell, takes four
    times as long.

    Args:
        totals: The number of rows at the end that are totals.
    """
    gap = 2 if width >= WIDE else 1
    sized = [(column, _width(column, width)) for column in columns]
    chosen = {at for at, (column, _wide) in enumerate(sized) if column.rank == 0}
    room = width + gap - sum(sized[at][1] + gap for at in chosen)
    others = [at for at in range(len(sized)) if at not in chosen]
    for at in sorted(others, key=lambda at: columns[at].rank):
        room -= sized[at][1] + gap
        if room < 0:
            break  # a column of a higher rank does not take the place of this one
        chosen.add(at)
    shown = [sized[at] for at in sorted(chosen)]
    rows = max((len(column.cells) for column, _wide in shown), default=0)

    def line(cells: Sequence[Text], style: str) -> Text:
        for cell, (column, wide) in zip(cells, shown, strict=True):
            cell.align("left" if column.left else "right", wide)
        found = Text(" " * gap).join(cells)
        found.style, found.no_wrap, found.overflow = style, True, "ellipsis"
        return found

    return Group(
        line([Text(column.heading) for column, _wide in shown], "bold"),
        *(
            line(
                [
                    Text(_cut(column, column.cells[row], width), style=_colour(column, row))
                    for column, _wide in shown
                ],
                "bold" if row >= rows - totals else "",
            )
            for row in range(rows)
        ),
    )


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


# The heading of each sum, its name, and the rank of its column; strategies always show money.
_SUMS = (
    ("value", "value", 4),
    ("unreal", "unrealized_pnl", 3),
    ("daily", "daily_pnl", 2),
    ("$delta", "dollar_delta", 1),
    ("$gamma 1%", "gamma_1pct", 3),
    ("theta", "theta", 1),
    ("vega", "vega", 2),
)


def strategy_table(strategies: Sequence[Money], ends: Sequence[Money], width: int) -> Group:
    """Return the strategies, and below them what belongs to none and the totals."""
    rows = [*strategies, *ends]
    accounts = len({row.account for row in ends if row.account})
    names = [
        row.name if row.account is None or accounts == 1 else f"{row.name} {row.account}"
        for row in rows
    ]
    columns = [
        FittedColumn("strategy", [*map(foreign, names)], left=True, most=18),
        FittedColumn("", [row.currency or "–" for row in rows], left=True),
        FittedColumn("legs", [f"{row.legs_held}/{row.legs}" for row in rows]),
        *_sum_columns(rows, always=3),
    ]
    if any(row.beta_delta is not None for row in rows):
        columns.append(_sum_column("β $delta", "beta_delta", 2, rows))
    if any(row.closes for row in rows):
        realized = amounts([row.realized_pnl for row in rows])
        columns.append(FittedColumn("realised", realized, rank=3, signed=True))
        earned = amounts([row.campaign.profit if row.campaign else None for row in rows])
        columns.append(FittedColumn("campaign", earned, rank=2, signed=True))
    columns += [
        FittedColumn("lines", [quantity(row.lines) for row in rows], rank=5),
        *_age_columns(rows),
    ]
    if any(row.unvalued for row in rows):
        columns.append(FittedColumn("no value", [str(row.unvalued) for row in rows], rank=6))
    return fitted_table(columns, width, totals=len(ends))


def underlying_table(rows: Sequence[Money], width: int) -> Group:
    """Return the sums of each underlying, with its nearest expiry and its short options."""
    columns = {
        "legs": [str(row.legs) for row in rows],
        "with greeks": [
            f"{row.options_with_greeks}/{row.options}"
            + (f" ({row.options_modelled} MODEL)" if row.options_modelled else "")
            for row in rows
        ],
    }
    has_betas = any(row.beta_delta is not None for row in rows)
    ends = {
        "expiry": [f"{row.nearest_expiry:%d%b%y}" if row.nearest_expiry else "" for row in rows],
        "short ITM": [
            f"{row.short_in_money}{f' + {row.short_unknown}?' if row.short_unknown else ''}"
            for row in rows
        ],
    }
    return fitted_table(
        [
            FittedColumn("underlying", [foreign(row.name) for row in rows], left=True),
            FittedColumn("", [row.currency or "–" for row in rows], left=True),
            *(FittedColumn(heading, cells) for heading, cells in columns.items()),
            *_sum_columns(rows, always=0),
            *([_sum_column("β $delta", "beta_delta", 2, rows)] if has_betas else []),
            *(FittedColumn(heading, cells) for heading, cells in ends.items()),
            *_age_columns(rows),
        ],
        width,
    )


def _sum_columns(rows: Sequence[Money], *, always: int) -> list[FittedColumn]:
    """Return the columns of sums; the first few are always shown. A star marks a partial sum."""
    return [
        _sum_column(heading, name, 0 if place < always else rank, rows)
        for place, (heading, name, rank) in enumerate(_SUMS)
    ]


def _sum_column(heading: str, name: str, rank: int, rows: Sequence[Money]) -> FittedColumn:
    values, partial = [getattr(row, name) for row in rows], [name in row.unknown for row in rows]
    return FittedColumn(heading, amounts(values, partial), rank=rank, signed=name.endswith("_pnl"))


def _age_columns(rows: Sequence[Money]) -> list[FittedColumn]:
    ages = [_price_age(row.oldest_age_s, "delayed" if row.delayed else None) for row in rows]
    greeks = [
        greeks_age(row.oldest_greeks_s, row.oldest_age_s, has_greeks=row.options_with_greeks > 0)
        for row in rows
    ]
    return [FittedColumn("oldest", ages), *_greeks_column(greeks)]


def money_notes(money: BookMoney, width: int) -> list[Text]:
    """Return what has no column in the tables of the money, one line each."""
    found = [Text(foreign(line, 1000), style="dim") for line in money_lines(money)]
    for line in found:
        line.truncate(width, overflow="ellipsis")
    return found


def positions_table(found: PositionList, width: int) -> Group:
    """Return the positions, with a total for each currency.

    The greeks are those of the whole position: per unit × quantity × multiplier.
    """
    rows = found.rows.to_dicts()
    currencies = sorted({row["currency"] for row in rows})
    several = len(currencies) > 1 or len({row["account"] for row in rows}) > 1
    of_currency = [[row for row in rows if row["currency"] == one] for one in currencies]

    def sums(
        heading: str, name: str, rank: int = 0, *, future: bool = False, summed: bool = True
    ) -> FittedColumn:
        def value(row: Mapping[str, Any]) -> float | None:
            known: float | None = row[name]
            greek = name in ("delta", "gamma", "theta", "vega")
            size = row["position"] * row["multiplier"] if greek else 1.0
            return None if known is None else float(known * size)

        def has(row: Mapping[str, Any]) -> bool:
            if name == "market_value":
                return (row["sec_type"] == "FUT") is future
            return row["right"] is not None or name.endswith("_pnl")

        groups = [[value(row) for row in ones if has(row)] for ones in of_currency]
        totals = [add(group) if summed else None for group in groups]
        cells = amounts(
            [*(value(row) for row in rows), *totals],
            [*(False for _ in rows), *(None in group for group in groups)],
        )
        there = [*map(has, rows), *(summed for _ in currencies)]
        shown = [cell if one else "" for cell, one in zip(cells, there, strict=True)]
        return FittedColumn(heading, shown, rank=rank, signed=name.endswith("_pnl"))

    def texts(
        heading: str, cells: Sequence[str], rank: int = 0, *, left: bool = False, most: int = 40
    ) -> FittedColumn:
        padded = [*map(foreign, cells), *("" for _ in currencies)]
        return FittedColumn(heading, padded, rank=rank, left=left, most=most)

    ages = [
        (
            _oldest(ones, "age_s", "market_price"),
            _oldest(ones, "greeks_age_s", "delta"),
            next((row["feed"] for row in ones if row["feed"] not in (None, "live")), None),
            any(row["delta"] is not None for row in ones),
        )
        for ones in (*([row] for row in rows), *of_currency)
    ]
    has_futures = any(row["sec_type"] == "FUT" for row in rows)
    columns = [
        texts("account", [row["account"] for row in rows], 3 if several else 8, left=True),
        texts("conid", [str(row["conid"]) for row in rows], 6),
        FittedColumn(
            "leg",
            [*(foreign(row["name"]) for row in rows), *(f"total {one}" for one in currencies)],
            left=True,
        ),
        texts("qty", [quantity(row["position"]) for row in rows]),
        texts("price", [number(row["market_price"]) for row in rows]),
        sums("value", "market_value"),
        *([sums("notional", "market_value", 3, future=True)] if has_futures else []),
        sums("unreal", "unrealized_pnl"),
        sums("daily", "daily_pnl", 1),
        sums("delta", "delta", summed=False),
        sums("gamma", "gamma", 9, summed=False),
        sums("theta", "theta"),
        sums("vega", "vega", 7),
        texts("currency", [row["currency"] for row in rows], 4 if several else 10, left=True),
        texts("strategy", [",".join(row["strategies"]) for row in rows], left=True, most=12),
        texts("by", [row["source"] for row in rows], 5, left=True),
        texts("source", [_source(row) for row in rows], 2, left=True),
        FittedColumn("age", [_price_age(age, feed) for age, _greeks, feed, _has in ages]),
        *_greeks_column([greeks_age(g, age, has_greeks=has) for age, g, _feed, has in ages]),
    ]
    table = fitted_table(columns, width, totals=len(currencies))
    options = [row for row in rows if row["right"] is not None]
    known = [row for row in options if row["delta"] is not None]
    modelled = sum(row["greeks_source"] == "MODEL" for row in known)
    if len(known) == len(options) and not modelled:
        return table
    share = f", {modelled} of them MODEL" if modelled else ""
    note = Text(f"greeks of {len(known)} of {len(options)} options{share}", style="dim")
    return Group(table, note)


def _oldest(rows: Sequence[Mapping[str, Any]], name: str, of: str) -> float | None:
    """Return the greatest age; None if one is unknown, or without any. Greeks may be absent."""
    ages = [row[name] for row in rows if of != "delta" or row["delta"] is not None]
    return None if None in ages else max(ages, default=None)


def closes_table(chosen: Sequence[tuple[Closure, Sequence[str]]], width: int) -> Group:
    """Return why holdings closed, and the strategies that had them, one line each."""
    closes = [one for one, _names in chosen]
    several = len({one.account for one in closes}) > 1

    def text(heading: str, cells: list[str], rank: int = 0) -> FittedColumn:
        return FittedColumn(heading, cells, rank=rank, left=True, most=40)

    return fitted_table(
        [
            text("closed (UTC)", [f"{one.closed_at:%Y-%m-%d %H:%M}" for one in closes]),
            text("account", [foreign(one.account) for one in closes], 1 if several else 4),
            text("contract", [foreign(one.name) for one in closes]),
            FittedColumn("qty", [quantity(one.quantity) for one in closes]),
            FittedColumn("price", [number(one.price) for one in closes]),
            text("cause", [str(one.cause) for one in closes]),
            text("stage", [str(one.stage) for one in closes], 2),
            FittedColumn("realised", [amount(one.realized_pnl) for one in closes], signed=True),
            text("", [one.currency for one in closes]),
            text("strategy", [foreign(",".join(names)) for _one, names in chosen], 3),
            text("why", [foreign(one.detail) for one in closes], 5),
        ],
        width,
    )


def _price_age(age_s: float | None, feed: str | None) -> str:
    """Return the age of a price, and whether it is of delayed or frozen data."""
    if feed in (None, "live"):
        return duration(age_s)
    return str(feed) if age_s is None else f"{duration(age_s)} {feed}"


def _greeks_column(cells: Sequence[str]) -> list[FittedColumn]:
    """Return the column of the ages of greeks, if any of them differs from that of its price."""
    return [FittedColumn("greeks", cells)] if any(cells) else []


def _source(row: Mapping[str, Any]) -> str:
    """Return which price valued a row, such as MARK, or the source of a value without a price."""
    words = (row["price_kind"] or row["value_source"], row["feed"])
    return " ".join(str(word) for word in words if word not in (None, "live"))
