"""Campaigns: what strategies have earned since their first leg, through rolls and assignments.

The broker first names the strike as the cost of shares that an assignment left, and days later the
strike with the premium of the option, whose own profit is then 0. Here the option always has its
premium and the shares always have the strike: nothing counts twice, and nothing is missing.

Prices, multipliers and fees are those of `movements`; where one is not known, the profit that needs
it is not. A fee in another currency than the contract's stays in its own.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import itemgetter

import polars as pl
from polars import col

from position_sync_dagster.domain.closes import SLACK, Cause
from position_sync_dagster.domain.holding import QUANTITY_ROUNDING
from position_sync_dagster.domain.leg import NEGLIGIBLE
from position_sync_dagster.domain.movements import MovementKind, known_sum
from position_sync_dagster.lake.derived import sum_if_known
from position_sync_dagster.risk.priced_legs import Row

DELIVERED = (Cause.ASSIGNED.value, Cause.EXERCISED.value)
# Maximum time between the change of an option and that of the shares: statements come late.
SOON = timedelta(days=5)


@dataclass(slots=True, kw_only=True)
class DeliveredLot:
    """Shares or futures that assignments and exercises left to a strategy.

    Attributes:
        first: When the first of them came; from then on, closes of the contract are in `realised`.
        quantity: What is left of them; None: not known, since others hold the same.
        size: Units of the underlying in one; None: not known.
        cost: Cost of one unit.
        realised: The profit of what is gone, after `fees`; None is not known.
        other_fees: Fees in other currencies, by currency.
    """

    strategy_id: str
    account: str
    conid: int
    currency: str
    first: datetime
    size: float | None
    quantity: float | None = 0.0
    cost: float = 0.0
    realised: float | None = 0.0
    fees: float | None = 0.0
    other_fees: dict[str, float] = field(default_factory=dict)

    def trade(self, by: float, price: float, fees: float | None) -> None:
        """Close by the average cost, and open what is more than that."""
        held = self.quantity or 0.0
        closed = 0.0
        if held * by < 0:
            closed = math.copysign(min(abs(held), abs(by)), held)
            held -= closed

        if self.realised is None or self.fees is None or self.size is None or fees is None:
            self.realised = None
            self.fees = None
        else:
            gained = closed * self.size * (price - self.cost)
            self.realised += gained - fees
            self.fees += fees

        opened = by + closed
        if opened:
            paid = self.cost * held + price * opened
            self.cost = paid / (held + opened)
        self.quantity = held + opened

    def lose_track(self) -> None:
        """Record that it is not known what is left, or what it earned."""
        self.quantity = None
        self.realised = None

    @property
    def is_here(self) -> pl.Expr:
        """Whether a row is of this contract, in this account."""
        is_account = col.account == self.account
        is_contract = col.conid == self.conid
        return is_account & is_contract


@dataclass(frozen=True, slots=True, kw_only=True)
class Realised:
    """What a strategy has realised in one currency.

    Attributes:
        profit: With that of its lots, after fees; None is not known.
        fees: Those in the same currency; None is not known.
        other_fees: Those of its contracts in other currencies, by currency.
    """

    profit: float | None = 0.0
    fees: float | None = 0.0
    other_fees: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Campaigns:
    """What strategies have realised.

    Attributes:
        realised: By strategy and currency.
        lots: What assignments and exercises left, also what is gone since.
    """

    realised: Mapping[tuple[str, str], Realised]
    lots: Sequence[DeliveredLot]


def campaigns_of(
    closes: pl.DataFrame, changes: pl.DataFrame, movements: pl.DataFrame, legs: pl.DataFrame
) -> Campaigns:
    """Return what strategies have realised since their first leg, and what was left to them.

    Args:
        closes: The rows of `closures` that count, with strategies (a list, or null), is_divided
            and magnifier (null: not known).
        changes: Columns of `position_changes`.
        movements: Rows of `movements`.
        legs: Rows of `active_strategies`, also of legs that were removed.
    """
    held = changes.select("change_id", "before", "average_cost")
    with_held = closes.join(held, on="change_id", how="left", maintain_order="left")
    with_money = _with_money(with_held, movements)
    lots = lots_of(with_money, changes, legs)

    realised = _realised(with_money, lots)
    fees = _fees_of_legs(movements, changes, legs)
    keys = {*realised, *fees}
    for lot in lots:
        keys.add((lot.strategy_id, lot.currency))

    together = {key: _together(key, realised, fees, lots) for key in keys}
    return Campaigns(together, lots)


# A strategy and a currency.
_Key = tuple[str, str]


def _together(
    key: _Key,
    realised: Mapping[_Key, float | None],
    fees_of_legs: Mapping[_Key, Mapping[str | None, float | None]],
    lots: Iterable[DeliveredLot],
) -> Realised:
    """Return what closed legs, lots and fees make for one strategy in one currency."""
    profits = [realised.get(key, 0.0)]  # a strategy of which nothing closed has realised nothing
    fees = []
    other_fees = {}
    for currency, amount in fees_of_legs.get(key, {}).items():
        if currency is None or currency == key[1] or amount is None:
            fees.append(amount)
        else:
            other_fees[currency] = amount

    for lot in lots:
        if (lot.strategy_id, lot.currency) != key:
            continue

        profits.append(lot.realised)
        fees.append(lot.fees)
        for currency, amount in lot.other_fees.items():
            earlier = other_fees.get(currency, 0.0)
            other_fees[currency] = earlier + amount
    return Realised(profit=known_sum(profits), fees=known_sum(fees), other_fees=other_fees)


def _with_money(closes: pl.DataFrame, movements: pl.DataFrame) -> pl.DataFrame:
    """Return closes with the price, multiplier and fees of the movements that are their evidence.

    The price is in the major unit. A value is null if it is so in one of the movements, or without
    any.
    """
    rows = closes.drop("price").with_row_index("row")
    key = ["account", "conid", "evidence"]
    listed = pl.concat_str("executions", "events", "change_id", separator=",", ignore_nulls=True)
    named = rows.select("row", "account", "conid", evidence=listed.str.split(","))
    name_of_movement = pl.coalesce("execution_id", "event_id", "change_id")
    moved = col.quantity.abs()
    of_movements = movements.select(
        "account",
        "conid",
        "multiplier",
        "fee_currency",
        evidence=name_of_movement,
        moved=moved,
        paid=col.price * moved,
        fees=-col.fee,
    )
    evidence = named.explode("evidence").join(of_movements, on=key)

    is_one_currency = col.fee_currency.n_unique() == 1
    only_currency = pl.when(is_one_currency).then(col.fee_currency.first())
    sums = evidence.group_by("row").agg(
        sum_if_known(col.fees),
        sum_if_known(col.paid),
        sum_if_known(col.moved),
        col.multiplier.first(),
        fee_currency=only_currency,
    )
    price = col.paid / col.moved
    money = sums.select("row", "multiplier", "fees", "fee_currency", price=price)
    joined = rows.join(money, on="row", how="left", maintain_order="left")
    return joined.drop("row")


def lots_of(closes: pl.DataFrame, changes: pl.DataFrame, legs: pl.DataFrame) -> list[DeliveredLot]:
    """Return what assignments and exercises left to strategies, also what is gone since.

    Args:
        closes: Rows of `closures` with strategies (a list, or null), is_divided, before,
            average_cost, magnifier, and the multiplier, price, fees and fee_currency of movements.
        changes: Changes of quantities: account, conid, seen_at, before, after, average_cost.
        legs: The legs of strategies: strategy_id and conid.
    """
    is_delivery = col.cause.is_in(DELIVERED)
    is_option = col.right.is_not_null()
    deliveries = closes.filter(is_delivery, is_option).explode("strategies")
    given = deliveries.drop_nulls(["strategies", "counter_conid"]).sort("closed_at")

    delivered = given["counter_conid"].unique().to_list()
    is_left = col.conid.is_in(delivered)
    closes_of_lots = closes.filter(is_left, ~is_delivery)
    changes_of_lots = changes.filter(is_left)

    lots = []
    key = ["strategies", "account", "counter_conid", "currency"]
    for _key, options in given.group_by(key, maintain_order=True):
        first = options.row(0, named=True)
        lot = _first_lot(first)
        if not legs.filter(strategy_id=lot.strategy_id, conid=lot.conid).is_empty():
            moved = changes_of_lots.filter(lot.is_here)
            lot.quantity, lot.cost = _start(first, moved)
            lot.realised = None if lot.quantity is None else 0.0

        later = closes_of_lots.filter(lot.is_here, col.closed_at >= lot.first)
        events = options.rows(named=True) + later.rows(named=True)
        events.sort(key=itemgetter("closed_at"))
        for event in events:
            if lot.quantity is not None:
                _apply(event, lot)
        lots.append(lot)
    return lots


def _first_lot(option: Row) -> DeliveredLot:
    """Return what an option leaves to a strategy, before it is delivered."""
    is_on_future = option["sec_type"] == "FOP"
    return DeliveredLot(
        strategy_id=option["strategies"],
        account=option["account"],
        conid=option["counter_conid"],
        currency=option["currency"],
        first=option["closed_at"],
        size=option["multiplier"] if is_on_future else 1.0,
    )


def _apply(event: Row, lot: DeliveredLot) -> None:
    """Change what is left by a delivery, or by a close of the contract."""
    if event["conid"] != lot.conid:
        _deliver(event, lot)
        return

    by = _traded(event, lot)
    if by == 0:
        return
    if by is None or event["price"] is None:
        lot.lose_track()
        return

    part = abs(by / event["quantity"])
    fees = None if event["fees"] is None else event["fees"] * part
    charged_in = event["fee_currency"]
    if fees and charged_in is not None and charged_in != lot.currency:
        earlier = lot.other_fees.get(charged_in, 0.0)
        lot.other_fees[charged_in] = earlier + fees
        fees = 0.0
    lot.trade(by, event["price"], fees)


def _deliver(option: Row, lot: DeliveredLot) -> None:
    """Add what an option left, at its strike in the major unit; the broker charges no fee."""
    units = None if option["is_divided"] else _units(option)
    strike = option["strike"]
    magnifier = option["magnifier"]
    if units is None or strike is None or magnifier is None:
        lot.lose_track()
    else:
        lot.trade(units, strike / magnifier, 0.0)


def _units(option: Row) -> float | None:
    """Return what an option delivered; None if its multiplier is not known."""
    # An option on a future leaves one future.
    each = 1.0 if option["sec_type"] == "FOP" else option["multiplier"]
    if each is None:
        return None
    side = 1.0 if option["right"] == "CALL" else -1.0
    return float(option["quantity"] * each * side)


def _start(option: Row, moved: pl.DataFrame) -> tuple[float | None, float]:
    """Return what a strategy had of a contract that is a leg of it, before the first delivery."""
    units = _units(option)
    if units is None:
        return None, 0.0

    distance = (col.seen_at - option["closed_at"]).abs()
    change = col.after - col.before
    is_same = (change - units).abs() < QUANTITY_ROUNDING
    nearest = moved.filter(distance <= SOON, is_same).sort(distance)
    if nearest.is_empty():
        return None, 0.0

    before, cost = nearest.select("before", "average_cost").row(0)
    if not before:
        return 0.0, 0.0  # nothing was held, and nothing has a cost
    if cost is None:
        return None, 0.0
    return before, cost


def _traded(close: Row, lot: DeliveredLot) -> float | None:
    """Return by how much a close changed what is left; None: it is not known whose it was."""
    remaining = lot.quantity or 0.0
    closed = float(close["quantity"])
    if remaining * closed <= 0:
        return 0.0
    if lot.strategy_id in (close["strategies"] or ()) and not close["is_divided"]:
        return -closed
    if close["before"] is None:
        return None

    held = abs(close["before"]) - QUANTITY_ROUNDING
    if abs(remaining) >= held:
        return -closed
    return None if abs(closed) < held else -remaining


def _realised(closes: pl.DataFrame, lots: Sequence[DeliveredLot]) -> dict[_Key, float | None]:
    """Return the realised profit of strategies, without their lots; None where it is not known."""
    is_divided = col.is_divided.fill_null(value=False)
    by_delivery = col.cause.is_in(DELIVERED) & col.right.is_not_null()
    premium = -col.quantity * col.average_cost
    profit = (
        pl.when(is_divided).then(None)
        .when(~by_delivery).then("realized_pnl")
        .when(col.counter_conid.is_not_null()).then(premium)
    )  # fmt: skip
    rows = closes.with_columns(profit=profit).explode("strategies").drop_nulls("strategies")

    # What lots have realised is in them.
    key = ["strategies", "account", "conid"]
    first_of_lots = [(lot.strategy_id, lot.account, lot.conid, lot.first) for lot in lots]
    since = pl.DataFrame(first_of_lots, schema=_FIRST_OF_LOTS, orient="row").unique(key)
    with_first = rows.join(since, on=key, how="left")
    is_of_no_lot = col.first.is_null()
    is_before = col.closed_at < col.first
    is_delivery = col.cause.is_in(DELIVERED)
    outside_lots = with_first.filter(is_of_no_lot | (is_before & ~is_delivery))

    sums = outside_lots.group_by("strategies", "currency").agg(sum_if_known(col.profit))
    return {(strategy, currency): profit for strategy, currency, profit in sums.iter_rows()}


_FIRST_OF_LOTS = {
    "strategies": pl.String(),
    "account": pl.String(),
    "conid": pl.Int64(),
    "first": pl.Datetime("us", "UTC"),
}


def _fees_of_legs(
    movements: pl.DataFrame, changes: pl.DataFrame, legs: pl.DataFrame
) -> dict[_Key, dict[str | None, float | None]]:
    """Return the fees of the contracts of legs, from when their holding was opened.

    They are not known where several strategies had the contract, or all of them a part of it.

    Returns:
        By strategy and currency of the contract: the fees by their own currency.
    """
    key = ["account", "conid"]
    trades = _trades_of_legs(movements, changes, legs)
    held = pl.max_horizontal(pl.col("before", "after").abs())
    most = changes.group_by(key).agg(most=held.max())

    # A leg without a quantity claims the whole holding.
    claim_of_leg = col.quantity_leg.abs().fill_null(math.inf)
    claim = claim_of_leg.sum().over("trade")
    # Of a contract that no change names nothing was held at most.
    whole = col.most.fill_null(0.0)
    is_whole = claim >= whole * (1 - NEGLIGIBLE)
    is_alone = col.strategy_id.n_unique().over("trade") == 1

    known_fees = pl.when(is_whole & is_alone).then(-col.fee)
    with_fees = trades.join(most, on=key, how="left").with_columns(fees=known_fees)
    of_strategies = with_fees.unique(["trade", "strategy_id"])
    groups = of_strategies.group_by("strategy_id", "currency", "fee_currency")
    sums = groups.agg(sum_if_known(col.fees))

    fees: defaultdict[_Key, dict[str | None, float | None]] = defaultdict(dict)
    for strategy, currency, fee_currency, amount in sums.iter_rows():
        fees[strategy, currency][fee_currency] = amount
    return fees


def _trades_of_legs(
    movements: pl.DataFrame, changes: pl.DataFrame, legs: pl.DataFrame
) -> pl.DataFrame:
    """Return the trades of each leg's contract, from when its holding was opened.

    Returns:
        A row for each trade (its number is `trade`) and leg.
    """
    # A statement without times names the day of a trade alone.
    began = col.day.cast(pl.Datetime("us", "UTC"))
    trades = movements.filter(kind=MovementKind.TRADE.value)
    with_time = trades.with_columns(at=pl.coalesce("at", began))
    numbered = with_time.with_row_index("trade")

    of_leg = ["conid", "account", "strategy_id", "added_at", "removed_at", "quantity"]
    with_legs = numbered.join(legs.select(of_leg), on="conid", suffix="_leg")
    account_of_leg = col.account_leg
    is_of_account = account_of_leg.is_null() | (account_of_leg == col.account)
    of_strategies = with_legs.filter(is_of_account)

    opened = changes.filter(before=0)
    openings = opened.select("account", "conid", opened_at="seen_at").sort("opened_at")
    until = col.added_at + SLACK
    in_order = of_strategies.with_columns(until=until).sort("until")
    with_opening = in_order.join_asof(
        openings,
        left_on="until",
        right_on="opened_at",
        by=["account", "conid"],
        check_sortedness=False,
    )

    at = col.at
    removed = col.removed_at
    is_since_opening = at >= pl.coalesce("opened_at", "added_at") - SLACK
    is_while_leg = removed.is_null() | (at <= removed)
    return with_opening.filter(is_since_opening, is_while_leg)


def open_profit(
    lots: Iterable[DeliveredLot], parts: pl.DataFrame, priced: pl.DataFrame
) -> float | None:
    """Return the profit of what is open of a strategy in one currency, with its lots.

    Args:
        lots: The lots of the strategy.
        parts: Its parts of holdings: account, conid, position, share and unrealized_pnl.
        priced: All holdings: account, conid, position and market_value.
    """
    profit = 0.0
    for lot in lots:
        of_leg = parts.filter(lot.is_here)
        parts = parts.filter(~lot.is_here)
        if lot.quantity is None or lot.size is None:
            return None

        quantity = (col.position * col.share).sum()
        held = of_leg.select(quantity).item()
        is_other_quantity = abs(held - lot.quantity) > QUANTITY_ROUNDING
        if not of_leg.is_empty() and is_other_quantity:
            return None

        earned = _earned(lot, priced)
        if earned is None:
            return None
        profit += earned

    unrealized = parts["unrealized_pnl"]
    return None if unrealized.null_count() else profit + float(unrealized.sum())


def _earned(lot: DeliveredLot, priced: pl.DataFrame) -> float | None:
    """Return the profit of what is left of a lot; None if it is not held, or has no value."""
    if lot.size is None:
        return None
    if not lot.quantity:
        return 0.0

    is_enough = col.position / lot.quantity >= 1 - QUANTITY_ROUNDING
    held = priced.filter(lot.is_here, is_enough)
    if held.is_empty():
        return None

    position, value = held.select("position", "market_value").row(0)
    if value is None:
        return None
    value_of_one = value / position
    cost_of_one = lot.size * lot.cost
    return float(lot.quantity * (value_of_one - cost_of_one))
