"""The instrument behind a conid, its contract details, and the parsing of IB's spellings."""

import math
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Protocol

from position_sync_dagster.errors import InvalidLegError, shown

CONIDS = range(1, 2**31)
"""Conids are positive numbers of 32 bits. Source: IB, `Contract.ConId` is a Java int."""


class Right(StrEnum):
    """The right of an option. `gateway` translates IB's C and P."""

    CALL = "CALL"
    PUT = "PUT"


_RIGHTS = {"C": Right.CALL, "CALL": Right.CALL, "P": Right.PUT, "PUT": Right.PUT}


def parse_right(text: str) -> Right:
    """Read an option right as IB or a person writes it.

    Raises:
        InvalidLegError: It is none of C, CALL, P, PUT, in upper or lower case.

    >>> parse_right("c")
    <Right.CALL: 'CALL'>
    """
    right = _RIGHTS.get(str(text).strip().upper())
    if right is None:
        raise InvalidLegError(f"The right {shown(text)} is not known.", remedy="Write CALL or PUT.")
    return right


def parse_expiry(value: str | int | date) -> date:
    """Read an expiry: a date, or text such as "20260220" or "2026-02-20".

    Raises:
        InvalidLegError: It is not a calendar day.

    >>> parse_expiry("20260220")
    datetime.date(2026, 2, 20)
    """
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    text = "" if isinstance(value, int) and value > 10**8 else str(value).strip()
    if text.replace("-", "").isdigit() and (len(text), text.count("-")) in ((8, 0), (10, 2)):
        with suppress(ValueError):
            return date.fromisoformat(text)
    raise InvalidLegError(
        f"The expiry {shown(value)} is no day.", remedy='Write it as "20260220" or "2026-02-20".'
    )


def parse_conid(value: int | str) -> int:
    """Read a contract id: a whole number above zero.

    Raises:
        InvalidLegError: It is not a whole number above zero.

    >>> parse_conid(" 265598 ")
    265598
    """
    try:
        conid = int(value)
    except (TypeError, ValueError, OverflowError):
        conid = 0
    if isinstance(value, bool) or conid <= 0 or conid >= 2**63 or str(conid) != str(value).strip():
        raise InvalidLegError(
            f"The conid {shown(value)} is no contract id.",
            remedy="Take the whole number that TWS shows under Contract Info > Description.",
        )
    return conid


def parse_strike(value: float | str) -> float:
    """Read a strike: a finite number, in the price unit of the contract.

    Raises:
        InvalidLegError: It is not a finite number.

    >>> parse_strike("450")
    450.0
    """
    strike = _number(value)
    if not math.isfinite(strike):
        raise InvalidLegError(
            f"The strike {shown(value)} is no number.", remedy="Write it as 450.0."
        )
    return strike


def parse_multiplier(value: float | str) -> float:
    """Read a multiplier: a finite number above zero.

    Raises:
        InvalidLegError: It is not a finite number above zero.

    >>> parse_multiplier("100")
    100.0
    """
    multiplier = _number(value)
    if not (math.isfinite(multiplier) and multiplier > 0):
        raise InvalidLegError(
            f"The multiplier {shown(value)} is no number above zero.", remedy="Write it as 100."
        )
    return multiplier


def _number(value: float | str) -> float:
    """Return a value as a number; NaN if it is not one."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """An instrument as the broker names it with a holding.

    Attributes:
        multiplier: 1.0 where the broker leaves it empty (stocks).
        exchange: The listing exchange; empty for the options and futures of `reqPositions`.
    """

    conid: int
    symbol: str
    sec_type: str
    currency: str
    multiplier: float = 1.0
    right: Right | None = None
    strike: float | None = None
    expiry: date | None = None
    local_symbol: str = ""
    trading_class: str = ""
    exchange: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractDetails:
    """The newest details of a contract: a row of the table `contracts`.

    Attributes:
        price_magnifier: Divisor from quoted prices to the currency's major unit: 100 for
            contracts quoted in cents or pence, else 1. Source: contract details, message 10.
        last_trade_date: The last trading day of a derivative.
        last_trade_time: Local time in `time_zone`, as the broker writes it ("08:30:00").
        trading_hours: As the broker writes them, sessions separated by ";".
        seen_at: When the gateway sent them.
        valid_exchanges: The exchanges that a request may name, separated by ","; empty if the
            broker names none, None if a release that did not ask for them stored the row.
        expires_on: The day it expires, which for index options settled at the open is the day after
            the last trade. Source: contract details, message 10, `realExpirationDate`. It is not
            verified under which of the two days the gateway lists such an option; both are
            accepted.
        under_sec_type: The security type of the underlying, IND for an index; None if a release
            that did not read it stored the row.
    """

    conid: int
    symbol: str
    sec_type: str
    currency: str
    local_symbol: str
    trading_class: str
    exchange: str
    under_conid: int | None
    multiplier: float
    price_magnifier: int
    right: Right | None
    strike: float | None
    last_trade_date: date | None
    last_trade_time: str | None
    time_zone: str | None
    trading_hours: str | None
    seen_at: datetime
    valid_exchanges: str | None = None
    expires_on: date | None = None
    under_sec_type: str | None = None


def leg_name(symbol: str, right: str | None, strike: float | None, expiry: date | None) -> str:
    """Return the name of a contract as a trader writes it.

    >>> leg_name("SPY", "PUT", 575.0, date(2028, 12, 15)), leg_name("SPY", None, None, None)
    ('SPY 575P 15Dec28', 'SPY')
    """
    strike_and_right = "" if strike is None else f"{strike:g}{(right or '')[:1]}"
    day = "" if expiry is None else f"{expiry:%d%b%y}"
    return " ".join(part for part in (symbol, strike_and_right, day) if part)


class HasTerms(Protocol):
    """A row, a leg or an instrument: what says which contract it is of."""

    @property
    def symbol(self) -> str: ...
    @property
    def right(self) -> str | None: ...
    @property
    def strike(self) -> float | None: ...
    @property
    def expiry(self) -> date | None: ...


def contract_name(one: HasTerms) -> str:
    """Return the name of the contract that a row is of, as a trader writes it."""
    return leg_name(one.symbol, one.right, one.strike, one.expiry)
