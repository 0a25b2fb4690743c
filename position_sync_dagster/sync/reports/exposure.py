"""The exposure of strategies, accounts and underlyings, from the parts of holdings; pure.

Each holding is split once: a strategy has the part that its legs claim, and the rest belongs to no
strategy (UNATTRIBUTED). All sums are sums of these parts, so that the strategies and the rest
together are all holdings.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import polars as pl

from position_sync_dagster.domain.closes import counted_ends
from position_sync_dagster.domain.contract_match import contract_mismatch
from position_sync_dagster.domain.holding import Key
from position_sync_dagster.domain.instrument import ContractDetails, contract_name, digits, leg_name
from position_sync_dagster.domain.leg import NEGLIGIBLE, UNATTRIBUTED, ActiveContract
from position_sync_dagster.domain.position_update import GreeksSource
from position_sync_dagster.domain.rules import exchange_date
from position_sync_dagster.lake.schema import STRATEGY_EXPOSURE, moment
from position_sync_dagster.sync.confirmations import FEEDS, PRICED
from position_sync_dagster.sync.price_magnifiers import magnifier_in


class Claim(NamedTuple):
    """What a leg has of one holding.

    Attributes:
        leg: The number of the leg among those that were given.
        share: The part of the holding, above 0 and at most 1.
    """

    leg: int
    key: Key
    share: float


def claims_of(legs: Mapping[int, ActiveContract], held: Mapping[Key, float]) -> list[Claim]:
    """Return what each leg has of the holdings; no part of a holding belongs to two legs.

    Legs with an account and a quantity come first, then those with a quantity of any account, which
    take from each account in proportion to what is left. If legs claim more than is held, they
    share it by their quantities; a leg of the opposite sign has nothing. What remains belongs to
    the legs without a quantity, in equal parts if there are several.

    Args:
        legs: Active legs that match the contract of their conid, by any number.
        held: The quantity of each holding.
    """
    of_conid: dict[int, list[int]] = defaultdict(list)
    for place, leg in legs.items():
        of_conid[leg.conid].append(place)
    free_of: dict[int, dict[Key, float]] = defaultdict(dict)
    for key, quantity in held.items():
        if quantity and key[1] in of_conid:
            free_of[key[1]][key] = quantity
    taken: dict[tuple[int, Key], float] = defaultdict(float)
    for conid, free in free_of.items():
        places = of_conid[conid]
        claims = {n: q for n in places if (q := legs[n].quantity) is not None}
        for account in (*sorted({key[0] for key in free}), None):
            pool = [key for key in free if account in (None, key[0])]
            of_account = {n: q for n, q in claims.items() if legs[n].account == account}
            for sign in (1.0, -1.0):
                same = [key for key in pool if free[key] * sign > 0]
                claimed = {n: q for n, q in of_account.items() if q * sign > 0}
                there = sum(free[key] for key in same)
                if not claimed or not there:
                    continue
                part = min(1.0, there / sum(claimed.values()))
                for key in same:
                    for n, quantity in claimed.items():
                        taken[n, key] += quantity * part * free[key] / there
                    free[key] -= sum(claimed.values()) * part * free[key] / there
        for key, rest in free.items():
            whole = [n for n in places if n not in claims and legs[n].account in (None, key[0])]
            if abs(rest) > NEGLIGIBLE * abs(held[key]):
                for n in whole:
                    taken[n, key] += rest / len(whole)
    return [Claim(n, key, amount / held[key]) for (n, key), amount in taken.items() if amount]


# Classes of assets with separate sums: a future's value is notional, an option's a premium. The
# class of other holdings is OTHER, and that of a leg without a holding UNKNOWN.
_CLASSES = {"OPT": "OPTION", "FOP": "OPTION", "STK": "STOCK", "FUT": "FUTURE"}

# A leg that expires within this time is counted in `legs_expiring`.
EXPIRES_SOON = timedelta(days=5)


@dataclass(frozen=True, slots=True)
class Split:
    """All holdings, split between the strategies and the rest.

    Attributes:
        parts: A row for each part of a holding: to whom it belongs (`strategy_id`, `leg`), and its
            part of each value and greek. `leg` is negative for what no strategy has.
        legs: A row for each active leg in each account in which it has a part, and for each part
            that no strategy has; legs without a part have one row. `closed` says how a leg that is
            not held was closed.
    """

    parts: pl.DataFrame
    legs: pl.DataFrame

    def filter(self, *where: pl.Expr) -> "Split":
        """Return the parts and the legs for which the given expressions are true."""
        return Split(self.parts.filter(*where), self.legs.filter(*where))


def split(
    legs: Iterable[ActiveContract],
    latest: pl.DataFrame,
    details: Mapping[int, ContractDetails] | None = None,
    end_of: Callable[[ActiveContract], str | None] = lambda _leg: None,
    betas: Mapping[str, float] | None = None,
) -> Split:
    """Split the holdings between the strategies and the rest.

    A leg whose description does not match the contract of its conid has no part.

    Args:
        legs: The active legs.
        latest: The newest row of each holding, with the columns of `with_priced`.
        details: The known contract details, by conid: of legs, and of all contracts that are quoted
            in cents. Without them, the price magnifier of a contract is derived from its value.
        end_of: How a leg that is not held was closed (`Closes.end_of`); None where it is missing.
        betas: By how much each underlying moves when the index moves by 1.
    """
    active = [leg for leg in legs if leg.removed_at is None]
    contracts = details or {}
    wrong = {
        n: difference
        for n, leg in enumerate(active)
        if (difference := contract_mismatch(leg, contracts.get(leg.conid)))
    }
    named = latest.filter(pl.col("conid").is_in([leg.conid for leg in active]))
    held = {(one, conid): quantity for one, conid, quantity in named.select(_HELD).iter_rows()}
    claims = claims_of({n: leg for n, leg in enumerate(active) if n not in wrong}, held)
    beta = pl.col("symbol").replace_strict(dict(betas or {}), default=None, return_dtype=pl.Float64)
    parts = _parts(latest, claims, active, contracts)
    parts = parts.with_columns(beta_delta=pl.col("dollar_delta") * beta)
    rest = parts.filter(pl.col("leg") < 0)
    rows = _legs(active, wrong, named, held, claims)
    absent = set(rows.filter(pl.col("is_held").not_()).get_column("leg"))
    ends = {n: text for n in absent if (text := end_of(active[n])) is not None}
    closed = pl.col("leg").replace_strict(ends, default=None, return_dtype=pl.String)
    return Split(parts, pl.concat([rows, _rest(rest, held)]).with_columns(closed.alias("closed")))


_HELD = ("account", "conid", "position")
_MONEY = ("unrealized_pnl", "daily_pnl")
_GREEKS = ("delta", "gamma", "vega", "theta")
# The sums of parts. `gamma_1pct` is the change of dollar delta when the underlying moves by 1 %;
# like dollar delta it may be added over underlyings. `beta_delta` is dollar delta × beta.
SUMS = ("market_value", "notional", *_MONEY, *_GREEKS, "dollar_delta", "gamma_1pct", "beta_delta")


def _parts(
    latest: pl.DataFrame,
    claims: Sequence[Claim],
    legs: Sequence[ActiveContract],
    contracts: Mapping[int, ContractDetails],
) -> pl.DataFrame:
    rows = latest.filter(pl.col("position") != 0).with_row_index("holding")
    claimed = pl.DataFrame(
        [(*key, leg, str(legs[leg].strategy_id), share) for leg, key, share in claims],
        schema={
            "account": pl.String, "conid": pl.Int64, "leg": pl.Int64, "strategy_id": pl.String,
            "share": pl.Float64,
        },
        orient="row",
    )  # fmt: skip
    key = ["account", "conid"]
    rest = (
        rows.join(claimed.group_by(key).agg(pl.col("share").sum()), on=key, how="left")
        .with_columns(share=1.0 - pl.col("share").fill_null(0.0))
        .filter(pl.col("share") > NEGLIGIBLE)
        .with_row_index("leg", offset=1)
        .with_columns(
            leg=-pl.col("leg").cast(pl.Int64), strategy_id=pl.lit(UNATTRIBUTED, pl.String)
        )
    )
    found = pl.concat([rows.join(claimed, on=key, how="inner"), rest], how="diagonal").with_columns(
        pl.col("sec_type").replace_strict(_CLASSES, default="OTHER").alias("asset_class"),
        magnifier_in(contracts).alias("magnifier"),
    )
    is_option, share = pl.col("right").is_not_null(), pl.col("share")
    is_future = pl.col("asset_class") == "FUTURE"
    size = pl.col("position") * pl.col("multiplier") * share
    value, price = pl.col("market_value") * share, pl.col("underlying_price")
    is_short = is_option & (pl.col("position") < 0)
    is_call, strike = pl.col("right") == "CALL", pl.col("strike")
    in_money = pl.when(is_call).then(price > strike).otherwise(price < strike)
    return found.with_columns(
        market_value=pl.when(~is_future).then(value),
        notional=pl.when(is_future).then(value),
        **{name: pl.col(name) * share for name in _MONEY},
        **{name: pl.col(name) * size for name in _GREEKS},
        dollar_delta=pl.when(pl.col("sec_type").is_in(["STK", "FUT"]))
        .then(value)
        .otherwise(pl.col("delta") * size * price / pl.col("magnifier")),
        gamma_1pct=pl.col("gamma") * size * (price / pl.col("magnifier")) ** 2 / 100,
        valueless=pl.col("market_value").is_null(),
        undated=pl.col("market_value").is_not_null() & pl.col("value_time").is_null(),
        is_option=is_option,
        has_greeks=is_option & pl.col("delta").is_not_null(),
        is_modelled=is_option
        & pl.col("delta").is_not_null()
        & pl.col("greeks_source").eq_missing(GreeksSource.MODEL.value),
        greekless=pl.col("delta").is_null(),
        short_in_money=is_short & in_money.fill_null(value=False),
        short_unknown=is_short & in_money.is_null(),
        delayed=(pl.col("value_source") == "TICK") & pl.col("market_data_type").is_in(list(FEEDS)),
    )


_LEG_COLUMNS: dict[str, Any] = {
    "leg": pl.Int64,
    **dict.fromkeys(("strategy_id", "account", "currency", "asset_class"), pl.String),
    "is_held": pl.Boolean,
    **dict.fromkeys(("mismatch", "difference"), pl.String),
}


def _legs(
    legs: Sequence[ActiveContract],
    wrong: Mapping[int, str],
    newest: pl.DataFrame,
    positions: Mapping[Key, float],
    claims: Iterable[Claim],
) -> pl.DataFrame:
    """Return the rows of legs: where each has a part, and what is wrong with it."""
    has: dict[int, dict[str, float]] = defaultdict(dict)
    of_conid = newest.select(*_HELD, "currency", "sec_type").rows_by_key("conid", named=True)
    for n, key, share in claims:
        has[n][key[0]] = share * positions[key]
    found: list[tuple[Any, ...]] = []
    for n, leg in enumerate(legs):
        known = [row for row in of_conid[leg.conid] if leg.account in (None, row["account"])]
        held = [row for row in known if row["position"]]
        first = next(iter(held or known), None)
        kind = _CLASSES.get(first["sec_type"], "OTHER") if first else "UNKNOWN"
        currency = first["currency"] if first else None
        account = first["account"] if first else leg.account
        mismatch = f"{leg.conid}: {wrong[n]}" if n in wrong else None
        is_held = bool(has[n]) or (n in wrong and bool(held))
        difference, quantity = None, sum(has[n].values())
        if held and n not in wrong and leg.quantity is not None:
            wanted = f"{contract_name(leg)}: claims {digits(leg.quantity)}, has {digits(quantity)}"
            is_less = abs(leg.quantity - quantity) > NEGLIGIBLE * abs(leg.quantity)
            difference = wanted if is_less else None
        found.extend(
            (n, leg.strategy_id, place, currency, kind, is_held, mismatch, difference)
            for place in has[n] or (account,)
        )
    return pl.DataFrame(found, schema=_LEG_COLUMNS, orient="row")


def _rest(rest: pl.DataFrame, of_legs: Mapping[Key, float]) -> pl.DataFrame:
    """Return a row for each part that no strategy has, with a `difference` for contracts of legs.

    Args:
        rest: These parts.
        of_legs: The holdings of the contracts of legs.
    """
    of_contracts = rest.filter(pl.col("conid").is_in([conid for _account, conid in of_legs]))
    surplus = {
        row["leg"]: f"{leg_name(row['symbol'], row['right'], row['strike'], row['expiry'])}: "
        f"{digits(row['position'] * row['share'])} of {digits(row['position'])} in no strategy"
        for row in of_contracts.iter_rows(named=True)
    }
    difference = pl.col("leg").replace_strict(surplus, default=None, return_dtype=pl.String)
    return rest.with_columns(
        is_held=pl.lit(value=True), mismatch=pl.lit(None, pl.String), difference=difference
    ).select(*_LEG_COLUMNS)


def figure_of(name: str) -> pl.Expr:
    """Return which rows have a figure: an option its greeks, a future a notional and no value."""
    if name in (*_GREEKS, "gamma_1pct"):
        return pl.col("right").is_not_null()
    is_future = pl.col("sec_type") == "FUT"
    return {"market_value": ~is_future, "notional": is_future}.get(name, pl.lit(value=True))


def lacks(name: str) -> pl.Expr:
    """Return which parts have a figure that is not known: a sum leaves them out."""
    return pl.col(name).is_null() & figure_of(name)


# What is counted of the holdings of a group, and of its legs: the column of parts that says so.
_COUNTS = {
    "options": "is_option", "options_with_greeks": "has_greeks", "options_modelled": "is_modelled",
    "delayed": "delayed",
}  # fmt: skip
_COUNTS_OF_LEGS: dict[str, pl.Expr | str] = {
    "legs_without_value": "valueless", "legs_without_greeks": "greekless",
    "legs_without_value_time": "undated", "short_legs_in_money": "short_in_money",
    "short_legs_unknown": "short_unknown",
}  # fmt: skip


def summed(parts: pl.DataFrame, by: Sequence[str], now: datetime) -> pl.DataFrame:
    """Return the sums of each group, in order; a sum without a known value is null.

    Args:
        parts: The parts of holdings.
        by: The columns that make a group.
        now: The reference time of days to expiry.
    """
    soon = pl.col("expiry") <= exchange_date(now) + EXPIRES_SOON

    def oldest(name: str, of: pl.Expr | str) -> pl.Expr:
        column = pl.col(name).filter(of)
        return pl.when(column.null_count() == 0).then(column.min())

    def count(of: str, where: pl.Expr | str) -> pl.Expr:
        return pl.col(of).filter(where).n_unique()

    with_legs = _COUNTS_OF_LEGS | {"legs_expiring": soon}
    sums = parts.group_by(by).agg(
        *(pl.when(pl.col(name).count() > 0).then(pl.col(name).sum()).alias(name) for name in SUMS),
        **{f"without_{name}": count("holding", lacks(name)) for name in SUMS},
        **{name: count("holding", of) for name, of in _COUNTS.items()},
        **{name: count("leg", of) for name, of in with_legs.items()},
        holdings=pl.col("holding").n_unique(),
        priced_at=oldest(PRICED, pl.lit(value=True)),
        greeks_at=oldest("greeks_time", "has_greeks"),
        nearest_expiry=pl.col("expiry").min(),
        conids=pl.col("conid").unique(),
    )
    return sums.sort(by, nulls_last=False)


def summed_legs(found: Split, by: Sequence[str], now: datetime) -> pl.DataFrame:
    """Return the sums of each group with the counts of its legs, in order.

    Args:
        found: The parts and the legs.
        by: Some of account, strategy_id, currency and asset_class.
        now: The reference time of days to expiry.
    """
    sums = summed(found.parts, by, now)
    counts = found.legs.group_by(by).agg(
        legs=pl.col("leg").n_unique(),
        legs_held=pl.col("leg").filter("is_held").n_unique(),
        legs_closed=pl.col("leg").filter(pl.col("closed").is_not_null()).n_unique(),
        closed=pl.col("closed").drop_nulls(),
        mismatched=pl.col("leg").filter(pl.col("mismatch").is_not_null()).n_unique(),
        mismatches=pl.col("mismatch").drop_nulls().unique().sort().str.join("; "),
        differences=pl.col("difference").drop_nulls().unique().sort().str.join("; "),
    )
    texts = [counted_ends(ends) for ends in counts.get_column("closed").to_list()]
    counts = counts.with_columns(pl.Series("closed", texts, pl.String))
    left = ("legs_without_value", "legs_without_greeks")
    numbers = [name for name, kind in sums.schema.items() if kind.is_integer() and name not in by]
    return (
        counts.join(sums, on=by, how="left", nulls_equal=True)
        .with_columns(pl.col(name).fill_null(0) for name in numbers)
        .with_columns(pl.col(name) + pl.col("mismatched") for name in left)
        .with_columns(pl.col(n).replace("", None) for n in ("mismatches", "differences"))
        .sort(by, nulls_last=False)
    )


_GROUP = ("strategy_id", "account", "currency", "asset_class")
_OF_UNDERLYING = (*_GREEKS, "dollar_delta", "gamma_1pct")


def exposures(found: Split, now: datetime, version: int | None = None) -> pl.DataFrame:
    """Return the exposure of each strategy, and of the rest, by account, currency and class.

    Args:
        found: The parts.
        now: The reference time of ages and days to expiry.
        version: The version of the ledger.

    Returns:
        Rows of the table `strategy_exposure`, which describes its columns. Their sums leave out
        unknown values.
    """
    by_symbol = summed(found.parts, (*_GROUP, "symbol"), now)
    underlyings = by_symbol.select(*_GROUP, "symbol", pl.struct(_OF_UNDERLYING)).rows_by_key(_GROUP)
    rows = summed_legs(found, _GROUP, now)
    groups = (underlyings.get(group) for group in rows.select(_GROUP).iter_rows())
    texts = [json.dumps(dict(sums)) if sums else None for sums in groups]
    return rows.with_columns(
        pl.Series("by_underlying", texts, pl.String),
        oldest_value_at=PRICED,
        worst_value_age_s=(moment(now) - pl.col(PRICED)).dt.total_microseconds() / 1e6,
        ledger_version=pl.lit(version, pl.Int64),
    ).select(*STRATEGY_EXPOSURE.columns)
