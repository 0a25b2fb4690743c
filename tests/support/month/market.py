"""Securities and prices of the simulated months, and the sessions of New York.

The calendar is written by hand: the program's own is what is to be tested.
"""

import math
import random
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from zoneinfo import ZoneInfo

from ib_gateway_simulator.clearing.securities import Category, Security
from ib_gateway_simulator.market.pricing import black_scholes

NEW_YORK = ZoneInfo("America/New_York")

D = Decimal


def _days(year: int, month: int, *days: int) -> list[date]:
    return [date(year, month, day) for day in days]


# Half a day before Christmas, two holidays, and New Year.
CHRISTMAS = [
    *_days(2025, 12, 15, 16, 17, 18, 19, 22, 23, 24, 26, 29, 30, 31),
    *_days(2026, 1, 2, 5, 6, 7, 8, 9),
]
# New York changes its clocks on Sunday, 8 March 2026; London and Frankfurt three weeks later.
SUMMER_TIME = _days(2026, 3, 5, 6, 9, 10, 11, 12, 13)

HALF_DAYS = {date(2025, 12, 24): time(13)}


def close_of(session: date) -> datetime:
    """Return when New York closes on a session."""
    return datetime.combine(session, HALF_DAYS.get(session, time(16)), NEW_YORK)


def _stock(conid: int, symbol: str, currency: str = "USD") -> Security:
    return Security(conid=conid, symbol=symbol, category=Category.STOCK, currency=currency)


def _index(conid: int, symbol: str, currency: str = "USD") -> Security:
    return Security(conid=conid, symbol=symbol, category=Category.INDEX, currency=currency)


def _future(conid: int, symbol: str, multiplier: int, expiry: str) -> Security:
    return Security(
        conid=conid, symbol=symbol, category=Category.FUTURE, currency="USD",
        multiplier=D(multiplier), expiry=expiry,
    )  # fmt: skip


def _pair(conid: int, symbol: str) -> Security:
    """Return a currency pair: its first currency is bought, and paid in its second one."""
    return Security(conid=conid, symbol=symbol, category=Category.CURRENCY, currency=symbol[-3:])


def _in_percent(conid: int, symbol: str, category: Category) -> Security:
    return Security(conid=conid, symbol=symbol, category=category, currency="USD")


_options: dict[tuple[int, str, str, int], Security] = {}


def option(
    under: Security, expiry: str, right: str, strike: int, *, multiplier: int | None = None
) -> Security:
    """Return an option on a security; the same arguments return the same option."""
    key = (under.conid, expiry, right, strike)
    if key not in _options:
        is_on_future = under.category is Category.FUTURE
        size = multiplier or (int(under.multiplier) if is_on_future else 100)
        symbol = f"{under.symbol:<6}{expiry[2:]}{right}{strike * 1000:08}"
        _options[key] = Security(
            conid=700_000_001 + len(_options),
            symbol=symbol,
            category=Category.FUTURE_OPTION if is_on_future else Category.OPTION,
            currency=under.currency,
            multiplier=D(size),
            underlying=under,
            strike=D(strike),
            right=right,
            expiry=expiry,
        )
    return _options[key]


AAPL, MSFT, XYZ = _stock(265598, "AAPL"), _stock(272093, "MSFT"), _stock(9001, "XYZ")
OLD, NEW = _stock(9002, "OLD"), _stock(9003, "NEW")
SPX, ESTX50 = _index(416904, "SPX"), _index(4356500, "ESTX50", "EUR")
ES, MES = _future(495512563, "ESH6", 50, "20260320"), _future(586139726, "MESH6", 5, "20260320")
SAP, VOD, TOYOTA = (
    _stock(14204, "SAP", "EUR"),
    _stock(9921, "VOD", "GBP"),
    _stock(9331, "7203", "JPY"),
)
TREASURY = _in_percent(8001, "T 4 1/4 11/15/34", Category.BOND)
BILL = _in_percent(8002, "B 03/26/26", Category.BILL)
FUND = Security(conid=8003, symbol="VFIAX", category=Category.FUND, currency="USD")
EUR_USD, GBP_USD, USD_JPY = (
    _pair(12087792, "EUR.USD"),
    _pair(12087797, "GBP.USD"),
    _pair(15016059, "USD.JPY"),
)

# Price at the beginning and volatility per year.
_START: dict[int, tuple[float, float]] = {
    AAPL.conid: (223.0, 0.3), MSFT.conid: (480.0, 0.25), XYZ.conid: (404.0, 0.4),
    OLD.conid: (29.5, 0.05), NEW.conid: (2.0, 0.6), SPX.conid: (6800.0, 0.15),
    ESTX50.conid: (5700.0, 0.15), ES.conid: (6830.0, 0.15), MES.conid: (6830.0, 0.15),
    SAP.conid: (210.0, 0.25), VOD.conid: (0.745, 0.2), TOYOTA.conid: (3300.0, 0.25),
    TREASURY.conid: (98.5, 0.06), BILL.conid: (98.9, 0.01), FUND.conid: (620.0, 0.15),
    EUR_USD.conid: (1.08, 0.08), GBP_USD.conid: (1.27, 0.08), USD_JPY.conid: (155.0, 0.1),
}  # fmt: skip

_DIGITS = {VOD.conid: 4, EUR_USD.conid: 5, GBP_USD.conid: 5, USD_JPY.conid: 3, TOYOTA.conid: 1}

SESSIONS_PER_YEAR = 252


class MovingMarket:
    """Prices that walk from session to session; the same seed has the same walks."""

    def __init__(self, seed: int) -> None:
        self._walks = {conid: random.Random(f"{seed}:{conid}") for conid in _START}
        self._spots = {conid: start for conid, (start, _volatility) in _START.items()}
        self._rates: dict[tuple[str, date], Decimal] = {}
        self._session = date.min

    def move(self, session: date) -> None:
        """Let a session pass: afterwards the prices are those of its close."""
        self._session = session
        for conid, walk in self._walks.items():
            shock = walk.gauss(0.0, _START[conid][1] / math.sqrt(SESSIONS_PER_YEAR))
            self._spots[conid] *= math.exp(shock)
        self._spots[MES.conid] = self._spots[ES.conid]
        for currency, rate in self._in_dollars().items():
            self._rates[currency, session] = rate

    def set(self, security: Security, price: float) -> None:
        """Set the price of a security, for what a script needs in or out of the money."""
        self._spots[security.conid] = price

    def split(self, security: Security, ratio: int) -> None:
        """Divide the price of a security."""
        self._spots[security.conid] /= ratio

    def price(self, security: Security) -> Decimal:
        """Return the price at the close of the present session, in the major unit."""
        if not security.is_option or security.underlying is None or security.strike is None:
            digits = _DIGITS.get(security.conid, 2)
            return D(repr(round(self._spots[security.conid], digits)))
        years = (date.fromisoformat(security.expiry) - self._session).days / 365
        found = black_scholes(
            spot=self._spots[security.underlying.conid],
            strike=float(security.strike),
            years=years,
            volatility=0.22,
            rate=0.04,
            call=security.right == "C",
            on_future=security.category is Category.FUTURE_OPTION,
        )
        return D(repr(round(found.price, 4)))

    def rate(self, currency: str, base: str, session: date) -> Decimal:
        """Return what a unit of a currency is worth in another one."""
        if currency == base:
            return D(1)
        known = self._rates
        ratio = known[currency, session] / known[base, session]
        return ratio.quantize(D("0.000001"))

    def _in_dollars(self) -> dict[str, Decimal]:
        return {
            "USD": D(1),
            "EUR": self.price(EUR_USD),
            "GBP": self.price(GBP_USD),
            "JPY": D(1) / self.price(USD_JPY),
        }


PriceOf = Callable[[Security], Decimal]
