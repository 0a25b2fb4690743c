"""Which contract a leg means: the one of its conid, or the one that its description fits; pure."""

import math
from collections.abc import Iterable
from datetime import date, timedelta

from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.domain.leg import Membership, UnresolvedLeg, word

UNDATED_TYPES = frozenset({"STK", "IND", "CASH"})
"""Security types without an expiry."""

SETTLED_WITHIN = timedelta(days=4)
"""A contract expires at most so long after its last trade: one trading day, over a long weekend."""

MOST_CANDIDATES = 8
"""So many contracts are named when a description fits none or several."""


def contract_mismatch(leg: Membership, details: ContractDetails) -> str | None:
    """Return what a leg and the contract of its conid differ in, in words; None for nothing.

    The symbol may be the trading class (SPXW). The expiry may be the day of the last trade or the
    day on which the contract expires: index options settled at the open have two days. Where the
    latter is not known, a day soon after the last trade is no difference. A leg without an expiry
    leaves it open, and so does one without a trading class, a multiplier or a currency.
    """
    differences = []
    if leg.symbol.upper() not in (details.symbol.upper(), details.trading_class.upper()):
        differences.append(f"its symbol is {details.symbol}, not {leg.symbol}")
    if leg.right != details.right:
        differences.append(f"its right is {word(details.right)}, not {word(leg.right)}")
    if _differs(leg.strike, details.strike):
        differences.append(f"its strike is {word(details.strike)}, not {word(leg.strike)}")
    days = [day for day in (details.last_trade_date, details.expires_on) if day is not None]
    dated = days or details.sec_type in UNDATED_TYPES
    if leg.expiry is not None and dated and not _expires_on(leg.expiry, details):
        expiry = days[-1] if days else None
        differences.append(f"its expiry is {word(expiry)}, not {word(leg.expiry)}")
    given = (
        ("security type", leg.sec_type, details.sec_type),
        ("trading class", leg.trading_class, details.trading_class),
        ("multiplier", leg.multiplier, details.multiplier),
        ("currency", leg.currency, details.currency),
    )
    differences += [
        f"its {name} is {word(there)}, not {word(here)}"
        for name, here, there in given
        if here is not None and here != there
    ]
    return ", ".join(differences) or None


def _expires_on(day: date, details: ContractDetails) -> bool:
    last = details.last_trade_date
    if details.expires_on is None and last is not None:
        return timedelta() <= day - last <= SETTLED_WITHIN
    return day in (last, details.expires_on)


def _differs(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is not other
    return not math.isclose(one, other, rel_tol=1e-9)


def matching_contracts(
    leg: UnresolvedLeg, found: Iterable[ContractDetails]
) -> list[ContractDetails]:
    """Return the contracts that fit everything that a leg says, each conid once, in their order.

    A day soon after the last trade does not count here: what is chosen must be certain.
    """
    fitting = {
        details.conid: details
        for details in found
        if contract_mismatch(leg, details) is None
        and (leg.expiry is None or leg.expiry in (details.last_trade_date, details.expires_on))
    }
    return list(fitting.values())


def problem_of(
    leg: UnresolvedLeg, matching: list[ContractDetails], near: Iterable[ContractDetails] = ()
) -> str:
    """Return why a leg has no contract, with the candidates; for none or several that match.

    Args:
        leg: The leg.
        matching: The contracts that fit it.
        near: Where none fits: contracts that are like it.
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
    names = "; ".join(candidate(details) for details in contracts[:MOST_CANDIDATES])
    more = len(contracts) - MOST_CANDIDATES
    return f"{names} and {more} more" if more > 0 else names


def candidate(details: ContractDetails) -> str:
    """Return a contract in words, with all that tells it apart from others."""
    expiry = details.expires_on or details.last_trade_date
    words = [
        details.local_symbol or details.symbol,
        f"(conid {details.conid}",
        f"class {details.trading_class}" if details.trading_class else "",
        f"expiry {expiry}" if expiry else "",
        f"exchange {details.exchange}",
        f"multiplier {details.multiplier:g}",
        f"{details.currency})",
    ]
    return ", ".join(word for word in words if word).replace(", (", " (")


def _distance(leg: UnresolvedLeg, details: ContractDetails) -> tuple[float, int, int]:
    strikes = abs((details.strike or 0.0) - (leg.strike or 0.0))
    day = details.last_trade_date
    days = abs((day - leg.expiry).days) if day and leg.expiry else 0
    return (strikes, days, details.conid)
