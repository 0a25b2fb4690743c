"""The asset `strategy_exposure`: holdings and values of each strategy, as tables and plots.

In the metadata an unknown number is left out and never zero. Each sum has its currency in the name,
because different currencies are never added.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import dagster as dg

from position_sync_dagster.defs.assets.table_asset import (
    QUARTER_HOURLY,
    column_lineage,
    data_version,
    replacement_metadata,
    table_asset,
)
from position_sync_dagster.defs.libraries import codec, overview, pl, profit_curve, tables
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.defs.runs import DERIVE_JOB
from position_sync_dagster.errors import LakeError
from position_sync_dagster.lake.schema.tables import STRATEGY_EXPOSURE
from position_sync_dagster.sync.reports.exposure import add
from position_sync_dagster.sync.reports.money import Money, total_by_currency

PICTURE = "picture"
DRAWN_AT = "picture_drawn_at"

DRAWN_EVERY = timedelta(minutes=2)
"""Minimum time between two pictures: drawing takes 0.5 s, and events in between reuse the last."""

LARGEST = 10
"""Maximum length of each list of `latest_positions`."""

MONEY = {
    *("value", "unrealised P&L", "daily P&L", "dollar delta", "theta", "vega"),
    *("market_value", "unrealized_pnl", "daily_pnl"),
}
"""Columns of the tables that are rounded to cents."""

MOST_CURRENCIES = 5
MOST_STRATEGIES = 200

_STRATEGIES = dg.TableSchema(
    columns=[
        dg.TableColumn("strategy", "string"),
        dg.TableColumn("currency", "string", "Of the money columns. Currencies are never added."),
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
    """Return the known numbers as metadata that the UI plots."""
    return {
        name: dg.MetadataValue.float(round(float(value), 4))
        for name, value in numbers.items()
        if value is not None
    }


def seldom(**counts: int) -> dict[str, int]:
    """Return the counts that are not zero, since a plot of zeros alone has no use."""
    return {name: count for name, count in counts.items() if count}


def picture_metadata(png: bytes, drawn_at: datetime) -> dict[str, dg.MetadataValue]:
    """Return a PNG inside Markdown, for the UI, with the time at which it was drawn."""
    data = base64.b64encode(png).decode()
    return {
        PICTURE: dg.MetadataValue.md(f"![P&L and ages](data:image/png;base64,{data})"),
        DRAWN_AT: dg.MetadataValue.timestamp(drawn_at),
    }


def recent_picture(
    instance: dg.DagsterInstance, asset: dg.AssetKey, now: datetime
) -> dict[str, dg.MetadataValue]:
    """Return the picture of the asset's last event if younger than DRAWN_EVERY, else {}."""
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
    """Return the largest positions by value and by loss, for each currency.

    The value of a future is notional and is not compared with that of options and stocks.
    """
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
    """Return the profit and loss of a day by currency, and the number of holdings left out."""
    held = rows.filter(pl.col("position") != 0)
    numbers: dict[str, float | None] = {}
    for (currency,), part in rows.group_by("currency", maintain_order=True):
        for name in ("daily_pnl", "unrealized_pnl"):
            numbers[f"{name}/{currency}"] = add(part.get_column(name).to_list())
    missing = seldom(without_daily_pnl=held.get_column("daily_pnl").null_count())
    return plotted(numbers) | {n: dg.MetadataValue.int(count) for n, count in missing.items()}


def _texts(row: Mapping[str, object]) -> dict[str, str | int | float | bool | None]:
    """Return the values as types that a metadata table accepts; None for an unknown one."""
    return {
        name: round(value, 2 if name in MONEY else 4)
        if isinstance(value, float)
        else value
        if value is None or isinstance(value, int)
        else str(value)
        for name, value in row.items()
    }


_LEGS = [("active_strategies", "conid"), ("active_strategies", "removed_at")]
_MEMBER = [("active_strategies", "strategy_id")]
_HELD = [("position_updates", "position"), *_LEGS]
_SHARE = [("active_strategies", "quantity"), *_HELD]
_SIZE = [("position_updates", "multiplier"), *_SHARE]
_AGE = [("position_updates", "value_time"), ("position_updates", "timestamp")]
_UNDERLYING = ("position_updates", "underlying_price")
_GREEKS = [("position_updates", name) for name in ("delta", "gamma", "vega", "theta")]

LINEAGE = {
    "strategy_id": _MEMBER,
    "currency": [("position_updates", "currency")],
    "asset_class": [("position_updates", "sec_type")],
    "legs": _LEGS,
    "legs_held": _HELD,
    "market_value": [("position_updates", "market_value"), *_SHARE],
    "notional": [("position_updates", "market_value"), *_SHARE],
    "unrealized_pnl": [("position_updates", "unrealized_pnl"), *_SHARE],
    "delta": [("position_updates", "delta"), *_SIZE],
    "gamma": [("position_updates", "gamma"), *_SIZE],
    "vega": [("position_updates", "vega"), *_SIZE],
    "theta": [("position_updates", "theta"), *_SIZE],
    "legs_without_value": [("position_updates", "market_value"), *_HELD],
    "legs_without_greeks": [*_GREEKS, *_HELD],
    "oldest_value_at": _AGE,
    "dollar_delta": [("position_updates", "delta"), _UNDERLYING, *_SIZE],
    "by_underlying": [("position_updates", "symbol"), *_GREEKS, _UNDERLYING, *_SIZE],
    "daily_pnl": [("position_updates", "daily_pnl"), *_SHARE],
    "worst_value_age_s": _AGE,
    "legs_without_value_time": [("position_updates", "value_time"), *_HELD],
    "legs_expiring": [("contracts", "expires_on"), *_HELD],
    "short_legs_in_money": [("active_strategies", "strike"), _UNDERLYING, *_HELD],
    "short_legs_unknown": [_UNDERLYING, *_HELD],
    "mismatches": [("contracts", "conid"), *_LEGS],
}


@table_asset(
    STRATEGY_EXPOSURE,
    deps=["position_updates", "active_strategies", "contracts"],
    lineage=LINEAGE,
    job=DERIVE_JOB,
    freshness_policy=QUARTER_HOURLY,
    description="""
The holdings of each strategy, and their value.

- **Written by** each run of `drain_positions` that writes values, and by `derive_positions` when
  the stream has materialized the ledger; the table is replaced whole.
- **How to read it:** one row per strategy, currency and class of asset. Sums are over known values;
  the number of legs left out is beside them. Futures count as notional, never as value.
""",
)
def strategy_exposure(
    context: dg.AssetExecutionContext, position_sync: PositionSyncResource
) -> dg.MaterializeResult[None]:
    """Sum the newest rows over the legs of each strategy."""
    lake, now = position_sync.lake, datetime.now(UTC)
    latest = tables.rows_of_logins(lake.updates.sync.latest(), position_sync.settings)
    book = overview.read_book(lake, position_sync.settings, now, latest=latest, of_strategies=True)
    found = book.exposures
    table = position_sync.derived_table(STRATEGY_EXPOSURE)
    frame = codec.frame_of(STRATEGY_EXPOSURE, (asdict(exposure) for exposure in found))
    result = table.replace(frame, run_id=context.run.run_id)
    times = [e.oldest_value_at for e in found if e.oldest_value_at is not None]
    strategies = book.strategies
    metadata = (
        strategies_metadata(strategies, total_by_currency(strategies))
        | picture(context, lake, book, now)
        | replacement_metadata(table, result)
        | column_lineage(LINEAGE)
        | {
            "dagster/row_count": result.rows,
            "strategies": len({e.strategy_id for e in found}),
            "legs": sum(e.legs for e in found),
            "legs_held": sum(e.legs_held for e in found),
        }
        | seldom(
            legs_without_value=sum(e.legs_without_value for e in found),
            legs_without_greeks=sum(e.legs_without_greeks for e in found),
        )
        | {f"mismatches/{e.strategy_id}": e.mismatches for e in found if e.mismatches}
    )
    if times:
        metadata["oldest_value_age_s"] = (now - min(times)).total_seconds()
    return dg.MaterializeResult(metadata=metadata, data_version=data_version(result.version))


def picture(
    context: dg.AssetExecutionContext, lake: "tables.Lake", book: "overview.Book", now: datetime
) -> dict[str, dg.MetadataValue]:
    """Return the picture of the last event if it is recent, else draw a new one.

    An error here is only logged as a warning: the table and its numbers do not need the picture.
    """
    found = recent_picture(context.instance, context.asset_key, now)
    if found or not book.matching:
        return found

    try:
        png = profit_curve.draw_day(
            profit_curve.profit_lines(lake.updates.sync, book.matching, now), book.leg_ages, now
        )
    except (ImportError, LakeError, OSError, ValueError) as error:
        context.log.warning(f"No picture could be drawn: {error}")
        return {}
    return picture_metadata(png, now) if png else {}
