"""The exposure of strategies, accounts and underlyings, from the parts of holdings; pure.

Each holding is split once: it belongs to whom `owned_at` says, and what no strategy has is
UNATTRIBUTED. All sums are sums of these parts, so that the strategies and the rest together are all
holdings.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import polars as pl
import polars.selectors as cs
from polars import DataFrame, Expr, Float64, Int64, String, coalesce, col, lit, when

from position_sync_dagster.domain.contract_match import contract_mismatch
from position_sync_dagster.domain.holding import KEY
from position_sync_dagster.domain.instrument import (
    OPTION_TYPES,
    ContractDetails,
    contract_name,
    digits,
)
from position_sync_dagster.domain.leg import NEGLIGIBLE_QUANTITY, UNATTRIBUTED, ActiveContract
from position_sync_dagster.domain.position_update import GreeksSource, Source
from position_sync_dagster.lake.schema import one_of
from position_sync_dagster.money.magnifiers import magnifier_in
from position_sync_dagster.money.past.closes import counted_ends
from position_sync_dagster.money.past.owned_parts import OWNED, PART_COLUMNS, owned_at
from position_sync_dagster.money.past.postings import names_of
from position_sync_dagster.money.sums import EVERY_ROW, sum_if_carried
from position_sync_dagster.money.tables import STRATEGY_EXPOSURE
from position_sync_dagster.sync.confirmations import PRICED

# Classes of assets with separate sums: a future's value is notional, an option's a premium. The
# class of other holdings is OTHER, and that of a leg without a holding UNKNOWN.
_CLASSES = dict.fromkeys(OPTION_TYPES, "OPTION") | {"STK": "STOCK", "FUT": "FUTURE"}
_ASSET_CLASS = col.sec_type.replace_strict(_CLASSES, default="OTHER")

# IB's types of market data that are not live, in words.
FEEDS = {2: "frozen", 3: "delayed", 4: "delayed"}


# Whether a past moment has the value that was shown then. Of a queued holding values are shown that
# are newer than its row.
IS_KEPT = col.source == Source.STREAM


@dataclass(frozen=True)
class Claims:
    """The active legs beside the contracts of their conids.

    Attributes:
        legs: The legs; those that ended claim nothing.
        contracts: The known contract details, by conid: of legs, and of all contracts that are
            quoted in cents. Without them, the price magnifier of a contract is derived from its
            value.
    """

    legs: Sequence[ActiveContract]
    contracts: Mapping[int, ContractDetails] = field(default_factory=dict)

    @cached_property
    def rows(self) -> DataFrame:
        """What each active leg claims, with its number, and its `mismatch` if it has one."""
        rows = []
        for number, leg in enumerate(self.legs):
            if leg.removed_at is not None:
                continue

            mismatch = contract_mismatch(leg, self.contracts.get(leg.conid))
            named = mismatch and f"{contract_name(leg)}: {mismatch}"
            place = (f"{leg.strategy_id}", leg.account, leg.conid, leg.currency)
            rows.append((number, *place, leg.quantity, named))
        return DataFrame(rows, _CLAIM, orient="row")

    @cached_property
    def matching(self) -> list[ActiveContract]:
        """The legs that match their contract, or whose contract is not known yet."""
        numbers = self.rows.filter(col.mismatch.is_null())["leg"]
        return [self.legs[number] for number in numbers]


@dataclass(frozen=True, slots=True)
class Split:
    """All holdings, split between the strategies and the rest.

    Attributes:
        parts: A row for each part of a holding: to whom it belongs (`strategy_id`, `leg`), and its
            part of each value and greek. `leg` is negative for what is no leg of its owner: all of
            what no strategy has, and shares that an option of a strategy delivered.
        legs: A row for each active leg in each account in which it has a part, and for each part
            without a leg; legs without a part have one row. `closed` says how a leg that is not
            held was closed.
    """

    parts: DataFrame
    legs: DataFrame

    def filter(self, *where: Expr) -> "Split":
        """Return the parts and the legs for which the given expressions are true."""
        return Split(self.parts.filter(*where), self.legs.filter(*where))


NO_CLAIMS = Claims(())
NO_PARTS = Split(DataFrame(), DataFrame())


def split(
    claims: Claims,
    latest: DataFrame,
    end_of: Callable[[ActiveContract], str | None] = lambda _leg: None,
    betas: Mapping[str, float] | None = None,
    owned: DataFrame | None = None,
) -> Split:
    """Split the holdings between the strategies and the rest.

    A leg whose description does not match the contract of its conid has no part.

    Args:
        claims: The active legs.
        latest: The newest row of each holding, with the columns of `with_priced`.
        end_of: How a leg that is not held was closed (`Closes.end_of`); None where it is missing.
        betas: By how much each underlying moves when the index moves by 1.
        owned: The parts of movements (`part_rows`); without them, all is as legs claim it.
    """
    if owned is None:
        owned = DataFrame(schema=PART_COLUMNS)
    held = latest.filter(col.position != 0)
    shares = owned_at(held.select(*KEY, "position"), owned, claims.matching)
    parts = _parts(held, _with_legs(shares, claims.rows), claims.contracts)
    beta = col.symbol.replace_strict(betas or {}, default=None, return_dtype=pl.Float64)
    parts = parts.with_columns(beta_delta=col.dollar_delta * beta)

    conids = claims.rows["conid"].unique().to_list()
    of_legs = latest.filter(col.conid.is_in(conids))
    rows = _legs(claims, of_legs, parts)
    absent = rows.filter(~col.is_held)["leg"].unique()
    ends = {number: end_of(claims.legs[number]) for number in absent}

    legless = parts.filter(col.leg < 0)
    closed = col.leg.replace_strict(ends, default=None, return_dtype=String)
    rows = pl.concat([rows, _legless_rows(legless, conids)])
    return Split(parts, rows.with_columns(closed=closed))


_MONEY = ("unrealized_pnl", "daily_pnl")
_GREEKS = ("delta", "gamma", "vega", "theta")
# The sums of parts. `gamma_1pct` is the change of dollar delta when the underlying moves by 1 %;
# like dollar delta it may be added over underlyings. `beta_delta` is dollar delta × beta.
SUMMED_COLUMNS = (
    "market_value",
    "notional",
    *_MONEY,
    *_GREEKS,
    "dollar_delta",
    "gamma_1pct",
    "beta_delta",
)


def _with_legs(shares: DataFrame, claims: DataFrame) -> DataFrame:
    """Return what is owned with the number of the leg; negative where the owner has none there."""
    claims = claims.filter(col.mismatch.is_null())
    claims = claims.select("conid", "strategy_id", "leg", claimed_in="account")
    fitting = shares.join(claims, on=("conid", "strategy_id"))
    fitting = fitting.filter(coalesce("claimed_in", "account") == col.account)

    # The first leg that names the account, else the first one of any.
    fitting = fitting.sort("claimed_in", "leg", nulls_last=True)
    fitting = fitting.unique(OWNED, keep="first").select(*OWNED, "leg")

    without_leg = -1 - pl.int_range(pl.len())
    shares = shares.join(fitting, on=OWNED, how="left", maintain_order="left")
    return shares.with_columns(col.leg.fill_null(without_leg))


def _parts(
    held: DataFrame, shares: DataFrame, contracts: Mapping[int, ContractDetails]
) -> DataFrame:
    """Return the parts of the holdings."""
    parts = held.with_row_index("holding")
    parts = parts.join(shares, on=KEY, maintain_order="left_right").with_columns(
        share=col.by / col.position,
        asset_class=_ASSET_CLASS,
        magnifier=magnifier_in(contracts),
    )
    return _with_amounts(_with_marks(parts.drop("by")))


def _with_marks(parts: DataFrame) -> DataFrame:
    """Return parts with what is counted: which greeks they have, how sure their values are."""
    is_option = one_of("sec_type", OPTION_TYPES)
    has_greeks = is_option & col.delta.is_not_null()
    is_of_line = col.value_source == "TICK"

    # What is not known is counted by itself, in `short_unknown`.
    is_above = col.underlying_price > col.strike
    is_below = col.underlying_price < col.strike
    in_money = when(col.right == "CALL").then(is_above).otherwise(is_below)
    is_short = is_option & (col.position < 0)
    return parts.with_columns(
        is_option=is_option,
        has_greeks=has_greeks,
        not_kept=~IS_KEPT,
        greekless=col.delta.is_null(),
        valueless=col.market_value.is_null(),
        short_in_money=is_short & in_money.fill_null(value=False),
        short_unknown=is_short & in_money.is_null(),
        is_modelled=has_greeks & (col.greeks_source == GreeksSource.MODEL),
        delayed=is_of_line & col.market_data_type.is_in([*FEEDS]),
    )


def _with_amounts(parts: DataFrame) -> DataFrame:
    """Return parts with their own money and greeks: those of the holding × the share.

    The price of an underlying is in the minor unit where the contract is quoted in cents.
    """
    units = col.position * col.multiplier * col.share
    value = col.market_value * col.share
    spot = col.underlying_price / col.magnifier
    delta_of_option = col.delta * units * spot
    is_its_own_underlying = col.sec_type.is_in(["STK", "FUT"])
    is_future = col.asset_class == "FUTURE"
    return parts.with_columns(
        col(_MONEY) * col.share,
        col(_GREEKS) * units,
        market_value=when(~is_future).then(value),
        notional=when(is_future).then(value),
        dollar_delta=when(is_its_own_underlying).then(value).otherwise(delta_of_option),
        gamma_1pct=col.gamma * units * spot**2 / 100,
    )


# A leg that a strategy claims.
_CLAIM = {
    "leg": Int64, "strategy_id": String, "account": String, "conid": Int64, "currency": String,
    "quantity": Float64, "mismatch": String,
}  # fmt: skip
_LEG_COLUMNS = (
    "leg", "strategy_id", "account", "currency", "asset_class", "is_held", "mismatch", "difference",
)  # fmt: skip


def _legs(claims: Claims, newest: DataFrame, parts: DataFrame) -> DataFrame:
    """Return the rows of legs: where each has a part, and what is wrong with it."""
    quantities = parts.filter(col.leg >= 0)
    quantities = quantities.select("leg", of_part="account", has=col.share * col.position)
    rows = claims.rows.join(_places(claims.rows, newest), on="leg", how="left")
    rows = rows.join(quantities, on="leg", how="left", maintain_order="left_right")

    # A leg without a place was never held.
    is_right = col.mismatch.is_null()
    has_part = col.has.is_not_null()
    is_open = col.is_open.fill_null(value=False)
    rows = rows.with_columns(
        account=coalesce("of_part", "place", "account"),
        currency=coalesce("currency_right", "currency"),
        asset_class=col.asset_class.fill_null("UNKNOWN"),
        is_held=when(is_right).then(has_part).otherwise(is_open),
    )

    whole = col.has.sum().over("leg")
    is_unmet = (whole - col.quantity).abs() > NEGLIGIBLE_QUANTITY * col.quantity.abs()
    unmet = rows.filter(is_right, col.is_open, is_unmet)
    differences = {}
    for number, claimed, has in unmet.select("leg", "quantity", whole).iter_rows():
        leg = claims.legs[number]
        text = f"claims {digits(claimed)}, has {digits(has)}"
        differences[number] = f"{contract_name(leg)}: {text}"

    difference = col.leg.replace_strict(differences, default=None, return_dtype=String)
    return rows.with_columns(difference=difference).select(*_LEG_COLUMNS)


def _places(claims: DataFrame, newest: DataFrame) -> DataFrame:
    """Return for each leg the first row of its contract that it is about: open ones come first."""
    is_open = col.position != 0
    rows = newest.select(
        "conid", "currency", place="account", is_open=is_open, asset_class=_ASSET_CLASS
    )
    places = claims.select("leg", "conid", "account")
    places = places.join(rows, on="conid", maintain_order="left_right")
    places = places.filter(coalesce("account", "place") == col.place)
    places = places.sort("leg", ~col.is_open, maintain_order=True)
    return places.unique("leg", keep="first").drop("conid", "account")


def _legless_rows(parts: DataFrame, conids: Collection[int]) -> DataFrame:
    """Return a row for each part without a leg, with a `difference` where it is in no strategy.

    Args:
        parts: These parts.
        conids: The contracts of legs; only these have differences.
    """
    unattributed = parts.filter(col.conid.is_in(conids), strategy_id=UNATTRIBUTED)
    rows = unattributed.select("leg", "position", "share", names_of(unattributed))
    differences = {
        leg: f"{name}: {digits(held * share)} of {digits(held)} in no strategy"
        for leg, held, share, name in rows.iter_rows()
    }
    difference = col.leg.replace_strict(differences, default=None, return_dtype=String)
    parts = parts.with_columns(is_held=True, mismatch=lit(None, String))
    return parts.with_columns(difference=difference).select(*_LEG_COLUMNS)


def figure_of(name: str) -> Expr:
    """Return which rows have a figure: an option its greeks, a future a notional and no value."""
    is_future = col.sec_type == "FUT"
    figures = {"notional": is_future, "market_value": ~is_future}
    figures |= dict.fromkeys((*_GREEKS, "gamma_1pct"), one_of("sec_type", OPTION_TYPES))
    return figures.get(name, EVERY_ROW)


def lacks(name: str) -> Expr:
    """Return which parts have a figure that is not known: a sum leaves them out."""
    return col(name).is_null() & figure_of(name)


# What is counted of the legs of a group: the column of parts that says so.
_COUNTS_OF_LEGS = {
    "legs_without_value": "valueless", "legs_without_greeks": "greekless",
    "short_legs_in_money": "short_in_money", "short_legs_unknown": "short_unknown",
}  # fmt: skip


def summed(parts: DataFrame, by: Sequence[str]) -> DataFrame:
    """Return the sums of each group, in order; null where what is known does not carry the sum.

    Beside each sum is of how many holdings it is (`of_…`), and what it leaves out (`without_…`).

    Args:
        parts: The parts of holdings.
        by: The columns that make a group.
    """
    # A holding of several strategies counts once in a group, a leg of several accounts once.
    marks = {"is_first": _is_first(parts, by, "holding")}
    for name, flag in _COUNTS_OF_LEGS.items():
        is_first = _is_first(parts, by, "leg", flag)
        marks[name] = col(flag) & is_first
    parts = parts.with_columns(**marks)
    sums = parts.group_by(by).agg(**_SUMS)

    # To weigh what is known takes longer than to sum it: of most groups all is known, or nothing.
    partial = sums.filter(pl.any_horizontal(*_PARTIAL)).select(by)
    if not partial.is_empty():
        weighed = parts.join(partial, on=by, how="semi", nulls_equal=True)
        carried = weighed.group_by(by).agg(**_CARRIED)
        sums = sums.join(carried, on=by, how="left", nulls_equal=True, suffix="_carried")
        sums = sums.with_columns(**_OR_CARRIED)
    sums = sums.drop(*_PARTIAL, cs.ends_with("_carried"))
    return sums.sort(by, nulls_last=False)


def _is_first(parts: DataFrame, by: Sequence[str], name: str, *flag: str) -> Expr:
    """Return which rows are the first of their group with a value, and a flag, of a column."""
    if parts[name].is_unique().all():
        return EVERY_ROW  # of most books: to compare the rows takes longer than to sum them
    return pl.struct(*by, name, *flag).is_first_distinct()


def _count_legs(where: Expr | str) -> Expr:
    return col.leg.filter(where).n_unique()


def _count_holdings(where: Expr | str) -> Expr:
    is_counted = col(where) if isinstance(where, str) else where
    return (col.is_first & is_counted).sum()


def _sum_of_known(name: str) -> Expr:
    """Return the sum of what is known; null if nothing is."""
    amounts = col(name)
    return when(amounts.is_not_null().any()).then(amounts.sum())


def _oldest(times: Expr) -> Expr:
    """Return the oldest time; null if one of them is unknown."""
    return when(times.null_count() == 0).then(times.min())


def _joined(name: str) -> Expr:
    """Return the different texts of a column, in order; null without any."""
    return col(name).drop_nulls().unique().sort().str.join("; ").replace("", None)


# What a group has, by column: to build these expressions takes longer than to sum 200 parts.
_CARRIED = {name: sum_if_carried(col(name), figure_of(name)) for name in SUMMED_COLUMNS}
_OR_CARRIED = {
    name: when(f"partial_{name}").then(f"{name}_carried").otherwise(name) for name in SUMMED_COLUMNS
}
_PARTIAL = {
    f"partial_{name}": lacks(name).any() & col(name).is_not_null().any() for name in SUMMED_COLUMNS
}
_SUMS = {
    **{name: _sum_of_known(name) for name in SUMMED_COLUMNS},
    **_PARTIAL,
    **{f"without_{name}": _count_holdings(lacks(name)) for name in SUMMED_COLUMNS},
    **{f"of_{name}": _count_holdings(figure_of(name)) for name in SUMMED_COLUMNS},
    **{name: col(name).sum() for name in _COUNTS_OF_LEGS},
    "holdings": col.is_first.sum(),
    "not_kept": _count_holdings("not_kept"),
    "delayed": _count_holdings("delayed"),
    "options": _count_holdings("is_option"),
    "options_with_greeks": _count_holdings("has_greeks"),
    "options_modelled": _count_holdings("is_modelled"),
    "priced_at": _oldest(col(PRICED)),
    "greeks_at": _oldest(col.greeks_time.filter("has_greeks")),
    "nearest_expiry": col.expiry.min(),
    "conids": col.conid,
}


def summed_legs(split_holdings: Split, by: Sequence[str]) -> DataFrame:
    """Return the sums of each group with the counts of its legs, in order.

    Args:
        split_holdings: The parts and the legs.
        by: Some of account, strategy_id, currency and asset_class.
    """
    counts = split_holdings.legs.group_by(by).agg(
        legs=col.leg.n_unique(),
        legs_held=_count_legs("is_held"),
        legs_closed=_count_legs(col.closed.is_not_null()),
        closed=col.closed.drop_nulls(),
        mismatched=_count_legs(col.mismatch.is_not_null()),
        mismatches=_joined("mismatch"),
        differences=_joined("difference"),
    )
    ends = [counted_ends(texts) for texts in counts["closed"].to_list()]
    counts = counts.with_columns(pl.Series("closed", ends, String))

    sums = summed(split_holdings.parts, by)
    rows = counts.join(sums, on=by, how="left", nulls_equal=True)
    # A group whose legs have no holding has no sums: its counts are zero, its money is unknown.
    numbers = sums.drop(by).select(cs.integer()).columns
    rows = rows.with_columns(col(numbers).fill_null(0))

    # A leg that does not match its contract has no part, and so no value and no greeks.
    rows = rows.with_columns(col("legs_without_value", "legs_without_greeks") + col.mismatched)
    return rows.sort(by, nulls_last=False)


_GROUP = ("strategy_id", "account", "currency", "asset_class")


def exposures(split_holdings: Split, version: int | None = None) -> DataFrame:
    """Return the exposure of each strategy, and of the rest, by account, currency and class.

    Args:
        split_holdings: The parts.
        version: The version of the ledger.

    Returns:
        Rows of the table `strategy_exposure`, which describes its columns. Their sums leave out
        unknown values.
    """
    rows = summed_legs(split_holdings, _GROUP)
    rows = rows.with_columns(oldest_value_at=PRICED, ledger_version=lit(version, Int64))
    return rows.select(*STRATEGY_EXPOSURE.columns)
