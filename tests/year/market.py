"""Securities and prices of the year: walks from session to session."""

import math
import random
from datetime import date, time
from decimal import Decimal

from ib_gateway_simulator.clearing.securities import Category, Security
from ib_gateway_simulator.market.pricing import black_scholes

D = Decimal

SESSIONS_PER_YEAR = 252
INTEREST = 0.04
OPTION_VOLATILITY = 0.22


def _stock(conid: int, symbol: str, currency: str = "USD") -> Security:
    return Security(conid=conid, symbol=symbol, category=Category.STOCK, currency=currency)


def _index(conid: int, symbol: str, currency: str = "USD") -> Security:
    return Security(conid=conid, symbol=symbol, category=Category.INDEX, currency=currency)


def _pair(conid: int, symbol: str) -> Security:
    """Return a currency pair: its first currency is bought, and paid in its second one."""
    return Security(conid=conid, symbol=symbol, category=Category.CURRENCY, currency=symbol[-3:])


AAPL = _stock(265598, "AAPL")
MSFT = _stock(272093, "MSFT")
XYZ = _stock(9001, "XYZ")
OLD = _stock(9002, "OLD")
NEW = _stock(9003, "NEW")
SPUN = _stock(9004, "SPUN")
RENAMED = _stock(9005, "RENAMED")
SPX = _index(416904, "SPX")
ESTX50 = _index(4356500, "ESTX50", "EUR")
SAP = _stock(14204, "SAP", "EUR")
VOD = _stock(9921, "VOD", "GBP")
ES = _index(11004968, "ES")
EUR_USD = _pair(12087792, "EUR.USD")
GBP_USD = _pair(12087797, "GBP.USD")

# Price at the beginning, and volatility per year. All futures of ES have one price.
_START: dict[Security, tuple[float, float]] = {
    AAPL: (223.0, 0.3), MSFT: (480.0, 0.25), XYZ: (404.0, 0.4), OLD: (29.5, 0.05), NEW: (2.0, 0.6),
    SPX: (6800.0, 0.15), ESTX50: (5700.0, 0.15), ES: (6830.0, 0.15), SAP: (210.0, 0.25),
    SPUN: (31.0, 0.35), RENAMED: (20.0, 0.6), VOD: (0.745, 0.2), EUR_USD: (1.08, 0.08),
    GBP_USD: (1.27, 0.08),
}  # fmt: skip

_DIGITS = {VOD: 4, EUR_USD: 5, GBP_USD: 5}

# How far apart the strikes of an underlying are.
STRIKE_STEP = {AAPL: 5, MSFT: 10, XYZ: 5, SPX: 25, ESTX50: 25, ES: 25, SAP: 5}

# When options on these end on their last day, in Frankfurt; all others with New York.
LAST_TRADES = {ESTX50: time(12), SAP: time(17, 30)}

MULTIPLIER = {ESTX50: 10, ES: 50}

_options: dict[tuple[int, str, str, int], Security] = {}
_futures: dict[str, Security] = {}

FIRST_OPTION = 700_000_001
FIRST_FUTURE = 495_512_501


def future(expiry: date) -> Security:
    """Return the future of ES that ends on a day; the same day returns the same future."""
    text = f"{expiry:%Y%m%d}"
    if text not in _futures:
        month = "FGHJKMNQUVXZ"[expiry.month - 1]
        _futures[text] = Security(
            conid=FIRST_FUTURE + (expiry - date(2026, 1, 1)).days,
            symbol=f"ES{month}{expiry.year % 10}",
            category=Category.FUTURE,
            currency="USD",
            multiplier=D(MULTIPLIER[ES]),
            expiry=text,
        )
    return _futures[text]


def option(under: Security, expiry: date, right: str, strike: int) -> Security:
    """Return an option on a security; the same arguments return the same option."""
    key = (under.conid, f"{expiry:%Y%m%d}", right, strike)
    if key not in _options:
        is_on_future = under.category is Category.FUTURE
        size = MULTIPLIER.get(under, 100)
        if is_on_future:
            size = int(under.multiplier)

        _options[key] = Security(
            conid=FIRST_OPTION + len(_options),
            symbol=f"{under.symbol:<6}{expiry:%y%m%d}{right}{strike * 1000:08}",
            category=Category.FUTURE_OPTION if is_on_future else Category.OPTION,
            currency=under.currency,
            multiplier=D(size),
            underlying=under,
            strike=D(strike),
            right=right,
            expiry=key[1],
        )
    return _options[key]


def forget_options() -> None:
    """Begin to number the options anew: the same year has the same conids."""
    _options.clear()


class MovingMarket:
    """Prices that walk from session to session; the same seed has the same walks."""

    def __init__(self, seed: int) -> None:
        self._walks = {row.conid: random.Random(f"{seed}:{row.conid}") for row in _START}
        self._spots = {one.conid: start for one, (start, _volatility) in _START.items()}
        self._volatilities = {one.conid: volatility for one, (_start, volatility) in _START.items()}
        self._rates: dict[tuple[str, date], Decimal] = {}
        self.session = date.min

    def move(self, session: date) -> None:
        """Let a session pass: afterwards the prices are those of its close."""
        self.session = session
        for conid, walk in self._walks.items():
            deviation = self._volatilities[conid] / math.sqrt(SESSIONS_PER_YEAR)
            self._spots[conid] *= math.exp(walk.gauss(0.0, deviation))
        for currency, rate in self._in_dollars().items():
            self._rates[currency, session] = rate

    def split(self, security: Security, ratio: float) -> None:
        """Divide the price of a security."""
        self._spots[security.conid] /= ratio

    def spot(self, security: Security) -> float:
        """Return the price of a security, or of what its price follows."""
        is_future = security.category is Category.FUTURE
        return self._spots[ES.conid if is_future else security.conid]

    def price(self, security: Security) -> Decimal:
        """Return the price at the close of the present session, in the major unit."""
        under = security.underlying
        if not security.is_option or under is None or security.strike is None:
            return D(repr(round(self.spot(security), _DIGITS.get(security, 2))))

        years = (date.fromisoformat(security.expiry) - self.session).days / 365
        model = black_scholes(
            spot=float(self.price(under)),
            strike=float(security.strike),
            years=max(years, 0.0),
            volatility=OPTION_VOLATILITY,
            rate=INTEREST,
            call=security.right == "C",
            on_future=security.category is Category.FUTURE_OPTION,
        )
        return D(repr(round(model.price, 4)))

    def rate(self, currency: str, base: str, session: date) -> Decimal:
        """Return what a unit of a currency is worth in another one."""
        if currency == base:
            return D(1)
        ratio = self._rates[currency, session] / self._rates[base, session]
        return ratio.quantize(D("0.000001"))

    def _in_dollars(self) -> dict[str, Decimal]:
        return {"USD": D(1), "EUR": self.price(EUR_USD), "GBP": self.price(GBP_USD)}
