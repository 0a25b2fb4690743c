"""A year of statements with campaigns of many kinds, and what each brought, done by hand.

Nothing here shares code with the program: money is counted in `Decimal`, fill by fill, and what a
structure risks at most is a formula of its own strikes and credit.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal

from tests.support.booked_days import Booked, Contract, traded
from tests.support.flex_files import ACCOUNT

D = Decimal
NOTHING = D(0)
FEE = D("1.05")
NOBODY = "UNATTRIBUTED"


@dataclass
class Told:
    """A campaign as it is told, with the answers that the program must find.

    Attributes:
        risk: The greatest loss; None: without bound.
    """

    strategy: str
    kind: str | None = None
    ended: str = "closed"
    rolls: int = 0
    risk: Decimal | None = None
    currency: str = "USD"
    days: list[date] = field(default_factory=list)
    cash: Decimal = NOTHING
    fees: Decimal = NOTHING
    received: Decimal = NOTHING
    paid: Decimal = NOTHING
    legs: list[Contract] = field(default_factory=list)
    shares: list[Contract] = field(default_factory=list)

    @property
    def profit(self) -> Decimal:
        return self.cash - self.fees


@dataclass
class TradedYear:
    """The trades of a year, and the campaigns that they make."""

    rows: dict[date, list[str]] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)
    fills: list[tuple[date, Contract, int]] = field(default_factory=list)
    conid: int = 1000
    orders: int = 0

    def underlying(self, currency: str = "USD") -> Contract:
        self.conid += 1
        return dict(
            assetCategory="STK", symbol=f"U{self.conid}", conid=f"{self.conid}",
            currency=currency,
        )  # fmt: skip

    def option(self, under: Contract, right: str, strike: int, expiry: date) -> Contract:
        self.conid += 1
        return dict(
            assetCategory="OPT", symbol=f"{under['symbol']} {right}{strike}",
            conid=f"{self.conid}", multiplier="100", strike=f"{strike}",
            putCall=right, expiry=f"{expiry:%Y%m%d}", currency=under["currency"],
            underlyingSymbol=under["symbol"], underlyingConid=under["conid"],
        )  # fmt: skip

    def fill(
        self, campaign: Told, contract: Contract, quantity: int, price: str, day: date,
        *, at: str = "120000", order: str = "", fee: Decimal = FEE, **more: str,
    ) -> None:  # fmt: skip
        """Tell one fill, and count what it brings."""
        size = D(contract.get("multiplier", "1"))
        cash = -quantity * D(price) * size
        is_option = contract["assetCategory"] == "OPT"
        campaign.cash += cash
        campaign.fees += fee
        if is_option and "notes" not in more:
            campaign.received += max(cash, D(0))
            campaign.paid += max(-cash, D(0))

        campaign.days.append(day)
        self.fills.append((day, contract, quantity))
        legs = campaign.legs if is_option else campaign.shares
        if contract not in legs:
            legs.append(contract)
        row = traded(
            contract, quantity, float(price), day, dateTime=f"{day:%Y%m%d};{at}",
            ibCommission=f"{-fee}", ibOrderID=order, **more,
        )  # fmt: skip
        self.rows.setdefault(day, []).append(row)

    def book(
        self, campaign: Told, contract: Contract, quantity: int, price: str, day: date, codes: str
    ) -> None:
        """Tell what the broker books after the close: it has no fee."""
        self.fill(
            campaign, contract, quantity, price, day, at="162000", fee=D(0),
            transactionType="BookTrade", notes=codes,
        )  # fmt: skip

    def order(self) -> str:
        self.orders += 1
        return f"{9000 + self.orders}"

    def together(
        self, campaign: Told, day: date, *fills: tuple[Contract, int, str], at: str = "120000"
    ) -> None:
        """Tell the fills of one order."""
        order = self.order()
        for contract, quantity, price in fills:
            self.fill(campaign, contract, quantity, price, day, at=at, order=order)

    def files(self) -> Mapping[str, bytes]:
        """Return the statements, one for each month."""
        months: dict[str, list[date]] = {}
        for day in sorted(self.rows):
            months.setdefault(f"{day:%Y%m}", []).append(day)
        files = {}
        for month, days in months.items():
            trades = [row for day in days for row in self.rows[day]]
            first = days[0]
            last = days[-1]
            made = f"{last + timedelta(days=1):%Y%m%d};010000"
            xml = Booked(trades=trades).xml(first, last, made, ACCOUNT)
            files[f"{month}.xml"] = xml.encode()
        return files

    def held_on(self, day: date) -> list[tuple[Contract, int]]:
        """Return what was held at the end of a day."""
        quantities: dict[str, int] = {}
        contracts = {contract["conid"]: contract for _day, contract, _quantity in self.fills}
        for traded_on, contract, quantity in self.fills:
            if traded_on <= day:
                conid = contract["conid"]
                quantities[conid] = quantities.get(conid, 0) + quantity
        return [(contracts[conid], quantity) for conid, quantity in quantities.items() if quantity]

    def strategies(self) -> str:
        """Return the strategies file: legs by conid, the first day as a date or as text."""
        lines = ["strategies:"]
        for number, told in enumerate(self.told):
            if told.strategy == NOBODY:
                continue

            since = "2025-01-01" if number % 2 else '"2025-01-01"'
            lines += [f"  - strategy_id: {told.strategy}", f"    since: {since}", "    legs:"]
            shares = told.shares if told.kind in WITH_SHARES else []
            for leg in (*told.legs, *shares):
                text = (
                    f"conid: {leg['conid']}, symbol: {leg.get('underlyingSymbol', leg['symbol'])}"
                )
                if leg["assetCategory"] == "OPT":
                    text += f", right: {leg['putCall']}, strike: {leg['strike']}"
                    text += f", expiry: {leg['expiry']}"
                lines.append(f"      - {{{text}}}")
        return "\n".join(lines) + "\n"


# Kinds whose shares are legs of the strategy.
WITH_SHARES = {"covered-call", "collar"}

Recipe = Callable[[TradedYear, Told, date, int], None]


def later(day: date, days: int) -> date:
    """Return a weekday some days later; the year has no holiday among them."""
    found = day + timedelta(days=days)
    while found.weekday() > 4 or found in HOLIDAYS:
        found += timedelta(days=1)
    return found


_MONTHS_AND_DAYS = "01-01 01-09 01-20 02-17 04-18 05-26 06-19 07-04 09-01 11-27 12-25"
HOLIDAYS = {date.fromisoformat(f"2025-{day}") for day in _MONTHS_AND_DAYS.split()}


def price(number: int, base: str) -> str:
    """Return a price that differs from campaign to campaign."""
    return f"{D(base) + D(number % 7) / D(20)}"


def put_closed(year: TradedYear, campaign: Told, day: date, n: int) -> None:
    put = year.option(year.underlying(campaign.currency), "P", 100, later(day, 30))
    premium = price(n, "2.5")
    year.fill(campaign, put, -2, premium, day)
    year.fill(campaign, put, 2, price(n + 3, "2.4"), later(day, 9))
    campaign.kind = "single"
    campaign.risk = 2 * 100 * (100 - D(premium))


def put_expired(year: TradedYear, campaign: Told, day: date, n: int) -> None:
    expiry = later(day, 14)
    put = year.option(year.underlying(), "P", 50, expiry)
    premium = price(n, "0.8")
    year.fill(campaign, put, -1, premium, day)
    year.book(campaign, put, 1, "0", expiry, "Ep")
    campaign.kind = "single"
    campaign.ended = "expired"
    campaign.risk = 100 * (50 - D(premium))


def wheel(year: TradedYear, campaign: Told, day: date, n: int) -> None:
    """A put is assigned, a call is sold on the shares, and the shares are sold."""
    under = year.underlying()
    expiry = later(day, 10)
    put = year.option(under, "P", 40, expiry)
    call = year.option(under, "C", 42, later(day, 40))

    premium = price(n, "1.2")
    year.fill(campaign, put, -1, premium, day)
    year.book(campaign, put, 1, "0", expiry, "A")
    year.book(campaign, under, 100, "40", expiry, "A")
    year.fill(campaign, call, -1, "0.75", later(expiry, 3))
    year.fill(campaign, call, 1, "0.2", later(expiry, 8))
    year.fill(campaign, under, -100, price(n, "39"), later(expiry, 9))
    campaign.kind = "single"
    campaign.risk = 4000 - 100 * D(premium)


def called_away(year: TradedYear, campaign: Told, day: date, n: int) -> None:
    under = year.underlying()
    expiry = later(day, 21)
    call = year.option(under, "C", 60, expiry)
    year.fill(campaign, under, 100, "58.5", day)
    premium = price(n, "1.1")
    year.fill(campaign, call, -1, premium, day, at="120030")
    year.book(campaign, call, 1, "0", expiry, "A")
    year.book(campaign, under, -100, "60", expiry, "A")
    campaign.kind = "covered-call"
    campaign.ended = "assigned"
    campaign.risk = D(5850) - 100 * D(premium)


def put_spread(year: TradedYear, campaign: Told, day: date, n: int) -> None:
    under = year.underlying()
    expiry = later(day, 30)
    short = year.option(under, "P", 100, expiry)
    long = year.option(under, "P", 95, expiry)
    premium = price(n, "2.1")
    year.together(campaign, day, (short, -3, premium), (long, 3, "0.9"))
    year.together(campaign, later(day, 12), (short, 3, "1.5"), (long, -3, price(n, "0.4")))
    campaign.kind = "vertical"
    campaign.risk = 3 * 100 * (5 - D(premium) + D("0.9"))


def call_spread_expired(year: TradedYear, campaign: Told, day: date, n: int) -> None:
    under = year.underlying()
    expiry = later(day, 15)
    short = year.option(under, "C", 100, expiry)
    long = year.option(under, "C", 110, expiry)
    premium = price(n, "3")
    year.together(campaign, day, (short, -1, premium), (long, 1, "1"))
    year.book(campaign, short, 1, "0", expiry, "Ep")
    year.book(campaign, long, -1, "0", expiry, "Ep")
    campaign.kind = "vertical"
    campaign.ended = "expired"
    campaign.risk = 100 * (10 - D(premium) + 1)


def condor(year: TradedYear, campaign: Told, day: date, n: int) -> None:
    """Closed in two orders on two days: it is one campaign until both are gone."""
    under = year.underlying()
    expiry = later(day, 35)
    low_put, put = (year.option(under, "P", strike, expiry) for strike in (90, 95))
    call, high_call = (year.option(under, "C", strike, expiry) for strike in (105, 110))
    premium = price(n, "1.3")
    puts = ((low_put, 1, "0.5"), (put, -1, premium))
    year.together(campaign, day, *puts, (call, -1, "1.2"), (high_call, 1, "0.45"))
    year.together(campaign, later(day, 10), (low_put, -1, "0.3"), (put, 1, "0.9"))
    year.together(campaign, later(day, 13), (call, 1, price(n, "1.9")), (high_call, -1, "0.7"))
    campaign.kind = "iron-condor"
    campaign.risk = 100 * (5 + D("0.35") - D(premium))  # of the calls, once the puts are gone


def strangle(year: TradedYear, campaign: Told, day: date, n: int) -> None:
    under = year.underlying()
    expiry = later(day, 40)
    put = year.option(under, "P", 80, expiry)
    call = year.option(under, "C", 120, expiry)
    year.together(campaign, day, (put, -1, price(n, "1.5")), (call, -1, "1.4"))
    closed_on = later(day, 20)
    year.fill(campaign, put, 1, "2.9", closed_on)
    year.fill(campaign, call, 1, price(n, "0.6"), closed_on, at="150000")
    campaign.kind = "strangle"


def straddle(year: TradedYear, campaign: Told, day: date, n: int) -> None:
    under = year.underlying()
    expiry = later(day, 25)
    put = year.option(under, "P", 100, expiry)
    call = year.option(under, "C", 100, expiry)
    cost = price(n, "4")
    year.together(campaign, day, (put, 1, cost), (call, 1, "4.2"))
    year.together(campaign, later(day, 6), (put, -1, "1.5"), (call, -1, price(n, "6.5")))
    campaign.kind = "straddle"
    campaign.risk = 100 * (D(cost) + D("4.2"))


def butterfly(year: TradedYear, campaign: Told, day: date, n: int) -> None:
    under = year.underlying()
    expiry = later(day, 20)
    low, mid, high = (year.option(under, "C", strike, expiry) for strike in (95, 100, 105))
    cost = price(n, "1.4")
    year.together(campaign, day, (low, 1, "6.1"), (mid, -2, "3.2"), (high, 1, cost))
    year.together(campaign, later(day, 8), (low, -1, "4"), (mid, 2, "1.6"), (high, -1, "0.7"))
    campaign.kind = "butterfly"
    campaign.risk = 100 * (D("6.1") - D("6.4") + D(cost))


def calendar(year: TradedYear, campaign: Told, day: date, n: int) -> None:
    under = year.underlying()
    near = year.option(under, "C", 100, later(day, 20))
    far = year.option(under, "C", 100, later(day, 50))
    cost = price(n, "3.5")
    year.together(campaign, day, (near, -1, "2"), (far, 1, cost))
    year.together(campaign, later(day, 10), (near, 1, "1.1"), (far, -1, price(n, "2.9")))
    campaign.kind = "calendar"
    campaign.risk = 100 * (D(cost) - 2)


def rolled_put(year: TradedYear, campaign: Told, day: date, n: int) -> None:
    """Rolled twice, by one order each; what it risked at most is the second put."""
    under = year.underlying()
    first = year.option(under, "P", 60, later(day, 14))
    second = year.option(under, "P", 58, later(day, 28))
    third = year.option(under, "P", 57, later(day, 42))
    year.fill(campaign, first, -1, "1.8", day)
    year.together(campaign, later(day, 10), (first, 1, "2.6"), (second, -1, price(n, "2.7")))
    year.together(campaign, later(day, 24), (second, 1, "1.9"), (third, -1, "2"))
    year.fill(campaign, third, 1, price(n, "0.6"), later(day, 38))
    campaign.kind = "single"
    campaign.rolls = 2
    campaign.risk = 100 * (60 - D("1.8"))


def exercised(year: TradedYear, campaign: Told, day: date, n: int) -> None:
    """A long call is exercised, and the shares are sold a day later."""
    under = year.underlying()
    expiry = later(day, 7)
    call = year.option(under, "C", 30, expiry)
    cost = price(n, "1.6")
    year.fill(campaign, call, 1, cost, day)
    year.book(campaign, call, -1, "0", expiry, "Ex")
    year.book(campaign, under, 100, "30", expiry, "Ex")
    year.fill(campaign, under, -100, "32.4", later(expiry, 1))
    campaign.kind = "single"
    campaign.risk = 3000 + 100 * D(cost)


def settled_in_cash(year: TradedYear, campaign: Told, day: date, n: int) -> None:
    """An index option ends in the money: the broker takes the difference."""
    under = year.underlying()
    expiry = later(day, 5)
    put = year.option(under, "P", 200, expiry)
    premium = price(n, "3")
    year.fill(campaign, put, -1, premium, day)
    year.book(campaign, put, 1, "4.25", expiry, "A")
    campaign.kind = "single"
    campaign.ended = "expired"
    campaign.risk = 100 * (200 - D(premium))


def day_trade(year: TradedYear, campaign: Told, day: date, n: int) -> None:
    under = year.underlying()
    call = year.option(under, "C", 100, later(day, 2))
    cost = price(n, "1")
    year.fill(campaign, call, 5, cost, day, at="100000")
    year.fill(campaign, call, -2, "1.4", day, at="103000")
    year.fill(campaign, call, -3, price(n, "1.1"), day, at="143000")
    campaign.kind = "single"
    campaign.risk = 500 * D(cost)


def collar(year: TradedYear, campaign: Told, day: date, n: int) -> None:
    under = year.underlying()
    expiry = later(day, 30)
    put = year.option(under, "P", 45, expiry)
    call = year.option(under, "C", 55, expiry)

    year.fill(campaign, under, 100, "50", day)
    year.fill(campaign, put, 1, "0.9", day, at="120010")
    premium = price(n, "1")
    year.fill(campaign, call, -1, premium, day, at="120020")

    closed_on = later(day, 11)
    year.fill(campaign, put, -1, "0.3", closed_on)
    year.fill(campaign, call, 1, "2.2", closed_on, at="120010")
    year.fill(campaign, under, -100, price(n, "53"), closed_on, at="120020")
    campaign.kind = "collar"
    campaign.risk = 5000 + 90 - 100 * D(premium) - 4500


RECIPES: tuple[Recipe, ...] = (
    put_closed, put_expired, wheel, called_away, put_spread, call_spread_expired, condor, strangle,
    straddle, butterfly, calendar, rolled_put, exercised, settled_in_cash, day_trade, collar,
)  # fmt: skip

# What is told a third time is in no strategy.
UNNAMED = (put_closed, put_spread, strangle, condor, rolled_put, wheel, put_expired)


def traded_year() -> TradedYear:
    """Return a year with forty campaigns: two of each kind in strategies, and eight in none."""
    year = TradedYear()
    recipes = [*RECIPES, *RECIPES, *UNNAMED, put_closed]
    for number, recipe in enumerate(recipes):
        is_named = number < 2 * len(RECIPES)
        name = f"{recipe.__name__}-{number}" if is_named else NOBODY
        told = Told(strategy=name, currency="EUR" if number == len(recipes) - 1 else "USD")
        recipe(year, told, later(date(2025, 1, 2), 7 * number), number)
        year.told.append(told)
    return year
