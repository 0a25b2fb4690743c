"""Computed greeks of the stream: which underlyings need a line, what goes in, what comes out.

The gateway sends no greeks for options without a line, and none for some legs with a line. These
greeks are computed as one batch a few times a minute. A value of the broker and the price of the
underlying at its time give the volatility; it and the price of the underlying now give the greeks.
"""

import asyncio
import logging
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import chain
from operator import attrgetter, itemgetter

from position_sync_dagster.domain.exchange_time import may_trade
from position_sync_dagster.domain.holding import BrokerPosition, HoldingGreeks, Key
from position_sync_dagster.domain.leg import QUEUED, LegState, few
from position_sync_dagster.domain.quote import Quote
from position_sync_dagster.domain.valuation import price_of
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.gateway.holdings import PendingChanges
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.money.lake import DividendsTable
from position_sync_dagster.money.risk.model import Exercise
from position_sync_dagster.money.risk.terms import (
    ExerciseTerms,
    ModelledLeg,
    NoGreeks,
    NotPriced,
    OptionTerms,
    Reason,
    compute,
    dated_dividends,
    dividend_rows,
    expires_at,
    option_terms,
)
from position_sync_dagster.money.tables import ExpectedDividend
from position_sync_dagster.sync.stream.contracts import ContractCache
from position_sync_dagster.sync.stream.lines import StreamLines
from position_sync_dagster.sync.stream.ownership import Ownership
from position_sync_dagster.sync.stream.parts import PublishedGreeks

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often greeks are computed, and what they wait for.

    Attributes:
        batch_s: Seconds between two batches. One is computed beside the stream, in a thread of its
            own.
        first_s: The same until the first greeks are known; from then on it doubles.
        prices_s: Seconds between two looks at the prices of underlyings: a value is explained by
            the price at its time.
        choose_s: Seconds after which underlyings, sizes and dividends are determined again.
        look_s: Seconds between two searches for streamed options without greeks of the gateway.
        greeks_within_s: A gateway that sends greeks does so within a second or two after the first
            price; after this time it sends none.
        price_age: A price of the underlying that is older counts only while its session is closed.
    """

    batch_s: float = 25.0
    first_s: float = 1.0
    prices_s: float = 0.5
    choose_s: float = 60.0
    look_s: float = 5.0
    greeks_within_s: float = 10.0
    price_age: timedelta = timedelta(minutes=1)


GREEKS_PACE = Pace()

# Decimals to which dividends, as a share of the price, are rounded: further decimals change with
# each tick.
SHARE_DIGITS = 4

# A change of an estimated dividend by less than this part of it is not stored.
SHARE_MOVE = 0.05

STALE = "the underlying has not ticked for a minute in its session"

# The number of underlyings that the status names for each reason.
OPTIONS_NAMED = 5


def underlying_price(
    quote: Quote, sec_type: str, *, now: datetime
) -> tuple[float, datetime] | None:
    """Return the price of an underlying for the model, and when quote or mark last came.

    An index has no bid and ask: its last price counts. Delayed data is never the present price, and
    nobody has to trade at the price of a halted contract.

    Returns:
        None if it has no present price.

    >>> from datetime import UTC
    >>> now = datetime(2026, 1, 2, tzinfo=UTC)
    >>> index = Quote(last=6500.0, quote_time=now)
    >>> underlying_price(index, "IND", now=now)[0]
    6500.0
    >>> underlying_price(index, "STK", now=now) is None
    True
    """
    at = max(filter(None, (quote.quote_time, quote.mark_time)), default=None)
    if quote.is_delayed or quote.halted or at is None:
        return None
    price = price_of(quote, now=now)
    if price is not None:
        return price.value, at
    if sec_type == "IND" and quote.last is not None:
        return quote.last, at
    return None


# How long prices of an underlying are kept: account rows arrive every three minutes.
KEPT = timedelta(minutes=5)


@dataclass(eq=False, repr=False, kw_only=True)
class AccountGreeks:
    """The options of a login, with the inputs and the results of each batch.

    Args:
        session_open: Returns whether an underlying trades now, by conid; None: unknown, as open.
        price_age: As in `Pace`.

    Attributes:
        legs: The options, by conid.
    """

    session_open: Callable[[int], bool | None]
    price_age: timedelta = GREEKS_PACE.price_age

    def __post_init__(self) -> None:
        self.legs: dict[int, ModelledLeg] = {}
        # The prices of each underlying in the last minutes, each since when it was known.
        self._prices: dict[int, list[tuple[datetime, float]]] = defaultdict(list)

    def stale(self, now: datetime) -> list[int]:
        """Return the underlyings whose price is too old although they trade."""
        stale = []
        for conid, prices in self._prices.items():
            if not prices:
                continue

            at, _price = prices[-1]
            if self._is_old(conid, at, now):
                stale.append(conid)
        return stale

    @property
    def without(self) -> dict[int, Reason]:
        """Why options have no greeks, by conid."""
        return {
            conid: leg.reason or NoGreeks.BEING_COMPUTED
            for conid, leg in self.legs.items()
            if leg.greeks is None
        }

    def add(self, conid: int, terms: OptionTerms | Reason, underlying: int) -> None:
        """Follow an option; new terms of a known one are used from now on.

        Args:
            conid: The option.
            terms: Its terms, or why the model does not fit it.
            underlying: The conid of its underlying.
        """
        leg = self.legs.get(conid)
        if leg is None:
            self.legs[conid] = ModelledLeg(conid=conid, terms=terms, underlying=underlying)
        elif (leg.terms, leg.underlying) != (terms, underlying):
            # The present batch goes on with the leg as it was.
            self.legs[conid] = replace(leg, terms=terms, underlying=underlying, volatility=None)

    def underlying_ticked(self, conid: int, price: float, at: datetime) -> None:
        """Record the price of an underlying."""
        prices = self._prices[conid]
        prices.append((at, price))
        if at - prices[0][0] > 2 * KEPT:
            del prices[: bisect_right(prices, at - KEPT, key=itemgetter(0))]

    def valued(self, conid: int, value: float, at: datetime) -> None:
        """Record the broker's value of an option for one unit of its underlying.

        A value that is older than the last one is not used.
        """
        leg = self.legs[conid]
        if leg.value_at is not None and at <= leg.value_at:
            return

        leg.value = value
        leg.value_at = at
        leg.volatility = None
        leg.spot_then = None
        prices = self._prices[leg.underlying]
        place = bisect_right(prices, at, key=itemgetter(0))
        if place and not self._is_old(leg.underlying, prices[place - 1][0], at):
            leg.spot_then = prices[place - 1][1]

    def due(self, now: datetime) -> list[ModelledLeg]:
        """Return the options whose inputs moved.

        Those with a reason have no greeks, for that reason; the others are to be computed.
        """
        due = []
        for leg in self.legs.values():
            missing = self._missing(leg, now)
            if missing is None:
                if leg.volatility is None or leg.spot != leg.used:
                    leg.reason = None
                    due.append(leg)
            elif missing != leg.reason or leg.greeks is not None:
                leg.greeks = None
                leg.reason = missing
                leg.used = None
                due.append(leg)
        return due

    def _missing(self, leg: ModelledLeg, now: datetime) -> Reason | None:
        """Read the newest price of the underlying; return which input is missing; None: none."""
        prices = self._prices[leg.underlying]
        leg.spot_at = leg.spot = None
        if prices:
            leg.spot_at, leg.spot = prices[-1]

        if not isinstance(leg.terms, OptionTerms):
            return leg.terms
        if leg.value_at is None:
            return NoGreeks.NO_VALUE
        if leg.spot_at is None:
            return NoGreeks.NO_UNDERLYING_PRICE
        if leg.terms.expires_at <= now:
            return NoGreeks.EXPIRED
        if self._is_old(leg.underlying, leg.spot_at, now):
            return NoGreeks.UNDERLYING_OLD
        if leg.spot_then is None:
            return NoGreeks.NO_PRICE_THEN
        return None

    def _is_old(self, underlying: int, at: datetime, now: datetime) -> bool:
        return now - at > self.price_age and self.session_open(underlying) is not False


@dataclass(eq=False, repr=False)
class ModelGreeks:
    """Follows the options without greeks of the gateway, and publishes computed ones.

    Args:
        contracts: The details of options and underlyings.
        lines: Gets the underlyings that need a line.
        published: Gets the greeks.
        dividends: Gets the expected dividends; with None, they are not stored.
        pace: How often it computes.
    """

    context: Ownership
    contracts: ContractCache
    lines: StreamLines
    published: PublishedGreeks
    dividends: DividendsTable | None = None
    pace: Pace = GREEKS_PACE

    def __post_init__(self) -> None:
        # None: as many as the allocation grants.
        self._most_lines = self.context.settings.underlying_lines
        self._clock = self.context.clock
        self._monotonic = self.context.monotonic
        self._look_at = float("-inf")
        self._choose_at = float("-inf")

        self._greeks = AccountGreeks(
            session_open=self.contracts.session_open, price_age=self.pace.price_age
        )
        self._ticks: PendingChanges[int] = PendingChanges()
        self._silent_since: dict[int, float] = {}
        self._silent: set[int] = set()

        self._routed: int | None = None
        self._keys: dict[int, list[Key]] = {}
        # Options and underlyings without details of the contract.
        self._unknown: set[int] = set()
        self._underlyings: set[int] = set()
        self._dividends: dict[int, list[ExpectedDividend]] = {}

    def attach(self, connection: GatewayConnection) -> None:
        """Follow the lines and values of a new connection."""
        self._ticks = connection.lines.ticked.watch()
        self._choose_at = float("-inf")

    async def step(
        self, connection: GatewayConnection, routes: Mapping[Key, LegState], version: int
    ) -> None:
        """Follow the routes; learn the contracts of options, and choose the underlyings.

        Args:
            version: Changes with the routes.
        """
        if self._most_lines == 0:
            return
        now = self._monotonic()
        if now >= self._look_at:
            self._look_at = now + self.pace.look_s
            self._look(connection)
        if version != self._routed:
            self._follow(routes)
            self._routed = version
        self._learn(connection)
        if now >= self._choose_at:
            self._choose_at = now + self.pace.choose_s
            await self._choose(connection)

    async def run(self, live_connection: Callable[[], GatewayConnection | None]) -> None:
        """Compute in batches.

        Args:
            live_connection: Returns the connection, or None while its data do not count.
        """
        due_at = self._monotonic()
        pace = self.pace
        wait_s = pace.first_s
        while True:
            await asyncio.sleep(pace.prices_s)
            connection = live_connection()
            if connection is None or not self._keys:
                continue

            self._read_prices(connection)
            if self._monotonic() >= due_at:
                await self._compute(connection)
                due_at = self._monotonic() + wait_s
                wait_s = min(pace.batch_s, 2 * wait_s)
                if not len(self.published):
                    wait_s = pace.first_s

    def summary(self) -> str | None:
        """Return how many options have computed greeks, and why others have none.

        Returns:
            None if there is no option that needs computed greeks.
        """
        if not self._greeks.legs:
            return None
        without = self._greeks.without
        symbols = defaultdict[Reason, list[str]](list)
        for conid, details in self.contracts.of(without).items():
            symbols[without[conid]].append(details.symbol)

        reasons = []
        for reason, of_reason in sorted(symbols.items(), key=lambda item: -len(item[1])):
            named = few(sorted(set(of_reason)), OPTIONS_NAMED)
            reasons.append(f"{len(of_reason)}: {reason} ({named})")
        unknown = len(self._unknown & self._keys.keys())
        if unknown:
            reasons.append(f"{unknown}: the details of the contract are not known")

        number = len(self._greeks.legs) + unknown
        computed = f"{len(self.published)} of {number} options without greeks of IB"
        return "; ".join([f"computed greeks of {computed}", *reasons])

    def _look(self, connection: GatewayConnection) -> None:
        """Find the streamed legs for which the gateway sends prices and no greeks.

        A line that does not tick says nothing about that.
        """
        now = self._monotonic()
        since: dict[int, float] = {}
        silent = set()
        for conid in self.lines.of_legs:
            quote = self.lines.counted(connection, conid)
            if not self.lines.login.line(conid).trusted:
                quote = None

            if quote is not None and quote.greeks_time is not None:
                continue
            if quote is not None or conid in self._silent_since:
                since[conid] = self._silent_since.get(conid, now)
                if now - since[conid] >= self.pace.greeks_within_s:
                    silent.add(conid)
        self._silent_since = since

        if silent != self._silent:
            self._silent = silent
            self._routed = None

    def _follow(self, routes: Mapping[Key, LegState]) -> None:
        """Record the holdings for which the gateway sends no greeks."""
        keys: dict[int, list[Key]] = defaultdict(list)
        for key, state in routes.items():
            if state in QUEUED or (state is LegState.STREAMED and key[1] in self._silent):
                keys[key[1]].append(key)

        for conid in self._keys.keys() - keys.keys():
            self.published.take(conid, None)
            self._greeks.legs.pop(conid, None)
            self._unknown.discard(conid)
        self._unknown |= keys.keys() - self._keys.keys()
        self._keys = dict(keys)

    def _learn(self, connection: GatewayConnection) -> None:
        """Look up options and underlyings whose details have been fetched since."""
        fetched = self.contracts.available(self._unknown)
        self._unknown -= fetched
        self._add(connection, sorted(fetched & self._keys.keys()))
        if not fetched <= self._keys.keys():
            self._choose_at = float("-inf")

    async def _choose(self, connection: GatewayConnection) -> None:
        """Determine which underlyings are needed, by how many options, and dividends again."""
        options = Counter(leg.underlying for leg in self._greeks.legs.values())
        self._underlyings = set(self.contracts.of(options))
        of_known = Counter({conid: options[conid] for conid in sorted(self._underlyings)})
        self.lines.underlyings = dict(of_known.most_common(self._most_lines))

        self.contracts.want(self._unknown)
        await self._read_dividends(connection)
        self._add(connection, list(self._greeks.legs))

        for conid in self._greeks.stale(self._clock()):
            # A new request opens with the present price, or shows that trading is halted.
            self.lines.doubt(conid, STALE)

    async def _read_dividends(self, connection: GatewayConnection) -> None:
        """Store what the lines say of dividends: of a stock, or until the expiries of its options.

        An underlying of which no line speaks any more keeps what was known of it.
        """
        shares = self._shares_of_price(connection)
        now = self._clock()
        changed: dict[int, list[ExpectedDividend]] = {}
        for conid, details in self.contracts.of(self._underlyings).items():
            quote = connection.lines.quote(conid)
            stated = None
            if quote is not None:
                stated = quote.dividends
            expected = dividend_rows(details, stated, shares.get(conid, ()), now)
            if expected and _differ(expected, self._dividends.get(conid, [])):
                changed[conid] = expected

        if self.dividends is not None and changed:
            rows = chain.from_iterable(changed.values())
            await offload(self.dividends.add, rows, None, self.context.check)
        self._dividends |= changed

    def _shares_of_price(
        self, connection: GatewayConnection
    ) -> dict[int, list[tuple[datetime, float]]]:
        """Return what options say of dividends, by underlying: expiry, and share of the price."""
        shares = defaultdict[int, list[tuple[datetime, float]]](list)
        for conid in sorted(self.lines.of_legs):
            details = self.contracts.known(conid)
            quote = self.lines.counted(connection, conid)
            if details is None or details.under_conid is None or quote is None:
                continue
            ends = expires_at(None, details)
            if ends is not None and quote.pv_dividend is not None and quote.underlying_price:
                share = round(quote.pv_dividend / quote.underlying_price, SHARE_DIGITS)
                shares[details.under_conid].append((ends, share))
        return shares

    def _add(self, connection: GatewayConnection, conids: Iterable[int]) -> None:
        """Follow these options from now on, by their present terms, as far as all is known.

        The row of a holding shows the terms first that change, as after a split.
        """
        rates = dict(self.context.settings.interest_rates)
        dividends = dated_dividends(chain.from_iterable(self._dividends.values()))
        for conid in conids:
            details = self.contracts.known(conid)
            instrument = connection.feed.book.instrument(self._keys[conid][0])
            if details is None or instrument is None:
                self._unknown.add(conid)
                continue
            if details.under_conid is None:
                continue

            underlying = self.contracts.known(details.under_conid)
            if underlying is None:
                self._unknown.add(details.under_conid)
                self.contracts.want([details.under_conid], first=True)
                self._greeks.add(conid, NoGreeks.NO_UNDERLYING_PRICE, details.under_conid)
                continue
            if underlying.conid not in self._underlyings:
                self._choose_at = float("-inf")

            if details.under_sec_type != underlying.sec_type:  # a row of an older release
                details = replace(details, under_sec_type=underlying.sec_type)
            terms = option_terms(instrument, details, rates, dividends.get(underlying.conid))
            self._greeks.add(conid, _modelled(terms), underlying.conid)

    def _read_prices(self, connection: GatewayConnection) -> None:
        """Record the newest prices of underlyings."""
        now = self._clock()
        for conid, details in self.contracts.of(self._underlyings & self._ticks.take()).items():
            quote = self.lines.counted(connection, conid)
            if quote is None:
                continue
            priced = underlying_price(quote, details.sec_type, now=now)
            if priced is not None:
                price, at = priced
                self._greeks.underlying_ticked(conid, price / details.price_magnifier, at)

    async def _compute(self, connection: GatewayConnection) -> None:
        """Read the newest values, compute what moved as one batch, and publish it."""
        now = self._clock()
        keys = {conid: self._keys.get(conid, ()) for conid in self._greeks.legs}
        holdings = connection.feed.book.reported(chain.from_iterable(keys.values()))
        for conid in self._greeks.legs:
            values = [_value_of_a_unit(holdings[key]) for key in keys[conid] if key in holdings]
            newest = max(filter(None, values), key=itemgetter(1), default=None)
            if newest is not None:
                self._greeks.valued(conid, *newest)

        due = self._greeks.due(now)
        await asyncio.to_thread(compute, [leg for leg in due if leg.reason is None], now)

        options = self.contracts.of(self._greeks.legs)
        for leg in due:
            if leg.conid in options:  # it may have left meanwhile
                magnifier = options[leg.conid].price_magnifier
                self.published.take(leg.conid, self._as_quoted(leg, magnifier))

    def _as_quoted(self, leg: ModelledLeg, magnifier: int) -> HoldingGreeks | None:
        """Return the greeks of an option, with the underlying's price as it is quoted."""
        greeks = leg.greeks
        if greeks is None or greeks.greeks_time is None:
            return None
        hours = self.contracts.hours(leg.underlying)
        greeks_time: datetime | None = greeks.greeks_time
        if not may_trade(hours, greeks.greeks_time):
            # A line that is requested outside the session opens with a price from before.
            greeks_time = None
        return replace(
            greeks,
            underlying_price=greeks.underlying_price * magnifier,
            greeks_time=greeks_time,
        )


def _modelled(terms: ExerciseTerms | NotPriced) -> OptionTerms | Reason:
    """Return what the greeks of an option follow from, or why it has none."""
    if isinstance(terms, NotPriced):
        return terms
    if terms.exercise is Exercise.EUROPEAN_FUTURE:
        return NoGreeks.FOLLOWS_A_FUTURE
    if isinstance(terms, OptionTerms):
        return terms
    return NotPriced.NO_RATE


def _value_of_a_unit(holding: BrokerPosition) -> tuple[float, datetime] | None:
    """Return the newest value of a holding for each of its units, and when it was true.

    None without a value, or where that time is not known.
    """
    units = holding.position * holding.instrument.multiplier
    if not units or holding.market_value is None or holding.valued_at is None:
        return None
    return holding.market_value / units, holding.valued_at


def _differ(rows: Sequence[ExpectedDividend], before: Sequence[ExpectedDividend]) -> bool:
    """Return whether dividends changed by more than the rounding of `pvDividend` explains."""
    terms = attrgetter("source", "ex_date", "amount", "next_year")
    if [*map(terms, rows)] != [*map(terms, before)]:
        return True

    for row, earlier in zip(rows, before, strict=True):
        share = row.share or 0.0
        earlier_share = earlier.share or 0.0
        if abs(share - earlier_share) > SHARE_MOVE * earlier_share:
            return True
    return False
