"""What moved each holding between two closes; pure.

The rows of a statement have the quantities of the end of its day, our own those of the close.
"""

from datetime import date, datetime, timedelta
from typing import NamedTuple

import polars as pl
from polars import col

from position_sync_dagster.domain.execution import FLEX
from position_sync_dagster.domain.holding import KEY, QUANTITY_ROUNDING
from position_sync_dagster.money.past.movements import INCOME, OWNERS_CASH, MovementKind
from position_sync_dagster.settings import Settings

# How near to the close a trade may be whose quantity our last row has, or has not.
NEAR = timedelta(minutes=20)

# Cash alone, and currencies: of these, only the fee belongs to a holding.
_OF_NO_HOLDING = {*INCOME, *OWNERS_CASH, MovementKind.CONVERSION}


# A trading day and its close.
_Close = tuple[date, datetime]


class MovedBetween(NamedTuple):
    """What moved holdings between two closes.

    Attributes:
        moved: What moved each holding, and fees of what is not followed.
        included: The movements of holdings with `before_start` and `before_end`: a movement is
            before an end if the quantity of that end has it.
        followed: The movements of these holdings, and of cash.
    """

    moved: pl.DataFrame
    included: pl.DataFrame
    followed: pl.DataFrame


def movements_between(
    movements: pl.DataFrame,
    start: pl.DataFrame,
    end: pl.DataFrame,
    opening: _Close,
    closing: _Close,
    settings: Settings,
) -> MovedBetween:
    """Return what moved holdings between two closes; pure.

    Args:
        movements: Rows of `movements`.
        start: The holdings at the close before.
        end: Those at the close.
        opening: The trading day of the close before, and its time.
        closing: The same of the close.
        settings: Says which types of holdings are followed.
    """
    elsewhere = _not_followed(movements, start, end, settings)
    followed = movements.join(elsewhere, on="movement_id", how="anti")
    at_start = _included(_of_contracts(followed), start, opening, "start")
    included = _as_quantities_say(_included(at_start, end, closing, "end"), start, end)
    moved = included.filter(col.before_end & ~col.before_start)

    # What is not followed, and one currency for another, is in no profit; their fees are.
    conversions = movements.filter(kind=MovementKind.CONVERSION)
    without_value = pl.concat([_of_contracts(elsewhere), conversions])
    with_fees_alone = without_value.filter(session_date=closing[0])
    # Without its currency a commission is not known: it leaves the trade's currency unknown.
    fees_alone = with_fees_alone.with_columns(
        kind=pl.lit(MovementKind.TRADE),
        currency=pl.coalesce("fee_currency", "currency"),
        quantity=0.0,
        cash=0.0,
    )
    every_move = pl.concat([moved.select(movements.columns), fees_alone])
    return MovedBetween(every_move, included, followed)


def _of_contracts(movements: pl.DataFrame) -> pl.DataFrame:
    return movements.drop_nulls("conid").filter(~col.kind.is_in(_OF_NO_HOLDING))


def _not_followed(
    movements: pl.DataFrame, start: pl.DataFrame, end: pl.DataFrame, settings: Settings
) -> pl.DataFrame:
    """Return the movements of contracts that have no value at either end: they are in no profit.

    What such a contract pays is none either: the coupon of a bond whose price is not followed.
    """
    held = pl.concat([start.select(KEY), end.select(KEY)])
    is_followed = col.sec_type.is_in(list(settings.sec_types))
    return movements.join(held, on=KEY, how="anti").drop_nulls("conid").filter(~is_followed)


def _included(movements: pl.DataFrame, rows: pl.DataFrame, close: _Close, end: str) -> pl.DataFrame:
    """Return movements with `before_…`: whether the quantities of an end have them.

    Also with `near_…`: whether that is not certain, since our own rows are a little older than the
    close, and not every booking has a time.

    Args:
        rows: The holdings at that end.
        close: The trading day of the end, and its time.
        end: The name of the end: start or end.
    """
    session, closed = close
    is_stated = col.source == FLEX
    of_holdings = rows.select(*KEY, is_stated=is_stated).unique(KEY)
    of_accounts = rows.group_by("account").agg(is_stated_account=is_stated.all())
    with_holdings = movements.join(of_holdings, on=KEY, how="left")
    joined = with_holdings.join(of_accounts, on="account", how="left")

    # Without its time, a trade was made before the close, and a booking after it.
    is_trade = col.kind == MovementKind.TRADE
    is_until_day = col.day <= session
    is_earlier_day = col.day < session
    by_day = pl.when(is_trade).then(is_until_day).otherwise(is_earlier_day)
    by_time = pl.coalesce(col.at <= closed, by_day)

    is_of_statement = pl.coalesce("is_stated", "is_stated_account")
    had_rows = col.is_stated_account.is_not_null()
    by_session = col.session_date <= session
    without_statement = pl.when(had_rows).then(by_time).otherwise(by_session)
    is_before = pl.when(is_of_statement).then(is_until_day).otherwise(without_statement)

    near_close = col.at.is_between(closed - NEAR, closed + NEAR)
    is_near = ~is_of_statement & pl.coalesce(near_close, col.day == session)
    is_uncertain = is_near.fill_null(value=False)  # the account had nothing then
    at_end = {f"before_{end}": is_before, f"near_{end}": is_uncertain}
    return joined.with_columns(**at_end).drop("is_stated", "is_stated_account")


def _as_quantities_say(
    included: pl.DataFrame, start: pl.DataFrame, end: pl.DataFrame
) -> pl.DataFrame:
    """Return movements where those near a close are before it or after it as the quantities say."""
    turned = _turned(_sums_near(included), _changes(start, end))
    joined = included.join(turned, on=KEY, how="left")
    before_end = col.before_end ^ (col.near_end & col.turn_end)
    before_start = col.before_start ^ (col.near_start & col.turn_start)
    return joined.with_columns(before_end=before_end, before_start=before_start)


def _changes(start: pl.DataFrame, end: pl.DataFrame) -> pl.DataFrame:
    """Return by how much each holding changed between two ends."""
    first = start.select(*KEY, first="position")
    held = first.join(end.select(*KEY, last="position"), on=KEY, how="full", coalesce=True)
    # A holding without a row at one end was not held then.
    change = col.last.fill_null(0.0) - col.first.fill_null(0.0)
    return held.select(*KEY, change=change)


def _sums_near(included: pl.DataFrame) -> pl.DataFrame:
    """Return what moved each holding, and by how much that would differ if one end were turned."""
    moved = col.quantity.filter(col.before_end & ~col.before_start).sum()

    at_end = col.near_end & ~col.before_start
    opposite = -col.quantity
    if_end_turned = pl.when("before_end").then(opposite).otherwise("quantity")
    by_end = if_end_turned.filter(at_end).sum()

    at_start = col.near_start & col.before_end
    if_start_turned = pl.when("before_start").then("quantity").otherwise(opposite)
    by_start = if_start_turned.filter(at_start).sum()
    return included.group_by(KEY).agg(moved=moved, by_end=by_end, by_start=by_start)


def _turned(sums: pl.DataFrame, changes: pl.DataFrame) -> pl.DataFrame:
    """Return at which end what is near it must be turned, so that the quantities are explained."""
    joined = sums.join(changes, on=KEY, how="left")
    # What was held at neither end did not change.
    missing = col.change.fill_null(0.0) - col.moved
    is_missing = missing.abs() > QUANTITY_ROUNDING

    fits_end = _fits(missing, col.by_end)
    fits_start = _fits(missing, col.by_start)
    fits_both = _fits(missing, col.by_end + col.by_start)
    turn_end = fits_end | (fits_both & ~fits_start)
    turn_start = ~fits_end & (fits_start | fits_both)
    return joined.select(*KEY, turn_end=is_missing & turn_end, turn_start=is_missing & turn_start)


def _fits(missing: pl.Expr, quantity: pl.Expr) -> pl.Expr:
    """Return whether a quantity is what is missing."""
    return (missing - quantity).abs() < QUANTITY_ROUNDING
