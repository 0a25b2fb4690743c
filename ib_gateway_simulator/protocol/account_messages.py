"""Messages about accounts: positions, portfolio rows, account values, profits and losses.

The layouts have the sources that `messages` names.
"""

from __future__ import annotations

from ib_gateway_simulator.protocol.contract import Contract, SecType, contract_fields
from ib_gateway_simulator.protocol.fields import Fields, message, number, optional, quantity


def managed_accounts(accounts: tuple[str, ...]) -> Fields:
    """Return the account list; a list of several accounts ends with a comma (ib-ruby update.md)."""
    text = "".join(f"{name}," for name in accounts)
    if len(accounts) == 1:
        text = accounts[0]

    return ("15", "1", text)


def position(account: str, contract: Contract, held: float | str, average_cost: float) -> Fields:
    """Return a position row.

    Derivatives have an empty exchange, stocks the listing one, and the strike of anything but an
    option is `0.0` (as recorded by ibkr-go and a fork of nautilus_trader).
    """
    row = contract_fields(contract, _exchange_held_at(contract))
    return ("61", "3", account, *row, quantity(held), number(average_cost))


def position_multi(
    req_id: int, account: str, contract: Contract, held: float | str, average_cost: float
) -> Fields:
    """Return a position row of one reqPositionsMulti; it ends with the model code."""
    row = contract_fields(contract, _exchange_held_at(contract))
    return message("71", "1", req_id, account, *row, quantity(held), number(average_cost), "")


def _exchange_held_at(contract: Contract) -> str:
    if contract.sec_type in (SecType.STK, SecType.IND):
        return contract.exchange

    return ""


def position_end() -> Fields:
    """Return the end of the first positions."""
    return ("62", "1")


def position_multi_end(req_id: int) -> Fields:
    """Return the end of the positions of one reqPositionsMulti."""
    return message("72", "1", req_id)


def portfolio_value(
    account: str,
    contract: Contract,
    *,
    held: float | str,
    price: float,
    value: float,
    average_cost: float,
    unrealized: float,
    realized: float,
) -> Fields:
    """Return a portfolio row; for anything but an option, right and strike are both `0`."""
    return message(
        "7",
        "8",
        contract.conid,
        contract.symbol,
        contract.sec_type,
        contract.expiry_text,
        number(contract.strike) if contract.is_option else "0",
        contract.right or "0",
        contract.multiplier_text,
        contract.exchange,
        contract.currency,
        contract.local_symbol,
        contract.trading_class,
        quantity(held),
        number(price),
        number(value),
        number(average_cost),
        number(unrealized),
        number(realized),
        account,
    )


def account_value(account: str, tag: str, value: str, currency: str) -> Fields:
    """Return one value of an account."""
    return ("6", "2", tag, value, currency, account)


def account_time(clock: str) -> Fields:
    """Return the time of account data: HH:MM, without date and zone."""
    return ("8", "1", clock)


def account_download_end(account: str) -> Fields:
    """Return the end of the first update of an account."""
    return ("54", "1", account)


def account_summary(req_id: int, account: str, tag: str, value: str, currency: str) -> Fields:
    """Return one value of an account for a reqAccountSummary."""
    return message("63", "1", req_id, account, tag, value, currency)


def account_summary_end(req_id: int) -> Fields:
    """Return the end of one reqAccountSummary."""
    return message("64", "1", req_id)


def account_update_multi(req_id: int, account: str, tag: str, value: str, currency: str) -> Fields:
    """Return one value of an account for a reqAccountUpdatesMulti."""
    return message("73", "1", req_id, account, "", tag, value, currency)


def account_update_multi_end(req_id: int) -> Fields:
    """Return the end of one reqAccountUpdatesMulti."""
    return message("74", "1", req_id)


def pnl(
    req_id: int, daily: float | None, unrealized: float | None, realized: float | None
) -> Fields:
    """Return the profits of an account; None is written as unset."""
    return message("94", req_id, optional(daily), optional(unrealized), optional(realized))


def pnl_single(
    req_id: int,
    held: float,
    daily: float | None,
    unrealized: float | None,
    realized: float | None,
    value: float | None,
) -> Fields:
    """Return the profit of one position; `realized` is unset until it trades.

    Source: ib_insync issues/462.
    """
    return message(
        "95",
        req_id,
        quantity(held),
        optional(daily),
        optional(unrealized),
        optional(realized),
        optional(value),
    )
