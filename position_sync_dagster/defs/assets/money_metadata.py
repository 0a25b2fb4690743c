"""The money as metadata of events: tables to read, and numbers that the UI plots.

A number that is not known is left out, and never zero. Each sum has one currency in its name,
because different currencies are never added.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from position_sync_dagster.sync.reports.money import add

if TYPE_CHECKING:
    import polars as pl

    from position_sync_dagster.sync.reports.money import Money

PICTURE = "picture"
DRAWN_AT = "picture_drawn_at"

DRAWN_EVERY = timedelta(minutes=2)
"""An event sooner than that after a picture shows the same one: to draw takes half a second."""

LARGEST = 10
"""Positions of each list of `latest_positions`."""

MONEY = {
    *("value", "unrealised P&L", "daily P&L", "dollar delta", "theta", "vega"),
    *("market_value", "unrealized_pnl", "daily_pnl"),
}
"""Columns of the tables that show cents and no more."""

MOST_CURRENCIES = 5
MOST_STRATEGIES = 200

_STRATEGIES = dg.TableSchema(
    columns=[
        dg.TableColumn("strategy", "string"),
        dg.TableColumn("currency", "string", "Of the columns of money. Never added to another."),
        dg.TableColumn("legs held / of", "string"),
        dg.TableColumn("value", "float", "Without the notional value of futures."),
        dg.TableColumn("unrealised P&L", "float"),
        dg.TableColumn("daily P&L", "float", "Of the day, as the broker reports it."),
        dg.TableColumn("dollar delta", "float"),
        dg.TableColumn("gamma", "float", "Sum of gamma × quantity × multiplier."),
        dg.TableColumn("theta", "float", "A day."),
        dg.TableColumn("vega", "float"),
        dg.TableColumn("oldest value (s)", "float", "Since its source confirmed it."),
        dg.TableColumn("lines", "int", "Market data lines that its legs use."),
        dg.TableColumn("without value", "int", "Held legs that the sums leave out."),
    ]
)


def strategies_metadata(
    strategies: "Sequence[Money]", totals: "Iterable[Money]"
) -> dict[str, dg.MetadataValue]:
    """Return the table of strategies, and the totals of each currency as numbers."""
    records = [
        dg.TableRecord(
            _texts(
                {
                    "strategy": one.name,
                    "currency": one.currency,
                    "legs held / of": f"{one.legs_held} / {one.legs}",
                    "value": one.value,
                    "unrealised P&L": one.unrealized_pnl,
                    "daily P&L": one.daily_pnl,
                    "dollar delta": one.dollar_delta,
                    "gamma": one.gamma,
                    "theta": one.theta,
                    "vega": one.vega,
                    "oldest value (s)": one.oldest_age_s,
                    "lines": one.lines,
                    "without value": one.unvalued,
                }
            )
        )
        for one in strategies[:MOST_STRATEGIES]
    ]
    found: dict[str, dg.MetadataValue] = {
        "strategies_table": dg.MetadataValue.table(records, schema=_STRATEGIES)
    }
    numbers: dict[str, float | None] = {}
    for one in totals:
        numbers |= {
            f"total/{one.currency}/daily_pnl": one.daily_pnl,
            f"total/{one.currency}/unrealized_pnl": one.unrealized_pnl,
            f"total/{one.currency}/dollar_delta": one.dollar_delta,
            f"total/{one.currency}/theta": one.theta,
        }
    ages = [one.oldest_age_s for one in strategies if one.oldest_age_s is not None]
    numbers["worst_age_s"] = max(ages, default=None)
    return found | plotted(numbers)


def plotted(numbers: Mapping[str, float | None]) -> dict[str, dg.MetadataValue]:
    """Return the numbers that are known as values that the UI plots."""
    return {
        name: dg.MetadataValue.float(round(float(value), 4))
        for name, value in numbers.items()
        if value is not None
    }


def seldom(**counts: int) -> dict[str, int]:
    """Return the counts that are not zero: a plot of nothing but zeros says nothing."""
    return {name: count for name, count in counts.items() if count}


def picture_metadata(png: bytes, drawn_at: datetime) -> dict[str, dg.MetadataValue]:
    """Return a PNG inside Markdown, as the UI shows it, with the time at which it was drawn."""
    data = base64.b64encode(png).decode()
    return {
        PICTURE: dg.MetadataValue.md(f"![P&L and ages](data:image/png;base64,{data})"),
        DRAWN_AT: dg.MetadataValue.timestamp(drawn_at),
    }


def recent_picture(
    instance: dg.DagsterInstance, asset: dg.AssetKey, now: datetime
) -> dict[str, dg.MetadataValue]:
    """Return the picture of the asset's last event if it is younger than DRAWN_EVERY, else {}."""
    event = instance.get_latest_materialization_event(asset)
    found = event.asset_materialization.metadata if event and event.asset_materialization else {}
    drawn, picture = found.get(DRAWN_AT), found.get(PICTURE)
    if not isinstance(drawn, dg.TimestampMetadataValue) or picture is None:
        return {}
    age_s = now.timestamp() - drawn.value
    if not 0 <= age_s < DRAWN_EVERY.total_seconds():
        return {}
    return {PICTURE: picture, DRAWN_AT: drawn}


_POSITIONS = [
    "account",
    "conid",
    "symbol",
    "right",
    "strike",
    "expiry",
    "position",
    "market_value",
    "unrealized_pnl",
    "daily_pnl",
    "currency",
    "timestamp",
]


def positions_metadata(rows: "pl.DataFrame") -> dict[str, dg.MetadataValue]:
    """Return the largest positions by value and by loss, of each currency apart.

    The value of a future is notional, and is not compared with the value of options and stocks.
    """
    import polars as pl

    held = rows.filter(pl.col("position") != 0)
    valued = held.filter(pl.col("sec_type") != "FUT", pl.col("market_value").is_not_null())
    losing = held.filter(pl.col("unrealized_pnl") < 0)
    return {
        "largest_by_value": _listed(valued, pl.col("market_value").abs(), descending=True),
        "largest_by_loss": _listed(losing, pl.col("unrealized_pnl"), descending=False),
    }


def _listed(rows: "pl.DataFrame", by: "pl.Expr", *, descending: bool) -> dg.MetadataValue:
    chosen = (
        rows.sort(by, descending=descending)
        .group_by("currency", maintain_order=True)
        .head(LARGEST)
        .sort("currency", maintain_order=True)
        .head(LARGEST * MOST_CURRENCIES)
    )
    columns = [dg.TableColumn(name, _kind(chosen.schema[name])) for name in _POSITIONS]
    return dg.MetadataValue.table(
        [dg.TableRecord(_texts(row)) for row in chosen.select(_POSITIONS).iter_rows(named=True)],
        schema=dg.TableSchema(columns=columns),
    )


def _kind(kind: "pl.DataType") -> str:
    return "float" if kind.is_float() else "int" if kind.is_integer() else "string"


def day_metadata(rows: "pl.DataFrame") -> dict[str, dg.MetadataValue]:
    """Return profit and loss of a day by currency, and how many holdings it leaves out."""
    import polars as pl

    held = rows.filter(pl.col("position") != 0)
    numbers: dict[str, float | None] = {}
    for (currency,), part in rows.group_by("currency", maintain_order=True):
        for name in ("daily_pnl", "unrealized_pnl"):
            numbers[f"{name}/{currency}"] = add(part.get_column(name).to_list())
    missing = seldom(without_daily_pnl=held.get_column("daily_pnl").null_count())
    return plotted(numbers) | {n: dg.MetadataValue.int(count) for n, count in missing.items()}


def _texts(row: Mapping[str, object]) -> dict[str, str | int | float | bool | None]:
    """Return values that a table of metadata may have; an unknown one is None."""
    return {
        name: round(value, 2 if name in MONEY else 4)
        if isinstance(value, float)
        else value
        if value is None or isinstance(value, int)
        else str(value)
        for name, value in row.items()
    }
