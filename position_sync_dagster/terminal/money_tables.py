"""Strategies and positions with their money, as tables for a terminal of any width.

A table shows the columns that fit into the width.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass

from rich.cells import cell_len
from rich.console import Group
from rich.text import Text

from position_sync_dagster.domain.closures import Closure
from position_sync_dagster.domain.instrument import contract_name
from position_sync_dagster.domain.update import GreeksSource, PositionUpdate
from position_sync_dagster.sync.reports.confirmations import feed_of
from position_sync_dagster.sync.reports.exposure import add
from position_sync_dagster.sync.reports.money import BASE_TOTAL, Ages, BookMoney, Money
from position_sync_dagster.terminal.text import (
    amount,
    duration,
    greeks_age,
    money_lines,
    not_in_sums,
    number,
    partial_sum,
    printable,
    quantity,
    share_computed,
    starred,
)

WIDE = 110
"""Characters; in a terminal of this width or more, two spaces separate the columns."""


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


def strategy_table(strategies: Sequence[Money], ends: Sequence[Money], width: int) -> Group:
    """Return the strategies, and below them what belongs to none and the totals."""
    rows = [*strategies, *ends]
    accounts = len({row.account for row in ends if row.account})
    names = [
        row.name if row.account is None or accounts == 1 else f"{row.name} {row.account}"
        for row in rows
    ]
    columns = [
        FittedColumn("strategy", [*map(printable, names)], left=True, most=18),
        FittedColumn("", [row.currency or "–" for row in rows], left=True),
        FittedColumn("legs", [f"{row.legs_held}/{row.legs}" for row in rows]),
        *_money_columns(rows),
        *_realized_column(rows),
        FittedColumn("lines", [quantity(row.lines) for row in rows], rank=5),
        *_age_columns(rows),
    ]
    if any(row.unvalued for row in rows):
        columns.append(FittedColumn("no value", [str(row.unvalued) for row in rows], rank=6))
    return fitted_table(columns, width, totals=len(ends))


def underlying_table(underlyings: Sequence[Money], width: int) -> Group:
    """Return the sums of each underlying, with its nearest expiry and its short options."""
    rows = underlyings
    short = [
        f"{row.short_in_money}{f' + {row.short_unknown}?' if row.short_unknown else ''}"
        for row in rows
    ]
    return fitted_table(
        [
            FittedColumn("underlying", [printable(row.name) for row in rows], left=True),
            FittedColumn("", [row.currency or "–" for row in rows], left=True),
            FittedColumn("legs", [str(row.legs) for row in rows]),
            FittedColumn("with greeks", [_greeks_of(row) for row in rows]),
            *_money_columns(rows, of_underlyings=True),
            FittedColumn(
                "expiry",
                [f"{row.nearest_expiry:%d%b%y}" if row.nearest_expiry else "" for row in rows],
            ),
            FittedColumn("short ITM", short),
            *_age_columns(rows),
        ],
        width,
    )


def money_notes(money: BookMoney, width: int) -> list[Text]:
    """Return what has no column in the tables of the money, one line each."""
    found = [Text(printable(line), style="dim") for line in money_lines(money)]
    for line in found:
        line.truncate(width, overflow="ellipsis")
    return found


def describe_totals(money: BookMoney) -> list[tuple[str, str]]:
    """Return the label and the value of each total."""
    found = []
    for one in (*money.totals, *money.in_base):
        is_base = one.name == BASE_TOTAL
        rest = sum(
            r.legs
            for r in money.rest
            if one.account in (None, r.account) and (is_base or r.currency == one.currency)
        )
        figures = [
            f"{label} {partial_sum(one, name)}"
            for label, name in (
                ("value", "value"),
                ("unrealised", "unrealized_pnl"),
                ("daily", "daily_pnl"),
                ("dollar delta", "dollar_delta"),
            )
        ]
        figures += [
            f"greeks of {one.options_with_greeks} of {one.options} options{share_computed(one)}",
            f"{rest} of {one.legs_held} holdings in no strategy",
            f"oldest price {_price_age(one.oldest_age_s, 'delayed' if one.delayed else None)}",
        ]
        if is_base:
            figures.append(f"rates {duration(one.rates_age_s)}")
        account = f" {one.account}" if one.account else ""
        found.append((printable(f"total{account} {one.currency}"), ", ".join(figures)))
    return found + [("not in totals", line) for line in not_in_sums(money)]


def _greeks_of(one: Money) -> str:
    """Return the number of options with known greeks, and the number that this package computed.

    The other greeks are the gateway's.
    """
    computed = f" ({one.options_modelled} MODEL)" if one.options_modelled else ""
    return f"{one.options_with_greeks}/{one.options}{computed}"


def _money_columns(rows: Sequence[Money], *, of_underlyings: bool = False) -> list[FittedColumn]:
    """Return the columns of sums; for strategies, value and profit are always shown."""
    columns = [
        ("value", "value", 4),
        ("unreal", "unrealized_pnl", 3),
        ("daily", "daily_pnl", 2),
        ("$delta", "dollar_delta", 1),
        ("$gamma 1%", "gamma_1pct", 3),
        ("theta", "theta", 1),
        ("vega", "vega", 2),
    ]
    return [
        FittedColumn(
            heading,
            [partial_sum(row, name) for row in rows],
            rank=rank if place >= 3 or of_underlyings else 0,
            signed=name.endswith("_pnl"),
        )
        for place, (heading, name, rank) in enumerate(columns)
    ]


def _realized_column(rows: Sequence[Money]) -> list[FittedColumn]:
    """Return the column of realised profit, if something closed."""
    if not any(row.closes for row in rows):
        return []
    cells = [amount(row.realized_pnl) for row in rows]
    return [FittedColumn("realised", cells, rank=3, signed=True)]


def _age_columns(rows: Sequence[Money]) -> list[FittedColumn]:
    ages = [_price_age(row.oldest_age_s, "delayed" if row.delayed else None) for row in rows]
    greeks = [
        greeks_age(row.oldest_greeks_s, row.oldest_age_s, has_greeks=row.options_with_greeks > 0)
        for row in rows
    ]
    return [FittedColumn("oldest", ages), *_greeks_column(greeks)]


def positions_table(
    rows: Sequence[PositionUpdate],
    ages: Ages,
    strategies_of: Mapping[tuple[str, int], Sequence[str]],
    width: int,
) -> Group:
    """Return the newest rows, with a total for each currency.

    The greeks are those of the whole position: per unit × quantity × multiplier.
    """
    keys = [(row.account, row.conid) for row in rows]
    currencies = sorted({row.currency for row in rows})
    several = len(currencies) > 1 or len({row.account for row in rows}) > 1

    def is_future(row: PositionUpdate) -> bool:
        return row.sec_type == "FUT"

    def money(
        heading: str,
        values: Sequence[float | None],
        rank: int = 0,
        *,
        of: Callable[[PositionUpdate], bool] = lambda row: True,
        summed: bool = True,
    ) -> FittedColumn:
        listed = [(row, value) for row, value in zip(rows, values, strict=True) if of(row)]
        groups = [
            [value for row, value in listed if row.position and row.currency == currency]
            for currency in currencies
        ]
        sums = [starred(add(group), partial=None in group) if summed else "" for group in groups]
        cells = [amount(v) if of(row) else "" for row, v in zip(rows, values, strict=True)]
        signed = heading in ("unreal", "daily")
        return FittedColumn(heading, [*cells, *sums], rank=rank, signed=signed)

    def greek(name: str, rank: int = 0, *, summed: bool = False) -> FittedColumn:
        values = [
            None if (value := getattr(row, name)) is None else value * row.position * row.multiplier
            for row in rows
        ]
        return money(name, values, rank, of=lambda row: row.right is not None, summed=summed)

    def plain(
        heading: str, cells: Sequence[str], rank: int = 0, *, left: bool = False, most: int = 40
    ) -> FittedColumn:
        padded = [*cells, *("" for _ in currencies)]
        return FittedColumn(heading, padded, rank=rank, left=left, most=most)

    legs = [contract_name(row) for row in rows]
    values = [row.market_value for row in rows]
    open_keys = [
        [k for k, r in zip(keys, rows, strict=True) if r.currency == c and r.position]
        for c in currencies
    ]
    feeds = {key: feed_of(row) for key, row in zip(keys, rows, strict=True)}
    price_ages = [
        *(_price_age(ages.age_s(key), feeds[key]) for key in keys),
        *(
            _price_age(ages.oldest_s(one), next(filter(None, (feeds[k] for k in one)), None))
            for one in open_keys
        ),
    ]
    greeks_ages = [
        greeks_age(
            ages.oldest_greeks_s(some),
            ages.oldest_s(some),
            has_greeks=not ages.greeks.keys().isdisjoint(some),
        )
        for some in (*([key] for key in keys), *open_keys)
    ]
    columns = [
        plain("account", [row.account for row in rows], 3 if several else 8, left=True),
        plain("conid", [str(row.conid) for row in rows], 6),
        FittedColumn(
            "leg", [*map(printable, legs), *(f"total {c}" for c in currencies)], left=True
        ),
        plain("qty", [quantity(row.position) for row in rows]),
        plain("price", [number(row.market_price) for row in rows]),
        money("value", values, of=lambda row: not is_future(row)),
        *([money("notional", values, 3, of=is_future)] if any(map(is_future, rows)) else []),
        money("unreal", [row.unrealized_pnl for row in rows]),
        money("daily", [row.daily_pnl for row in rows], 1),
        greek("delta"),
        greek("gamma", 9),
        greek("theta", summed=True),
        greek("vega", 7, summed=True),
        plain("currency", [row.currency for row in rows], 4 if several else 10, left=True),
        plain(
            "strategy",
            [printable(",".join(strategies_of.get(key, ()))) for key in keys],
            left=True,
            most=12,
        ),
        plain("by", [str(row.source) for row in rows], 5, left=True),
        plain("source", [_source(row) for row in rows], 2, left=True),
        FittedColumn("age", price_ages),
        *_greeks_column(greeks_ages),
    ]  # fmt: skip
    table = fitted_table(columns, width, totals=len(currencies))
    sources = [row.greeks_source for row in rows if row.right and row.position]
    known = [row.delta is not None for row in rows if row.right and row.position]
    modelled = sources.count(GreeksSource.MODEL)
    if all(known) and not modelled:
        return table
    share = f", {modelled} of them MODEL" if modelled else ""
    text = f"greeks of {sum(known)} of {len(known)} options{share}"
    return Group(table, Text(text, style="dim"))


def closes_table(chosen: Sequence[tuple[Closure, Sequence[str]]], width: int) -> Group:
    """Return why holdings closed, and the strategies that had them, one line each."""
    closes = [one for one, _names in chosen]
    several = len({one.account for one in closes}) > 1

    def text(heading: str, cells: list[str], rank: int = 0) -> FittedColumn:
        return FittedColumn(heading, cells, rank=rank, left=True, most=40)

    return fitted_table(
        [
            text("closed (UTC)", [f"{one.closed_at:%Y-%m-%d %H:%M}" for one in closes]),
            text("account", [printable(one.account) for one in closes], 1 if several else 4),
            text("contract", [printable(one.name) for one in closes]),
            FittedColumn("qty", [quantity(one.quantity) for one in closes]),
            FittedColumn("price", [number(one.price) for one in closes]),
            text("cause", [str(one.cause) for one in closes]),
            text("stage", [str(one.stage) for one in closes], 2),
            FittedColumn("realised", [amount(one.realized_pnl) for one in closes], signed=True),
            text("", [one.currency for one in closes]),
            text("strategy", [printable(",".join(names)) for _one, names in chosen], 3),
            text("why", [printable(one.detail) for one in closes], 5),
        ],
        width,
    )


def _price_age(age_s: float | None, feed: str | None) -> str:
    """Return the age of a price, and whether it is of delayed or frozen data."""
    if feed is None:
        return duration(age_s)
    return feed if age_s is None else f"{duration(age_s)} {feed}"


def _greeks_column(cells: Sequence[str]) -> list[FittedColumn]:
    """Return the column of the ages of greeks, if any of them differs from that of its price."""
    return [FittedColumn("greeks", cells)] if any(cells) else []


def _source(row: PositionUpdate) -> str:
    """Return which price valued a row, such as MARK, or the source of a value without a price."""
    words = (row.price_kind or row.value_source, feed_of(row))
    return " ".join(str(word) for word in words if word)
