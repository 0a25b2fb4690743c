"""What a statement of the broker says of money, beside the rows of its trades and events."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedAmounts:
    """The amounts and ids of one trade or event, as the statement writes them; None: not stated.

    Attributes:
        report_date: The day on which the broker booked it.
        settle_date: The day on which its money moves.
        multiplier: Units of the underlying in one contract.
        proceeds: −quantity × price × multiplier, as stated. Unit: the currency of the row.
        net_cash: Proceeds with commission and taxes. Unit: the currency of the row.
        amount: Money of a cash transaction or a corporate action.
        value: Value of what a corporate action brought or took.
        cash_transfer: Money that came with a transfer; negative went out.
        position_amount: Value of the holding that was transferred.
        transfer_price: Price at which it was transferred.
        taxes: Negative was paid.
        commission: Negative was paid. Unit: `commission_currency`.
        commission_currency: ISO code.
        transaction_id: The broker's id of the booking.
        trade_id: The broker's id of the trade.
        action_id: The broker's id of the corporate action.
        level_of_detail: As written: EXECUTION, DETAIL, SUMMARY, …
    """

    report_date: date | None
    settle_date: date | None
    multiplier: float | None
    proceeds: float | None
    net_cash: float | None
    amount: float | None
    value: float | None
    cash_transfer: float | None
    position_amount: float | None
    transfer_price: float | None
    taxes: float | None
    commission: float | None
    commission_currency: str | None
    transaction_id: str | None
    trade_id: str | None
    action_id: str | None
    level_of_detail: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedEquity:
    """The net liquidation of an account at the end of a day, and the parts that add up to it.

    Attributes:
        currency: Base currency of the account; None: the statement does not say it.
        total: Net liquidation; None: not stated.
        parts: By the statement's names: cash, stock, options, dividendAccruals, … Unit: `currency`.
    """

    account: str
    day: date
    currency: str | None
    total: float | None
    parts: Mapping[str, float] = field(default_factory=dict)
