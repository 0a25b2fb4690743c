"""Generic ticks: what a request for market data may ask for besides quotes."""

from __future__ import annotations

# The generic tick that brings mark prices (tick type 37).
MARK_PRICE = "232"

# The generic tick that brings the dividends of a stock (tick type 59).
DIVIDENDS = "456"

# Legal generic ticks as a gateway lists them (deephaven-ib issues/46, for STK).
_COMMON = {
    100: "Option Volume",
    101: "Option Open Interest",
    105: "Average Opt Volume",
    106: "impvolat",
    165: "Misc. Stats",
    221: "Creditman Mark Price",
    225: "Auction",
    232: "Pl Price",
    233: "RTVolume",
    236: "inventory",
    258: "Fundamentals",
    293: "TradeCount",
    294: "TradeRate",
    295: "VolumeRate",
    318: "LastRTHTrade",
    375: "RTTrdVolume",
    411: "rthistvol",
    456: "IBDividends",
    460: "Bond Factor Multiplier",
    576: "EtfNavBidAsk(navbidask)",
    577: "EtfNavLast(navlast)",
    578: "EtfNavClose(navclose)",
    586: "IPOHLMPRC",
    587: "Pl Price Delayed",
    588: "Futures Open Interest",
    595: "Short-Term Volume X Mins",
    614: "EtfNavMisc(high/low)",
    619: "Creditman Slow Mark Price",
    623: "EtfFrozenNavLast(fznavlast)",
}

# Generic ticks that have a second number, which is legal too.
_ALIASES = {221: 220, 232: 221, 258: 47, 456: 59}

_LEGAL = frozenset(str(code) for code in (*_COMMON, *_ALIASES.values()))


def refusal(ticks: tuple[str, ...], text: str, sec_type: str) -> str | None:
    """Return why a generic tick list is refused, or None for a legal one.

    One illegal entry refuses the whole request with 321; `mdoff` before the list is legal.

    Args:
        ticks: The entries of the list.
        text: The list as the client wrote it.
        sec_type: The security type of the contract.
    """
    if all(tick in _LEGAL or tick == "mdoff" for tick in ticks):
        return None
    codes = {code: f"{code}" for code in _COMMON}
    for code, alias in _ALIASES.items():
        codes[code] = f"{code}/{alias}"

    legal = ",".join(f"{codes[code]}({name})" for code, name in _COMMON.items())
    return f"Incorrect generic tick list of {text}.  Legal ones for ({sec_type}) are: {legal}"
