"""Messages of the gateway as fields, in the layout of server version 178.

`versions` changes them back for clients that negotiated an older one.

Each function is pure and returns the fields of one message, the message id first. The layouts
are those of recorded messages (public repositories of ibkr-go, rust-ibapi, ib_insync and others)
and of the decoders of ib_async 2.1, ib_insync 0.9.86 and ibapi 10. Messages about accounts are
in `account_messages`, messages about contracts in `contract_messages`.
"""

from __future__ import annotations

from ib_gateway_simulator.protocol.codes import Code
from ib_gateway_simulator.protocol.contract import Contract, contract_fields
from ib_gateway_simulator.protocol.fields import Fields, message, number


def error(req_id: int, code: int, text: str | None = None, **values: object) -> Fields:
    """Return an error or a notice; `req_id` -1 belongs to no request.

    Args:
        req_id: The request that the message is about.
        code: A Code, or with `text` any number.
        text: The text to send instead of the code's own.
        values: The values for the names in the code's own text, except `req_id`.

    Example:
        >>> error(7, Code.UNKNOWN_REQUEST_ID)
        ('4', '2', '7', '300', "Can't find EId with tickerId:7", '')
    """
    shown = Code(code).text.format(req_id=req_id, **values) if text is None else text
    return message("4", "2", req_id, int(code), shown, "")


def next_valid_id(order_id: int) -> Fields:
    """Return the first order id that a client may use."""
    return message("9", "1", order_id)


def current_time(epoch_s: int) -> Fields:
    """Return the time of the gateway, in seconds since 1970."""
    return message("49", "1", epoch_s)


def tick_price(req_id: int, tick_type: int, price: float, size: str, mask: int = 0) -> Fields:
    """Return a price tick; bit 0 of `mask` marks a price that can be executed at once."""
    return message("1", "6", req_id, tick_type, number(price), size, mask)


def tick_size(req_id: int, tick_type: int, size: str) -> Fields:
    """Return a size tick."""
    return message("2", "6", req_id, tick_type, size)


def tick_generic(req_id: int, tick_type: int, value: float) -> Fields:
    """Return a tick with a number, like the halted flag."""
    return message("45", "6", req_id, tick_type, number(value))


def tick_string(req_id: int, tick_type: int, value: str) -> Fields:
    """Return a tick with a text, like the time of the last trade."""
    return message("46", "6", req_id, tick_type, value)


def tick_request_params(
    req_id: int, min_tick: float, bbo_exchange: str, snapshot_permissions: int
) -> Fields:
    """Return the parameters of a market data line, sent when it opens."""
    return message("81", req_id, f"{min_tick:g}", bbo_exchange, snapshot_permissions)


def market_data_type(req_id: int, data_type: int) -> Fields:
    """Return the market data type of a line: 1 live, 2 frozen, 3 delayed, 4 delayed frozen."""
    return message("58", "1", req_id, data_type)


def snapshot_end(req_id: int) -> Fields:
    """Return the end of a market data snapshot."""
    return message("57", "1", req_id)


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
    pv_dividend: float = 0.0,
) -> Fields:
    """Return greeks; the 0 after the tick type marks them as based on returns."""
    greeks = (implied_vol, delta, price, pv_dividend, gamma, vega, theta, underlying_price)
    return message("21", req_id, tick_type, "0", *map(number, greeks))


def open_order_end() -> Fields:
    """Return the end of the open orders."""
    return ("53", "1")


def execution(
    req_id: int,
    contract: Contract,
    *,
    account: str,
    execution_id: str,
    at: str,
    quantity: float,
    price: float,
    order: int,
) -> Fields:
    """Return one execution, of another client: without an order id, but with the permanent one."""
    side = "SLD"
    if quantity > 0:
        side = "BOT"

    traded = (number(abs(quantity)), number(price))
    head = ("11", str(req_id), "0", *contract_fields(contract, "SMART"))
    done = (execution_id, at, account, "SMART", side, *traded, str(order))
    # Liquidation, cumulative quantity, average price, and what no option has.
    tail = ("0", "0", *traded, "", "", "", "", "1", "0")
    return (*head, *done, *tail)


def commission(execution_id: str, amount: float, currency: str, realized: float) -> Fields:
    """Return the commission of an execution, and the profit that it realized."""
    return ("59", "1", execution_id, number(amount), currency, number(realized), "", "")


def executions_end(req_id: int) -> Fields:
    """Return the end of the executions of one request."""
    return message("55", "1", req_id)


def completed_orders_end() -> Fields:
    """Return the end of the completed orders."""
    return ("102",)


def market_rule(rule_id: int) -> Fields:
    """Return a rule with one price step of 0.01."""
    return message("93", rule_id, "1", "0", "0.01")


def news_providers() -> Fields:
    """Return an empty list of news providers."""
    return ("85", "0")


def family_codes() -> Fields:
    """Return the one family code of a login without a family."""
    return ("78", "1", "*", "")


def depth_exchanges() -> Fields:
    """Return an empty list of exchanges with market depth."""
    return ("80", "0")


def soft_dollar_tiers(req_id: int) -> Fields:
    """Return an empty list of soft dollar tiers."""
    return message("77", req_id, "0")


def smart_components(req_id: int) -> Fields:
    """Return an empty list of the exchanges behind SMART."""
    return message("82", req_id, "0")


def user_info(req_id: int) -> Fields:
    """Return the user information of a login without white branding."""
    return message("107", req_id, "")
