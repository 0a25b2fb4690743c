"""What moved each holding between two closes; pure.

The rows of a statement have the quantities of the end of its day, our own those of the close.
"""

from datetime import date, datetime, timedelta

import polars as pl

from position_sync_dagster.domain.closes import FLEX
from position_sync_dagster.domain.holding import KEY, QUANTITY_ROUNDING
from position_sync_dagster.domain.movements import INCOME, OWNERS_CASH, MovementKind
from position_sync_dagster.settings import Settings

# How near to the close a trade may be whose quantity our last row has, or has not.
NEAR = timedelta(minutes=20)

# Cash alone, and currencies: of these, only the fee belongs to a holding.
_OF_NO_HOLDING = [kind.value for kind in (*INCOME, *OWNERS_CASH, MovementKind.CONVERSION)]


# A trading day and its close.
_Close = tuple[date, datetime]


def movements_between(
    movements: pl.DataFrame,
    start: pl.DataFrame,
    end: pl.DataFrame,
    opening: _Close,
    closing: _Close,
    settings: Settings,
) -> pl.DataFrame:
    """Return what moved each holding between two closes; pure.

    The rows of a statement have the quantities of the end of its day, our own those of the close. A
    movement is before an end if the quantity of that end has it.

    Args:
        movements: Rows of `movements`.
        start: The holdings at the close before.
        end: Those at the close.
        opening: The trading day of the close before, and its time.
        closing: The same of the close.
        settings: Says which types of holdings are followed.
    """
    held = pl.concat([start.select(KEY), end.select(KEY)]).unique()
    is_followed = pl.col("sec_type").is_in(list(settings.sec_types))
    of_holdings = movements.drop_nulls("conid").filter(~pl.col("kind").is_in(_OF_NO_HOLDING))
    of_others = of_holdings.join(held, on=KEY, how="anti").filter(~is_followed)
    of_holdings = of_holdings.join(of_others.select("movement_id"), on="movement_id", how="anti")

    included = _included(of_holdings, start, opening, "start")
    included = _included(included, end, closing, "end")
    included = _as_quantities_say(included, start, end)
    moved = included.filter(pl.col("before_end") & ~pl.col("before_start"))

    # What is not followed, and one currency for another, is in no profit; their fees are.
    conversions = movements.filter(kind=MovementKind.CONVERSION.value)
    fees_alone = pl.concat([of_others, conversions]).filter(session_date=closing[0])
    fees_alone = fees_alone.with_columns(
        kind=pl.lit(MovementKind.TRADE.value),
        # Without its currency a commission is not known: it leaves the trade's currency unknown.
        currency=pl.coalesce("fee_currency", "currency"),
        quantity=0.0,
        cash=0.0,
    )
    return pl.concat([moved.select(movements.columns), fees_alone.select(movements.columns)])


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
    is_stated = pl.col("source") == FLEX
    of_holdings = rows.select(*KEY, is_stated=is_stated).unique(KEY)
    of_accounts = rows.group_by("account").agg(is_stated_account=is_stated.all())
    joined = movements.join(of_holdings, on=KEY, how="left").join(
        of_accounts, on="account", how="left"
    )

    # Without its time, a trade was made before the close, and a booking after it.
    is_trade = pl.col("kind") == MovementKind.TRADE.value
    by_day = pl.when(is_trade).then(pl.col("day") <= session).otherwise(pl.col("day") < session)
    at_close = pl.when(pl.col("at").is_null()).then(by_day).otherwise(pl.col("at") <= closed)
    is_before = (
        pl.when(pl.coalesce("is_stated", "is_stated_account"))
        .then(pl.col("day") <= session)
        .when(pl.col("is_stated_account").is_not_null())
        .then(at_close)
        .otherwise(pl.col("session_date") <= session)  # the account had nothing then
    )
    is_own = ~pl.coalesce("is_stated", "is_stated_account")
    near_close = pl.col("at").is_between(closed - NEAR, closed + NEAR)
    is_near = is_own & pl.when(pl.col("at").is_null()).then(pl.col("day") == session).otherwise(
        near_close
    )
    return joined.with_columns(
        is_before.alias(f"before_{end}"),
        is_near.fill_null(value=False).alias(f"near_{end}"),  # the account had nothing then
    ).drop("is_stated", "is_stated_account")


def _as_quantities_say(
    included: pl.DataFrame, start: pl.DataFrame, end: pl.DataFrame
) -> pl.DataFrame:
    """Return movements where those near a close are before it or after it as the quantities say."""
    turned = _turned(_sums_near(included), _changes(start, end))
    before_start = pl.col("before_start")
    before_end = pl.col("before_end")
    return included.join(turned, on=KEY, how="left").with_columns(
        before_end=before_end ^ (pl.col("near_end") & pl.col("turn_end")),
        before_start=before_start ^ (pl.col("near_start") & pl.col("turn_start")),
    )


def _changes(start: pl.DataFrame, end: pl.DataFrame) -> pl.DataFrame:
    """Return by how much each holding changed between two ends."""
    first = start.select(*KEY, first="position")
    last = end.select(*KEY, last="position")
    held = first.join(last, on=KEY, how="full", coalesce=True)
    # A holding without a row at one end was not held then.
    change = pl.col("last").fill_null(0.0) - pl.col("first").fill_null(0.0)
    return held.select(*KEY, change=change)


def _sums_near(included: pl.DataFrame) -> pl.DataFrame:
    """Return what moved each holding, and by how much that would differ if one end were turned."""
    quantity = pl.col("quantity")
    before_start = pl.col("before_start")
    before_end = pl.col("before_end")

    at_end = pl.col("near_end") & ~before_start
    at_start = pl.col("near_start") & before_end
    if_end_turned = pl.when(before_end).then(-quantity).otherwise(quantity)
    if_start_turned = pl.when(before_start).then(quantity).otherwise(-quantity)
    return included.group_by(KEY).agg(
        moved=quantity.filter(before_end & ~before_start).sum(),
        by_end=if_end_turned.filter(at_end).sum(),
        by_start=if_start_turned.filter(at_start).sum(),
    )


def _turned(sums: pl.DataFrame, changes: pl.DataFrame) -> pl.DataFrame:
    """Return at which end what is near it must be turned, so that the quantities are explained."""
    joined = sums.join(changes, on=KEY, how="left")
    # What was held at neither end did not change.
    missing = pl.col("change").fill_null(0.0) - pl.col("moved")
    by_both = pl.col("by_end") + pl.col("by_start")

    is_missing = missing.abs() > QUANTITY_ROUNDING
    fits_end = (missing - pl.col("by_end")).abs() < QUANTITY_ROUNDING
    fits_start = (missing - pl.col("by_start")).abs() < QUANTITY_ROUNDING
    fits_both = (missing - by_both).abs() < QUANTITY_ROUNDING
    return joined.select(
        *KEY,
        turn_end=is_missing & (fits_end | (fits_both & ~fits_start)),
        turn_start=is_missing & ~fits_end & (fits_start | fits_both),
    )
