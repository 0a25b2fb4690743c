"""Which contract a leg describes, and how a leg differs from its contract; pure."""

import math
from collections.abc import Iterable
from datetime import date, timedelta

from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.domain.leg import Membership, UnresolvedLeg, few, word

# Security types without an expiry.
UNDATED_TYPES = frozenset({"STK", "IND", "CASH"})

# The longest time from the last trade of a contract to its expiry: a trading day and a long
# weekend.
SETTLED_WITHIN = timedelta(days=4)

# The most contracts that a message names when a description fits none or several.
MOST_CANDIDATES = 8


def contract_mismatch(leg: Membership, details: ContractDetails | None) -> str | None:
    """Return the differences between a leg and the contract of its conid; None without any.

    None, too, while the contract is not known.

    The symbol may be the trading class (SPXW). The expiry may be the day of the last trade or the
    day on which the contract expires, which differ for index options settled at the open. If the
    second is not known, a day within `SETTLED_WITHIN` after the last trade is accepted. An expiry,
    security type, trading class, multiplier or currency that the leg leaves out is not compared.
    """
    if details is None:
        return None
    compared: list[tuple[str, object, object]] = [
        ("security type", leg.sec_type, details.sec_type),
        ("trading class", leg.trading_class, details.trading_class),
        ("multiplier", leg.multiplier, details.multiplier),
        ("currency", leg.currency, details.currency),
    ]
    found = [one for one in compared if one[1] is not None and one[1] != one[2]]
    if leg.symbol.upper() not in (details.symbol.upper(), details.trading_class.upper()):
        found.append(("symbol", leg.symbol, details.symbol))
    if leg.right != details.right:
        found.append(("right", leg.right, details.right))
    if _differs(leg.strike, details.strike):
        found.append(("strike", leg.strike, details.strike))
    days = [day for day in (details.last_trade_date, details.expires_on) if day is not None]
    dated = days or details.sec_type in UNDATED_TYPES
    if leg.expiry is not None and dated and not _expires_on(leg.expiry, details):
        found.append(("expiry", leg.expiry, days[-1] if days else None))
    texts = [f"its {name} is {word(there)}, not {word(here)}" for name, here, there in found]
    return ", ".join(texts) or None


def _expires_on(day: date, details: ContractDetails) -> bool:
    last = details.last_trade_date
    if details.expires_on is None and last is not None:
        return timedelta() <= day - last <= SETTLED_WITHIN
    before = last is not None and details.expires_on is not None and last <= details.expires_on
    return day == details.expires_on or (before and day == last)


def _differs(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is not other
    return not math.isclose(one, other, rel_tol=1e-9)


def matching_contracts(
    leg: UnresolvedLeg, found: Iterable[ContractDetails]
) -> list[ContractDetails]:
    """Return the contracts that match all fields of a leg, each conid once, in their order.

    The day decides which contract is chosen: it is that of the expiry, or that of the last trade
    where the broker names no other.
    """
    fitting = {
        details.conid: details
        for details in found
        if contract_mismatch(leg, details) is None
        and leg.expiry in (None, details.expires_on or details.last_trade_date)
    }
    return list(fitting.values())


def problem_of(
    leg: UnresolvedLeg, matching: list[ContractDetails], near: Iterable[ContractDetails] = ()
) -> str:
    """Return why no contract was chosen for a leg, with the candidates.

    Args:
        leg: The leg.
        matching: The contracts that match it: none or several.
        near: Similar contracts, if none matches.
    """
    if matching:
        return (
            f"{len(matching)} contracts are {leg.described}: {_named(matching)}. Add what tells "
            "them apart (trading class, multiplier, exchange, currency) or the conid."
        )
    others = sorted({d.conid: d for d in near}.values(), key=lambda d: _distance(leg, d))
    if not others:
        return f"The gateway knows no contract {leg.described}, and none like it."
    return f"The gateway knows no contract {leg.described}. Near it: {_named(others)}."


def _named(contracts: list[ContractDetails]) -> str:
    return few(map(candidate, contracts), MOST_CANDIDATES, "; ")


def candidate(details: ContractDetails) -> str:
    """Return a contract as text, with the fields by which contracts differ."""
    named = {
        "conid": details.conid,
        "class": details.trading_class,
        "expiry": details.expires_on or details.last_trade_date,
        "exchange": details.exchange,
        "multiplier": details.multiplier,
    }
    words = [f"{name} {word(value)}" for name, value in named.items() if value]
    return f"{details.local_symbol or details.symbol} ({', '.join(words)}, {details.currency})"


def _distance(leg: UnresolvedLeg, details: ContractDetails) -> tuple[float, int, int]:
    strikes = abs((details.strike or 0.0) - (leg.strike or 0.0))
    day = details.last_trade_date
    days = abs((day - leg.expiry).days) if day and leg.expiry else 0
    return (strikes, days, details.conid)
