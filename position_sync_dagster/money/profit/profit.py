"""Where the profit of a trading day came from, by one identity.

Profit = value at the close − value at the close before + cash that trades, deliveries and fees
brought + income − what the owner moved in or out. The values are those of `daily_positions`, the
cash that of `movements`. The value of a future is notional, and so is the cash of its trades. The
parts explain the profit and never change it: a part or an end that is not known makes it null.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import polars as pl
from polars import col

from position_sync_dagster.domain.holding import KEY, QUANTITY_ROUNDING, Key
from position_sync_dagster.domain.leg import UNATTRIBUTED, ActiveContract
from position_sync_dagster.lake.lake import rows_of_logins
from position_sync_dagster.lake.schema import DAILY_POSITIONS, records_of
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.magnifiers import magnifier_in
from position_sync_dagster.money.past.attribution import attributed
from position_sync_dagster.money.past.closes import EventKind
from position_sync_dagster.money.past.movements import INCOME, Movement, MovementKind
from position_sync_dagster.money.past.owned_parts import (
    claimed_shares,
    contracts_of_strategies,
    counting_legs,
    deciding_movements,
    legs_ever,
    numbers_by_key,
    part_rows,
    shares_of,
)
from position_sync_dagster.money.profit.moved_between import (
    MovedBetween,
    movements_between,
)
from position_sync_dagster.money.risk.coverage import carries, sum_if_known
from position_sync_dagster.money.tables import PROFIT_EXPLAINED
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.exchange_days import time_zone_of

# A holding has one currency; a fee of it in another one is a row of its own.
_TERMS = ("symbol", "currency")

BY_GREEKS = ("delta", "gamma", "vega", "theta")
# The parts of the profit; together they are the profit.
PARTS = (*BY_GREEKS, "repricing", "trades", "fees", "assignments", "cash", "unexplained")

# All amounts of a row.
NUMBERS = ("profit", *PARTS)

# More than this amount is to be named, where a quantity came or went without a movement.
SMALLEST_UNEXPLAINED = 25.0

# How much earlier than the close before a movement may be booked that belongs to the day.
BOOKED_BEFORE = timedelta(days=14)

NO_CLOSE_BEFORE = "no close before"

# What a profit follows from, of a holding at an end.
_STATE = (
    "position", "market_value", "multiplier", "magnifier", "right", "underlying_price",
    "implied_vol", *BY_GREEKS,
)  # fmt: skip

# Whether a quantity came or went without a movement; null where that is not known.
IS_MISSING = col.missing.abs() > QUANTITY_ROUNDING

# The contract of a row; null for the money of an account.
_CONTRACT = col.symbol + " " + col.conid.cast(pl.String)


class TradingDay(NamedTuple):
    """A trading day and the one before it.

    Attributes:
        since: The close of the day before.
        closed: The close of the day.
    """

    day: date
    before: date
    since: datetime
    closed: datetime


def explain_days(
    lake: MoneyLake, settings: Settings, days: Sequence[TradingDay]
) -> dict[date, pl.DataFrame]:
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
    """

    rows: pl.DataFrame
    accounts: pl.DataFrame
    movements: pl.DataFrame
    legs: Sequence[ActiveContract]
    parts: pl.DataFrame

    @classmethod
    def read(cls, lake: MoneyLake, settings: Settings, days: Sequence[TradingDay]) -> "_Sources":
        """Read them, each once."""
        sessions: set[date] = set()
        for trading_day in days:
            sessions.update((trading_day.before, trading_day.day))

        table = lake.derived_table(DAILY_POSITIONS)
        is_wanted = col.session_date.is_in(sessions)
        rows = table.rows(is_wanted, pl.col("partition.session_date").is_in(sessions))

        movements = rows_of_logins(lake.movements.rows(), settings)
        recent = movements.filter(col.day >= min(sessions) - BOOKED_BEFORE)
        legs = legs_ever(lake)
        conids = {*rows["conid"], *recent["conid"].drop_nulls()}
        deciding = deciding_movements(movements, contracts_of_strategies(movements, legs) & conids)
        before = _held_before(deciding, rows, min(days), settings)
        accounts = table.rows(columns=["session_date", "account"])
        is_sections = col.kind == EventKind.SECTIONS.value
        statements = lake.statement_events.rows(None, is_sections, ["first_day", "account"])
        stated = statements.select(session_date="first_day", account="account")
        return cls(
            rows=rows_to_explain(lake, settings, rows),
            accounts=pl.concat([accounts, stated]).unique(),
            movements=recent,
            legs=legs,
            parts=part_rows(attributed(records_of(Movement, deciding), legs, before)),
        )


def _held_before(
    movements: pl.DataFrame, rows: pl.DataFrame, first: TradingDay, settings: Settings
) -> dict[Key, float]:
    """Return what was held before all movements, so that they explain the first close."""
    start = rows.filter(session_date=first.before)
    end = rows.filter(session_date=first.day)
    opening = (first.before, first.since)
    between = movements_between(movements, start, end, opening, (first.day, first.closed), settings)
    moved_before = between.included.filter("before_start")
    moved = moved_before.group_by(KEY).agg(col.quantity.sum())
    held = start.filter(col.position != 0).join(moved, on=KEY, how="left")
    unmoved_or_less = col.position - col.quantity.fill_null(0.0)  # without a movement nothing moved
    return numbers_by_key(held.with_columns(unmoved_or_less), "position")


def rows_to_explain(lake: MoneyLake, settings: Settings, rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows of `daily_positions` with `magnifier`, without values older than their day.

    The program did not run on that day, and no statement says what the holding was worth: with the
    value of an earlier day, the profit of two days would be that of one.
    """
    rows = rows_of_logins(rows, settings)
    magnifier = magnifier_in(lake.contracts.get(set(rows["conid"])))
    time_zone = str(time_zone_of(settings.calendar))
    valued_at = col.closed_at - pl.duration(seconds="age_s")
    valued_on = valued_at.dt.convert_time_zone(time_zone).dt.date()

    # An age that is not known is not older.
    is_older = (valued_on < col.session_date).fill_null(value=False)
    market_value = pl.when(~is_older).then("market_value")
    return rows.with_columns(market_value=market_value, magnifier=magnifier.cast(pl.Float64))


def _explained_day(sources: _Sources, settings: Settings, trading_day: TradingDay) -> pl.DataFrame:
    """Return the rows of one trading day."""
    day, before, since, closed = trading_day
    start = sources.rows.filter(session_date=before)
    end = sources.rows.filter(session_date=day)
    movements = sources.movements.filter(col.day >= before - BOOKED_BEFORE)
    between = movements_between(movements, start, end, (before, since), (day, closed), settings)
    owners = _owners_between(sources, between, start, end, trading_day)

    length_days = (closed - since) / timedelta(days=1)
    owned_start = owners.of_rows(start, owners.at_start)
    owned_end = owners.of_rows(end, owners.at_end)
    owned_moves = owners.of_movements(between.moved)
    holdings = explain_holdings(owned_start, owned_end, owned_moves, days=length_days, by=_OWNED)
    fees_elsewhere = _fees_elsewhere(owned_moves)
    income = _income(owners.of_movements(between.followed.filter(session_date=day)))
    all_rows = pl.concat([holdings, fees_elsewhere, income], how="diagonal_relaxed")

    earlier = sources.accounts.filter(col.session_date < day)
    rows = _of_known_ends(all_rows, start["account"], end["account"], earlier["account"])
    if rows.is_empty():
        return PROFIT_EXPLAINED.empty

    dated = by_strategy(rows).with_columns(
        session_date=pl.lit(day), since=_lit_of(since), closed_at=_lit_of(closed)
    )
    return dated.select(list(PROFIT_EXPLAINED.columns))


# The part of a holding that belongs to one owner.
_OWNED = (*KEY, "strategy_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Owners:
    """Whose holdings are at two closes, and what moved them meanwhile.

    Attributes:
        parts: Of movements.
        at_start, at_end: The shares at both ends.
        by_claims: The shares of holdings that no movement explains.
    """

    parts: pl.DataFrame
    at_start: pl.DataFrame
    at_end: pl.DataFrame
    by_claims: pl.DataFrame

    def of_rows(self, rows: pl.DataFrame, shares: pl.DataFrame) -> pl.DataFrame:
        """Return the holdings of each owner; what is gone is of those that had it."""
        joined = rows.join(pl.concat([shares, self.by_claims]), on=KEY, how="left")
        owned = joined.filter((col.position != 0) | col.share.is_not_null())
        share = col.share.fill_null(1.0)  # what no leg has belongs to no strategy, as a whole
        amounts = pl.col("position", "market_value") * share
        return owned.with_columns(amounts, col.strategy_id.fill_null(UNATTRIBUTED))

    def of_movements(self, movements: pl.DataFrame) -> pl.DataFrame:
        """Return the movements of each owner; a close of unknown owner by what each has."""
        claimed = movements.join(self.by_claims, on=KEY, how="left")
        owned = claimed.join(self.parts.drop(KEY), on="movement_id", how="left", suffix="_of_part")
        strategy = pl.coalesce("strategy_id", "strategy_id_of_part", pl.lit(UNATTRIBUTED))
        fraction = pl.coalesce("share", "fraction", 1.0)
        by_share = pl.when(col.share.is_not_null()).then(col.quantity * fraction)
        quantity = pl.coalesce(by_share, "by", "quantity")
        amounts = pl.col("cash", "value", "fee") * fraction
        owned = owned.with_columns(amounts, quantity=quantity, strategy_id=strategy)
        return owned.select(*movements.columns, "strategy_id")


def _owners_between(
    sources: _Sources,
    between: MovedBetween,
    start: pl.DataFrame,
    end: pl.DataFrame,
    trading_day: TradingDay,
) -> _Owners:
    """Return whose holdings are at two closes, and what moved them meanwhile.

    Args:
        between: What moved them.
        start, end: The holdings at both ends.
    """
    included = between.included
    not_at_start = included.filter(~col.before_start)["movement_id"].to_list()
    not_at_end = included.filter(~col.before_end)["movement_id"].to_list()
    is_later = ~col.is_prior & col.movement_id.is_in(not_at_start)
    is_after = ~col.is_prior & col.movement_id.is_in(not_at_end)
    at_start = shares_of(sources.parts.filter(~is_later), start)
    at_end = shares_of(sources.parts.filter(~is_after), end)

    quantities = [*KEY, "position"]
    held_at_start = start.filter(col.position != 0).select(quantities)
    held_at_end = end.filter(col.position != 0).select(quantities)
    lacks_start = held_at_start.join(at_start, on=KEY, how="anti")
    lacks_end = held_at_end.join(at_end, on=KEY, how="anti")
    unexplained = pl.concat([lacks_start, lacks_end]).select(KEY).unique()

    held = pl.concat([held_at_start, held_at_end]).unique(KEY, keep="first", maintain_order=True)
    explained = held.join(unexplained, on=KEY, how="anti")
    # What a leg counts for within the day, it counts for from its beginning on.
    counting = counting_legs(sources.legs, trading_day.closed)
    legs = [replace(leg, since=None) for leg in counting]
    claimed = claimed_shares(held, explained, legs, trading_day.since)

    of_movements = sources.parts.filter(~col.is_prior).join(claimed, on=KEY, how="anti")
    by_owner = of_movements.group_by("movement_id", *_OWNED)
    sums = by_owner.agg(col.by.sum(), col.fraction.sum())
    of_start = at_start.join(unexplained, on=KEY, how="anti")
    of_end = at_end.join(unexplained, on=KEY, how="anti")
    return _Owners(
        parts=sums,
        at_start=pl.concat([of_start, of_end.join(of_start, on=KEY, how="anti")]),
        at_end=pl.concat([of_end, of_start.join(of_end, on=KEY, how="anti")]),
        by_claims=claimed,
    )


def _lit_of(moment: datetime) -> pl.Expr:
    """Return a moment as the tables have it."""
    return pl.lit(moment.astimezone(UTC)).dt.cast_time_unit("us")


def explain_holdings(
    start: pl.DataFrame,
    end: pl.DataFrame,
    moved: pl.DataFrame,
    *,
    days: float,
    by: Sequence[str] = KEY,
) -> pl.DataFrame:
    """Return the profit of each holding and its parts; pure.

    Args:
        start: The holdings at the beginning, one row for each: the columns of `daily_positions`,
            and `magnifier`.
        end: Those at the end.
        moved: What moved them meanwhile, with the columns of `movements`.
        days: The time between, in calendar days.
        by: What makes a holding, or the part of one that belongs to an owner.

    Returns:
        Rows with these, symbol, currency, profit, the parts, and `why_unknown`: null where the
        profit is known. Also `missing` (what moved without a movement), `is_split`
        (whether greeks should say what the change of the price gave to what was held at the
        beginning), and `value_0` (what that was worth). A greek that is not known is null; what it
        would explain is in `repricing`.
    """
    with_movements = _with_movements(_both_ends(start, end, by), _sums_of_movements(moved, by), by)

    with_parts = _with_parts(_with_profit(_with_values(with_movements)), days)

    names = (*NUMBERS, "why_unknown", "missing", "is_split", "value_0")
    return with_parts.select(*by, *_TERMS, *names)


def _both_ends(start: pl.DataFrame, end: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Return each holding with its state at the beginning (`…_0`) and at the end (`…_1`)."""
    state = pl.col(_STATE)
    first = start.select(*by, *_TERMS, state.name.suffix("_0"))
    last = end.select(*by, *_TERMS, state.name.suffix("_1"))
    return _joined(first, last, by)


def _joined(rows: pl.DataFrame, more: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Return the holdings of both frames.

    Sources may write a symbol in different ways: the contract is the same.
    """
    joined = rows.join(more, on=[*by, "currency"], how="full", coalesce=True, suffix="_of_more")
    symbol = pl.coalesce("symbol", "symbol_of_more")
    return joined.with_columns(symbol=symbol).drop("symbol_of_more")


def _sums_of_movements(moved: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Return what movements brought to each holding, in the currency of the holding."""
    in_order = moved.sort("day", "at", nulls_last=True)
    by_holding = in_order.group_by(*by, "currency", maintain_order=True)
    symbol = col.symbol.drop_nulls().first()
    quantity = sum_if_known(col.quantity)
    cash = sum_if_known(col.cash)
    fees = sum_if_known(_fee_in_currency())

    is_trade = col.kind == MovementKind.TRADE
    is_sized = col.quantity.is_not_null() & (col.quantity != 0)
    paid_for_one = -col.cash / col.quantity
    units_traded = paid_for_one.filter(is_sized & is_trade)

    is_transfer = col.kind == MovementKind.TRANSFER
    transferred = col.quantity.filter(is_transfer).sum()
    at_price = col.quantity * col.price * col.multiplier
    stated = pl.coalesce("value", at_price)
    # Null where one of them has no value: then each counts at its mark.

    return by_holding.agg(
        symbol,
        movements=pl.len(),
        quantity=quantity,
        cash=cash,
        fees=fees,
        is_booked=(~is_trade).any(),
        last_unit=units_traded.last(),
        transferred=transferred,
        transferred_value=sum_if_known(stated.filter(is_transfer)),
        transfers=is_transfer.sum(),
    )


def _fee_in_currency() -> pl.Expr:
    """Return the fee of a movement in the currency of its holding; null where it is not known."""
    is_nothing = col.fee == 0
    is_elsewhere = col.fee_currency != col.currency  # it has a row of its own
    nothing = pl.when(is_nothing | is_elsewhere).then(0.0)

    fee = pl.when(col.fee_currency == col.currency).then("fee")
    return pl.when(col.fee.is_not_null()).then(pl.coalesce(nothing, fee))


def _with_movements(
    both_ends: pl.DataFrame, movements: pl.DataFrame, by: Sequence[str]
) -> pl.DataFrame:
    """Return holdings at both ends with what moved them, also those that were held at neither."""
    joined = _joined(both_ends, movements, by)

    # What has no row was not held, and what has no movement was not moved.
    positions = pl.col("position_0", "position_1").fill_null(0.0)
    is_moved = col.movements.is_not_null()
    moved = pl.col("quantity", "cash", "fees")
    moved_or_not = pl.when(is_moved).then(moved).otherwise(0.0)
    return joined.with_columns(positions, moved_or_not, col.is_booked.fill_null(value=False))


def _with_values(rows: pl.DataFrame) -> pl.DataFrame:
    """Return holdings with their values, those of one unit, and what no movement explains."""
    values = rows.with_columns(value_0=_value_at("_0"), value_1=_value_at("_1"))
    unit_at_end = pl.coalesce(_unit("_1"), "last_unit")
    units = values.with_columns(unit_0=_unit("_0"), unit_1=unit_at_end)

    missing = col.position_1 - col.position_0 - col.quantity
    return units.with_columns(missing=missing, brought=_brought())


def _value_at(end: str) -> pl.Expr:
    """Return the value at an end: 0 of what is not held, null where it is not known."""
    is_not_held = pl.col(f"position{end}") == 0
    return pl.when(is_not_held).then(0.0).otherwise(f"market_value{end}")


def _unit(end: str) -> pl.Expr:
    """Return the value of one contract or share at an end."""
    position = pl.col(f"position{end}")
    value = pl.col(f"market_value{end}")
    return pl.when(position != 0).then(value / position)


def _brought() -> pl.Expr:
    """Return what transfers brought in kind, as stated or at the mark."""
    mark = pl.coalesce(_unit("_1"), "unit_0")
    stated_or_marked = pl.coalesce("transferred_value", col.transferred * mark)
    has_transfers = col.transfers.fill_null(0) > 0  # no row of movements: no transfer
    return pl.when(has_transfers).then(stated_or_marked).otherwise(0.0)


def _with_profit(rows: pl.DataFrame) -> pl.DataFrame:
    """Return holdings with `earned`, the profit without commissions, and `profit`."""
    with_reasons = rows.with_columns(why_unknown=_why_unknown())
    is_known = col.why_unknown.is_null()

    earned = col.value_1 - col.value_0 + col.cash - col.brought
    with_earned = with_reasons.with_columns(earned=pl.when(is_known).then(earned))
    return with_earned.with_columns(profit=col.earned + col.fees)


def _why_unknown() -> pl.Expr:
    """Return why the profit of a holding is not known, by the first reason; null where it is."""
    value_before = _if_null("value_0", "its value at the close before")
    value = _if_null("value_1", "its value at the close")
    quantity = _if_null("missing", "a quantity that moved")
    missing = pl.format("what moved {}", col.missing.round(6))
    unexplained = pl.when(IS_MISSING).then(missing)
    cash = _if_null("cash", "what a movement paid")
    fees = _if_null("fees", "a commission")
    brought = _if_null("brought", "the value of a transfer")
    return pl.coalesce(value_before, value, quantity, unexplained, cash, fees, brought)


def _if_null(name: str, reason: str) -> pl.Expr:
    """Return the reason where a column is null."""
    return pl.when(pl.col(name).is_null()).then(pl.lit(reason))


def _with_parts(rows: pl.DataFrame, days: float) -> pl.DataFrame:
    """Split what was held by the greeks, and add the other parts; null where the profit is."""
    is_known = col.earned.is_not_null()
    is_priced = is_known & ~col.is_booked
    held = pl.when(is_priced).then(_repriced()).otherwise(0.0)
    with_moves = rows.with_columns(held=held, **_moves_by_greeks(days))

    # A share or a future has no greeks: its price is its delta.
    is_share = col.right_0.is_null()
    is_split = is_priced & ~is_share & (col.position_0 != 0)
    greeks = pl.when(is_split).then(pl.col(BY_GREEKS)).otherwise(0.0)
    with_greeks = with_moves.with_columns(greeks, is_split=is_split)
    by_price = with_greeks.with_columns(delta=pl.when(is_share).then("held").otherwise("delta"))

    # What greeks do not explain, since one of them is not known, is repricing.
    repricing = col.held - pl.sum_horizontal(BY_GREEKS)
    since_trades = col.earned - col.held
    trades = pl.when(is_priced).then(since_trades).otherwise(0.0)
    assignments = pl.when(is_priced).then(0.0).otherwise("earned")
    with_parts = by_price.with_columns(
        repricing=repricing,
        trades=trades,
        assignments=assignments,
        cash=0.0,
        unexplained=0.0,
    )

    known = with_parts.with_columns(pl.when(is_known).then(pl.col(PARTS)))
    return known.with_columns(unexplained=_unexplained(is_known))


def _repriced() -> pl.Expr:
    """Return what the change of the price gave to what was held at the beginning."""
    by_unit = col.position_0 * col.unit_1 - col.value_0
    # Where nothing says at what price it went, all that it earned is of its price.
    of_price = pl.coalesce(by_unit, "earned")
    was_held = col.position_0 != 0
    return pl.when(was_held).then(of_price).otherwise(0.0)


def _moves_by_greeks(days: float) -> dict[str, pl.Expr]:
    """Return what each greek of the beginning makes of the moves until the end."""
    units = col.position_0 * col.multiplier_0
    quoted_move = col.underlying_price_1 - col.underlying_price_0
    move = quoted_move / col.magnifier_0
    points = (col.implied_vol_1 - col.implied_vol_0) * 100

    delta = units * col.delta_0 * move
    gamma = units * col.gamma_0 * move**2 / 2
    vega = units * col.vega_0 * points
    theta = units * col.theta_0 * days
    return {"delta": delta, "gamma": gamma, "vega": vega, "theta": theta}


def _unexplained(is_known: pl.Expr) -> pl.Expr:
    """Return the value of what came or went without a movement: how much is not explained."""
    unit = pl.coalesce("unit_1", "unit_0")
    value_missing = pl.when(IS_MISSING).then(col.missing * unit)
    return pl.when(is_known).then("unexplained").otherwise(value_missing)


def _fees_elsewhere(moved: pl.DataFrame) -> pl.DataFrame:
    """Return the fees that were charged in another currency than that of the holding."""
    fees = moved.filter(col.fee_currency != col.currency, col.fee != 0)
    by_holding = fees.group_by(*_OWNED, "symbol", currency="fee_currency")

    total = sum_if_known(col.fee)
    return by_holding.agg(profit=total, fees=total)


def _income(movements: pl.DataFrame) -> pl.DataFrame:
    """Return dividends, tax, interest and fees by owner, account and currency."""
    is_paid = col.cash.is_null() | (col.cash != 0)
    paid = movements.filter(col.kind.is_in(INCOME), is_paid)

    total = sum_if_known(col.cash)
    is_unknown = col.cash.is_null().any()
    why_unknown = pl.when(is_unknown).then(pl.lit("an amount of cash"))
    return paid.group_by("strategy_id", "account", "currency").agg(
        profit=total, cash=total, why_unknown=why_unknown
    )


def _of_known_ends(
    rows: pl.DataFrame, start: pl.Series, end: pl.Series, earlier: pl.Series
) -> pl.DataFrame:
    """Return the rows of accounts whose two closes are known, or were empty.

    An account without rows at one end was empty then, if its movements explain all quantities. If
    they do not, there is no such close: on its first day, and while the program and the statements
    say nothing of it, it has no row; on the day after such a gap its profit is not known.

    Args:
        rows: What `explain_holdings` returned, and the money of accounts.
        start, end: The accounts of the rows at both ends.
        earlier: The accounts that have rows of any day before.
    """
    accounts = set(rows.filter(IS_MISSING)["account"])
    without_close = accounts - set(end)
    without_start = accounts - set(start)
    lost = without_start & set(earlier)
    is_left_out = col.account.is_in(list(without_close | (without_start - lost)))
    is_lost = col.account.is_in(list(lost))
    known_numbers = pl.when(~is_lost).then(pl.col(NUMBERS))
    reason = pl.when(is_lost).then(pl.lit(NO_CLOSE_BEFORE)).otherwise("why_unknown")
    return rows.filter(~is_left_out).with_columns(known_numbers, why_unknown=reason)


def by_strategy(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the parts of the profit of each strategy and account, and of what is in none; pure.

    A holding whose profit is not known makes that of its strategy unknown. The parts of the greeks,
    and with them the repricing, are null where the options whose greeks are known do not carry
    them; then the change of the prices is in no part.

    Args:
        rows: What `explain_holdings` returned, by owner, and cash, which has no conid.
    """
    # A row of cash, or of a fee elsewhere, has no other parts.
    is_whole = col.conid.is_null() | col.profit.is_not_null()
    nothing = pl.when(is_whole & col.is_split.is_null()).then(0.0)
    parts = rows.with_columns(pl.col(PARTS).fill_null(nothing), col.is_split.fill_null(value=False))

    sum_of_parts = sum_if_known(pl.col(NUMBERS).exclude(BY_GREEKS))
    are_known = col.repricing.null_count() == 0
    greeks = {name: pl.when(are_known).then(sum_of_greek(name)) for name in BY_GREEKS}
    is_unknown = col.why_unknown.is_not_null()
    reasons = _named_reason().filter(is_unknown).sort()

    by = ("strategy_id", "account", "currency")
    sums = parts.group_by(by).agg(
        sum_of_parts,
        **greeks,
        legs_unknown=is_unknown.sum(),
        why_unknown=reasons.str.join("; ").replace("", None),
    )
    are_carried = pl.all_horizontal(pl.col(BY_GREEKS).is_not_null())
    repricing = pl.when(are_carried).then("repricing")
    return sums.with_columns(repricing=repricing).sort(by)


def sum_of_greek(name: str) -> pl.Expr:
    """Return the sum of what a greek explains, of rows of `explain_holdings`."""
    amount = pl.col(name)
    is_carried = carries(amount.is_not_null(), col.is_split, col.value_0.abs())
    return pl.when(is_carried).then(amount.sum())


def _named_reason() -> pl.Expr:
    """Return why a profit is not known, with the contract if it is that of a holding."""
    with_contract = pl.format("{}: {}", _CONTRACT, "why_unknown")
    return pl.when(_CONTRACT.is_null()).then("why_unknown").otherwise(with_contract)


def is_explained(row: Mapping[str, Any]) -> bool:
    """Return whether a profit is known, or what is not known of it is small."""
    if row["profit"] is not None:
        return True
    unexplained: float = row["unexplained"] or 0.0  # null: another amount is not known
    return 0 < abs(unexplained) <= SMALLEST_UNEXPLAINED


def unknown_profits(rows: Iterable[Mapping[str, Any]]) -> Sequence[str]:
    """Return a sentence for each row whose profit is not known."""
    sentences = []
    for row in rows:
        if not is_explained(row):
            strategy = f"{row['session_date']}: {row['strategy_id']}"
            place = f"in {row['account']}, {row['currency']}"
            sentences.append(f"{strategy} {place} ({row['why_unknown']})")
    return sentences
