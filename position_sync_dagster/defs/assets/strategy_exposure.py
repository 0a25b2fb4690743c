"""The asset `strategy_exposure`: holdings and values of each strategy, as tables and plots.

In the metadata an unknown number is left out and never zero. Each sum has its currency in the name,
because different currencies are never added.
"""

import base64
from collections.abc import Mapping
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
from position_sync_dagster.defs.libraries import (
    codec,
    confirmations,
    exposure,
    money,
    overview,
    pl,
    profit_curve,
    tables,
)
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.defs.runs import DERIVE_JOB
from position_sync_dagster.errors import LakeError
from position_sync_dagster.lake.schema.tables import STRATEGY_EXPOSURE

PICTURE = "picture"
DRAWN_AT = "picture_drawn_at"

DRAWN_EVERY = timedelta(minutes=2)
"""Minimum time between two pictures: drawing takes 0.5 s, and events in between reuse the last."""

LARGEST = 10
"""Maximum length of each list of `latest_positions`."""

MONEY = {
    *("value", "unrealised P&L", "daily P&L", "dollar delta", "gamma 1 %", "theta", "vega"),
    *("market_value", "unrealized_pnl", "daily_pnl"),
}
"""Columns of the tables that are rounded to cents."""

MOST_CURRENCIES = 5
MOST_STRATEGIES = 200

_SUMS = [
    dg.TableColumn("currency", "string", "Of the money columns. Currencies are never added."),
    dg.TableColumn("legs held / of", "string"),
    dg.TableColumn("oldest price (s)", "float", "Since it arrived or the broker confirmed it."),
    dg.TableColumn("value", "float", "Without the notional value of futures."),
    dg.TableColumn("unrealised P&L", "float"),
    dg.TableColumn("daily P&L", "float", "Of the day, as the broker reports it."),
    dg.TableColumn("dollar delta", "float"),
    dg.TableColumn("gamma 1 %", "float", "Change of dollar delta when the price moves by 1 %."),
    dg.TableColumn("theta", "float", "A day."),
    dg.TableColumn("vega", "float", "A point of volatility."),
    dg.TableColumn("not of all", "string", "Sums that leave out a holding."),
    dg.TableColumn("greeks of / options", "string", "The sums of greeks leave out the others."),
    dg.TableColumn("nearest expiry", "string"),
    dg.TableColumn("short in the money", "int", "Of those whose underlying has a known price."),
    dg.TableColumn("short, not known", "int", "Short options of other underlyings."),
    dg.TableColumn("oldest greeks (s)", "float", "Since they arrived."),
    dg.TableColumn("delayed", "int", "Holdings priced by delayed or frozen data."),
    dg.TableColumn("lines", "int", "Market data lines that its legs use."),
    dg.TableColumn("without value", "int", "Held legs that the sums leave out."),
]


def money_metadata(found: "money.BookMoney") -> dict[str, dg.MetadataValue]:
    """Return the tables of strategies and underlyings, and the totals of each currency."""
    named = [dg.TableColumn("strategy", "string"), dg.TableColumn("account", "string")]
    rows = [*found.strategies[:MOST_STRATEGIES], *found.rest, *found.totals, *found.in_base]
    texts: dict[str, dg.MetadataValue] = {
        f"total/{one.currency}/not_of_all": dg.MetadataValue.text(", ".join(one.partial))
        for one in found.totals
        if one.account is None and one.partial
    }
    tables: dict[str, dg.MetadataValue] = {
        "strategies_table": dg.MetadataValue.table(
            [_record(one, strategy=one.name, account=one.account) for one in rows],
            schema=dg.TableSchema(columns=[*named, *_SUMS]),
        )
    }
    if found.underlyings:
        tables["underlyings_table"] = dg.MetadataValue.table(
            [_record(one, underlying=one.name) for one in found.underlyings[:MOST_STRATEGIES]],
            schema=dg.TableSchema(columns=[dg.TableColumn("underlying", "string"), *_SUMS]),
        )
    numbers: dict[str, float | None] = {}
    for one in found.totals:
        if one.account is None:
            numbers |= {
                f"total/{one.currency}/{name}": getattr(one, name)
                for name in ("value", "daily_pnl", "unrealized_pnl", "dollar_delta", "theta")
            }
    for one in found.in_base:
        numbers |= {
            f"total_in_base/{one.account}/{one.currency}/value": one.value,
            f"total_in_base/{one.account}/{one.currency}/daily_pnl": one.daily_pnl,
            f"total_in_base/{one.account}/rates_age_s": one.rates_age_s,
        }
    ages = [one.oldest_age_s for one in found.strategies if one.oldest_age_s is not None]
    numbers["worst_age_s"] = max(ages, default=None)
    return tables | texts | plotted(numbers)


def _record(one: "money.Money", **named: str | None) -> dg.TableRecord:
    sums: dict[str, object] = {
        "currency": one.currency,
        "legs held / of": f"{one.legs_held} / {one.legs}",
        "oldest price (s)": one.oldest_age_s,
        "value": one.value,
        "unrealised P&L": one.unrealized_pnl,
        "daily P&L": one.daily_pnl,
        "dollar delta": one.dollar_delta,
        "gamma 1 %": one.gamma_1pct,
        "theta": one.theta,
        "vega": one.vega,
        "not of all": ", ".join(one.partial) or None,
        "greeks of / options": f"{one.options_with_greeks} / {one.options}",
        "nearest expiry": one.nearest_expiry,
        "short in the money": one.short_in_money,
        "short, not known": one.short_unknown,
        "oldest greeks (s)": one.oldest_greeks_s,
        "delayed": one.delayed,
        "lines": one.lines,
        "without value": one.unvalued,
    }
    return dg.TableRecord(_texts({**named, **sums}))


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
    "price of",
    "price age (s)",
    "greeks age (s)",
]


def positions_metadata(rows: "pl.DataFrame", now: datetime) -> dict[str, dg.MetadataValue]:
    """Return the largest positions by value and by loss, for each currency.

    The value of a future is notional and is not compared with that of options and stocks.

    Args:
        rows: Rows of the table `latest_positions`.
        now: The time at which the ages end.
    """
    feed = pl.col("market_data_type").replace_strict(confirmations.FEEDS, default=None)
    is_tick = pl.col("value_source") == "TICK"
    of = [pl.coalesce("price_kind", "value_source"), pl.when(is_tick).then(feed)]
    has_greeks = pl.col("delta").is_not_null()
    held = rows.filter(pl.col("position") != 0).with_columns(
        pl.concat_str(of, separator=" ", ignore_nulls=True).alias("price of"),
        _age_s(pl.col("confirmed_at"), now).alias("price age (s)"),
        _age_s(pl.when(has_greeks).then("greeks_time"), now).alias("greeks age (s)"),
    )
    valued = held.filter(pl.col("sec_type") != "FUT", pl.col("market_value").is_not_null())
    losing = held.filter(pl.col("unrealized_pnl") < 0)
    return {
        "largest_by_value": _listed(valued, pl.col("market_value").abs(), descending=True),
        "largest_by_loss": _listed(losing, pl.col("unrealized_pnl"), descending=False),
    }


def _age_s(at: "pl.Expr", now: datetime) -> "pl.Expr":
    return ((codec.moment(now) - at).dt.total_milliseconds() / 1000).clip(0.0)


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
            known = part.get_column(name).drop_nulls()
            numbers[f"{name}/{currency}"] = sum(known) if known.len() else None
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
    "account": [("position_updates", "account"), ("active_strategies", "account")],
    "gamma_1pct": [("position_updates", "gamma"), _UNDERLYING, *_SIZE],
    "options": [("position_updates", "right"), *_HELD],
    "options_with_greeks": [("position_updates", "delta"), *_HELD],
    "nearest_expiry": [("position_updates", "expiry"), *_HELD],
    "differences": _SHARE,
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
- **How to read it:** one row per strategy, account, currency and class of asset, and one with the
  strategy UNATTRIBUTED for what no strategy has of an account: together they are all holdings. Sums
  are over known values; the number of legs left out is beside them, and how many options have
  greeks. Futures count as notional, never as value.
- **Live:** [the money page](/money) shows these figures as they move, second by second.
""",
)
def strategy_exposure(
    context: dg.AssetExecutionContext, position_sync: PositionSyncResource
) -> dg.MaterializeResult[None]:
    """Sum the newest rows over the legs of each strategy."""
    lake, now = position_sync.lake, datetime.now(UTC)
    latest = tables.rows_of_logins(lake.updates.sync.latest(), position_sync.settings)
    book = overview.read_book(lake, position_sync.settings, now, latest=latest, of_strategies=True)
    found = exposure.exposures(book.split, now)
    table = position_sync.derived_table(STRATEGY_EXPOSURE)
    frame = codec.frame_of(STRATEGY_EXPOSURE, (asdict(one) for one in found))
    result = table.replace(frame, run_id=context.run.run_id)
    of_strategies = [e for e in found if e.strategy_id != exposure.UNATTRIBUTED]
    times = [e.oldest_value_at for e in of_strategies if e.oldest_value_at is not None]
    metadata = (
        money_metadata(book.money())
        | picture(context, lake, book, now)
        | replacement_metadata(table, result)
        | column_lineage(LINEAGE)
        | {
            "dagster/row_count": result.rows,
            "strategies": len({e.strategy_id for e in of_strategies}),
            "legs": sum(e.legs for e in of_strategies),
            "legs_held": sum(e.legs_held for e in of_strategies),
            "unattributed": sum(e.legs for e in found) - sum(e.legs for e in of_strategies),
        }
        | seldom(
            legs_without_value=sum(e.legs_without_value for e in of_strategies),
            legs_without_greeks=sum(e.legs_without_greeks for e in of_strategies),
        )
        | {f"mismatches/{e.strategy_id}": e.mismatches for e in found if e.mismatches}
        | {f"quantities/{e.strategy_id}": e.differences for e in found if e.differences}
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
