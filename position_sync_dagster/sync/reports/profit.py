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

from position_sync_dagster.domain.holding import KEY, QUANTITY_ROUNDING
from position_sync_dagster.domain.leg import UNATTRIBUTED, ActiveContract
from position_sync_dagster.domain.movements import (
    INCOME,
    MovementKind,
    Section,
)
from position_sync_dagster.lake.contracts import magnifier_in
from position_sync_dagster.lake.derived import sum_if_known
from position_sync_dagster.lake.lake import Lake, rows_of_logins
from position_sync_dagster.lake.schema import DAILY_POSITIONS, PROFIT_EXPLAINED, legs_of
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.exchange_days import time_zone_of
from position_sync_dagster.sync.reports.exposure import split
from position_sync_dagster.sync.reports.moved_between import movements_between

# A holding has one currency; a fee of it in another one is a row of its own.
_ROW = [*KEY, "symbol", "currency"]

BY_GREEKS = ("delta", "gamma", "vega", "theta")
# The parts of the profit; together they are the profit.
PARTS = (*BY_GREEKS, "repricing", "trades", "fees", "assignments", "cash", "unexplained")

# All amounts of a row; `gross_move` is the sum of the sizes of the parts.
NUMBERS = ("profit", *PARTS, "gross_move")

# More than this amount is to be named, where a quantity came or went without a movement.
SMALLEST_UNEXPLAINED = 25.0

# How much earlier than the close before a movement may be booked that belongs to the day.
BOOKED_BEFORE = timedelta(days=14)

NO_CLOSE_BEFORE = "no close before"

_STATE = ("position", "market_value", "multiplier", "magnifier", "right", "underlying_price",
          "implied_vol", "source", *BY_GREEKS)  # fmt: skip


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
    lake: Lake, settings: Settings, days: Sequence[TradingDay]
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
        accounts: The accounts that have rows of each day, also of earlier ones.
        movements: From some days before the first on.
        legs: All legs that strategies have or had.
    """

    rows: pl.DataFrame
    accounts: pl.DataFrame
    movements: pl.DataFrame
    legs: Sequence[ActiveContract]

    @classmethod
    def read(cls, lake: Lake, settings: Settings, days: Sequence[TradingDay]) -> "_Sources":
        """Read them, each once."""
        table = lake.derived_table(DAILY_POSITIONS)
        sessions = {day.day for day in days} | {day.before for day in days}
        is_wanted = pl.col("session_date").is_in(sessions)
        of_sessions = pl.col("partition.session_date").is_in(sessions)
        rows = rows_of_logins(table.rows(is_wanted, of_sessions), settings)
        rows = with_values_of_their_day(rows, settings.calendar)
        magnifier = magnifier_in(lake.contracts.get(set(rows["conid"]))).cast(pl.Float64)

        first = min(day.before for day in days)
        movements = lake.movements.rows(since=first - BOOKED_BEFORE)
        legs = legs_of(lake.registry.table.rows())
        return cls(
            rows=rows.with_columns(magnifier=magnifier),
            accounts=table.rows(columns=["session_date", "account"]).unique(),
            movements=rows_of_logins(movements, settings),
            legs=[leg for leg in legs if isinstance(leg, ActiveContract)],
        )


def with_values_of_their_day(rows: pl.DataFrame, calendar: str) -> pl.DataFrame:
    """Return rows of `daily_positions`, without values that were older than their day.

    The program did not run on that day, and no statement says what the holding was worth: with the
    value of an earlier day, the profit of two days would be that of one.
    """
    valued_at = pl.col("closed_at") - pl.duration(seconds="age_s")
    valued_on = valued_at.dt.convert_time_zone(str(time_zone_of(calendar))).dt.date()
    # An age that is not known is not older.
    is_older = (valued_on < pl.col("session_date")).fill_null(value=False)
    return rows.with_columns(market_value=pl.when(~is_older).then("market_value"))


def _explained_day(sources: _Sources, settings: Settings, trading_day: TradingDay) -> pl.DataFrame:
    """Return the rows of one trading day."""
    day, before, since, closed = trading_day
    start = sources.rows.filter(session_date=before)
    end = sources.rows.filter(session_date=day)
    movements = sources.movements.filter(pl.col("day") >= before - BOOKED_BEFORE)

    moved = movements_between(movements, start, end, (before, since), (day, closed), settings)
    holdings = explain_holdings(start, end, moved, days=(closed - since) / timedelta(days=1))
    income = _income(movements.filter(session_date=day))
    rows = pl.concat([holdings, _fees_elsewhere(moved), income], how="diagonal_relaxed")
    earlier = sources.accounts.filter(pl.col("session_date") < day).get_column("account")
    rows = _of_known_ends(rows, start["account"], end["account"], earlier)
    if rows.is_empty():
        return PROFIT_EXPLAINED.empty

    held = _held_or_traded(start, end, moved)
    parts = split(_legs_during(sources.legs, since, closed), held).parts
    explained = by_strategy(rows, parts.select(*KEY, "strategy_id", "share"))
    return explained.with_columns(
        session_date=pl.lit(day),
        since=pl.lit(since.astimezone(UTC)).dt.cast_time_unit("us"),
        closed_at=pl.lit(closed.astimezone(UTC)).dt.cast_time_unit("us"),
    ).select(list(PROFIT_EXPLAINED.columns))


def explain_holdings(
    start: pl.DataFrame, end: pl.DataFrame, moved: pl.DataFrame, *, days: float
) -> pl.DataFrame:
    """Return the profit of each holding and its parts; pure.

    Args:
        start: The holdings at the beginning, one row for each account and conid: the columns of
            `daily_positions`, and `magnifier`.
        end: Those at the end.
        moved: What moved them meanwhile, with the columns of `movements`.
        days: The time between, in calendar days.

    Returns:
        Rows with account, conid, symbol, currency, profit, the parts, `gross_move` (the sum of the
        sizes of the parts), `without_greeks`, and `why_unknown`: null where the profit is known.
        Also `missing` (what moved without a movement), `held` (what the change of the price gave
        to what was held at the beginning), and `units_0`, how many units of the underlying that
        was.
    """
    first = start.select(*_ROW, pl.col(_STATE).name.suffix("_0"))
    last = end.select(*_ROW, pl.col(_STATE).name.suffix("_1"))
    # Sources may write a symbol in different ways: the contract is the same.
    both_ends = first.join(
        last, on=[*KEY, "currency"], how="full", coalesce=True, suffix="_last"
    ).with_columns(symbol=pl.coalesce("symbol", "symbol_last"))
    rows = _with_movements(both_ends, _sums_of_movements(_with_signs(moved, start)))
    rows = _with_profit(_with_values(rows))
    parts = _with_parts(rows, days)
    units_0 = (pl.col("position_0") * pl.col("multiplier_0")).alias("units_0")
    names = ("profit", *PARTS, "gross_move", "without_greeks", "why_unknown", "missing", "held")
    return parts.select(*_ROW, *names, units_0)


def _with_movements(both_ends: pl.DataFrame, sums: pl.DataFrame) -> pl.DataFrame:
    """Return holdings at both ends with what moved them, also those that were held at neither."""
    joined = both_ends.join(
        sums, on=[*KEY, "currency"], how="full", coalesce=True, suffix="_moved"
    ).with_columns(symbol=pl.coalesce("symbol", "symbol_moved"))

    # What has no row was not held, and what has no movement was not moved.
    is_moved = pl.col("movements").is_not_null()
    return joined.with_columns(
        position_0=pl.col("position_0").fill_null(0.0),
        position_1=pl.col("position_1").fill_null(0.0),
        quantity=pl.when(is_moved).then("quantity").otherwise(0.0),
        cash=pl.when(is_moved).then("cash").otherwise(0.0),
        fees=pl.when(is_moved).then("fees").otherwise(0.0),
        is_booked=pl.col("is_booked").fill_null(value=False),
    )


def _with_values(rows: pl.DataFrame) -> pl.DataFrame:
    """Return holdings with their values, those of one unit, and what no movement explains."""
    valued = rows.with_columns(value_0=_value_at("_0"), value_1=_value_at("_1"))
    with_units = valued.with_columns(
        unit_0=_unit("_0"), unit_1=pl.coalesce(_unit("_1"), "last_unit")
    )
    missing = pl.col("position_1") - pl.col("position_0") - pl.col("quantity")
    return _with_transfers(with_units).with_columns(missing=missing)


def _with_profit(rows: pl.DataFrame) -> pl.DataFrame:
    """Return holdings with `earned`, the profit without commissions, and `profit`."""
    judged = rows.with_columns(why_unknown=_why_unknown())
    earned = pl.col("value_1") - pl.col("value_0") + pl.col("cash") - pl.col("brought")
    is_known = pl.col("why_unknown").is_null()
    with_earned = judged.with_columns(earned=pl.when(is_known).then(earned))
    return with_earned.with_columns(profit=pl.col("earned") + pl.col("fees"))


def _value_at(end: str) -> pl.Expr:
    """Return the value at an end: 0 of what is not held, null where it is not known."""
    return pl.when(pl.col(f"position{end}") == 0).then(0.0).otherwise(pl.col(f"market_value{end}"))


def _unit(end: str) -> pl.Expr:
    """Return the value of one contract or share at an end."""
    position = pl.col(f"position{end}")
    return pl.when(position != 0).then(pl.col(f"market_value{end}") / position)


def _with_signs(moved: pl.DataFrame, start: pl.DataFrame) -> pl.DataFrame:
    """Return movements where the end of an option reduces what was held.

    The option events of statements have either sign.
    """
    held = start.select(*KEY, held="position").unique(KEY)
    is_event = (pl.col("section") == Section.OPTION_EVENTS.value) & pl.col("right").is_not_null()
    is_held = pl.col("held").is_not_null() & (pl.col("held") != 0)
    reduced = -pl.col("held").sign() * pl.col("quantity").abs()
    quantity = pl.when(is_event & is_held).then(reduced).otherwise("quantity")
    return moved.join(held, on=KEY, how="left").with_columns(quantity=quantity).drop("held")


def _sums_of_movements(moved: pl.DataFrame) -> pl.DataFrame:
    """Return what movements brought to each holding, in the currency of the holding."""
    is_transfer = pl.col("kind") == MovementKind.TRANSFER.value
    is_trade = pl.col("kind") == MovementKind.TRADE.value
    stated = pl.coalesce("value", pl.col("quantity") * pl.col("price") * pl.col("multiplier"))
    own_fee = (
        pl.when(pl.col("fee") == 0).then(0.0)
        .when(pl.col("fee").is_null() | (pl.col("fee_currency") == pl.col("currency"))).then("fee")
        .when(pl.col("fee_currency").is_not_null()).then(0.0)  # it has a row of its own
    )  # fmt: skip
    last_trade = pl.col("quantity").is_not_null() & (pl.col("quantity") != 0) & is_trade
    unit = -pl.col("cash") / pl.col("quantity")
    return (
        moved.sort("day", "at", nulls_last=True)
        .group_by(*KEY, "currency", maintain_order=True)
        .agg(
            pl.col("symbol").drop_nulls().first(),
            movements=pl.len(),
            quantity=sum_if_known(pl.col("quantity")),
            cash=sum_if_known(pl.col("cash")),
            fees=sum_if_known(own_fee),
            is_booked=(~is_trade).any(),
            last_unit=unit.filter(last_trade).last(),
            transferred=pl.col("quantity").filter(is_transfer).sum(),
            # Null where one of them has no value: then each counts at its mark.
            transferred_value=sum_if_known(stated.filter(is_transfer)),
            transfers=is_transfer.sum(),
        )
    )


def _with_transfers(rows: pl.DataFrame) -> pl.DataFrame:
    """Return holdings with `brought`: what transfers brought in kind, as stated or at the mark."""
    mark = pl.coalesce(_unit("_1"), "unit_0")
    at_mark = pl.col("transferred") * mark
    brought = (
        pl.when(pl.col("transfers").fill_null(0) == 0)  # no row of movements: no transfer
        .then(0.0)
        .otherwise(pl.coalesce("transferred_value", at_mark))
    )
    return rows.with_columns(brought=brought)


def _why_unknown() -> pl.Expr:
    """Return why the profit of a holding is not known; null where it is."""
    is_missing = pl.col("missing").abs() > QUANTITY_ROUNDING
    return (
        pl.when(pl.col("value_0").is_null()).then(pl.lit("its value at the close before"))
        .when(pl.col("value_1").is_null()).then(pl.lit("its value at the close"))
        .when(pl.col("missing").is_null()).then(pl.lit("a quantity that moved"))
        .when(is_missing).then(pl.format("what moved {}", pl.col("missing").round(6)))
        .when(pl.col("cash").is_null()).then(pl.lit("what a movement paid"))
        .when(pl.col("fees").is_null()).then(pl.lit("a commission"))
        .when(pl.col("brought").is_null()).then(pl.lit("the value of a transfer"))
    )  # fmt: skip


def _with_parts(rows: pl.DataFrame, days: float) -> pl.DataFrame:
    """Split what was held by the greeks, and add the other parts; null where the profit is."""
    is_known = pl.col("earned").is_not_null()
    is_kept = is_known & ~pl.col("is_booked")
    # A share or a future has no greeks: its price is its delta.
    is_share = pl.col("right_0").is_null()
    was_held = pl.col("position_0") != 0
    held = pl.when(is_kept).then(_held()).otherwise(0.0)
    with_moves = rows.with_columns(held=held, **_moves_by_greeks(days))

    # What greeks do not explain, since one of them is not known, is repricing.
    by_greeks = with_moves.with_columns(pl.when(is_kept).then(pl.col(BY_GREEKS)).fill_null(0.0))
    by_price = by_greeks.with_columns(delta=pl.when(is_share).then("held").otherwise("delta"))
    split = by_price.with_columns(
        repricing=pl.col("held") - pl.sum_horizontal(BY_GREEKS),
        trades=pl.when(is_kept).then(pl.col("earned") - pl.col("held")).otherwise(0.0),
        assignments=pl.when(is_kept).then(0.0).otherwise("earned"),
        cash=pl.lit(0.0),
        unexplained=pl.lit(0.0),
        without_greeks=was_held & pl.col("delta_0").is_null() & ~is_share,
    )

    sized = split.with_columns(gross_move=pl.sum_horizontal(pl.col(PARTS).abs()))
    names = (*PARTS, "gross_move")
    known = sized.with_columns(pl.when(is_known).then(pl.col(names)))
    return known.with_columns(unexplained=_unexplained(is_known))


def _held() -> pl.Expr:
    """Return what the change of the price gave to what was held at the beginning."""
    repriced = pl.col("position_0") * pl.col("unit_1") - pl.col("value_0")
    # Where nothing says at what price it went, all that it earned is of its price.
    of_price = pl.coalesce(repriced, "earned")
    return pl.when(pl.col("position_0") != 0).then(of_price).otherwise(0.0)


def _moves_by_greeks(days: float) -> dict[str, pl.Expr]:
    """Return what each greek of the beginning makes of the moves until the end."""
    units = pl.col("position_0") * pl.col("multiplier_0")
    moved = (pl.col("underlying_price_1") - pl.col("underlying_price_0")) / pl.col("magnifier_0")
    points = (pl.col("implied_vol_1") - pl.col("implied_vol_0")) * 100
    return {
        "delta": units * pl.col("delta_0") * moved,
        "gamma": units * pl.col("gamma_0") * moved**2 / 2,
        "vega": units * pl.col("vega_0") * points,
        "theta": units * pl.col("theta_0") * days,
    }


def _unexplained(is_known: pl.Expr) -> pl.Expr:
    """Return the value of what came or went without a movement: how much is not explained."""
    value_missing = pl.col("missing") * pl.coalesce("unit_1", "unit_0")
    is_missing = pl.col("missing").abs() > QUANTITY_ROUNDING
    return pl.when(is_known).then("unexplained").when(is_missing).then(value_missing)


def _fees_elsewhere(moved: pl.DataFrame) -> pl.DataFrame:
    """Return the fees that were charged in another currency than that of the holding."""
    is_elsewhere = pl.col("fee_currency") != pl.col("currency")
    fees = moved.filter(is_elsewhere, pl.col("fee") != 0)
    total = sum_if_known(pl.col("fee"))
    return fees.group_by(*KEY, "symbol", currency="fee_currency").agg(
        profit=total, fees=total, gross_move=total.abs()
    )


def _income(movements: pl.DataFrame) -> pl.DataFrame:
    """Return dividends, tax, interest and fees of each account and currency."""
    is_income = pl.col("kind").is_in([kind.value for kind in INCOME])
    total = sum_if_known(pl.col("cash"))
    income = movements.filter(is_income, pl.col("cash").is_null() | (pl.col("cash") != 0))
    return income.group_by("account", "currency").agg(
        profit=total,
        cash=total,
        gross_move=total.abs(),
        why_unknown=pl.when(pl.col("cash").is_null().any()).then(pl.lit("an amount of cash")),
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
    accounts = set(rows.filter(pl.col("missing").abs() > QUANTITY_ROUNDING)["account"])
    without_close = accounts - set(end)
    without_start = accounts - set(start)
    lost = without_start & set(earlier)
    left_out = without_close | (without_start - lost)

    known = rows.filter(~pl.col("account").is_in(list(left_out)))
    is_lost = pl.col("account").is_in(list(lost))
    return known.with_columns(
        pl.when(~is_lost).then(pl.col(NUMBERS)),
        why_unknown=pl.when(is_lost).then(pl.lit(NO_CLOSE_BEFORE)).otherwise("why_unknown"),
    )


def _legs_during(
    legs: Iterable[ActiveContract], since: datetime, closed: datetime
) -> list[ActiveContract]:
    """Return the legs that were active at any time of a day, each once, in its newest form."""
    active: dict[tuple[str, str | None, int], ActiveContract] = {}
    for leg in sorted(legs, key=lambda leg: leg.added_at):
        is_active = leg.added_at <= closed and (leg.removed_at is None or leg.removed_at > since)
        if is_active:
            active[str(leg.strategy_id), leg.account, leg.conid] = replace(leg, removed_at=None)
    return [*active.values()]


def _held_or_traded(start: pl.DataFrame, end: pl.DataFrame, moved: pl.DataFrame) -> pl.DataFrame:
    """Return what was held at the beginning, or at the end, or was opened and closed between."""
    kept = start.filter(pl.col("position") != 0)
    new = end.filter(pl.col("position") != 0).join(kept.select(KEY), on=KEY, how="anti")
    held = pl.concat([kept, new], how="diagonal_relaxed")

    # Its size is that of all movements that went the way of the first one.
    quantity = pl.col("quantity")
    same_way = quantity.filter(quantity.sign() == quantity.sign().first())
    passed = (
        moved.drop_nulls("quantity")
        .filter(quantity != 0)
        .join(held.select(KEY), on=KEY, how="anti")
        .sort("day", "at", nulls_last=True)
        .group_by(*KEY, "currency", maintain_order=True)
        .agg(pl.col("symbol", "sec_type").drop_nulls().first(), position=same_way.sum())
    )
    return pl.concat([held, passed], how="diagonal_relaxed")


def by_strategy(found: pl.DataFrame, shares: pl.DataFrame) -> pl.DataFrame:
    """Return the parts of the profit of each strategy and account, and of what is in none; pure.

    A holding whose profit is not known makes that of its strategy unknown.

    Args:
        found: What `explain_holdings` returned, and cash of accounts, which has no conid.
        shares: For each part of a holding: account, conid, strategy_id and share; together 1.
    """
    is_whole = pl.col("conid").is_null() | pl.col("profit").is_not_null()
    # A row of cash, or of a fee elsewhere, has no other parts.
    whole = found.with_columns(pl.col(PARTS).fill_null(pl.when(is_whole).then(0.0)))
    split_by = whole.join(shares, on=KEY, how="left").with_columns(
        # What no leg has belongs to no strategy, as a whole.
        pl.col("strategy_id").fill_null(UNATTRIBUTED),
        pl.col("share").fill_null(1.0),
    )
    named = pl.col("symbol") + " " + pl.col("conid").cast(pl.String)
    is_unknown = pl.col("why_unknown").is_not_null()
    reason = (
        pl.when(named.is_null())
        .then("why_unknown")
        .otherwise(pl.format("{}: {}", named, "why_unknown"))
    )
    rows = split_by.with_columns(pl.col(NUMBERS) * pl.col("share"))
    return (
        rows.group_by("strategy_id", "account", "currency")
        .agg(
            sum_if_known(pl.col(NUMBERS)),
            legs=pl.col("conid").n_unique() - pl.col("conid").is_null().any(),
            without_greeks=pl.col("without_greeks").sum(),
            unexplained_legs=named.filter(pl.col("unexplained").abs() > 0).sort().str.join(", "),
            legs_unknown=is_unknown.sum(),
            why_unknown=reason.filter(is_unknown).sort().str.join("; "),
        )
        .with_columns(pl.col("unexplained_legs", "why_unknown").replace("", None))
        .sort("strategy_id", "account", "currency")
    )


def is_explained(row: Mapping[str, Any]) -> bool:
    """Return whether a profit is known, or what is not known of it is small."""
    if row["profit"] is not None:
        return True
    unexplained = row["unexplained"]
    only_missing = unexplained is not None and row["unexplained_legs"] is not None
    return only_missing and abs(unexplained) <= SMALLEST_UNEXPLAINED


def unknown_profits(rows: Iterable[Mapping[str, Any]]) -> Sequence[str]:
    """Return a sentence for each row whose profit is not known."""
    sentences: list[str] = []
    for row in rows:
        if not is_explained(row):
            place = f"{row['strategy_id']} in {row['account']}, {row['currency']}"
            sentences.append(f"{row['session_date']}: {place} ({row['why_unknown']})")
    return sentences
