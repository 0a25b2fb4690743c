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
from position_sync_dagster.lake.contracts import magnifier_in
from position_sync_dagster.lake.schema import STRATEGY_EXPOSURE, moment
from position_sync_dagster.sync.confirmations import FEEDS, PRICED


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
    legs_of_conid: dict[int, dict[int, ActiveContract]] = defaultdict(dict)
    for number, leg in legs.items():
        legs_of_conid[leg.conid][number] = leg

    holdings_of_conid: dict[int, dict[Key, float]] = defaultdict(dict)
    for key, quantity in held.items():
        conid = key[1]
        if quantity and conid in legs_of_conid:
            holdings_of_conid[conid][key] = quantity

    claims: list[Claim] = []
    for conid, holdings in holdings_of_conid.items():
        claims += _claims_of_contract(legs_of_conid[conid], holdings)
    return claims


# What each leg takes of each holding, by the number of the leg.
_Taken = defaultdict[tuple[int, Key], float]


def _claims_of_contract(
    legs: Mapping[int, ActiveContract], holdings: Mapping[Key, float]
) -> list[Claim]:
    """Return what each leg has of the holdings of its contract."""
    unclaimed = dict(holdings)
    taken: _Taken = defaultdict(float)
    accounts = sorted({account for account, _conid in holdings})
    for account in (*accounts, None):
        quantities = {
            number: leg.quantity
            for number, leg in legs.items()
            if leg.quantity is not None and leg.account == account
        }
        if not quantities:
            continue

        keys = [key for key in holdings if account in (None, key[0])]
        _take(quantities, 1.0, keys, unclaimed, taken)
        _take(quantities, -1.0, keys, unclaimed, taken)

    for key, quantity in unclaimed.items():
        if abs(quantity) <= NEGLIGIBLE * abs(holdings[key]):
            continue

        takers = [
            number
            for number, leg in legs.items()
            if leg.quantity is None and leg.account in (None, key[0])
        ]
        for number in takers:
            taken[number, key] += quantity / len(takers)

    return [
        Claim(number, key, quantity / holdings[key])
        for (number, key), quantity in taken.items()
        if quantity
    ]


def _take(
    quantities: Mapping[int, float],
    sign: float,
    keys: Sequence[Key],
    unclaimed: dict[Key, float],
    taken: _Taken,
) -> None:
    """Return what legs of one sign claim, of each holding in proportion to what it has left.

    Args:
        quantities: What each leg claims.
        sign: 1 for legs and holdings that are long, −1 for short ones.
        keys: The holdings of which they may take.
        unclaimed: What is left of each holding; it gets less.
        taken: What each leg has; it gets more.
    """
    claimed = {number: each for number, each in quantities.items() if each * sign > 0}
    if not claimed:
        return

    available = {key: unclaimed[key] for key in keys if unclaimed[key] * sign > 0}
    sum_claimed = sum(claimed.values())
    sum_available = sum(available.values())
    if not sum_available:
        return

    part = min(1.0, sum_available / sum_claimed)
    for key, quantity in available.items():
        for number, wanted in claimed.items():
            taken[number, key] += wanted * part * quantity / sum_available
        unclaimed[key] -= sum_claimed * part * quantity / sum_available


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
    wrong = _mismatches(active, contracts)
    of_legs = latest.filter(pl.col("conid").is_in([leg.conid for leg in active]))
    held: dict[Key, float] = {}
    for account, conid, quantity in of_legs.select(_HELD).iter_rows():
        held[account, conid] = quantity

    matching = {number: leg for number, leg in enumerate(active) if number not in wrong}
    claims = claims_of(matching, held)

    beta = pl.col("symbol").replace_strict(dict(betas or {}), default=None, return_dtype=pl.Float64)
    parts = _parts(latest, claims, active, contracts)
    parts = parts.with_columns(beta_delta=pl.col("dollar_delta") * beta)

    leg_rows = _legs(active, wrong, of_legs, held, claims)
    is_absent = pl.col("is_held").not_()
    absent = leg_rows.filter(is_absent).get_column("leg").unique().to_list()
    ends = {number: end_of(active[number]) for number in absent}
    closed = pl.col("leg").replace_strict(ends, default=None, return_dtype=pl.String)
    rows_of_rest = _rest(parts.filter(pl.col("leg") < 0), held)
    rows = pl.concat([leg_rows, rows_of_rest]).with_columns(closed=closed)
    return Split(parts, rows)


def _mismatches(
    legs: Sequence[ActiveContract], contracts: Mapping[int, ContractDetails]
) -> dict[int, str]:
    """Return how legs differ from the contract of their conid, by their number."""
    mismatches: dict[int, str] = {}
    for number, leg in enumerate(legs):
        mismatch = contract_mismatch(leg, contracts.get(leg.conid))
        if mismatch:
            mismatches[number] = mismatch
    return mismatches


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
    """Return the parts of the holdings: those of legs, and what no strategy has."""
    key = ["account", "conid"]
    holdings = latest.filter(pl.col("position") != 0).with_row_index("holding")
    claimed = pl.DataFrame(
        [
            (*claim.key, claim.leg, str(legs[claim.leg].strategy_id), claim.share)
            for claim in claims
        ],
        schema={
            "account": pl.String, "conid": pl.Int64, "leg": pl.Int64, "strategy_id": pl.String,
            "share": pl.Float64,
        },
        orient="row",
    )  # fmt: skip
    of_legs = holdings.join(claimed, on=key, how="inner")

    claimed_shares = claimed.group_by(key).agg(pl.col("share").sum())
    # A holding that no leg claims has no row there: nothing of it is claimed.
    unclaimed_share = 1.0 - pl.col("share").fill_null(0.0)
    unclaimed = (
        holdings.join(claimed_shares, on=key, how="left")
        .with_columns(share=unclaimed_share)
        .filter(pl.col("share") > NEGLIGIBLE)
        .with_row_index("leg", offset=1)
    )
    of_nobody = unclaimed.with_columns(
        leg=-pl.col("leg").cast(pl.Int64), strategy_id=pl.lit(UNATTRIBUTED, pl.String)
    )

    parts = pl.concat([of_legs, of_nobody], how="diagonal").with_columns(
        asset_class=pl.col("sec_type").replace_strict(_CLASSES, default="OTHER"),
        magnifier=magnifier_in(contracts),
        is_option=pl.col("right").is_not_null(),
        valueless=pl.col("market_value").is_null(),
        greekless=pl.col("delta").is_null(),
    )
    return parts.with_columns(*_amounts_of_parts(), **_marks_of_parts())


def _amounts_of_parts() -> list[pl.Expr]:
    """Return money and greeks of each part: those of the holding × its share.

    The price of an underlying is in the minor unit where the contract is quoted in cents.
    """
    share = pl.col("share")
    units = pl.col("position") * pl.col("multiplier") * share
    value = pl.col("market_value") * share
    spot = pl.col("underlying_price") / pl.col("magnifier")

    is_future = pl.col("asset_class") == "FUTURE"
    is_its_own_underlying = pl.col("sec_type").is_in(["STK", "FUT"])
    dollar_delta = pl.col("delta") * units * spot
    gamma_1pct = pl.col("gamma") * units * spot**2 / 100
    return [
        pl.when(~is_future).then(value),
        pl.when(is_future).then(value).alias("notional"),
        pl.col(_MONEY) * share,
        pl.col(_GREEKS) * units,
        pl.when(is_its_own_underlying).then(value).otherwise(dollar_delta).alias("dollar_delta"),
        gamma_1pct.alias("gamma_1pct"),
    ]


def _marks_of_parts() -> dict[str, pl.Expr]:
    """Return what is counted of parts: which greeks they have, and how sure their values are."""
    is_option = pl.col("is_option")
    has_greeks = is_option & pl.col("delta").is_not_null()
    is_computed = pl.col("greeks_source").eq_missing(GreeksSource.MODEL.value)

    spot = pl.col("underlying_price")
    strike = pl.col("strike")
    in_money = pl.when(pl.col("right") == "CALL").then(spot > strike).otherwise(spot < strike)
    is_short = is_option & (pl.col("position") < 0)

    has_value = pl.col("market_value").is_not_null()
    is_tick = pl.col("value_source") == "TICK"
    return {
        "undated": has_value & pl.col("value_time").is_null(),
        "has_greeks": has_greeks,
        "is_modelled": has_greeks & is_computed,
        # What is not known is counted by itself, in `short_unknown`.
        "short_in_money": is_short & in_money.fill_null(value=False),
        "short_unknown": is_short & in_money.is_null(),
        "delayed": is_tick & pl.col("market_data_type").is_in(list(FEEDS)),
    }


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
    claimed: dict[int, dict[str, float]] = defaultdict(dict)
    for claim in claims:
        account = claim.key[0]
        claimed[claim.leg][account] = claim.share * positions[claim.key]

    rows_of_conid = newest.select(*_HELD, "currency", "sec_type").rows_by_key("conid", named=True)
    rows: list[tuple[Any, ...]] = []
    for number, leg in enumerate(legs):
        in_its_accounts = [
            row for row in rows_of_conid[leg.conid] if leg.account in (None, row["account"])
        ]
        holdings = [row for row in in_its_accounts if row["position"]]
        first = next(iter(holdings or in_its_accounts), None)
        asset_class = _CLASSES.get(first["sec_type"], "OTHER") if first else "UNKNOWN"
        currency = first["currency"] if first else None

        is_wrong = number in wrong
        is_held = bool(claimed[number]) or (is_wrong and bool(holdings))
        mismatch = f"{leg.conid}: {wrong[number]}" if is_wrong else None
        difference = None
        if holdings and not is_wrong:
            difference = _unmet_claim(leg, sum(claimed[number].values()))

        place: str | None = first["account"] if first else leg.account
        texts = (mismatch, difference)
        rows.extend(
            (number, leg.strategy_id, account, currency, asset_class, is_held, *texts)
            for account in claimed[number] or (place,)
        )
    return pl.DataFrame(rows, schema=_LEG_COLUMNS, orient="row")


def _unmet_claim(leg: ActiveContract, quantity: float) -> str | None:
    """Return that a leg has another quantity than it claims; None: it has it, or claims none."""
    if leg.quantity is None or abs(leg.quantity - quantity) <= NEGLIGIBLE * abs(leg.quantity):
        return None
    return f"{contract_name(leg)}: claims {digits(leg.quantity)}, has {digits(quantity)}"


def _rest(rest: pl.DataFrame, of_legs: Mapping[Key, float]) -> pl.DataFrame:
    """Return a row for each part that no strategy has, with a `difference` for contracts of legs.

    Args:
        rest: These parts.
        of_legs: The holdings of the contracts of legs.
    """
    of_contracts = rest.filter(pl.col("conid").is_in([conid for _account, conid in of_legs]))
    surplus: dict[int, str] = {}
    for row in of_contracts.iter_rows(named=True):
        name = leg_name(row["symbol"], row["right"], row["strike"], row["expiry"])
        unclaimed = digits(row["position"] * row["share"])
        surplus[row["leg"]] = f"{name}: {unclaimed} of {digits(row['position'])} in no strategy"

    difference = pl.col("leg").replace_strict(surplus, default=None, return_dtype=pl.String)
    rows = rest.with_columns(
        is_held=pl.lit(value=True), mismatch=pl.lit(None, pl.String), difference=difference
    )
    return rows.select(*_LEG_COLUMNS)


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
    counts_of_legs = _COUNTS_OF_LEGS | {"legs_expiring": soon}
    sums = parts.group_by(by).agg(
        _sum_of_known(pl.col(SUMS)),
        **{f"without_{name}": _count("holding", lacks(name)) for name in SUMS},
        **{name: _count("holding", where) for name, where in _COUNTS.items()},
        **{name: _count("leg", where) for name, where in counts_of_legs.items()},
        holdings=pl.col("holding").n_unique(),
        priced_at=_oldest(pl.col(PRICED)),
        greeks_at=_oldest(pl.col("greeks_time").filter("has_greeks")),
        nearest_expiry=pl.col("expiry").min(),
        conids=pl.col("conid").unique(),
    )
    return sums.sort(by, nulls_last=False)


def _sum_of_known(amounts: pl.Expr) -> pl.Expr:
    """Return the sum of what is known; null if nothing is."""
    return pl.when(amounts.count() > 0).then(amounts.sum())


def _count(of: str, where: pl.Expr | str) -> pl.Expr:
    return pl.col(of).filter(where).n_unique()


def _oldest(times: pl.Expr) -> pl.Expr:
    """Return the oldest time; null if one of them is unknown."""
    return pl.when(times.null_count() == 0).then(times.min())


def summed_legs(split_holdings: Split, by: Sequence[str], now: datetime) -> pl.DataFrame:
    """Return the sums of each group with the counts of its legs, in order.

    Args:
        split_holdings: The parts and the legs.
        by: Some of account, strategy_id, currency and asset_class.
        now: The reference time of days to expiry.
    """
    sums = summed(split_holdings.parts, by, now)
    leg = pl.col("leg")
    counts = split_holdings.legs.group_by(by).agg(
        legs=leg.n_unique(),
        legs_held=leg.filter("is_held").n_unique(),
        legs_closed=leg.filter(pl.col("closed").is_not_null()).n_unique(),
        closed=pl.col("closed").drop_nulls(),
        mismatched=leg.filter(pl.col("mismatch").is_not_null()).n_unique(),
        mismatches=_joined("mismatch"),
        differences=_joined("difference"),
    )
    ends = [counted_ends(texts) for texts in counts.get_column("closed").to_list()]
    counts = counts.with_columns(pl.Series("closed", ends, pl.String))

    joined = counts.join(sums, on=by, how="left", nulls_equal=True)
    # A group whose legs have no holding has no sums: its counts are zero, its money is unknown.
    numbers = [name for name, kind in sums.schema.items() if kind.is_integer() and name not in by]
    joined = joined.with_columns(pl.col(numbers).fill_null(0))

    # A leg that does not match its contract has no part, and so no value and no greeks.
    left_out = pl.col("legs_without_value", "legs_without_greeks") + pl.col("mismatched")
    texts_or_null = pl.col("mismatches", "differences").replace("", None)
    return joined.with_columns(left_out, texts_or_null).sort(by, nulls_last=False)


def _joined(name: str) -> pl.Expr:
    """Return the different texts of a column, in order."""
    return pl.col(name).drop_nulls().unique().sort().str.join("; ")


_GROUP = ("strategy_id", "account", "currency", "asset_class")
_OF_UNDERLYING = (*_GREEKS, "dollar_delta", "gamma_1pct")


def exposures(split_holdings: Split, now: datetime, version: int | None = None) -> pl.DataFrame:
    """Return the exposure of each strategy, and of the rest, by account, currency and class.

    Args:
        split_holdings: The parts.
        now: The reference time of ages and days to expiry.
        version: The version of the ledger.

    Returns:
        Rows of the table `strategy_exposure`, which describes its columns. Their sums leave out
        unknown values.
    """
    by_symbol = summed(split_holdings.parts, (*_GROUP, "symbol"), now)
    underlyings = by_symbol.select(*_GROUP, "symbol", pl.struct(_OF_UNDERLYING)).rows_by_key(_GROUP)
    rows = summed_legs(split_holdings, _GROUP, now)
    groups = (underlyings.get(group) for group in rows.select(_GROUP).iter_rows())
    texts = [json.dumps(dict(sums)) if sums else None for sums in groups]
    return rows.with_columns(
        pl.Series("by_underlying", texts, pl.String),
        oldest_value_at=PRICED,
        worst_value_age_s=(moment(now) - pl.col(PRICED)).dt.total_microseconds() / 1e6,
        ledger_version=pl.lit(version, pl.Int64),
    ).select(*STRATEGY_EXPOSURE.columns)
