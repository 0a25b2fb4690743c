"""The instrument behind a conid, its details, and the spellings of IB and of people."""

import math
import re
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any, Protocol

from position_sync_dagster.errors import InvalidLegError, shown

# Conids are positive numbers of 32 bits. Source: IB, `Contract.ConId` is a Java int.
CONIDS = range(1, 2**31)

# Options on shares, indices and futures that exchanges list: each has the terms of its class.
LISTED_OPTIONS = frozenset({"OPT", "FOP"})

# These and warrants, whose terms are their own: what ends by a delivery or in cash.
OPTION_TYPES = LISTED_OPTIONS | {"WAR", "IOPT"}

# The broker states the multiplier of each of these (recorded in messages 7 and 61).
MULTIPLIED_TYPES = LISTED_OPTIONS | {"FUT"}


class Right(StrEnum):
    """The right of an option. `gateway` translates IB's C and P."""

    CALL = "CALL"
    PUT = "PUT"


# The spellings of rights, those of IB and of people.
RIGHTS = {"C": Right.CALL, "CALL": Right.CALL, "P": Right.PUT, "PUT": Right.PUT}


def parse_right(text: str) -> Right:
    """Read an option right as IB or a person writes it.

    Raises:
        InvalidLegError: It is none of C, CALL, P, PUT, in upper or lower case.

    >>> parse_right("c")
    <Right.CALL: 'CALL'>
    """
    right = RIGHTS.get(str(text).strip().upper())
    if right is None:
        raise InvalidLegError(f"The right {shown(text)} is not known.", remedy="Write CALL or PUT.")
    return right


# A day as a person writes it; the last form is that of the names of contracts (`leg_name`).
_ISO_DAY = r"\d{8}|\d{4}-\d{2}-\d{2}"
DAY_PATTERN = _ISO_DAY + r"|\d{2}[A-Za-z]{3}\d{2}"


def parse_day(value: str | int | date, name: str) -> date:
    """Read a day: a date, or text such as "20260220", "2026-02-20" or "20Feb26".

    Args:
        name: What the day is, for the error.

    Raises:
        InvalidLegError: It is not a calendar day.
    """
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    # Python writes no number of thousands of digits.
    text = "" if isinstance(value, int) and abs(value) > 10**8 else str(value).strip()
    with suppress(ValueError):
        if re.fullmatch(_ISO_DAY, text):
            return date.fromisoformat(text)  # a tenth of the time of `strptime`
        if re.fullmatch(DAY_PATTERN, text):
            return datetime.strptime(text, "%d%b%y").replace(tzinfo=UTC).date()
    raise InvalidLegError(
        f"The {name} {shown(value)} is no day.", remedy='Write it as "20260220" or "2026-02-20".'
    )


def parse_expiry(value: str | int | date) -> date:
    """Read an expiry as `parse_day` reads a day.

    Raises:
        InvalidLegError: It is not a calendar day.

    >>> parse_expiry("20260220"), parse_expiry("20Feb26")
    (datetime.date(2026, 2, 20), datetime.date(2026, 2, 20))
    """
    return parse_day(value, "expiry")


def parse_conid(value: int | str) -> int:
    """Read a contract id: a whole number above zero, of 32 bits.

    Raises:
        InvalidLegError: It is not such a number.

    >>> parse_conid(" 265598 ")
    265598
    """
    return whole_number(
        value,
        f"The conid {shown(value)} is no contract id.",
        "Take the whole number that TWS shows under Contract Info > Description.",
    )


def whole_number(value: int | str, what: str, remedy: str) -> int:
    """Read a whole number above zero, of 32 bits; else raise an error of these texts."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = 0
    # `int` rounds 7.5, and reads "1_000" and True too.
    if isinstance(value, bool) or number not in CONIDS or str(number) != str(value).strip():
        raise InvalidLegError(what, remedy=remedy)
    return number


def finite_number(
    value: float | str, name: str, example: str, fits: Callable[[float], bool] = math.isfinite
) -> float:
    """Read a finite number that fits; else raise an error that names it and shows an example."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isfinite(number) and fits(number):
        return number
    remedy = f"Write it as {example}."
    raise InvalidLegError(f"The {name} {shown(value)} is no number that fits.", remedy=remedy)


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

    def __post_init__(self) -> None:
        _share_texts(self, ("symbol", "sec_type", "currency", "trading_class", "exchange"))

    @property
    def terms(self) -> dict[str, Any]:
        """What identifies it in rows of values, trades and changes, by the names of the columns."""
        return {name: getattr(self, name) for name in TERMS}


def _share_texts(value: object, names: Iterable[str]) -> None:
    """Keep one copy of a text that thousands of contracts have."""
    for name in names:
        text = getattr(value, name)
        if type(text) is str:
            object.__setattr__(value, name, sys.intern(text))


TERMS = ("conid", "symbol", "sec_type", "currency", "multiplier", "right", "strike", "expiry")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractDetails:
    """The newest details of a contract: a row of the table `contracts`, whose columns follow it.

    The gateway lists an index option that is settled at the open under its last trading day or
    under its day of expiry. Which of the two is not verified; both are accepted.

    Attributes:
        conid: IB's contract id of the instrument.
        symbol: Symbol of the underlying, as IB writes it.
        sec_type: IB's security type: OPT, FOP, STK, FUT, …
        currency: ISO code of the contract's currency.
        local_symbol: IB's local symbol of the contract, such as the OCC symbol of an option.
        trading_class: IB's trading class of the contract.
        exchange: Listing exchange.
        under_conid: Contract id of the underlying; null where there is none.
        multiplier: Units of the underlying in one contract; 1 for a stock.
        price_magnifier: Divisor from quoted prices to the currency's major unit: 100 for
            contracts quoted in cents or pence, else 1. Source: contract details, message 10.
        right: CALL or PUT; null for an instrument that is not an option.
        strike: Strike of the option; null for other instruments. Unit: as quoted.
        last_trade_date: Last trading day of a derivative, in time_zone.
        last_trade_time: Time of the last trade on that day, in time_zone, as "08:30:00".
        time_zone: Time zone of the exchange, as the broker names it; that of the last trade where
            it names none.
        trading_hours: Trading hours as the broker writes them, separated by semicolons.
        seen_at: When the gateway sent the details.
        valid_exchanges: Where the contract may be requested, separated by commas; empty if the
            broker names no exchange, null in rows of a release that did not ask for them.
        expires_on: Day on which a derivative expires: of an index option that is settled at the
            open, the day after the last trade. Source: contract details, message 10,
            `realExpirationDate`. Null where it is not known.
        under_sec_type: Security type of the underlying, IND of an option that is settled in cash;
            null where there is none, and in rows of a release that did not read it.
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

    def __post_init__(self) -> None:
        _share_texts(self, _SHARED_TEXTS)

    @property
    def expiry(self) -> date | None:
        """The day of expiry; where the broker names none, that of the last trade."""
        return self.expires_on or self.last_trade_date


_SHARED_TEXTS = (
    "symbol", "sec_type", "currency", "trading_class", "exchange", "time_zone", "last_trade_time",
    "trading_hours", "valid_exchanges", "under_sec_type",
)  # fmt: skip

DetailsByConid = dict[int, ContractDetails]


def digits(number: float) -> str:
    """Return a number with all its digits, as far as they are certain.

    >>> digits(24125.25), digits(2_500_000.0), digits(0.1 + 0.2)
    ('24125.25', '2500000', '0.3')
    """
    return f"{number:.15g}"


def leg_name(symbol: str, right: str | None, strike: float | None, expiry: date | None) -> str:
    """Return the name of a contract as a trader writes it.

    >>> leg_name("ZB", "PUT", 119.515625, date(2028, 12, 15)), leg_name("SPY", None, None, None)
    ('ZB 119.515625P 15Dec28', 'SPY')
    """
    strike_and_right = "" if strike is None else f"{digits(strike)}{(right or '')[:1]}"
    day = "" if expiry is None else f"{expiry:%d%b%y}"
    return " ".join(filter(None, (symbol, strike_and_right, day)))


class HasTerms(Protocol):
    """Anything with the terms of a contract: a row, a leg or an instrument."""

    @property
    def symbol(self) -> str: ...
    @property
    def right(self) -> str | None: ...
    @property
    def strike(self) -> float | None: ...
    @property
    def expiry(self) -> date | None: ...


def contract_name(terms: HasTerms) -> str:
    """Return the name of the contract that a row is of, as a trader writes it."""
    return leg_name(terms.symbol, terms.right, terms.strike, terms.expiry)
