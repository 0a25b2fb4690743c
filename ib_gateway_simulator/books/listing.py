"""Contracts on an underlying: their names, symbols and data farms."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from ib_gateway_simulator.books.schema import ListedPart
from ib_gateway_simulator.market.underlying import Underlying
from ib_gateway_simulator.protocol.contract import DEFAULT_FARM, Contract, SecType

# The data farms of the security types that have another one than DEFAULT_FARM.
FARMS = {SecType.FUT: "usfuture", SecType.FOP: "usfuture"}


def option_name(trading_class: str, expiry: str, right: str, strike: float) -> str:
    """Return the local symbol of an option."""
    return f"{trading_class:<6}{expiry[2:]}{right}{round(strike * 1000):08d}"


def listed_like(
    option: Contract, conid: int, *, strike: float, right: str, end: datetime
) -> Contract:
    """Return another option on the same underlying, which trades last at `end`."""
    expiry = f"{end:%Y%m%d}"
    return replace(
        option,
        conid=conid,
        strike=strike,
        right=right,
        expiry=expiry,
        last_trade=f"{end:%H:%M:%S}",
        local_symbol=option_name(option.trading_class, expiry, right, strike),
    )


# By which futures name their months.
LETTERS = "FGHJKMNQUVXZ"


def derived_contract(
    conid: int,
    underlying: Underlying,
    sec_type: SecType,
    *,
    expiry: str = "",
    strike: float = 0.0,
    right: str = "",
    multiplier: float = 0.0,
    exchange: str = "",
    currency: str = "",
    trading_class: str = "",
    local_symbol: str = "",
    price_magnifier: int = 1,
    min_tick: float = 0.01,
) -> Contract:
    """Return a contract on an underlying; what is empty, or 0, is as usual."""
    usual_exchange = underlying.exchange
    usual_multiplier = 1.0
    if sec_type is SecType.OPT:
        usual_exchange = "AMEX"
        usual_multiplier = 100.0

    trading_class = trading_class or underlying.symbol
    if not local_symbol:
        local_symbol = underlying.symbol
        if sec_type is SecType.OPT:
            local_symbol = option_name(trading_class, expiry, right, strike)
        elif sec_type is SecType.FUT:
            local_symbol = future_name(underlying.symbol, expiry)
        elif sec_type is SecType.FOP:
            local_symbol = f"{future_name(underlying.symbol, expiry)} {right}{strike:g}"
    return Contract(
        conid=conid,
        symbol=underlying.symbol,
        sec_type=sec_type,
        underlying=underlying.symbol,
        under_conid=underlying.conid,
        expiry=expiry,
        strike=strike,
        right=right,
        multiplier=multiplier or usual_multiplier,
        currency=currency or underlying.currency,
        exchange=exchange or usual_exchange,
        local_symbol=local_symbol,
        trading_class=trading_class,
        price_magnifier=price_magnifier,
        min_tick=min_tick,
        long_name=underlying.name or underlying.symbol,
        farm=FARMS.get(sec_type, DEFAULT_FARM),
    )


def listed(contract: Contract, part: ListedPart) -> Contract:
    """Return a contract with the farm, the exchanges and the algo venues of a part of a book."""
    exchange = contract.exchange
    if part.exchanges and exchange not in part.exchanges:
        exchange = next((each for each in part.exchanges if each != "SMART"), part.exchanges[0])
    return replace(
        contract,
        farm=part.farm or contract.farm,
        exchange=exchange,
        exchanges=tuple(part.exchanges),
        algo_venues=tuple(part.algo_venues),
    )


def future_name(symbol: str, expiry: str) -> str:
    """Return the name of a future: symbol, letter of the month, last digit of the year."""
    if not expiry:
        return symbol
    month = int(expiry[4:6])
    return f"{symbol}{LETTERS[month - 1]}{expiry[3]}"
