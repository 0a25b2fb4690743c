"""Messages about contracts: details, option chains and symbols that match a pattern."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from ib_gateway_simulator.protocol.contract import DATED, Contract, SecType
from ib_gateway_simulator.protocol.fields import Fields, message

ORDER_TYPES = (
    "ACTIVETIM,AD,ADJUST,ALERT,ALLOC,AVGCOST,BASKET,COND,CONDORDER,DAY,DEACT,GAT,GTC,GTD,GTT,"
    "IOC,LIT,LMT,MIT,MKT,MTL,NONALGO,OCA,PEGBENCH,SCALE,STP,STPLMT,TRAIL,WHATIF"
)


def contract_details(
    req_id: int,
    contract: Contract,
    exchange: str,
    under_sec_type: str,
    hours: str,
    last_trade: str,
) -> Fields:
    """Return the details of one contract as routed to `exchange`.

    The layout is that of versions 164 to 178 (recorded by ibkr-go for AAPL and ES). The strike
    of anything but an option is `0`, and the last trade comes with a time and a zone. Trading and
    liquid hours are the same.
    """
    derivative = contract.sec_type in DATED
    is_stock = contract.sec_type is SecType.STK
    venues = (*contract.valid_exchanges, *contract.algo_venues)
    zone = contract.time_zone
    return message(
        "10",
        req_id,
        contract.symbol,
        contract.sec_type,
        last_trade,
        f"{contract.strike:g}",
        contract.right,
        exchange,
        contract.currency,
        contract.local_symbol,
        contract.trading_class,
        contract.trading_class,
        contract.conid,
        f"{contract.min_tick:g}",
        contract.multiplier_text,
        ORDER_TYPES,
        ",".join(venues),
        contract.price_magnifier,
        contract.under_conid,
        contract.long_name,
        contract.exchange if is_stock else "",
        contract.expiry[:6],
        "",
        "",
        "",
        zone,
        hours,
        hours,
        "",
        "",
        "0",
        "1",
        contract.underlying if derivative else "",
        under_sec_type if derivative else "",
        ",".join("26" for _ in venues),
        contract.settled_on or contract.expiry,
        "COMMON" if is_stock else "",
        "1",
        "1",
        "1",
    )


def contract_details_end(req_id: int) -> Fields:
    """Return the end of the details of one request."""
    return message("52", "1", req_id)


def option_chain(
    req_id: int,
    *,
    exchange: str,
    under_conid: int,
    trading_class: str,
    multiplier: str,
    expiries: Sequence[str],
    strikes: Sequence[str],
) -> Fields:
    """Return the option chain of one exchange and trading class."""
    return message(
        "75",
        req_id,
        exchange,
        under_conid,
        trading_class,
        multiplier,
        len(expiries),
        *expiries,
        len(strikes),
        *strikes,
    )


def option_chain_end(req_id: int) -> Fields:
    """Return the end of the option chains of one request."""
    return message("76", req_id)


def symbol_samples(req_id: int, samples: Sequence[Fields]) -> Fields:
    """Return underlyings that match a pattern; each sample is the fields of one."""
    return message("79", req_id, len(samples), *chain.from_iterable(samples))
