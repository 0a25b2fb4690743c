"""Values as text for a person, and the columns of tables of texts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from position_sync_dagster.domain.clock import seconds_since

Row = Mapping[str, Any]


def printable(text: str) -> str:
    r"""Return text with its control characters escaped, which a terminal would obey.

    >>> printable("AAPL\x1b[2J")
    'AAPL\\x1b[2J'
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


# Maximum length of a text of others, such as a symbol or an argument, in characters.
MOST_FOREIGN = 200


def foreign(text: str, most: int = MOST_FOREIGN) -> str:
    r"""Return a text of others for a person: on one line, without control characters, cut.

    >>> foreign("AAPL\nforged"), foreign("x" * 9, 4)
    ('AAPL\\nforged', 'xxx…')
    """
    if len(text) > most:
        text = f"{text[: most - 1]}…"
    if text.isprintable():
        return text
    return printable(text)


def number(value: float | None) -> str:
    """Return a number for a table. An unknown number is a dash, never a zero.

    >>> number(1234.5), number(None)
    ('1,234.50', '–')
    """
    if value is None:
        return "–"
    return f"{round(value, 2) + 0.0:,.2f}"  # no "-0.00"


def price(value: float | None) -> str:
    """Return a price with the decimals that it has, two at least; an unknown one is a dash.

    >>> price(41.2), price(0.005), price(1.23456), price(None)
    ('41.20', '0.005', '1.2346', '–')
    """
    if value is None:
        return "–"
    value = round(value, 4) + 0.0
    whole, _point, decimals = f"{value:,.4f}".partition(".")
    return f"{whole}.{decimals.rstrip('0'):0<2}"


def percent(part: float | None) -> str:
    """Return a part of one in percent; an unknown one is a dash.

    >>> percent(0.6667), percent(-0.0004), percent(None)
    ('66.7 %', '0.0 %', '–')
    """
    if part is None:
        return "–"
    return f"{round(100 * part, 1) + 0.0:,.1f} %"


# The numbers of rows that are prices, of which 0.005 is not 0.01; and those that are parts of one.
_PRICES = frozenset({"price", "bid", "ask", "market_price", "cost_per_share"})
_PARTS_OF_ONE = frozenset({
    "win_rate", "return", "return_on_risk", "return_per_year", "time_weighted", "money_weighted",
    "deepest_fall", "volatility", "worst_return", "best_return", "part_of_spread",
    "implied_vol", "cushion", "entry_implied_vol", "profit_reached", "reached",
})  # fmt: skip

# What is less is the rounding of sums.
_LEAST_DIGITS = 6


def _few_digits(value: float) -> str:
    """Return a small number with two digits that count, never as a power of ten."""
    return f"{Decimal(f'{value:.2g}'):f}"


def amount(value: float | None) -> str:
    """Return an amount of money or a greek in few characters; an unknown one is a dash.

    >>> amount(-12345.6), amount(12.34), amount(23456789.0), amount(0.004), amount(None)
    ('-12,346', '12.3', '23.46m', '0.004', '–')
    >>> amount(2.4e-05), amount(-1e-9)
    ('0.000024', '0.0')
    """
    if value is None:
        return "–"

    value = round(value, _LEAST_DIGITS) + 0.0
    size = abs(value)
    if size >= 1e7:
        return f"{value / 1e6:,.2f}m"
    if size >= 99.95:
        return f"{value:,.0f}"
    if size >= 0.95 or value == 0:
        return f"{value:.1f}"
    return _few_digits(value)


def readable(value: Any, name: str = "") -> str:
    """Return a value of any type for a person; an unknown one is a dash.

    >>> readable(0.67, "win_rate"), readable(2.4e-05), readable(-1e-9)
    ('67.0 %', '0.000024', '0')
    >>> readable(-2.0), readable(1234.567), readable(0.00123), readable(["a", "b"]), readable(True)
    ('-2', '1,234.57', '0.0012', 'a, b', 'yes')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, list | tuple):
        return ", ".join(map(readable, value))
    if not isinstance(value, float):
        return str(value)

    if name in _PARTS_OF_ONE:
        return percent(value)
    if name in _PRICES:
        return price(value)

    value = round(value, _LEAST_DIGITS) + 0.0  # no "-0"
    if value.is_integer():
        return f"{value:,.0f}"
    if abs(value) >= 0.1:
        return f"{value:,.2f}"
    return _few_digits(value)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table of texts; one without any text is not shown.

    Attributes:
        name: A row that lacks this name has an empty cell.
        text: Returns the cell of a row. None: the name is that of an amount, with a star in the
            rows that have it in `unknown`; one that is null there says of how many it is known. To
            the left it is that of a text.
        left: Whether the cells are aligned to the left.
        signed: Whether a negative number is red and a positive one green.
    """

    heading: str
    name: str
    text: Callable[[Row], str] | None = None
    _: KW_ONLY
    left: bool = False
    signed: bool = False

    def cells(self, rows: Sequence[Row]) -> list[str]:
        """Return the cell of each row, without control characters."""
        return [*map(self._cell, rows)]

    def _cell(self, row: Row) -> str:
        name = self.name
        if name not in row:
            return ""
        if self.text is not None:
            return foreign(self.text(row))
        value = row[name]
        if self.left and value is not None:
            return foreign(f"{value}")
        if name not in row.get("unknown", ()):
            return amount(value)
        if value is None:
            return known_for(row["known"][name], row["of"][name])
        return f"{amount(value)}*"


def known_for(known: int, of: int) -> str:
    """Return what stands in place of a sum that what is known does not carry.

    >>> known_for(2, 40), known_for(0, 40)
    ('known for 2 of 40', '–')
    """
    if known:
        return f"known for {known} of {of}"
    return "–"


def age(since: datetime | None, now: datetime) -> str:
    """Return the time from `since` to `now`; an unknown one is a dash."""
    return duration(seconds_since(since, now))


def duration(seconds: float | None) -> str:
    """Return a length of time: in seconds up to two minutes, then in whole minutes.

    >>> duration(0.42), duration(119), duration(120), duration(7300), duration(200000)
    ('0.4 s', '119 s', '2 min', '2 h 1 min', '2 d 7 h')
    """
    if seconds is None:
        return "–"

    seconds = max(seconds, 0.0)
    whole = round(seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if whole < 120:
        return f"{whole} s"

    length = timedelta(seconds=whole)
    hours = length.seconds // 3600
    minutes = length.seconds % 3600 // 60
    if length.days:
        return f"{length.days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min"
