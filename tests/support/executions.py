"""Trades of a day as a gateway reports them: fills of the client, read as our gateway does.

A row of `executions` has what the message says and the record keeps, and nothing else.
"""

from collections.abc import Iterable
from datetime import datetime

from ib_async import CommissionReport, Contract, Fill
from ib_async import Execution as IBExecution

from position_sync_dagster.domain.exchange_time import NEW_YORK
from position_sync_dagster.domain.execution import Execution
from position_sync_dagster.domain.instrument import ContractDetails, Instrument
from position_sync_dagster.gateway.connection import execution_of
from position_sync_dagster.money.past.movement_sources import Terms, reported_movement
from position_sync_dagster.money.past.movements import Movement
from tests.support.contracts import contract_details


def executed(
    instrument: Instrument,
    quantity: float,
    price: float,
    at: datetime,
    *,
    account: str,
    profit: float | None = None,
    commission: float | None = 1.0,
    order_id: int = 71,
) -> Execution:
    """Return a fill of an order as our gateway reads it.

    Args:
        commission: None: its report has not come.
        order_id: 0: none.
    """
    right = "" if instrument.right is None else instrument.right[0]
    expiry = f"{instrument.expiry:%Y%m%d}" if instrument.expiry else ""
    contract = Contract(
        conId=instrument.conid, symbol=instrument.symbol, secType=instrument.sec_type,
        currency=instrument.currency, multiplier=f"{instrument.multiplier or ''}",
        right=right, strike=instrument.strike or 0.0, lastTradeDateOrContractMonth=expiry,
    )  # fmt: skip
    done = IBExecution(
        execId=f"{instrument.conid}.{at:%d%H%M}.{quantity:g}.{order_id}", time=at,
        acctNumber=account, side="BOT" if quantity > 0 else "SLD", shares=abs(quantity),
        price=price, permId=order_id,
    )  # fmt: skip
    report = CommissionReport()
    if commission is not None:
        report = CommissionReport(
            execId=done.execId, commission=commission, currency="USD", realizedPNL=profit or 0.0
        )
    return execution_of(Fill(contract, done, report, at), report, at)


def details_of(instrument: Instrument) -> ContractDetails:
    """Return what the table `contracts` has of an instrument."""
    return contract_details(
        instrument.conid, symbol=instrument.symbol, sec_type=instrument.sec_type,
        currency=instrument.currency, multiplier=instrument.multiplier, right=instrument.right,
        strike=instrument.strike, last_trade_date=instrument.expiry, expires_on=instrument.expiry,
    )  # fmt: skip


def reported(execution: Execution, instruments: Iterable[Instrument] = ()) -> Movement:
    """Return the movement of an execution, beside the details of contracts that are known."""
    details = {instrument.conid: details_of(instrument) for instrument in instruments}
    terms = Terms(session_of=lambda day: day, zone=NEW_YORK, details=details)
    return reported_movement(execution, terms)
