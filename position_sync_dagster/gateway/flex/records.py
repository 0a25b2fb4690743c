"""The records of a statement: one element, one value."""

import math

from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.domain.records.statement import (
    FLEX,
    Execution,
    Side,
    StatementCash,
    StatementPosition,
)
from position_sync_dagster.gateway.flex.fields import Fields

_RIGHTS = {"C": Right.CALL, "CALL": Right.CALL, "P": Right.PUT, "PUT": Right.PUT}
_DETAIL = {None, "SUMMARY"}
_EXECUTION = {None, "EXECUTION"}


def position_of(fields: Fields) -> StatementPosition | None:
    """Return an OpenPosition; None for a lot, which its summary includes.

    Raises:
        StatementError: A field is missing or cannot be read.
    """
    if fields.text("levelOfDetail") not in _DETAIL:
        return None
    quantity = fields.required_number("position")
    cost = fields.number("costBasisMoney")
    multiplier = fields.number("multiplier") or 1.0
    price = fields.number("costBasisPrice")
    average = price * multiplier if price is not None else None
    if cost is not None and quantity:
        average = abs(cost / quantity)
    return StatementPosition(
        account=fields.required("accountId"),
        day=fields.own_day("reportDate"),
        conid=fields.conid(),
        symbol=fields.text("underlyingSymbol") or fields.required("symbol"),
        sec_type=fields.text("assetCategory") or "OPT",
        right=_RIGHTS.get((fields.text("putCall") or "").upper()),
        strike=fields.number("strike"),
        expiry=fields.expiry(),
        multiplier=multiplier,
        currency=fields.required("currency"),
        local_symbol=fields.text("symbol"),
        position=quantity,
        market_price=fields.number("markPrice"),
        market_value=fields.number("positionValue"),
        average_cost=average if average is not None and math.isfinite(average) else None,
        unrealized_pnl=fields.number("fifoPnlUnrealized"),
    )


def execution_of(fields: Fields) -> Execution | None:
    """Return a Trade; None for a sum over several, which is no execution.

    An exercise, an assignment and an expiry have no `ibExecID`: their `tradeID` or
    `transactionID` names them.

    Raises:
        StatementError: A field is missing or cannot be read.
    """
    if fields.text("levelOfDetail") not in _EXECUTION:
        return None
    quantity = fields.required_number("quantity")
    commission = fields.number("ibCommission")
    own_id = fields.text("ibExecID") or fields.text("tradeID")
    return Execution(
        execution_id=own_id or fields.required("transactionID"),
        account=fields.required("accountId"),
        conid=fields.conid(),
        symbol=fields.text("underlyingSymbol") or fields.required("symbol"),
        sec_type=fields.text("assetCategory") or "OPT",
        time=fields.moment("dateTime" if fields.text("dateTime") else "tradeDate"),
        side=Side.SELL if quantity < 0 else Side.BUY,
        quantity=abs(quantity),
        price=fields.number("tradePrice"),
        commission=None if commission is None else 0.0 - commission,
        commission_currency=fields.text("ibCommissionCurrency"),
        realized_pnl=fields.number("fifoPnlRealized"),
        currency=fields.required("currency"),
        source=FLEX,
        statement=fields.file,
    )


def cash_of(fields: Fields) -> StatementCash:
    """Return net liquidation and cash of an account in its base currency.

    Raises:
        StatementError: A field is missing or cannot be read.
    """
    return StatementCash(
        account=fields.required("accountId"),
        day=fields.own_day("reportDate"),
        currency=fields.text("currency"),
        net_liquidation=fields.number("total"),
        cash=fields.number("cash"),
    )
