"""How contracts on an underlying are named and listed."""

from __future__ import annotations

from position_sync_dagster.simulator.market.underlying import Underlying
from position_sync_dagster.simulator.protocol.contract import Contract, SecType

FARMS = {SecType.FUT: "usfuture", SecType.FOP: "usfuture"}
"""Data farms by kind; everything else ticks from usfarm."""


def derived_contract(
    conid: int,
    underlying: Underlying,
    sec_type: SecType,
    *,
    expiry: str,
    strike: float,
    right: str,
    multiplier: float,
    exchange: str,
    currency: str,
    trading_class: str,
    local_symbol: str,
    price_magnifier: int,
    min_tick: float,
) -> Contract:
    """Return a contract on an underlying; without `local_symbol` the usual one is made."""
    if not local_symbol:
        local_symbol = underlying.symbol
        if sec_type is SecType.OPT:
            local_symbol = f"{trading_class:<6}{expiry[2:]}{right}{round(strike * 1000):08d}"
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
        multiplier=multiplier,
        currency=currency,
        exchange=exchange,
        local_symbol=local_symbol,
        trading_class=trading_class,
        price_magnifier=price_magnifier,
        min_tick=min_tick,
        long_name=underlying.name or underlying.symbol,
        farm=FARMS.get(sec_type, "usfarm"),
    )


def future_name(symbol: str, expiry: str) -> str:
    """Write a future as exchanges do: symbol, month letter, last digit of the year."""
    return f"{symbol}{'FGHJKMNQUVXZ'[int(expiry[4:6]) - 1]}{expiry[3]}" if expiry else symbol
