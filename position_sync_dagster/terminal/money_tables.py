"""The columns and notes in which money and positions are shown, on a terminal and by Dagster."""

from collections.abc import Iterable
from datetime import date, datetime
from typing import Any

import polars as pl

from position_sync_dagster.domain.clock import seconds_since
from position_sync_dagster.sync.reports.book import KEY, Book
from position_sync_dagster.sync.reports.exposure import figure_of, summed
from position_sync_dagster.sync.reports.money_sums import MoneySum
from position_sync_dagster.terminal.text import Column, Row, amount, duration, number, quantity


def _short(one: Row) -> str:
    unknown = f" + {one['short_unknown']}?" if one["short_unknown"] else ""
    return f"{one['short_in_money']}{unknown}"


def _known(one: Row) -> str:
    modelled = f" ({one['options_modelled']} MODEL)" if one["options_modelled"] else ""
    return f"{one['options_with_greeks']}/{one['options']}{modelled}"


def _age(one: Row) -> str:
    """Return the age of a price, and whether it is of delayed or frozen data."""
    if one["feed"] in (None, "live"):
        return duration(one["age_s"])
    return str(one["feed"]) if one["age_s"] is None else f"{duration(one['age_s'])} {one['feed']}"


# Greeks whose age differs by less than this from that of the price are not shown apart.
NEAR_S = 5.0


def _greeks(one: Row) -> str:
    """Return the age of greeks where it differs from that of the price, else nothing.

    Of greeks without a known age it is a dash.
    """
    price, greeks = one["age_s"], one["greeks_age_s"]
    if greeks is None:
        return duration(None) if one["has_greeks"] and price is not None else ""
    return "" if price is not None and abs(greeks - price) < NEAR_S else duration(greeks)


def _day(day: date | None) -> str:
    return f"{day:%d%b%y}" if day else ""


def _source(one: Row) -> str:
    """Return which price valued a row, such as MARK, or the source of a value without a price."""
    words = (one["price_kind"] or one["value_source"], one["feed"])
    return " ".join(str(word) for word in words if word not in (None, "live"))


# The columns of sums, behind their names.
SUMS = (
    Column("", "currency", 0, lambda one: one["currency"] or "–", left=True),
    Column("legs", "legs", 0, lambda one: f"{one['legs_held']}/{one['legs']}"),
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
    Column("lines", "lines", 4, lambda one: quantity(one["lines"])),
    Column("with greeks", "options", 6, _known),
    Column("expiry", "nearest_expiry", 5, lambda one: _day(one["nearest_expiry"])),
    Column("short ITM", "short_in_money", 5, _short),
    Column("no value", "unvalued", 5, lambda one: str(one["unvalued"] or "")),
    Column("oldest", "age_s", 0, _age),
    Column("greeks", "greeks_age_s", 0, _greeks),
)
# These columns are shown where a value is known.
_NOT_ALWAYS = ("beta_delta", "realized_pnl", "campaign_pnl")

POSITIONS = (
    Column("account", "account", 4, lambda one: one["account"], left=True),
    Column("conid", "conid", 6, lambda one: str(one["conid"]), left=True),
    Column("leg", "name", 0, lambda one: one["name"], left=True),
    Column("qty", "position", 0, lambda one: quantity(one["position"])),
    Column("price", "market_price", 0, lambda one: number(one["market_price"])),
    Column("value", "market_value"),
    Column("notional", "notional", 3),
    Column("unreal", "unrealized_pnl", signed=True),
    Column("daily", "daily_pnl", 1, signed=True),
    Column("delta", "delta"),
    Column("gamma", "gamma", 9),
    Column("theta", "theta"),
    Column("vega", "vega", 7),
    Column("currency", "currency", 5, lambda one: one["currency"], left=True),
    Column(
        "strategy", "strategies", 0, lambda one: ",".join(one["strategies"]), left=True, most=12
    ),
    Column("by", "source", 5, lambda one: one["source"], left=True),
    Column("source", "value_source", 2, _source, left=True),
    Column("age", "age_s", 0, _age),
    Column("greeks", "greeks_age_s", 0, _greeks),
)


def sums_table(heading: str, sums: Iterable[MoneySum]) -> tuple[list[Column], list[Row]]:
    """Return columns and rows of sums; a star marks a sum that leaves out a holding.

    Args:
        heading: What the rows are sums of.
        sums: The sums of strategies or of underlyings, and totals.
    """
    listed = list(sums)
    has_accounts = len({each.account for each in listed if each.account}) > 1
    rows = [_sums_row(each, has_accounts=has_accounts) for each in listed]
    empty = {name for name in _NOT_ALWAYS if all(row[name] is None for row in rows)}
    title = Column(heading, "title", 0, lambda one: one["title"], left=True, most=18)
    return [title, *(column for column in SUMS if column.name not in empty)], rows


def _sums_row(sums: MoneySum, *, has_accounts: bool) -> Row:
    """Return the cells of a row of sums, by the names of columns."""
    account = sums.account if has_accounts and sums.account else ""
    return {
        **sums.model_dump(),
        "title": f"{sums.name} {account}".rstrip(),
        "campaign_pnl": sums.campaign.profit if sums.campaign else None,
        "age_s": sums.oldest_age_s,
        "greeks_age_s": sums.oldest_greeks_s,
        "has_greeks": sums.options_with_greeks > 0,
        "feed": "delayed" if sums.delayed else None,
    }


def _aged(one: Row, age_s: float | None, greeks_age_s: float | None) -> dict[str, Any]:
    """Return what a sum has under the names of a position: the ages, and what they are of."""
    return {
        "age_s": age_s,
        "greeks_age_s": greeks_age_s,
        "has_greeks": one["options_with_greeks"] > 0,
        "feed": "delayed" if one["delayed"] else None,
    }


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
    size = pl.col("position") * pl.col("multiplier")
    sized = rows.with_columns(
        *(pl.col(name) * size for name in _GREEKS),
        notional="market_value",
        has_greeks=pl.col("delta").is_not_null(),
    )
    has = sized.select(figure_of(name).alias(name) for name in (*_GREEKS, *_SUMMED)).to_dicts()
    lines: list[Row] = [
        {name: value for name, value in row.items() if there.get(name, True)}
        for row, there in zip(sized.to_dicts(), has, strict=True)
    ]
    totals = summed(book.split.parts.join(rows, on=KEY, how="semi"), ["currency"], book.now)
    names = [name for name in _SUMMED if any(name in line for line in lines)]
    lines += [
        {name: one[name] for name in names}
        | {
            "name": f"total {one['currency']}",
            "unknown": [name for name in names if one[f"without_{name}"]],
            **_aged(one, *(seconds_since(one[at], book.now) for at in ("priced_at", "greeks_at"))),
        }
        for one in totals.iter_rows(named=True)
    ]
    counts = ("options", "options_with_greeks", "options_modelled")
    of_all = {name: totals.get_column(name).sum() for name in counts}
    is_plain = of_all["options"] == of_all["options_with_greeks"] and not of_all["options_modelled"]
    return lines, totals.height, "" if is_plain else _known_greeks(of_all)


def _known_greeks(one: Row) -> str:
    known = f"greeks of {one['options_with_greeks']} of {one['options']} options"
    modelled = f", {one['options_modelled']} of them MODEL" if one["options_modelled"] else ""
    return known + modelled


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
        count = f"{total.closes} {'close' if total.closes == 1 else 'closes'}"
        unknown = total.closes_without_profit
        without = f", {unknown} of them without a known profit" if unknown else ""
        lines.append(f"{_titled(total)}: {count}{_since(total.realized_since)}{without}")
    return lines


def _lines_of_strategy(sums: MoneySum) -> list[str]:
    lines: list[str] = []
    if sums.closed:
        missing = sums.legs - sums.legs_held - sums.legs_closed
        others = f", {'one' if missing == 1 else missing} missing" if missing else ""
        lines.append(f"{sums.name}: {sums.legs_held} of {sums.legs} legs, {sums.closed}{others}")

    campaign = sums.campaign
    if sums.closes and campaign is not None:
        parts = (
            f"realised {amount(campaign.realised)}",
            f"open {amount(campaign.open)}",
            f"fees {amount(campaign.fees)}",
        )
        lines.append(f"{_titled(sums)}: campaign{_since(campaign.since)}: {', '.join(parts)}")

    lines += [f"{sums.name}: {text}" for text in (sums.differences or "").split("; ") if text]
    return lines


def _since(at: datetime | None) -> str:
    return f" since {at:%Y-%m-%d}" if at else ""
