"""Messages of the gateway as fields, in the layout of server versions 176 to 178.

Each function is pure and returns the fields of one message, the message id first. The layouts
are those of recorded messages (public repositories of ibkr-go, rust-ibapi, ib_insync and others)
and of the decoders of ib_async 2.1, ib_insync 0.9.86 and ibapi 10.
"""

from __future__ import annotations

from position_sync_dagster.simulator.protocol.contract import Contract, SecType

Fields = tuple[str, ...]

UNSET = "1.7976931348623157E308"
"""The gateway's "no value": the largest double, as Java writes it."""


def number(value: float) -> str:
    """Write a price or amount as Java's Double.toString does: never without a decimal point."""
    return repr(float(value))


def quantity(value: float) -> str:
    """Write a size or position as the gateway's decimals: no point unless there is a fraction."""
    return str(int(value)) if value == int(value) else repr(float(value))


def optional(value: float | None) -> str:
    """Write a number that the gateway may not have."""
    return UNSET if value is None else number(value)


def error(req_id: int, code: int, text: str) -> Fields:
    """Return an error or notice; `req_id` -1 belongs to no request."""
    return ("4", "2", str(req_id), str(code), text, "")


def managed_accounts(accounts: tuple[str, ...]) -> Fields:
    """Return the account list; one of several accounts ends with a comma (ib-ruby update.md)."""
    text = accounts[0] if len(accounts) == 1 else "".join(f"{name}," for name in accounts)
    return ("15", "1", text)


def next_valid_id(order_id: int) -> Fields:
    return ("9", "1", str(order_id))


def current_time(epoch_s: int) -> Fields:
    return ("49", "1", str(epoch_s))


def position(account: str, contract: Contract, held: float, average_cost: float) -> Fields:
    """Return a position row.

    Derivatives come with an EMPTY exchange, stocks with the listing one, and the strike of
    anything else than an option is `0.0` (as recorded by ibkr-go and a nautilus_trader fork).
    """
    return ("61", "3", account, *_held_contract(contract), quantity(held), number(average_cost))


def position_multi(
    req_id: int, account: str, contract: Contract, held: float, average_cost: float
) -> Fields:
    row = _held_contract(contract)
    return ("71", "1", str(req_id), account, *row, quantity(held), number(average_cost), "")


def _held_contract(contract: Contract) -> Fields:
    return (
        str(contract.conid),
        contract.symbol,
        contract.sec_type,
        contract.expiry,
        number(contract.strike),
        contract.right,
        contract.multiplier_text,
        contract.exchange if contract.sec_type in (SecType.STK, SecType.IND) else "",
        contract.currency,
        contract.local_symbol,
        contract.trading_class,
    )


def portfolio_value(
    account: str,
    contract: Contract,
    *,
    held: float,
    price: float,
    value: float,
    average_cost: float,
    unrealized: float,
    realized: float,
) -> Fields:
    """Return a portfolio row; of a non-option right and strike are both `0`."""
    return (
        "7",
        "8",
        str(contract.conid),
        contract.symbol,
        contract.sec_type,
        contract.expiry,
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
    return ("6", "2", tag, value, currency, account)


def account_time(clock: str) -> Fields:
    """Return the time of account data, HH:MM without date or zone."""
    return ("8", "1", clock)


def account_download_end(account: str) -> Fields:
    return ("54", "1", account)


def tick_price(req_id: int, tick_type: int, price: float, size: str, mask: int = 0) -> Fields:
    return ("1", "6", str(req_id), str(tick_type), number(price), size, str(mask))


def tick_size(req_id: int, tick_type: int, size: str) -> Fields:
    return ("2", "6", str(req_id), str(tick_type), size)


def tick_generic(req_id: int, tick_type: int, value: float) -> Fields:
    return ("45", "6", str(req_id), str(tick_type), number(value))


def tick_string(req_id: int, tick_type: int, value: str) -> Fields:
    return ("46", "6", str(req_id), str(tick_type), value)


def tick_request_params(
    req_id: int, min_tick: float, bbo_exchange: str, snapshot_permissions: int
) -> Fields:
    return ("81", str(req_id), f"{min_tick:g}", bbo_exchange, str(snapshot_permissions))


def market_data_type(req_id: int, data_type: int) -> Fields:
    return ("58", "1", str(req_id), str(data_type))


def snapshot_end(req_id: int) -> Fields:
    return ("57", "1", str(req_id))


def option_computation(
    req_id: int,
    tick_type: int,
    *,
    implied_vol: float,
    delta: float,
    price: float,
    gamma: float,
    vega: float,
    theta: float,
    underlying_price: float,
) -> Fields:
    """Return greeks; the 0 after the tick type says that they are return-based."""
    greeks = (implied_vol, delta, price, 0.0, gamma, vega, theta, underlying_price)
    return ("21", str(req_id), str(tick_type), "0", *map(number, greeks))


def pnl(
    req_id: int, daily: float | None, unrealized: float | None, realized: float | None
) -> Fields:
    return ("94", str(req_id), optional(daily), optional(unrealized), optional(realized))


def pnl_single(
    req_id: int,
    held: float,
    daily: float | None,
    unrealized: float | None,
    realized: float | None,
    value: float | None,
) -> Fields:
    """Return the profit of one position; realized is unset until it trades (ib_insync #462)."""
    return (
        "95",
        str(req_id),
        quantity(held),
        optional(daily),
        optional(unrealized),
        optional(realized),
        optional(value),
    )


def contract_details_end(req_id: int) -> Fields:
    return ("52", "1", str(req_id))


def open_order_end() -> Fields:
    return ("53", "1")


def executions_end(req_id: int) -> Fields:
    return ("55", "1", str(req_id))


def position_end() -> Fields:
    return ("62", "1")


def position_multi_end(req_id: int) -> Fields:
    return ("72", "1", str(req_id))


def completed_orders_end() -> Fields:
    return ("102",)


def account_summary(req_id: int, account: str, tag: str, value: str, currency: str) -> Fields:
    return ("63", "1", str(req_id), account, tag, value, currency)


def account_summary_end(req_id: int) -> Fields:
    return ("64", "1", str(req_id))


def account_update_multi(req_id: int, account: str, tag: str, value: str, currency: str) -> Fields:
    return ("73", "1", str(req_id), account, "", tag, value, currency)


def account_update_multi_end(req_id: int) -> Fields:
    return ("74", "1", str(req_id))
