"""Our values and greeks beside the broker's own, as ratios, with what the differences hang on."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import groupby
from math import isfinite, log
from operator import itemgetter

import polars as pl
from polars import DataFrame, col, concat_str, lit

from position_sync_dagster.domain.instrument import TERMS, ContractDetails, Instrument
from position_sync_dagster.lake.schema import moment
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.risk.terms import (
    ModelledLeg,
    OptionTerms,
    compute,
    dated_dividends,
    option_terms,
)
from position_sync_dagster.processes.rehearsal.measures import Line, Verdict
from position_sync_dagster.processes.rehearsal.watch import ModelTick, Watch
from position_sync_dagster.settings import Settings

# Greatest difference that is good at p95: of values, as a part; of delta, absolute.
VALUES_WITHIN = 0.02
DELTA_WITHIN = 0.02

# The columns of our rows.
COMPARED = (
    *("account", "conid", "timestamp", "market_value", "sec_type", "price_kind"),
    *("strike", "underlying_price", "expiry"),
)

# How far apart two values are compared.
TOGETHER = "2s"


def compared(about: str, text: str, differences: Iterable[float], within: float) -> Line:
    """Return the line of some differences, which is good where p95 is small enough."""
    ordered = sorted(abs(each) for each in differences)
    middle = ordered[len(ordered) // 2]
    late = ordered[int(0.95 * (len(ordered) - 1))]
    return Line(
        about=about,
        verdict=Verdict.GOOD if late <= within else Verdict.DIFFERENT,
        text=f"{text}: p50 {middle:.2g}, p95 {late:.2g}, greatest {ordered[-1]:.2g}",
        count=len(ordered),
        numbers={"p50": round(middle, 6), "p95": round(late, 6), "max": round(ordered[-1], 6)},
    )


def beside_the_broker(watch: Watch, lake: MoneyLake, settings: Settings) -> Iterator[Line]:
    """Yield what was compared; blocks."""
    yield from _of_values(watch, lake)
    yield from _of_greeks(watch, lake, settings)
    if watch.daily_gaps:
        text = "sum of holdings to account, as a part of all moves"
        yield compared("daily profit", text, watch.daily_gaps, VALUES_WITHIN)
    yield from _of_rows(watch)


def _of_values(watch: Watch, lake: MoneyLake) -> Iterator[Line]:
    """Compare the rows of lines with the broker's value at about the same time."""
    if not watch.values:
        return
    broker = DataFrame(watch.values, orient="row", schema_overrides={"conid": pl.Int64})
    broker = broker.with_columns(col.timestamp.cast(pl.Datetime("us", "UTC")))
    first = moment(min(value.timestamp for value in watch.values))
    is_own = (col.value_source == "TICK") & (col.timestamp >= first) & (col.market_value != 0)
    own = lake.updates.table.rows(is_own, columns=COMPARED).sort("timestamp")

    pairs = broker.sort("timestamp").join_asof(
        own,
        on="timestamp",
        by=["account", "conid"],
        tolerance=TOGETHER,
        strategy="nearest",
        check_sortedness=False,  # it cannot be checked by account and conid
    )
    days = (col.expiry.cast(pl.Date) - col.timestamp.dt.date()).dt.total_days()
    from_spot = (col.strike / col.underlying_price).log().abs()
    kinds = pairs.filter(col.market_value.is_not_null()).with_columns(
        difference=col.market_value / col.value - 1,
        text=concat_str(
            [
                col.sec_type,
                col.price_kind,
                _bucket(from_spot, MONEYNESS),
                _bucket(days, DAYS),
            ],
            separator=", ",
            ignore_nulls=True,
        ),
    )
    for (source, text), group in sorted(kinds.group_by("source", "text")):
        yield compared(f"value to {source}", text, group["difference"], VALUES_WITHIN)


MONEYNESS = {0.02: "at the money", 0.1: "near it", float("inf"): "far from it"}
DAYS = {7: "up to a week", 45: "up to 45 days", float("inf"): "longer"}


def _bucket(value: pl.Expr, names: dict[float, str]) -> pl.Expr:
    named = lit(None, pl.String)
    for most, name in reversed(names.items()):
        named = pl.when(value <= most).then(lit(name)).otherwise(named)
    return named


def _name(value: float, names: dict[float, str]) -> str:
    return next(name for most, name in names.items() if value <= most)


def _of_greeks(watch: Watch, lake: MoneyLake, settings: Settings) -> Iterator[Line]:
    """Compute the greeks of each model tick from its own price, by our model."""
    ticks = sorted(watch.model_ticks.values(), key=lambda tick: tick.at)
    details = lake.contracts.get({tick.conid for tick in ticks})
    dividends = dated_dividends(lake.dividends.current())
    rates = dict(settings.interest_rates)
    terms = {
        conid: option_terms(_instrument(each), each, rates, dividends.get(each.under_conid or 0))
        for conid, each in details.items()
    }

    differences = defaultdict[tuple[str, str], list[float]](list)
    for tick in ticks:
        priced_as = terms.get(tick.conid)
        if not isinstance(priced_as, OptionTerms):
            continue
        unit = details[tick.conid].price_magnifier
        leg = _modelled(tick, priced_as, unit)
        if leg.greeks is None:
            continue

        days = (priced_as.expires_at - tick.at).total_seconds() / 86_400
        moneyness = abs(log(priced_as.strike * unit / tick.underlying_price))
        text = f"{_name(moneyness, MONEYNESS)}, {_name(days, DAYS)}"
        differences["delta to model ticks", text].append(leg.greeks.delta - tick.delta)
        for name, theirs in (("vega", tick.vega), ("theta", tick.theta)):
            ratio = getattr(leg.greeks, name) * unit / theirs if theirs else float("inf")
            if isfinite(ratio):
                differences[f"{name} to model ticks", text].append(ratio - 1)

    for (about, text), several in sorted(differences.items()):
        within = DELTA_WITHIN if about.startswith("delta") else 5 * VALUES_WITHIN
        yield compared(about, text, several, within)


def _instrument(details: ContractDetails) -> Instrument:
    named = {name: getattr(details, name) for name in (*TERMS, "local_symbol", "trading_class")}
    return Instrument(**named)


def _modelled(tick: ModelTick, terms: OptionTerms, unit: int) -> ModelledLeg:
    spot = tick.underlying_price / unit
    leg = ModelledLeg(
        conid=tick.conid, terms=terms, underlying=0, value=tick.price / unit, value_at=tick.at,
        spot_then=spot, spot=spot, spot_at=tick.at,
    )  # fmt: skip
    compute([leg], tick.at)
    return leg


def _of_rows(watch: Watch) -> Iterator[Line]:
    """Compare the numbers of portfolio rows with each other, by type."""
    ordered = sorted(watch.portfolio.values(), key=itemgetter(0))
    for sec_type, group in groupby(ordered, key=itemgetter(0)):
        rows = [row for row in group if row.position and row.price and row.value]
        ratios = [row.value / (row.position * row.price * row.multiplier) - 1 for row in rows]
        # A cost of 0 has no ratio, as of what a spin-off brought.
        costs = [
            (row.value - row.unrealized) / (row.position * row.average_cost) - 1
            for row in rows
            if row.average_cost
        ]
        text = {"multiplier": ratios, "average cost": costs}
        for about, several in text.items():
            if several:
                yield compared(f"{about} of rows", sec_type, several, VALUES_WITHIN)
