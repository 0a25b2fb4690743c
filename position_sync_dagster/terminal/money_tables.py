"""The columns and notes in which money and positions are shown, on a terminal and by Dagster."""

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any

import polars as pl

from position_sync_dagster.domain.clock import seconds_since
from position_sync_dagster.domain.holding import KEY
from position_sync_dagster.sync.reports.book import Book
from position_sync_dagster.sync.reports.exposure import figure_of, summed
from position_sync_dagster.sync.reports.money_sums import MoneySum
from position_sync_dagster.terminal.text import Column, Row, amount, duration, number, quantity


def _short_in_money(sums: Row) -> str:
    unknown = f" + {sums['short_unknown']}?" if sums["short_unknown"] else ""
    return f"{sums['short_in_money']}{unknown}"


def _with_greeks(sums: Row) -> str:
    modelled = f" ({sums['options_modelled']} MODEL)" if sums["options_modelled"] else ""
    return f"{sums['options_with_greeks']}/{sums['options']}{modelled}"


def _price_age(row: Row) -> str:
    """Return the age of a price, and whether it is of delayed or frozen data."""
    feed = row["feed"]
    age_s = row["age_s"]
    if feed in (None, "live"):
        return duration(age_s)
    return str(feed) if age_s is None else f"{duration(age_s)} {feed}"


# Greeks whose age differs by less than this from that of the price are not shown apart.
NEAR_S = 5.0


def _greeks_age(row: Row) -> str:
    """Return the age of greeks where it differs from that of the price, else nothing.

    Of greeks without a known age it is a dash.
    """
    price_age_s = row["age_s"]
    greeks_age_s = row["greeks_age_s"]
    if greeks_age_s is None:
        return duration(None) if row["has_greeks"] and price_age_s is not None else ""

    is_near = price_age_s is not None and abs(greeks_age_s - price_age_s) < NEAR_S
    return "" if is_near else duration(greeks_age_s)


def _day(day: date | None) -> str:
    return f"{day:%d%b%y}" if day else ""


def _source(row: Row) -> str:
    """Return which price valued a row, such as MARK, or the source of a value without a price."""
    words = (row["price_kind"] or row["value_source"], row["feed"])
    return " ".join(str(word) for word in words if word not in (None, "live"))


# The columns of sums, behind their names.
SUMS = (
    Column("", "currency", 0, lambda sums: sums["currency"] or "–", left=True),
    Column("legs", "legs", 0, lambda sums: f"{sums['legs_held']}/{sums['legs']}"),
    Column("value", "value"),
    Column("unreal", "unrealized_pnl", signed=True),
    Column("daily", "daily_pnl", signed=True),
    Column("$delta", "dollar_delta", 1),
    Column("$gamma 1%", "gamma_1pct", 3),
    Column("theta", "theta", 1),
    Column("vega", "vega", 2),
    Column("β $delta", "beta_delta", 2),
    Column("realised", "realized_pnl", 3, signed=True),
    Column("campaign", "campaign_pnl", 2, signed=True),
    Column("lines", "lines", 4, lambda sums: quantity(sums["lines"])),
    Column("with greeks", "options", 6, _with_greeks),
    Column("expiry", "nearest_expiry", 5, lambda sums: _day(sums["nearest_expiry"])),
    Column("short ITM", "short_in_money", 5, _short_in_money),
    Column("no value", "unvalued", 5, lambda sums: str(sums["unvalued"] or "")),
    Column("oldest", "age_s", 0, _price_age),
    Column("greeks", "greeks_age_s", 0, _greeks_age),
)
# These columns are shown where a value is known.
_NOT_ALWAYS = ("beta_delta", "realized_pnl", "campaign_pnl")

POSITIONS = (
    Column("account", "account", 4, lambda row: row["account"], left=True),
    Column("conid", "conid", 6, lambda row: str(row["conid"]), left=True),
    Column("leg", "name", 0, lambda row: row["name"], left=True),
    Column("qty", "position", 0, lambda row: quantity(row["position"])),
    Column("price", "market_price", 0, lambda row: number(row["market_price"])),
    Column("value", "market_value"),
    Column("notional", "notional", 3),
    Column("unreal", "unrealized_pnl", signed=True),
    Column("daily", "daily_pnl", 1, signed=True),
    Column("delta", "delta"),
    Column("gamma", "gamma", 9),
    Column("theta", "theta"),
    Column("vega", "vega", 7),
    Column("currency", "currency", 5, lambda row: row["currency"], left=True),
    Column(
        "strategy", "strategies", 0, lambda row: ",".join(row["strategies"]), left=True, most=12
    ),
    Column("by", "source", 5, lambda row: row["source"], left=True),
    Column("source", "value_source", 2, _source, left=True),
    Column("age", "age_s", 0, _price_age),
    Column("greeks", "greeks_age_s", 0, _greeks_age),
)


def sums_table(heading: str, sums: Iterable[MoneySum]) -> tuple[list[Column], list[Row]]:
    """Return columns and rows of sums; a star marks a sum that leaves out a holding.

    Args:
        heading: What the rows are sums of.
        sums: The sums of strategies or of underlyings, and totals.
    """
    listed = list(sums)
    accounts = {row_sums.account for row_sums in listed if row_sums.account}
    rows = [_sums_row(row_sums, has_accounts=len(accounts) > 1) for row_sums in listed]

    columns = [Column(heading, "title", 0, lambda row: row["title"], left=True, most=18)]
    for column in SUMS:
        is_empty = all(row[column.name] is None for row in rows)
        if column.name not in _NOT_ALWAYS or not is_empty:
            columns.append(column)
    return columns, rows


def _sums_row(sums: MoneySum, *, has_accounts: bool) -> Row:
    """Return the cells of a row of sums, by the names of columns."""
    account = sums.account if has_accounts and sums.account else ""
    cells = sums.model_dump()
    cells["title"] = f"{sums.name} {account}".rstrip()
    cells["campaign_pnl"] = sums.campaign.profit if sums.campaign else None
    cells["age_s"] = sums.oldest_age_s
    cells["greeks_age_s"] = sums.oldest_greeks_s
    cells["has_greeks"] = sums.options_with_greeks > 0
    cells["feed"] = "delayed" if sums.delayed else None
    return cells


_GREEKS = ("delta", "gamma", "theta", "vega")
_SUMMED = ("market_value", "notional", "unrealized_pnl", "daily_pnl")


def positions_table(rows: pl.DataFrame, book: Book) -> tuple[list[Row], int, str]:
    """Return rows of positions (`open_positions`) with a total for each currency.

    The greeks are those of the whole position: per unit × quantity × multiplier. They have no
    total, which is of no use across underlyings.

    Returns:
        The rows for POSITIONS, how many of them are totals, and how many options have greeks if
        not all have them of the gateway.
    """
    lines = _position_rows(rows)

    totals = summed(book.split.parts.join(rows, on=KEY, how="semi"), ["currency"], book.now)
    summed_names = [name for name in _SUMMED if any(name in line for line in lines)]
    for total in totals.iter_rows(named=True):
        lines.append(_total_row(total, summed_names, book.now))

    options = totals.select(pl.sum("options", "options_with_greeks", "options_modelled")).row(
        0, named=True
    )
    has_all_of_gateway = (
        options["options"] == options["options_with_greeks"] and not options["options_modelled"]
    )
    return lines, totals.height, "" if has_all_of_gateway else _known_greeks(options)


def _position_rows(positions: pl.DataFrame) -> list[Row]:
    """Return the cells of positions; one that does not have a figure, such as cash, lacks it."""
    size = pl.col("position") * pl.col("multiplier")
    greeks = pl.col(_GREEKS) * size
    has_greeks = pl.col("delta").is_not_null()
    sized = positions.with_columns(greeks, notional="market_value", has_greeks=has_greeks)
    figures = sized.select(figure_of(name).alias(name) for name in (*_GREEKS, *_SUMMED))

    rows: list[Row] = []
    for cells, has_figure in zip(sized.to_dicts(), figures.to_dicts(), strict=True):
        for name, is_figure in has_figure.items():
            if not is_figure:
                del cells[name]
        rows.append(cells)
    return rows


def _total_row(total: Row, summed_names: Sequence[str], now: datetime) -> Row:
    """Return the cells of the total of a currency, with the sums of `summed_names`."""
    cells: dict[str, Any] = {}
    unknown: list[str] = []
    for name in summed_names:
        cells[name] = total[name]
        if total[f"without_{name}"]:
            unknown.append(name)

    cells["name"] = f"total {total['currency']}"
    cells["unknown"] = unknown
    cells["age_s"] = seconds_since(total["priced_at"], now)
    cells["greeks_age_s"] = seconds_since(total["greeks_at"], now)
    cells["has_greeks"] = total["options_with_greeks"] > 0
    cells["feed"] = "delayed" if total["delayed"] else None
    return cells


def _known_greeks(sums: Row) -> str:
    with_greeks = f"greeks of {sums['options_with_greeks']} of {sums['options']} options"
    modelled = f", {sums['options_modelled']} of them MODEL" if sums["options_modelled"] else ""
    return with_greeks + modelled


def not_in_sums(book: Book) -> list[str]:
    """Return a line about holdings whose present quantity is in no sum; none without any."""
    count = book.unwritten.height
    if not count:
        return []
    holdings = "1 holding is" if count == 1 else f"{count} holdings are"
    return [f"{holdings} new or changed: the sums have the quantity from before, or nothing"]


def money_lines(book: Book) -> list[str]:
    """Return what has no column in the tables of the money."""
    lines = not_in_sums(book)
    for total in book.totals:
        lines += _lines_of_total(total)

    for total in book.in_base:
        text = f"by the broker's exchange rates, {duration(total.rates_age_s)} old"
        if total.without_rate:
            text = f"unknown, no exchange rate of {', '.join(total.without_rate)}"
        lines.append(f"{_titled(total)}: {text}")

    for strategy in (*book.strategies, *book.rest):
        lines += _lines_of_strategy(strategy)
    return lines


def _titled(sums: MoneySum) -> str:
    """Return the name of sums with their account and currency."""
    return " ".join(word for word in (sums.name, sums.account, sums.currency) if word)


def _lines_of_total(total: MoneySum) -> list[str]:
    lines: list[str] = []
    if total.options:
        lines.append(f"{_titled(total)}: {_known_greeks(total.model_dump())}")

    if total.closes and total.account is None:
        closes = f"{total.closes} {'close' if total.closes == 1 else 'closes'}"
        unknown = total.closes_without_profit
        without_profit = f", {unknown} of them without a known profit" if unknown else ""
        since = _since(total.realized_since)
        lines.append(f"{_titled(total)}: {closes}{since}{without_profit}")
    return lines


def _lines_of_strategy(sums: MoneySum) -> list[str]:
    lines: list[str] = []
    if sums.closed:
        count = sums.legs - sums.legs_held - sums.legs_closed
        missing = ""
        if count:
            missing = ", one missing" if count == 1 else f", {count} missing"
        legs = f"{sums.legs_held} of {sums.legs} legs"
        lines.append(f"{sums.name}: {legs}, {sums.closed}{missing}")

    campaign = sums.campaign
    if sums.closes and campaign is not None:
        title = f"{_titled(sums)}: campaign{_since(campaign.since)}"
        realised = f"realised {amount(campaign.realised)}"
        still_open = f"open {amount(campaign.open)}"
        fees = f"fees {amount(campaign.fees)}"
        lines.append(f"{title}: {realised}, {still_open}, {fees}")

    if sums.differences:
        for text in sums.differences.split("; "):
            lines.append(f"{sums.name}: {text}")
    return lines


def _since(at: datetime | None) -> str:
    return f" since {at:%Y-%m-%d}" if at else ""
