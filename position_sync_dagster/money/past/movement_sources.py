"""Movements as executions of gateways and causes of closes say them; pure.

A multiplier, a unit and an amount are read from their source; what it does not say stays unknown.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, tzinfo
from typing import Any

from position_sync_dagster.domain.exchange_time import exchange_date
from position_sync_dagster.domain.execution import Execution
from position_sync_dagster.domain.instrument import (
    ContractDetails,
    Right,
)
from position_sync_dagster.money.magnifiers import in_major_unit, magnifier_of
from position_sync_dagster.money.past.causes import CAUSE_OF, EVENING
from position_sync_dagster.money.past.closes import Closure
from position_sync_dagster.money.past.movements import (
    CONTRACT,
    DELIVERY_KINDS,
    ENDS,
    Movement,
    MovementKind,
    MovementSource,
    Section,
    movement_of,
    times,
)
from position_sync_dagster.money.trading_days import settles_in_cash

# One unit of these is one of what it names: the broker leaves the multiplier empty.
SINGLE_TYPES = frozenset({"STK", "CASH", "IND"})

# The price of these is in percent of the face value, which is the quantity of a statement.
# Source: IB, "Flex Queries", bonds; TWS API, "Bonds".
PERCENT_TYPES = frozenset({"BOND", "BILL"})

# What a cause says of how an option ended.
INFERRED_CAUSES = {CAUSE_OF[kind]: kind for kind in ENDS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is known of contracts beside what a source says of them.

    Attributes:
        session_of: Returns the trading day to which a day belongs.
        zone: The zone of the calendar.
        details: Contract details, by conid.
        multipliers: Of contracts without details, as the broker stated them with a holding.
        magnifiers: Their divisors from quoted prices to the major unit, which fit its values.
    """

    session_of: Callable[[date], date]
    zone: tzinfo
    details: Mapping[int, ContractDetails] = field(default_factory=dict)
    multipliers: Mapping[int, float] = field(default_factory=dict)
    magnifiers: Mapping[int, float] = field(default_factory=dict)

    def multiplier_of(self, conid: int, sec_type: str | None) -> float | None:
        """Return the multiplier of a contract; None where it is not known."""
        details = self.details.get(conid)
        if details is not None:
            return details.multiplier
        stated = self.multipliers.get(conid)
        if stated is None and sec_type in SINGLE_TYPES:
            return 1.0
        return stated

    def magnifier_of(self, named: Execution | Closure) -> float | None:
        """Return the divisor of a quoted price; None where it is not known."""
        conid = named.conid
        fitting = self.magnifiers.get(conid)
        return magnifier_of(self.details.get(conid), named.sec_type, named.currency, fitting)


def completed(movement: Movement, terms: Terms) -> Movement:
    """Return a movement with its trading day, its multiplier and the cash that follows from it.

    What a transfer brings in kind is worth what its price says, where no value is stated.
    """
    multiplier = movement.multiplier
    if multiplier is None and movement.conid is not None:
        multiplier = terms.multiplier_of(movement.conid, movement.sec_type)

    at_price = _cash_of_trade(movement, multiplier)
    value = movement.value
    cash = movement.cash
    if movement.kind is MovementKind.TRANSFER:
        value = times(at_price, -1.0) if value is None else value
    elif cash is None:
        cash = at_price
    return replace(
        movement,
        session_date=terms.session_of(movement.day),
        multiplier=multiplier,
        value=value,
        cash=cash,
    )


def _cash_of_trade(movement: Movement, multiplier: float | None) -> float | None:
    """Return what a movement received by its price; None: not known."""
    if movement.quantity is None or movement.price is None or multiplier is None:
        return None
    parts_of_price = 100.0 if movement.sec_type in PERCENT_TYPES else 1.0
    return 0.0 - movement.quantity * multiplier * movement.price / parts_of_price


def reported_movement(execution: Execution, terms: Terms) -> Movement:
    """Return an execution that a gateway reported on its day.

    Its own contract names right, strike and expiry. In a row of an older release, which had none of
    them, those of the contract's details count.
    """
    magnifier = terms.magnifier_of(execution)
    kind = MovementKind.CONVERSION if execution.sec_type == "CASH" else MovementKind.TRADE
    day = (execution.time.astimezone(terms.zone) + EVENING).date()
    movement = movement_of(
        execution,
        day,
        movement_id=f"{MovementSource.API}:{execution.account}:{execution.execution_id}",
        kind=kind,
        section=Section.TRADES,
        source=MovementSource.API,
        at=execution.time,
        quantity=execution.change,
        price=in_major_unit(execution.price, magnifier),
        multiplier=execution.multiplier,
        fee=times(execution.commission, -1.0),
        fee_currency=execution.commission_currency,
    )
    details = terms.details.get(execution.conid)
    if details is not None and execution.strike is None and execution.expiry is None:
        movement = replace(
            movement, right=details.right, strike=details.strike, expiry=details.expiry
        )
    return completed(movement, terms)


def unexplained_movement(contract: Movement, by: float, at: datetime) -> Movement:
    """Return what came or went and no source says why: when it was seen, and no cash.

    Args:
        contract: Any movement of the holding.
        by: By how much it changed.
        at: When that was seen.
    """
    kind = MovementKind.UNEXPLAINED
    account, conid = contract.key
    day = exchange_date(at)
    return Movement(
        movement_id=f"{kind}:{account}:{conid}:{at:%Y%m%d%H%M%S%f}",
        kind=kind,
        section=Section.OPTION_EVENTS,
        source=MovementSource.INFERRED,
        account=account,
        conid=conid,
        day=day,
        session_date=day,
        at=at,
        quantity=by,
        fee=0.0,
        fee_currency=contract.currency,
        **{name: getattr(contract, name) for name in CONTRACT},
    )


def inferred_movements(closure: Closure, terms: Terms) -> list[Movement]:
    """Return what follows from the cause of a close that no execution and no statement says.

    An option on a stock delivers its multiplier in shares, one on a future one future, and one on
    an index cash. The broker charges no fee for what it books by itself.
    """
    kind = INFERRED_CAUSES.get(closure.cause)
    # Of what is delivered the option says it, at its strike.
    is_delivered = kind in DELIVERY_KINDS and not closure.is_option
    if kind is None or is_delivered or closure.evidence:
        return []

    magnifier = terms.magnifier_of(closure)
    counter_conid = None
    details = terms.details.get(closure.conid)
    if details is not None:
        counter_conid = details.under_conid
        if kind in DELIVERY_KINDS and settles_in_cash(details):
            kind = MovementKind.CASH_SETTLEMENT

    ended = movement_of(
        closure,
        exchange_date(closure.closed_at),
        movement_id=f"{MovementSource.INFERRED}:{closure.change_id}:{kind}",
        kind=kind,
        section=Section.OPTION_EVENTS,
        source=MovementSource.INFERRED,
        at=closure.closed_at,
        quantity=-closure.quantity,
        fee=0.0,
        fee_currency=closure.currency,
        multiplier=terms.multiplier_of(closure.conid, closure.sec_type),
        underlying_conid=counter_conid,
        stated_at=closure.judged_at,
    )
    if kind is MovementKind.CASH_SETTLEMENT:
        ended = replace(ended, price=in_major_unit(closure.price, magnifier))
        return [completed(ended, terms)]

    ended = replace(ended, price=0.0, cash=0.0)
    counter_conid = closure.counter_conid or counter_conid
    if kind is MovementKind.EXPIRATION or counter_conid is None:
        return [completed(ended, terms)]

    ended = replace(ended, counter_conid=counter_conid)
    delivery = _delivery(ended, counter_conid, magnifier)
    return [completed(movement, terms) for movement in (ended, delivery)]


def _delivery(option: Movement, conid: int, magnifier: float | None) -> Movement:
    """Return what an option that was assigned or exercised delivered, at its strike."""
    units = option.multiplier
    of_units: dict[str, Any] = {"sec_type": "STK", "multiplier": 1.0}
    if option.sec_type == "FOP":
        # One future for an option on it, whose multiplier is that of the option.
        units = 1.0
        of_units = {"sec_type": "FUT", "multiplier": option.multiplier}
    side = 1.0 if option.right == Right.CALL else -1.0
    # An option that is gone was held with the opposite sign of the change.
    held = -option.change
    return replace(
        option,
        movement_id=f"{option.movement_id}:{conid}",
        conid=conid,
        counter_conid=option.conid,
        underlying_conid=None,
        **of_units,
        right=None,
        strike=None,
        expiry=None,
        quantity=times(units, side * held),
        price=in_major_unit(option.strike, magnifier),
        cash=None,
        realized_pnl=None,
    )
