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

# What a leg may leave out: it is not compared then.
_MAY_BE_UNSAID = ("sec_type", "trading_class", "multiplier", "currency")

# The names of fields in texts, where they differ.
_WORDS_OF_FIELDS = {"sec_type": "security type", "trading_class": "trading class"}

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

    names = (details.symbol.upper(), details.trading_class.upper())
    # A leg with an expiry differs from a share (`UNDATED_TYPES`: types that never expire), but not
    # from a future whose day is not known.
    is_expiry_known = details.expiry is not None or details.sec_type in UNDATED_TYPES
    fits_expiry = leg.expiry is None or not is_expiry_known or _expires_on(leg.expiry, details)
    agrees = {name: getattr(leg, name) in (None, getattr(details, name)) for name in _MAY_BE_UNSAID}
    agrees |= {
        "symbol": leg.symbol.upper() in names,
        "right": leg.right == details.right,
        "strike": _is_same_strike(leg.strike, details.strike),
        "expiry": fits_expiry,
    }
    differences = [
        f"its {_WORDS_OF_FIELDS.get(name, name)} is "
        f"{word(getattr(details, name))}, not {word(getattr(leg, name))}"
        for name in agrees
        if not agrees[name]
    ]
    return ", ".join(differences) or None


def _expires_on(day: date, details: ContractDetails) -> bool:
    """Return whether a day may be called the expiry of a contract (`contract_mismatch`).

    If neither of its days is known, none fits.
    """
    last_trade = details.last_trade_date
    expiry = details.expires_on
    if expiry is None:
        if last_trade is None:
            return False
        return timedelta() <= day - last_trade <= SETTLED_WITHIN

    # A last trade after the expiry was read in a wrong time zone: its day says nothing.
    is_last_trade = day == last_trade and day <= expiry
    return day == expiry or is_last_trade


def _is_same_strike(strike: float | None, strike_of_contract: float | None) -> bool:
    """Return whether two strikes are equal; two spellings of a fraction may differ by rounding."""
    if strike is None or strike_of_contract is None:
        return strike is strike_of_contract
    return math.isclose(strike, strike_of_contract, rel_tol=1e-9)


def matching_contracts(
    leg: UnresolvedLeg, candidates: Iterable[ContractDetails]
) -> list[ContractDetails]:
    """Return the contracts that match all fields of a leg, in their order.

    The day decides which contract is chosen: it is that of the expiry, or that of the last trade
    where the broker names no other.
    """
    return [
        details
        for details in candidates
        if leg.expiry in (None, details.expiry) and contract_mismatch(leg, details) is None
    ]


def problem_of(
    leg: UnresolvedLeg, matching: list[ContractDetails], candidates: list[ContractDetails]
) -> str:
    """Return why no contract was chosen for a leg, with the contracts that the gateway named.

    Args:
        leg: The leg.
        matching: The contracts that match it: none or several.
        candidates: All that the gateway named.
    """
    described = leg.described
    if matching:
        return (
            f"{len(matching)} contracts are {described}: {_named(matching)}. Add what tells "
            "them apart (trading class, multiplier, exchange, currency) or the conid."
        )

    unknown = f"The gateway knows no contract {described}"
    if not candidates:
        return f"{unknown}."
    return f"{unknown}, but {_named(candidates)}."


def _named(contracts: list[ContractDetails]) -> str:
    """Return the first contracts as text."""
    return few(map(candidate_text, contracts), MOST_CANDIDATES, "; ")


def candidate_text(details: ContractDetails) -> str:
    """Return a contract as text, with the fields by which contracts differ."""
    named = {
        "conid": details.conid,
        "class": details.trading_class,
        "expiry": details.expiry,
        "exchange": details.exchange,
        "multiplier": details.multiplier,
    }
    words = [f"{name} {word(value)}" for name, value in named.items() if value]
    words.append(details.currency)

    return f"{details.local_symbol or details.symbol} ({', '.join(words)})"
