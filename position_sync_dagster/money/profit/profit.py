"""Where the profit of a trading day came from, by one identity.

Profit = value at the close − value at the close before + cash that trades, deliveries and fees
brought + income − what the owner moved in or out. The values are those of `daily_positions`, the
cash that of `movements`. The value of a future is notional, and so is the cash of its trades. The
parts explain the profit and never change it: a part or an end that is not known makes it null.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import starmap
from operator import attrgetter
from typing import Any

import polars as pl
from polars import (
    DataFrame,
    Expr,
    Float64,
    Series,
    all_horizontal,
    any_horizontal,
    coalesce,
    col,
    concat,
    concat_str,
    duration,
    lit,
    sum_horizontal,
    when,
)

from position_sync_dagster.domain.clock import A_DAY
from position_sync_dagster.domain.holding import KEY, QUANTITY_ROUNDING
from position_sync_dagster.domain.instrument import OPTION_TYPES
from position_sync_dagster.domain.leg import UNATTRIBUTED, ActiveContract
from position_sync_dagster.lake.lake import rows_of_logins
from position_sync_dagster.lake.schema import DAILY_POSITIONS, moment, one_of
from position_sync_dagster.money.lake import MoneyLake, derived_rows
from position_sync_dagster.money.magnifiers import magnifier_in
from position_sync_dagster.money.past.closes import SLACK, EventKind
from position_sync_dagster.money.past.movements import INCOME, MovementKind, moment_in
from position_sync_dagster.money.past.owned_parts import (
    OWNED,
    PostingBook,
    owned_at,
    part_rows,
)
from position_sync_dagster.money.past.postings import names_of, why_no_fees
from position_sync_dagster.money.past.structures import between_accounts
from position_sync_dagster.money.profit.moved_between import (
    MovedBetween,
    TradingDay,
    movements_between,
    with_values_in_kind,
)
from position_sync_dagster.money.sums import carries, sum_if_known
from position_sync_dagster.money.tables import PROFIT_EXPLAINED
from position_sync_dagster.money.trading_days import session_before
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.exchange_days import time_zone_of

_OF_OWNER = ("strategy_id", "account")
_CONTRACT = ("symbol", "sec_type", "right", "strike", "expiry")
# A holding has one currency; a fee of it in another one is a row of its own.
_TERMS = (*_CONTRACT, "currency")

BY_GREEKS = ("delta", "gamma", "vega", "theta")
# The parts of the profit; together they are the profit.
PROFIT_PARTS = (*BY_GREEKS, "repricing", "trades", "fees", "assignments", "cash", "unexplained")

# What the change of the prices brought: the greeks and what they leave.
MARKET = "market"

# All amounts of a row.
NUMBERS = ("profit", MARKET, *PROFIT_PARTS)

# More than this amount is to be named, where a quantity came or went without a movement.
SMALLEST_UNEXPLAINED = 25.0

# How much earlier than the close before a movement may be booked that belongs to the day.
BOOKED_BEFORE = timedelta(days=14)

NO_CLOSE_BEFORE = "no close before"

# What a profit follows from, of a holding at an end.
_STATE = (
    "position", "market_value", "multiplier", "magnifier", "underlying_price", "implied_vol",
    *BY_GREEKS,
)  # fmt: skip

# What the parts of the greeks are made of, in words.
_OF_GREEKS = {
    **{f"{greek}_0": greek for greek in BY_GREEKS},
    "multiplier_0": "the multiplier",
    "magnifier_0": "the unit of its prices",
    "underlying_price_0": "the price of the underlying at the close before",
    "underlying_price_1": "the price of the underlying at the close",
    "implied_vol_0": "the implied volatility at the close before",
    "implied_vol_1": "the implied volatility at the close",
}

# Whether a quantity came or went without a movement; null where that is not known.
IS_MISSING = col.missing.abs() > QUANTITY_ROUNDING

# Whether a movement has a fee, also one that is not known.
_IS_CHARGED = col.fee.ne_missing(0.0)

IS_CONVERSION = col.kind == MovementKind.CONVERSION.value


def explain_days(
    lake: MoneyLake, settings: Settings, days: Sequence[TradingDay]
) -> dict[date, DataFrame]:
    """Return the rows of `profit_explained` of trading days; blocks.

    The tables are read once, whatever the number of days.

    Args:
        lake: The tables; the days and those before are filled in `daily_positions`.
        settings: Says which logins, and which types of holdings, are followed.
        days: The trading days.

    Raises:
        LakeError: A table cannot be used.
    """
    if not days:
        return {}

    sources = _Sources.read(lake, settings, days)
    return {trading_day.day: _explained_day(sources, settings, trading_day) for trading_day in days}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sources:
    """What the profits of days follow from.

    Attributes:
        rows: Rows of `daily_positions` of these days and those before, with `magnifier`.
        accounts: The accounts that have rows of each day, also of earlier ones, or whose statement
            begins with it: an account without holdings has no rows.
        movements: From some days before the first on.
        legs: All legs that strategies have or had.
        parts: Whose the movements of their contracts are, also earlier ones.
        parts_of: The parts of each movement by owner.
    """

    rows: DataFrame
    accounts: DataFrame
    movements: DataFrame
    legs: Sequence[ActiveContract]
    parts: DataFrame
    parts_of: DataFrame

    @classmethod
    def read(cls, lake: MoneyLake, settings: Settings, days: Sequence[TradingDay]) -> "_Sources":
        """Read them, each once."""
        sessions = {session for day in days for session in (day.before, day.day)}
        table = lake.derived_table(DAILY_POSITIONS)
        rows = table.rows(chosen=col("partition.session_date").is_in(sessions))
        rows = rows_to_explain(lake, settings, rows)

        book = PostingBook(lake)
        recent = rows_of_logins(book.movements, settings)
        recent = recent.filter(col.day >= min(sessions) - BOOKED_BEFORE)
        recent = with_values_on_the_way(lake, settings, recent)
        conids = book.of_strategies & {*rows["conid"], *recent["conid"]}
        # What is gone without a cause is unexplained from the close at which it is missing.
        explained = [
            part
            for part in book.postings(conids)
            if part.movement.kind is not MovementKind.UNEXPLAINED
        ]
        parts = part_rows(explained)
        # A booking and its cancellation have no parts, and change nothing.
        moved = recent.filter(col.quantity != 0, one_of("conid", conids), ~IS_CONVERSION)
        moved_nothing = moved.join(parts, on="movement_id", how="anti")
        recent = recent.join(moved_nothing, on="movement_id", how="anti")

        is_sections = col.kind == EventKind.SECTIONS.value
        stated = lake.statement_events.rows(None, is_sections, ["first_day", "account"])
        accounts = table.rows(columns=["session_date", "account"])
        stated = stated.rename({"first_day": "session_date"})
        accounts = concat([accounts, stated]).unique()
        by_movement = parts.filter(~col.is_prior).group_by("movement_id", "strategy_id")
        return cls(
            rows=rows,
            accounts=accounts,
            movements=recent,
            legs=book.legs,
            parts=parts,
            parts_of=by_movement.agg(col.by.sum(), col.fraction.sum()),
        )


def rows_to_explain(lake: MoneyLake, settings: Settings, rows: DataFrame) -> DataFrame:
    """Return rows of `daily_positions` with `magnifier`, without values older than their day.

    The program did not run on that day, and no statement says what the holding was worth: with the
    value of an earlier day, the profit of two days would be that of one.
    """
    rows = rows_of_logins(rows, settings)
    valued_at = col.closed_at - duration(seconds="age_s")
    time_zone = str(time_zone_of(settings.calendar))
    is_older = valued_at.dt.convert_time_zone(time_zone).dt.date() < col.session_date
    magnifier = magnifier_in(lake.contracts.get(set(rows["conid"])))
    # An age that is not known is not older.
    market_value = when(is_older).then(None).otherwise("market_value")
    return rows.with_columns(market_value=market_value, magnifier=magnifier.cast(Float64))


def with_values_on_the_way(lake: MoneyLake, settings: Settings, movements: DataFrame) -> DataFrame:
    """Return movements; what comes later than it left another account has the same mark; blocks.

    What a transfer carried is worth as much where it comes as where it left: what its price does
    meanwhile is profit.

    Args:
        movements: Rows of `movements`.
    """
    is_transfer = col.kind == MovementKind.TRANSFER.value
    unvalued = movements.filter(is_transfer & col.value.is_null()).drop_nulls("conid")
    if unvalued.is_empty():
        return movements

    conids = {*unvalued["conid"]}
    later: defaultdict[date, set[str]] = defaultdict(set)
    for pair in between_accounts(PostingBook(lake).postings(conids)):
        first, last = sorted(pair, key=attrgetter("session"))
        if first.session < last.session:
            later[first.session].add(last.movement.movement_id)

    table = lake.derived_table(DAILY_POSITIONS)
    for day, names in later.items():
        closes = [
            derived_rows(table, one_of("conid", conids), col("partition.session_date") == session)
            for session in (session_before(settings.calendar, day), day)
        ]
        ends = (rows_to_explain(lake, settings, rows) for rows in closes)
        marked = with_values_in_kind(movements.filter(one_of("movement_id", names)), *ends)
        movements = movements.update(marked.select("movement_id", "value"), on="movement_id")
    return movements


def _explained_day(sources: _Sources, settings: Settings, trading_day: TradingDay) -> DataFrame:
    """Return the rows of one trading day."""
    day, before, since, closed = trading_day
    start = sources.rows.filter(session_date=before)
    end = sources.rows.filter(session_date=day)
    movements = sources.movements.filter(col.day >= before - BOOKED_BEFORE)
    between = movements_between(movements, start, end, trading_day, settings)
    at_start, at_end = _owned_at_ends(sources, between, start, end, trading_day)

    length_days = (closed - since) / A_DAY
    owned_start = _of_owners(start, at_start, at_end)
    owned_end = _of_owners(end, at_end, at_start)
    owned_moves = _moves_of_owners(between.moved, sources.parts_of)
    holdings = explain_holdings(owned_start, owned_end, owned_moves, days=length_days, by=OWNED)
    paid = _moves_of_owners(between.followed.filter(session_date=day), sources.parts_of)
    rows = concat([holdings, _fees_elsewhere(owned_moves), _income(paid)], how="diagonal_relaxed")

    earlier = sources.accounts.filter(col.session_date < day)["account"]
    rows = _of_known_ends(rows, start["account"], end["account"], earlier)
    if rows.is_empty():
        return PROFIT_EXPLAINED.empty

    rows = concat([rows, _fees_beside(owned_moves, rows)], how="diagonal_relaxed")
    rows = by_strategy(rows)
    rows = rows.with_columns(session_date=day, since=moment(since), closed_at=moment(closed))
    return rows.select(list(PROFIT_EXPLAINED.columns))


def _owned_at_ends(
    sources: _Sources,
    between: MovedBetween,
    start: DataFrame,
    end: DataFrame,
    trading_day: TradingDay,
) -> list[DataFrame]:
    """Return how much each owner has of the holdings at both closes.

    Args:
        between: What moved them meanwhile.
        start, end: The holdings at both ends.
    """
    # What a leg counts for within the day, it counts for from its beginning on.
    closed = trading_day.closed
    legs = [
        replace(leg, since=None)
        for leg in sources.legs
        if leg.added_at <= closed + SLACK or (leg.since or date.max) <= closed.date()
    ]
    owned = []
    for is_before, held in (("before_start", start), ("before_end", end)):
        later = between.included.filter(~col(is_before))
        is_later = ~col.is_prior & one_of("movement_id", later["movement_id"])
        owned.append(owned_at(held, sources.parts.filter(~is_later), legs, trading_day.since))
    return owned


def _of_owners(rows: DataFrame, owned: DataFrame, elsewhere: DataFrame) -> DataFrame:
    """Return the part of each owner in holdings at an end.

    Args:
        owned: What each has of them.
        elsewhere: What each has at the other end: a row of what is gone is of those that had it.
    """
    gone = elsewhere.join(owned, on=KEY, how="anti").with_columns(by=0.0)
    rows = rows.join(concat([owned, gone]), on=KEY)
    share = when(col.position != 0).then(col.by / col.position).otherwise(1.0)
    return rows.with_columns(col("position", "market_value") * share)


def _moves_of_owners(movements: DataFrame, parts: DataFrame) -> DataFrame:
    """Return the part of each owner in movements.

    Args:
        parts: By how much each moved what its owners have, and which part of its money is theirs.
    """
    owned = movements.join(parts, on="movement_id", how="left")
    owned = owned.with_columns(
        col("cash", "value", "fee") * col.fraction.fill_null(1.0),
        quantity=coalesce("by", "quantity"),
        strategy_id=col.strategy_id.fill_null(UNATTRIBUTED),
    )
    return owned.select(*movements.columns, "strategy_id")


def explain_holdings(
    start: DataFrame,
    end: DataFrame,
    moved: DataFrame,
    *,
    days: float,
    by: Sequence[str] = KEY,
) -> DataFrame:
    """Return the profit of each holding and its parts; pure.

    Args:
        start: The holdings at the beginning, one row for each: the columns of `daily_positions`,
            and `magnifier`.
        end: Those at the end.
        moved: What moved them meanwhile, with the columns of `movements`.
        days: The time between, in calendar days.
        by: What makes a holding, or the part of one that belongs to an owner.

    Returns:
        Rows with these, the terms of the contract, currency, profit, the parts, and `why_unknown`:
        null where the profit is known. Also `missing` (what moved without a movement), `is_split`
        (whether greeks should say what the change of the price gave to what was held at the
        beginning), `lacks` (what of that is not known), and `value_0` (what that was worth). A
        greek that is not known is null; what it would explain is in `repricing`.
    """
    rows = _both_ends(start, end, by)
    rows = _with_movements(rows, _sums_of_movements(moved, by), by)
    rows = _with_profit(_with_values(rows))
    rows = _with_parts(rows, days)
    reasons = ("why_unknown", "missing", "is_split", "lacks")
    return rows.select(*by, *_TERMS, *NUMBERS, *reasons, "value_0")


def _both_ends(start: DataFrame, end: DataFrame, by: Sequence[str]) -> DataFrame:
    """Return each holding with its state at the beginning (`…_0`) and at the end (`…_1`)."""
    state = col(_STATE)
    columns = (*by, *_TERMS)
    first = start.select(*columns, state.name.suffix("_0"))
    last = end.select(*columns, state.name.suffix("_1"))
    return _joined(first, last, by)


def _joined(rows: DataFrame, more: DataFrame, by: Sequence[str]) -> DataFrame:
    """Return the holdings of both frames.

    Sources may write a symbol in different ways: the contract is the same.
    """
    rows = rows.join(more, on=[*by, "currency"], how="full", coalesce=True, suffix="_of_more")
    terms = {name: coalesce(name, f"{name}_of_more") for name in _CONTRACT}
    return rows.with_columns(**terms).select(~pl.selectors.ends_with("_of_more"))


def _sums_of_movements(moved: DataFrame, by: Sequence[str]) -> DataFrame:
    """Return what movements brought to each holding, in the currency of the holding."""
    moved = moved.sort(moment_in())
    by_holding = moved.group_by(*by, "currency", maintain_order=True)
    is_trade = col.kind == MovementKind.TRADE
    units_traded = (-col.cash / col.quantity).filter(is_trade & (col.quantity != 0))

    is_transfer = col.kind == MovementKind.TRANSFER
    return by_holding.agg(
        col(_CONTRACT).drop_nulls().first(),
        movements=pl.len(),
        quantity=sum_if_known(col.quantity),
        cash=sum_if_known(col.cash),
        fees=sum_if_known(_fee_in_currency()),
        is_booked=(~is_trade).any(),
        last_unit=units_traded.last(),
        brought=sum_if_known(col.value.filter(is_transfer)),
    )


def _fee_in_currency() -> Expr:
    """Return the fee of a movement in the currency of its holding, as `Posting.fee_in` does."""
    # One in another currency has a row of its own.
    is_none = (col.fee == 0) | (col.fee_currency != col.currency)
    return when(is_none).then(0.0).when(col.fee_currency == col.currency).then("fee")


def _with_movements(both_ends: DataFrame, movements: DataFrame, by: Sequence[str]) -> DataFrame:
    """Return holdings at both ends with what moved them, also those that were held at neither."""
    rows = _joined(both_ends, movements, by)

    # What has no row was not held, and what has no movement was not moved.
    moved = col("quantity", "cash", "fees", "brought")
    return rows.with_columns(
        col("position_0", "position_1").fill_null(0.0),
        when(col.movements.is_not_null()).then(moved).otherwise(0.0),
        col.is_booked.fill_null(value=False),
    )


def _with_values(rows: DataFrame) -> DataFrame:
    """Return holdings with their values, those of one unit, and what no movement explains."""
    return rows.with_columns(
        value_0=_value_at("_0"),
        value_1=_value_at("_1"),
        unit_0=_unit("_0"),
        unit_1=coalesce(_unit("_1"), "last_unit"),
        missing=col.position_1 - col.position_0 - col.quantity,
    )


def _value_at(end: str) -> Expr:
    """Return the value at an end: 0 of what is not held, null where it is not known."""
    is_not_held = col(f"position{end}") == 0
    return when(is_not_held).then(0.0).otherwise(f"market_value{end}")


def _unit(end: str) -> Expr:
    """Return the value of one contract or share at an end."""
    value = col(f"market_value{end}")
    position = col(f"position{end}")
    return when(position != 0).then(value / position)


def _with_profit(rows: DataFrame) -> DataFrame:
    """Return holdings with `earned`, the profit without commissions, and `profit`."""
    why_unknown = _why_unknown()
    gained = col.value_1 - col.value_0 + col.cash - col.brought
    earned = when(why_unknown.is_null()).then(gained)
    return rows.with_columns(why_unknown=why_unknown, earned=earned, profit=earned + col.fees)


def _why_unknown() -> Expr:
    """Return why the profit of a holding is not known, by the first reason; null where it is."""
    missing = pl.format("what moved {}", col.missing.round(6))
    return coalesce(
        _if_null("value_0", "its value at the close before"),
        _if_null("value_1", "its value at the close"),
        _if_null("missing", "a quantity that moved"),
        when(IS_MISSING).then(missing),
        _if_null("cash", "what a movement paid"),
        _if_null("fees", "a commission"),
        _if_null("brought", "the value of a transfer"),
    )


def _if_null(name: str, reason: str) -> Expr:
    """Return the reason where a column is null."""
    return when(col(name).is_null()).then(lit(reason))


def _with_parts(rows: DataFrame, days: float) -> DataFrame:
    """Split what was held by the greeks, and add the other parts; null where the profit is."""
    is_known = col.earned.is_not_null()
    is_priced = is_known & ~col.is_booked
    is_share = ~one_of("sec_type", OPTION_TYPES)
    held = when(is_priced).then(_repriced()).otherwise(0.0)
    is_split = is_priced & ~is_share & (col.position_0 != 0)

    moves = _moves_by_greeks(days).items()
    greeks = {name: when(is_split).then(move).otherwise(0.0) for name, move in moves}
    # A share or a future has no greeks: its price is its delta.
    greeks["delta"] = when(is_share).then(held).otherwise(greeks["delta"])
    parts = greeks | {
        MARKET: held,
        # What greeks do not explain, since one of them is not known, is repricing.
        "repricing": held - sum_horizontal(greeks.values()),
        "trades": when(is_priced).then(col.earned - held).otherwise(0.0),
        "fees": col.fees,
        "assignments": when(is_priced).then(0.0).otherwise("earned"),
        "cash": lit(0.0),
    }
    # Of what came or went without a movement the value says how much is not explained.
    missing = when(IS_MISSING).then(col.missing * coalesce("unit_1", "unit_0"))
    return rows.with_columns(
        **{name: when(is_known).then(part) for name, part in parts.items()},
        unexplained=when(is_known).then(0.0).otherwise(missing),
        is_split=is_split,
        lacks=concat_str(starmap(_if_null, _OF_GREEKS.items()), separator=", ", ignore_nulls=True),
    )


def _repriced() -> Expr:
    """Return what the change of the price gave to what was held at the beginning."""
    by_unit = col.position_0 * col.unit_1 - col.value_0
    was_held = col.position_0 != 0
    # Where nothing says at what price it went, all that it earned is of its price.
    return when(was_held).then(coalesce(by_unit, "earned")).otherwise(0.0)


def _moves_by_greeks(days: float) -> dict[str, Expr]:
    """Return what each greek of the beginning makes of the moves until the end."""
    units = col.position_0 * col.multiplier_0
    move = (col.underlying_price_1 - col.underlying_price_0) / col.magnifier_0
    points = (col.implied_vol_1 - col.implied_vol_0) * 100

    return {
        "delta": units * col.delta_0 * move,
        "gamma": units * col.gamma_0 * move**2 / 2,
        "vega": units * col.vega_0 * points,
        "theta": units * col.theta_0 * days,
    }


def _fees_elsewhere(moved: DataFrame) -> DataFrame:
    """Return the fees that were charged in another currency than that of the holding."""
    fees = moved.filter(col.fee_currency != col.currency, _IS_CHARGED)
    by_holding = fees.group_by(*OWNED, *_CONTRACT, currency="fee_currency")

    total = sum_if_known(col.fee)
    why_unknown = when(total.is_null()).then(lit("a commission"))
    return by_holding.agg(profit=total, fees=total, why_unknown=why_unknown)


def _fees_beside(moved: DataFrame, rows: DataFrame) -> DataFrame:
    """Return which fees for contracts of others may have been charged in a currency of an owner."""
    lacking = moved.filter(col.fee_currency.is_null(), _IS_CHARGED)
    currencies = rows.select(*_OF_OWNER, beside="currency").unique()
    lacking = currencies.join(lacking, on=_OF_OWNER).filter(col.beside != col.currency)
    return lacking.select(
        *_OF_OWNER,
        currency="beside",
        profit=lit(0.0),
        why_unknown=pl.format("fees: {}", why_no_fees(lacking)),
    ).unique()


def _income(movements: DataFrame) -> DataFrame:
    """Return dividends, tax, interest and fees by owner, account and currency."""
    paid = movements.filter(col.kind.is_in(INCOME))
    paid = paid.filter(col.cash.ne_missing(0))
    by_owner = paid.group_by("strategy_id", "account", "currency")

    total = sum_if_known(col.cash)
    why_unknown = when(total.is_null()).then(lit("an amount of cash"))
    return by_owner.agg(profit=total, cash=total, why_unknown=why_unknown)


def _of_known_ends(rows: DataFrame, start: Series, end: Series, earlier: Series) -> DataFrame:
    """Return the rows of accounts whose two closes are known, or were empty.

    An account without rows at one end was empty then, if its movements explain all quantities. If
    they do not, there is no such close: on its first day, and while the program and the statements
    say nothing of it, it has no row; on the day after such a gap its profit is not known.

    Args:
        rows: What `explain_holdings` returned, and the money of accounts.
        start, end: The accounts of the rows at both ends.
        earlier: The accounts that have rows of any day before.
    """
    lacks_movements = IS_MISSING.any().over("account")
    lacks_start = lacks_movements & ~one_of("account", start)
    lacks_end = lacks_movements & ~one_of("account", end)
    is_lost = lacks_start & one_of("account", earlier)
    rows = rows.filter(~lacks_end & (is_lost | ~lacks_start))
    return rows.with_columns(
        when(~is_lost).then(col(NUMBERS)),
        why_unknown=when(is_lost).then(lit(NO_CLOSE_BEFORE)).otherwise("why_unknown"),
    )


def by_strategy(rows: DataFrame) -> DataFrame:
    """Return the parts of the profit of each strategy and account, and of what is in none; pure.

    A holding whose profit is not known makes that of its strategy unknown. The parts of the greeks,
    and with them the repricing, are null where the options whose greeks are known do not carry
    them; then the change of the prices is in no part.

    Args:
        rows: What `explain_holdings` returned, by owner, and cash, which has no conid.
    """
    # A row of cash, or of a fee elsewhere, has no other parts.
    is_whole = col.conid.is_null() | col.profit.is_not_null()
    nothing = when(is_whole & col.is_split.is_null()).then(0.0)
    rows = rows.with_columns(
        col(MARKET, *PROFIT_PARTS).fill_null(nothing),
        col.is_split.fill_null(value=False),
        contract=names_of(rows).replace("", None),  # the money of an account is of none
    )

    are_known = col.repricing.null_count() == 0
    sum_of_parts = sum_if_known(col(NUMBERS).exclude(BY_GREEKS))
    greeks = {name: when(are_known).then(sum_of_greek(name)) for name in BY_GREEKS}
    is_unknown = col.why_unknown.is_not_null()
    with_contract = pl.format("{}: {}", "contract", "why_unknown")
    reasons = coalesce(with_contract, "why_unknown").filter(is_unknown).sort()
    lacks_greeks = col.is_split & any_horizontal(col(BY_GREEKS).is_null())
    lacking = pl.format("{}: {}", "contract", "lacks").filter(lacks_greeks).sort()

    by = ("strategy_id", "account", "currency")
    sums = rows.group_by(by).agg(
        sum_of_parts,
        **greeks,
        legs_unknown=col.profit.null_count(),
        why_unknown=reasons.str.join("; ").replace("", None),
        greeks_unknown=lacking.str.join("; "),
    )
    are_carried = all_horizontal(col(BY_GREEKS).is_not_null())
    sums = sums.with_columns(
        repricing=when(are_carried).then("repricing"),
        greeks_unknown=when(col.profit.is_not_null() & ~are_carried).then("greeks_unknown"),
    )
    return sums.sort(by)


def sum_of_greek(name: str) -> Expr:
    """Return the sum of what a greek explains, of rows of `explain_holdings`."""
    amount = col(name)
    is_carried = carries(amount.is_not_null(), col.is_split, col.value_0.abs())
    return when(is_carried).then(amount.sum())


def is_explained(row: Mapping[str, Any]) -> bool:
    """Return whether a profit is known, or what is not known of it is small."""
    if row["profit"] is not None:
        return True
    unexplained: float = row["unexplained"] or 0.0  # null: another amount is not known
    return 0 < abs(unexplained) <= SMALLEST_UNEXPLAINED


def unknown_profits(rows: Iterable[Mapping[str, Any]]) -> Sequence[str]:
    """Return a sentence for each row whose profit is not known."""
    return [
        f"{row['session_date']}: {row['strategy_id']} in {row['account']}, {row['currency']} "
        f"({row['why_unknown']})"
        for row in rows
        if not is_explained(row)
    ]
