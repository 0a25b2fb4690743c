"""The instrument behind a conid: details, quote, IB's spellings, times and trading hours.

A gateway writes a time in the zone of its login, in that of the instrument, or in UTC with a
hyphen; which one is a setting of TWS. Names of zones are free text: those of the IANA database,
abbreviations of Java ("IST"), or names of the operating system ("China Standard Time").
"""

import math
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from enum import StrEnum
from functools import lru_cache
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from position_sync_dagster.errors import InvalidLegError, shown

# The zone of closes and statements, and of an expiry whose details name none.
NEW_YORK = ZoneInfo("America/New_York")

# Conids are positive numbers of 32 bits. Source: IB, `Contract.ConId` is a Java int.
CONIDS = range(1, 2**31)

# The broker states the multiplier of each of these (recorded in messages 7 and 61).
MULTIPLIED_TYPES = frozenset({"OPT", "FOP", "FUT"})


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

    @property
    def is_settled_at_the_open(self) -> bool:
        """Return whether the settlement follows the last trading day."""
        last = self.last_trade_date
        return self.expires_on is not None and last is not None and self.expires_on > last


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
    return " ".join(part for part in (symbol, strike_and_right, day) if part)


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


def contract_name(one: HasTerms) -> str:
    """Return the name of the contract that a row is of, as a trader writes it."""
    return leg_name(one.symbol, one.right, one.strike, one.expiry)


# The names of zones that the IANA database does not have, or has for another time. An abbreviation
# of standard time is the zone of the city also in summer: "EST" is what clocks in New York show
# [R: ib_async issues/143, vnpy_ib issues/27]. IST is India [R: ib-re-actor pull/5], CST is Chicago,
# as in Java. Long names: [R: rust-ibapi v1.2.2 and pull/364, Jib.jl issues/6].
_NAMES = {
    "America/New_York": "EST, EDT, Eastern Standard Time, Eastern Daylight Time, Eastern Time",
    "America/Chicago": "CST, CDT, Central Standard Time, Central Daylight Time, Central Time",
    "America/Denver": "MDT, Mountain Standard Time, Mountain Daylight Time",
    "America/Los_Angeles": "PST, PDT, Pacific Standard Time, Pacific Daylight Time",
    "America/Halifax": "Atlantic Standard Time, Atlantic Daylight Time",
    "America/Sao_Paulo": "BRT, Brasilia Time, Brasilia Standard Time",
    "Pacific/Honolulu": "HST, Hawaii Standard Time, Hawaii-Aleutian Standard Time",
    "Europe/London": "BST, British Summer Time, GMT Standard Time",
    "Europe/Lisbon": "WEST, Western European Time, Western European Summer Time",
    "Europe/Berlin": "CEST, MEST, Central European Time, Central European Standard Time, "
    "Central European Summer Time, W. Europe Standard Time, Romance Standard Time, "
    "Central Europe Standard Time",
    "Europe/Helsinki": "EEST, Eastern European Time, Eastern European Standard Time, "
    "Eastern European Summer Time, FLE Standard Time, GTB Standard Time",
    "Europe/Moscow": "MSK, Moscow Standard Time, Russian Standard Time",
    "Asia/Jerusalem": "IDT, Israel Standard Time, Israel Daylight Time",
    "Asia/Dubai": "GST, Gulf Standard Time, Arabian Standard Time",
    "Asia/Kolkata": "IST, India Standard Time",
    "Asia/Bangkok": "ICT, Indochina Time, SE Asia Standard Time",
    "Asia/Shanghai": "CTT, China Standard Time, China Time, 中国标准时间",
    "Asia/Hong_Kong": "HKT, Hong Kong Time, Hong Kong Standard Time",
    "Asia/Taipei": "Taipei Standard Time, Taiwan Standard Time, 台北标准时间",
    "Asia/Singapore": "SGT, Singapore Time, Singapore Standard Time",
    "Asia/Tokyo": "JST, Japan Time, Japan Standard Time, Tokyo Standard Time",
    "Asia/Seoul": "KST, Korea Standard Time, Korean Standard Time",
    "Australia/Sydney": "AEST, AEDT, Australian Eastern Standard Time, "
    "Australian Eastern Daylight Time, AUS Eastern Standard Time",
    "Pacific/Auckland": "NZST, NZDT, New Zealand Standard Time, New Zealand Daylight Time",
    "Africa/Johannesburg": "SAST, South Africa Standard Time",
    "UTC": "Z, Coordinated Universal Time, Universal Time, Greenwich Mean Time",
}

_ZONES = {
    name.strip().casefold(): zone for zone, names in _NAMES.items() for name in names.split(",")
}

# The IANA database has a zone of this name without daylight saving time, although people mean the
# clocks of Denver.
UNSURE = frozenset({"MST"})

_OFFSET = re.compile(r"(?:GMT|UTC)?([+-])(\d{1,2})(?::?(\d{2}))?")

_TIME = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)(-|\s+)(\d\d?:\d\d(?::\d\d)?)(?:\.\d+)?(?:\s+(\S.*))?")


class UnknownZoneError(ValueError):
    """A zone has a name that is not known, so that the time beside it is not known either."""


@lru_cache(maxsize=256)
def zone_of(text: str | None) -> tzinfo | None:
    """Return the zone of a name as the broker writes it; None where it is not known.

    >>> zone_of("US/Central (Chicago)"), zone_of("EST"), zone_of("somewhere"), zone_of("GMT+08:00")
    (zoneinfo.ZoneInfo(key='US/Central'), zoneinfo.ZoneInfo(key='America/New_York'), None, \
datetime.timezone(datetime.timedelta(seconds=28800)))
    """
    name = (text or "").split(" (")[0].strip()
    if not name or name in UNSURE:
        return None
    if offset := _OFFSET.fullmatch(name):
        hours, minutes = int(offset[2]), int(offset[3] or 0)
        if hours > 14 or minutes > 59:
            return None
        length = timedelta(hours=hours, minutes=minutes)
        return timezone(-length if offset[1] == "-" else length)
    try:
        return ZoneInfo(_ZONES.get(name.casefold(), name))
    except (LookupError, ValueError, OSError):
        return None


def read_time(text: str) -> datetime:
    """Read a date and a time as a gateway writes them; without a zone it is of this machine's.

    Args:
        text: Such as `20261126 20:32:38 Asia/Kolkata` or, in UTC, `20261126-15:02:38`.

    Raises:
        UnknownZoneError: The zone that it names is not known.
        ValueError: It is no time.

    >>> read_time("20261126 20:32:38 IST").astimezone(UTC).isoformat()
    '2026-11-26T15:02:38+00:00'
    >>> read_time("20261126-15:02:38").isoformat()
    '2026-11-26T15:02:38+00:00'
    """
    found = _TIME.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no time of a gateway")
    day = date(int(found[1]), int(found[2]), int(found[3]))
    hour, rest = found[5].split(":", 1)
    at = datetime.combine(day, time.fromisoformat(f"{hour:0>2}:{rest}"))
    zone: tzinfo | None = UTC if found[4] == "-" else None
    if found[6]:
        zone = zone_of(found[6])
        if zone is None:
            raise UnknownZoneError(f"the time zone {found[6]!r} is not known")
    return at.astimezone() if zone is None else at.replace(tzinfo=zone)


_SESSION = re.compile(r"(\d{8}):(\d{4})-(?:(\d{8}):)?(\d{4})")
_CLOSED = re.compile(r"(\d{8}):CLOSED")

# When an option expires whose details name no time or no zone, in New York.
USUAL_LAST_TRADE = time(16)


@lru_cache(maxsize=4096)
def expiry_moment(
    day: date,
    clock: str | None = None,
    time_zone: str | None = None,
    *,
    usual: time = USUAL_LAST_TRADE,
) -> datetime:
    """Return when a contract can be traded last; thousands of options share a few moments.

    Args:
        day: The last day.
        clock: The time of its last trade, as the broker writes it ("15:00:00").
        time_zone: The zone of that time.
        usual: The time in New York that counts where one of the two is not known.

    >>> expiry_moment(date(2028, 12, 15), "15:00:00", "US/Central").isoformat()
    '2028-12-15T15:00:00-06:00'
    """
    zone = zone_of(time_zone)
    try:
        at = time.fromisoformat(clock or "")
    except ValueError:
        zone = None
    return datetime.combine(day, usual if zone is None else at, zone or NEW_YORK)


@dataclass(frozen=True, slots=True)
class TradingHours:
    """The sessions that the broker lists for a contract.

    Attributes:
        sessions: Beginning and end of each, in UTC: times of two zones take ten times as long to
            compare, and each row of a streamed holding compares some.
        begins, ends: The span of time that the list covers.
    """

    sessions: tuple[tuple[datetime, datetime], ...]
    begins: datetime
    ends: datetime

    def is_open(self, now: datetime) -> bool | None:
        """Return whether a session is open; None outside the days that are listed."""
        for opens, closes in self.sessions:
            if opens <= now < closes:
                return True
        return False if self.begins <= now < self.ends else None


@lru_cache(maxsize=4096)
def parse_trading_hours(text: str | None, time_zone: str | None) -> TradingHours | None:
    """Read trading hours as the broker writes them; None where they cannot be read.

    Source: IB, "Requesting Contract Details"
    (interactivebrokers.github.io/tws-api/contract_details.html): days are separated by ";",
    sessions of a day by ","; since version 970 the end has a date too.
    The time zone is that of `timeZoneId`, for example "US/Central".

    >>> hours = parse_trading_hours("20260406:0930-20260406:1600;20260407:CLOSED", "US/Eastern")
    >>> from datetime import UTC
    >>> hours.is_open(datetime(2026, 4, 6, 14, 0, tzinfo=UTC))
    True
    >>> hours.is_open(datetime(2026, 4, 7, 14, 0, tzinfo=UTC))
    False
    >>> hours.is_open(datetime(2026, 4, 9, 14, 0, tzinfo=UTC)) is None
    True
    """
    zone = zone_of(time_zone)
    if not text or zone is None:
        return None
    try:
        return _read(text, zone)
    except (ValueError, OverflowError):
        return None


def _read(text: str, zone: tzinfo) -> TradingHours | None:
    sessions, days = [], set()
    parts = [part.strip() for part in re.split("[;,]", text)]
    for part in filter(None, parts):
        if closed := _CLOSED.fullmatch(part):
            days.add(date.fromisoformat(closed[1]))
            continue
        session = _SESSION.fullmatch(part)
        if session is None:
            return None
        first, last = map(date.fromisoformat, (session[1], session[3] or session[1]))
        opens, closes = _at(first, session[2], zone), _at(last, session[4], zone)
        if session[3] is None and closes <= opens:
            closes = _at(first + timedelta(days=1), session[4], zone)
        if closes < opens:
            return None
        sessions.append((opens, closes))
        days |= {first, last}
    if not days:
        return None
    begins = min([_at(min(days), "0000", zone), *(opens for opens, _ in sessions)])
    ends = max([_at(max(days) + timedelta(days=1), "0000", zone), *(c for _, c in sessions)])
    return TradingHours(tuple(sessions), begins, ends)


def _at(day: date, clock: str, zone: tzinfo) -> datetime:
    hour, minute = int(clock[:2]), int(clock[2:])
    if (hour, minute) == (24, 0):
        day, hour = day + timedelta(days=1), 0
    return datetime.combine(day, time(hour, minute), zone).astimezone(UTC)


class DividendSource(StrEnum):
    """Where a dividend is known from.

    STATED: the gateway names the next one and the sum of a year (tick 456). EXPECTED: it follows
    from the part of the price that the gateway's option model deducts until several expiries
    (`pvDividend`); days and amounts are estimates.
    """

    STATED = "STATED"
    EXPECTED = "EXPECTED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedDividend:
    """A dividend of an underlying: a row of the table `dividends`.

    The rows of a conid and source with the greatest `seen_at` count; the older ones are what was
    known before.

    Attributes:
        conid: IB's contract id of the underlying.
        symbol: Its symbol, as IB writes it.
        source: STATED (tick 456) or EXPECTED (from pvDividend).
        ex_date: The first day on which a buyer does not get it; null: none is paid.
        amount: What is paid for a share; null where only a share of the price is known. Unit: the
            major unit of the currency.
        share: It as a share of the price, where no amount is known. Unit: 1.
        next_year: The sum of the next 12 months, of a STATED one. Unit: the major unit of the
            currency.
        seen_at: When it was first seen (UTC).
        run_id: The Dagster run that wrote the row.
    """

    conid: int
    symbol: str
    source: DividendSource
    ex_date: date | None = None
    amount: float | None = None
    share: float | None = None
    next_year: float | None = None
    seen_at: datetime
    run_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedDividends:
    """The dividends of a stock as the gateway sends them, as quoted (tick type 59).

    Attributes:
        next_date, next_amount: The next ex-date and amount; None: not known.
        next_year: The sum of the next 12 months.
    """

    next_date: date | None
    next_amount: float | None
    next_year: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """The newest market data of one contract; None where the gateway sent nothing usable.

    Attributes:
        bid, ask, last, mark: In the contract's price unit (cents for cent-quoted contracts).
        quote_time: When the newest price or size of bid, ask or last arrived here.
        moved_at: When bid or ask last changed here.
        mark_time: When the mark arrived here.
        last_time: The exchange's time of the last trade.
        received_at: When the newest tick of any kind arrived here; None before the first.
        market_data_type: 1 live, 2 frozen, 3 delayed, 4 delayed frozen.
        halted: Trading is halted (tick 49, or 90 of delayed data).
        implied_vol, delta, gamma, vega, theta, underlying_price: From IB's option model.
        model_price: The option price of that model (tick 13).
        pv_dividend: The present value of the dividends until expiry in that model.
        greeks_time: When the newest values of that model arrived here.
        min_tick: The smallest change of a price (message 81).
        dividends: Those of a stock.
    """

    conid: int
    received_at: datetime | None = None
    bid: float | None = None
    ask: float | None = None
    last: float | None = None
    mark: float | None = None
    quote_time: datetime | None = None
    moved_at: datetime | None = None
    mark_time: datetime | None = None
    last_time: datetime | None = None
    market_data_type: int | None = None
    halted: bool = False
    implied_vol: float | None = None
    delta: float | None = None
    gamma: float | None = None
    vega: float | None = None
    theta: float | None = None
    underlying_price: float | None = None
    model_price: float | None = None
    pv_dividend: float | None = None
    greeks_time: datetime | None = None
    min_tick: float | None = None
    dividends: StatedDividends | None = None

    @property
    def is_live(self) -> bool:
        """Whether its ticks are true when they arrive.

        Those of frozen data were true when the market closed, those of delayed data some 15 minutes
        before they came, or at the close before. Source: IB, "Market Data Types".
        """
        return self.market_data_type not in (2, 3, 4)

    @property
    def is_delayed(self) -> bool:
        """Whether it is delayed data, 3 or 4."""
        return self.market_data_type in (3, 4)

    def counted(self, *, since: datetime, now: datetime, model_silence: timedelta) -> "Quote":
        """Return the quote with the parts that arrived after a moment; the others are unknown.

        Quote, mark and model come from different parts of a gateway, and one may end while the
        others go on (IBC issues/371: quotes without the model's ticks). The model follows the
        price: if bid or ask changed long after the model's last tick, the model has ended.

        Args:
            since: What arrived at this moment or earlier does not count.
            now: What arrived later is from before the clock was set back.
            model_silence: The longest time from the newest tick of the model to the newest change
                of bid or ask.
        """

        def counts(at: datetime | None) -> bool:
            return at is not None and since < at <= now

        unknown: dict[str, Any] = {}
        if not counts(self.quote_time):
            unknown |= dict.fromkeys(_QUOTE_PART)
        if not counts(self.mark_time):
            unknown |= dict.fromkeys(_MARK_PART)
        if not counts(self.greeks_time) or self._model_is_silent(model_silence):
            unknown |= dict.fromkeys(_MODEL_PART)
        return replace(self, **unknown) if unknown else self

    def _model_is_silent(self, silence: timedelta) -> bool:
        if self.moved_at is None or self.greeks_time is None:
            return False
        return self.moved_at - self.greeks_time > silence


GREEKS = ("implied_vol", "delta", "gamma", "vega", "theta", "underlying_price")

_QUOTE_PART = ("bid", "ask", "last", "last_time", "quote_time", "moved_at")
_MARK_PART = ("mark", "mark_time")
# The fields of a quote, by the part of a gateway that sends them.
_MODEL_PART = (*GREEKS, "model_price", "pv_dividend", "greeks_time")
