"""The past sessions of a book: how its holdings came to be, and what campaigns brought.

Prices walk back from the last close, and the back office books what orders and campaigns trade at
them. The same book, days and seed give the same statements.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial

from ib_gateway_simulator.accounts.ledger import COMMISSION
from ib_gateway_simulator.books.book import Book, OpeningOrder, PastCampaign
from ib_gateway_simulator.books.dates import expiry_after, on_weekdays
from ib_gateway_simulator.books.listing import derived_contract
from ib_gateway_simulator.clearing.activity_statement import (
    ALL_SECTIONS,
    RATES,
    FlexQuery,
    statement_xml,
)
from ib_gateway_simulator.clearing.back_office import BackOffice, ClosedBooks
from ib_gateway_simulator.clearing.securities import Security
from ib_gateway_simulator.market.market import Market
from ib_gateway_simulator.market.underlying import NEW_YORK
from ib_gateway_simulator.protocol.contract import Contract, SecType

TRADED_AT = time(11)
CLOSES_AT = time(16)
MADE_AT = time(21)
SESSIONS_PER_YEAR = 252

# The conids of the contracts of campaigns: so many for each campaign.
FIRST_CONID = 918_000_000
CONIDS_EACH = 100

# The distance between two strikes, from which price of the underlying on.
STRIKE_STEPS = ((200.0, 5.0), (0.0, 2.5))

# Nothing is converted: money of other currencies counts as if it were of the base currency.
QUERY = FlexQuery(name="simulated", sections=ALL_SECTIONS - {RATES})


@dataclass(frozen=True, slots=True, kw_only=True)
class PastLeg:
    """A leg that a strategy had in past sessions; `since` is the day on which it was opened."""

    strategy: str
    account: str
    contract: Contract
    since: date


@dataclass(frozen=True, slots=True, kw_only=True)
class PastSessions:
    """What the past sessions of a book left.

    Attributes:
        books: The closed books of each account and session.
        securities: What conids mean.
        legs: What strategies had, and have no longer.
    """

    books: Sequence[ClosedBooks]
    securities: Mapping[int, Security]
    legs: Sequence[PastLeg]

    @property
    def costs(self) -> dict[int, float]:
        """What one contract of each holding had cost, by conid."""
        last_books = {books.account: books for books in self.books}
        return {
            conid: float(cost * self.securities[conid].multiplier)
            for books in last_books.values()
            for conid, cost in books.costs.items()
        }

    def statements(self) -> Iterator[tuple[str, bytes]]:
        """Yield the statement of each account and session, with the name of its file."""
        for books in self.books:
            made = datetime.combine(books.session, MADE_AT)
            content = statement_xml([books], self.securities, made=made, query=QUERY)
            yield f"{books.account}-{books.session:%Y%m%d}.xml", content


def closing_market(book: Book, closed_at: datetime, *, seed: int = 7) -> Market:
    """Return the market from whose closing prices the simulator counts the profit of its day.

    Args:
        book: The book of the simulator.
        closed_at: The close of the session before the simulator's day.
        seed: As the simulator has it.
    """
    return Market(
        underlyings=book.underlyings,
        contracts=book.contracts,
        as_of=closed_at,
        rate=book.rate,
        seed=seed,
        options=book.option_market,
    )


def play_sessions(
    book: Book, days: Sequence[date], closing: Market, *, seed: int = 7
) -> PastSessions:
    """Play the sessions before a book, after which its accounts hold what it says.

    What no order of the book opened was bought and sold on the day before the first session.

    Args:
        book: The book.
        days: The sessions, ascending.
        closing: The market of the last close: the last session ends with its closing prices.
        seed: Decides the prices of the days before.
    """
    sessions = [days[0] - timedelta(days=1), *days]
    spots = past_spots(book, sessions, closing, seed)
    plan = _planned(book, sessions, spots)
    prices = _PastPrices(replace(book, contracts=plan.contracts), spots, closing, seed)

    of_sessions = []
    for account, (_eve, *closed_books) in _closed_books(book, sessions, plan, prices).items():
        [cash] = [listed.cash for listed in book.accounts if listed.name == account]
        of_sessions += _ending_with(Decimal(str(cash)), closed_books)
    return PastSessions(books=of_sessions, securities=prices.securities, legs=plan.legs)


def _ending_with(cash: Decimal, closed_books: Sequence[ClosedBooks]) -> list[ClosedBooks]:
    """Return the books as if so much had been paid in before them that they end with this cash."""
    base = closed_books[-1].base
    paid_in = cash - closed_books[-1].cash.get(base, Decimal(0))
    paid = []
    for books in closed_books:
        cash_of = dict(books.cash)
        wealth_of = dict(books.wealth)
        for amounts in (cash_of, wealth_of):
            amounts[base] = amounts.get(base, Decimal(0)) + paid_in
        paid.append(replace(books, cash=cash_of, wealth=wealth_of))
    return paid


# ---- prices

# The price of each underlying on each day.
Spots = Mapping[date, Mapping[str, float]]


def past_spots(book: Book, sessions: Sequence[date], closing: Market, seed: int) -> Spots:
    """Return the prices of the underlyings at each close, walking back from the last."""
    noise = {symbol: random.Random(f"{seed}:{symbol}:past") for symbol in book.underlyings}  # noqa: S311
    spots = {
        symbol: closing.close_price(underlying.conid)
        for symbol, underlying in book.underlyings.items()
    }
    spots_of = {sessions[-1]: dict(spots)}
    for day in reversed(sessions[:-1]):
        for symbol, underlying in book.underlyings.items():
            deviation = underlying.volatility / math.sqrt(SESSIONS_PER_YEAR)
            spots[symbol] *= math.exp(-noise[symbol].gauss(0.0, deviation))
        spots_of[day] = dict(spots)
    return spots_of


class _PastPrices:
    """The prices at past closes, and the securities that have them.

    Options are priced as European ones: American ones would take a second for each day.
    """

    def __init__(self, book: Book, spots: Spots, closing: Market, seed: int) -> None:
        self.spots = spots
        self.securities = book.securities()
        self._closing = closing
        self._last = max(spots)
        self._prices: dict[tuple[date, int], Decimal] = {}
        self._markets = {}
        for day, spot_of in spots.items():
            underlyings = {
                symbol: replace(underlying, price=spot_of[symbol])
                for symbol, underlying in book.underlyings.items()
            }
            self._markets[day] = Market(
                underlyings=underlyings,
                contracts=book.contracts,
                as_of=day,
                rate=book.rate,
                seed=seed,
            )

    def at(self, day: date, security: Security) -> Decimal:
        """Return the closing price of a security, in the major unit of its currency."""
        conid = security.conid
        price = self._prices.get((day, conid))
        if price is None:
            rounded = round(self._exact(day, conid), 4)
            price = self._prices[day, conid] = Decimal(str(rounded))
        return price

    def _exact(self, day: date, conid: int) -> float:
        if day == self._last:
            return self._closing.close_price(conid)
        theory, spot = self._markets[day].theory(conid)
        if theory is None:
            return spot

        return theory.price


# ---- what is traded


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """One order: signed quantities by conid."""

    account: str
    legs: Mapping[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What is traded in the sessions of a book.

    Attributes:
        contracts: Those of the book, and those of its campaigns.
        orders: By the day of the trades.
        ends: The options that are held until they expire, by the day on which they do.
        legs: The legs of campaigns.
    """

    contracts: dict[int, Contract]
    orders: Mapping[date, Sequence[_Order]]
    ends: Mapping[date, Sequence[tuple[str, int]]]
    legs: Sequence[PastLeg]


def _planned(book: Book, sessions: Sequence[date], spots: Spots) -> _Plan:
    days = sessions[1:]
    past_orders = [order for order in book.orders if 0 < order.sessions_ago <= len(days)]
    orders = defaultdict(list, {sessions[0]: list(_oldest_orders(book, past_orders))})
    for order in past_orders:
        orders[days[-order.sessions_ago]].append(_Order(account=order.account, legs=order.legs))

    ends = defaultdict(list)
    legs = []
    for number, campaign in enumerate(book.campaigns):
        if campaign.opened > len(days):
            continue
        traded = _TradedCampaign(
            book, campaign, FIRST_CONID + number * CONIDS_EACH, sessions, spots
        )
        for day, of_campaign in traded.orders():
            orders[day].append(of_campaign)
        for day, conid in traded.ends():
            ends[day].append((campaign.account, conid))
        legs += traded.legs

    of_campaigns = {leg.contract.conid: leg.contract for leg in legs}
    return _Plan(contracts=book.contracts | of_campaigns, orders=orders, ends=ends, legs=legs)


def _oldest_orders(book: Book, past_orders: Iterable[OpeningOrder]) -> Iterator[_Order]:
    """Yield what each account held before the first session."""
    later: defaultdict[tuple[str, int], float] = defaultdict(float)
    for order in past_orders:
        for conid, quantity in order.legs.items():
            later[order.account, conid] += quantity

    for opening in book.openings:
        before = opening.quantity - later[opening.account, opening.conid]
        if before:
            yield _Order(account=opening.account, legs={opening.conid: before})


class _TradedCampaign:
    """A campaign in the sessions of a book: its contracts, and when they are traded.

    Attributes:
        legs: All legs that it has had.
    """

    def __init__(
        self,
        book: Book,
        campaign: PastCampaign,
        first_conid: int,
        sessions: Sequence[date],
        spots: Spots,
    ) -> None:
        self._book = book
        self._campaign = campaign
        self._next_conid = first_conid
        self._sessions = sessions
        self._spots = spots
        self._held: dict[int, float] = {}
        self.legs: list[PastLeg] = []

    def orders(self) -> Iterator[tuple[date, _Order]]:
        """Yield what opens, rolls and closes it, with the days."""
        campaign = self._campaign
        for sessions_ago in (campaign.opened, campaign.rolled, campaign.closed):
            if sessions_ago is None:
                continue
            day = self._sessions[-sessions_ago]
            closing = {conid: -quantity for conid, quantity in self._held.items()}
            self._held = {} if sessions_ago == campaign.closed else self._chosen(day)
            yield day, _Order(account=campaign.account, legs=closing | self._held)

    def ends(self) -> Iterator[tuple[date, int]]:
        """Yield the options that it holds to the end, with the days on which they expire."""
        expiries = {leg.contract.conid: leg.contract.expiry for leg in self.legs}
        for conid in self._held:
            yield date.fromisoformat(expiries[conid]), conid

    def _chosen(self, day: date) -> dict[int, float]:
        """Return the legs that its rule chooses on a day: strikes by the price, expiries by it."""
        campaign = self._campaign
        underlying = self._book.underlyings[campaign.underlying]
        spot = self._spots[day][campaign.underlying]
        chosen = {}
        for leg in campaign.legs:
            expiry = expiry_after(day, campaign.weeks + leg.more_weeks, self._trades)
            contract = derived_contract(
                self._next_conid,
                underlying,
                SecType.OPT,
                expiry=f"{expiry:%Y%m%d}",
                strike=strike_near(spot * leg.percent / 100),
                right=leg.right,
            )
            self._next_conid += 1
            chosen[contract.conid] = leg.quantity
            past_leg = PastLeg(
                strategy=campaign.strategy, account=campaign.account, contract=contract, since=day
            )
            self.legs.append(past_leg)
        return chosen

    def _trades(self, day: date) -> bool:
        return day in self._sessions or (day > self._sessions[-1] and on_weekdays(day))


def strike_near(price: float) -> float:
    """Return the strike that is listed next to a price."""
    step = next(step for least, step in STRIKE_STEPS if price >= least)
    return round(price / step) * step


# ---- what the back office books


def _closed_books(
    book: Book, sessions: Sequence[date], plan: _Plan, prices: _PastPrices
) -> dict[str, list[ClosedBooks]]:
    """Return the closed books of all sessions, by account.

    What an assignment or an exercise delivers is traded away in the session after it.

    Args:
        book: The book.
        sessions: All days, also that before the first session.
        plan: What is traded.
        prices: At what.
    """
    office = BackOffice(
        {account.name: account.currency for account in book.accounts},
        lambda _currency, _base, _day: Decimal(1),
    )
    closed_books: defaultdict[str, list[ClosedBooks]] = defaultdict(list)
    delivered: list[_Order] = []
    for day in sessions:
        for number, order in enumerate([*plan.orders.get(day, ()), *delivered]):
            _trade(office, order, prices, day, number)
        delivered = list(_end_options(office, plan.ends.get(day, ()), prices, day))
        for books in office.close(day, partial(prices.at, day)):
            closed_books[books.account].append(books)
    return closed_books


def _trade(office: BackOffice, order: _Order, prices: _PastPrices, day: date, number: int) -> None:
    at = datetime.combine(day, TRADED_AT, NEW_YORK) + timedelta(minutes=5 * number)
    order_id = int(f"{day:%y%m%d}{number:03}")
    for conid, quantity in order.legs.items():
        security = prices.securities[conid]
        commission = COMMISSION * abs(quantity)
        office.trade(
            order.account,
            security,
            Decimal(str(quantity)),
            prices.at(day, security),
            at,
            commission=Decimal(str(commission)),
            order=order_id,
        )


def _end_options(
    office: BackOffice, ends: Sequence[tuple[str, int]], prices: _PastPrices, day: date
) -> Iterator[_Order]:
    """End options by the price of their underlying; yield orders that undo what they deliver."""
    at = datetime.combine(day, CLOSES_AT, NEW_YORK)
    for account, conid in ends:
        option = prices.securities[conid]
        level = prices.at(day, option.underlying)  # type: ignore[arg-type]
        for entry in office.end_option(account, option, at, level=level)[1:]:
            yield _Order(account=account, legs={entry.security.conid: -float(entry.quantity)})
