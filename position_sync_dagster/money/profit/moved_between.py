"""What moved each holding between two closes; pure.

The rows of a statement have the quantities of the end of its day, our own those of the close.
"""

from datetime import date, datetime
from typing import NamedTuple

from polars import DataFrame, coalesce, col, concat, lit, when

from position_sync_dagster.domain.holding import KEY
from position_sync_dagster.domain.instrument import OPTION_TYPES
from position_sync_dagster.lake.schema import one_of
from position_sync_dagster.money.past.closes import FLEX
from position_sync_dagster.money.past.movements import ENDS, INCOME, OWNERS_CASH, MovementKind
from position_sync_dagster.settings import Settings

# Cash alone, and currencies: of these, only the fee belongs to a holding.
_OF_NO_HOLDING = {*INCOME, *OWNERS_CASH, MovementKind.CONVERSION}


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


class MovedBetween(NamedTuple):
    """What moved holdings between two closes.

    Attributes:
        moved: What moved each holding, and fees of what is not followed.
        included: The movements of holdings with `before_start` and `before_end`: a movement is
            before an end if the quantity of that end has it.
        followed: The movements of these holdings, and of cash.
    """

    moved: DataFrame
    included: DataFrame
    followed: DataFrame


def movements_between(
    movements: DataFrame,
    start: DataFrame,
    end: DataFrame,
    trading_day: TradingDay,
    settings: Settings,
) -> MovedBetween:
    """Return what moved holdings between two closes; pure.

    Args:
        movements: Rows of `movements`.
        start: The holdings at the close before.
        end: Those at the close.
        trading_day: The days and times of both closes.
        settings: Says which types of holdings are followed.
    """
    elsewhere = _not_followed(movements, start, end, settings)
    followed = movements.join(elsewhere, on="movement_id", how="anti")
    included = _of_contracts(followed)
    included = _included(included, start, trading_day.before, trading_day.since, "start")
    included = _included(included, end, trading_day.day, trading_day.closed, "end")
    moved = included.filter(col.before_end & ~col.before_start)
    moved = with_values_in_kind(moved, start, end)

    # What is not followed, and one currency for another, is in no profit; their fees are.
    fees_alone = concat([_of_contracts(elsewhere), movements.filter(kind=MovementKind.CONVERSION)])
    fees_alone = fees_alone.filter(session_date=trading_day.day)
    # Without its currency a commission is not known: it leaves the trade's currency unknown.
    fees_alone = fees_alone.with_columns(
        kind=lit(MovementKind.TRADE),
        currency=coalesce("fee_currency", "currency"),
        quantity=0.0,
        cash=0.0,
    )
    moved = concat([moved.select(movements.columns), fees_alone])
    return MovedBetween(moved, included, followed)


def with_values_in_kind(movements: DataFrame, start: DataFrame, end: DataFrame) -> DataFrame:
    """Return movements of holdings where a transfer has a value; one without counts at the mark.

    The mark is that of the close, or where nothing is left, that of the close before. It is one in
    all accounts: what a transfer takes from one of them is what it brings to another.

    Args:
        movements: Rows of `movements`.
        start: The holdings of all accounts at the close before.
        end: Those at the close.
    """
    is_held = (col.position != 0) & col.market_value.is_not_null()
    unit = (col.market_value / col.position).alias("mark")
    held = [rows.filter(is_held).sort("account").select("conid", unit) for rows in (end, start)]
    marks = concat(held).unique("conid", keep="first", maintain_order=True)
    marked = movements.join(marks, on="conid", how="left", maintain_order="left")
    at_mark = when(kind=MovementKind.TRANSFER).then(col.quantity * col.mark)
    return marked.with_columns(value=coalesce("value", at_mark)).drop("mark")


def _of_contracts(movements: DataFrame) -> DataFrame:
    return movements.drop_nulls("conid").filter(~col.kind.is_in(_OF_NO_HOLDING))


def _not_followed(
    movements: DataFrame, start: DataFrame, end: DataFrame, settings: Settings
) -> DataFrame:
    """Return the movements of contracts that have no value at either end: they are in no profit.

    What such a contract pays is none either: the coupon of a bond whose price is not followed.
    """
    held = concat([start.select(KEY), end.select(KEY)])
    not_held = movements.join(held, on=KEY, how="anti").drop_nulls("conid")
    return not_held.filter(~one_of("sec_type", settings.sec_types))


def _included(
    movements: DataFrame, rows: DataFrame, session: date, closed: datetime, end: str
) -> DataFrame:
    """Return movements with `before_…`: whether the quantities of an end have them.

    Args:
        rows: The holdings at that end.
        session: The trading day of the end.
        closed: Its close.
        end: The name of the end: start or end.
    """
    is_stated = col.source == FLEX
    of_holdings = rows.select(*KEY, "position", is_stated=is_stated).unique(KEY)
    of_accounts = rows.group_by("account").agg(is_stated_account=is_stated.all())
    movements = movements.join(of_holdings, on=KEY, how="left")
    movements = movements.join(of_accounts, on="account", how="left")

    # Without its time, what ends no option was before the close: ends are booked in the night.
    is_end = col.kind.is_in(ENDS)
    is_until_day = col.day <= session
    by_day = when(is_end).then(col.day < session).otherwise(is_until_day)
    by_time = coalesce(col.at <= closed, by_day)
    # What settles in the morning may be gone at the close, and be booked in the evening.
    is_gone = is_end & one_of("sec_type", OPTION_TYPES) & (col.position.fill_null(0.0) == 0)
    by_time = when(is_gone).then(is_until_day).otherwise(by_time)

    is_of_statement = coalesce("is_stated", "is_stated_account")
    had_rows = col.is_stated_account.is_not_null()
    by_rows = when(is_of_statement).then(is_until_day).when(had_rows).then(by_time)
    is_before = by_rows.otherwise(col.session_date <= session)
    movements = movements.with_columns(is_before.alias(f"before_{end}"))
    return movements.drop("position", "is_stated", "is_stated_account")
