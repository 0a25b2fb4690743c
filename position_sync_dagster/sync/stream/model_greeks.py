"""Computed greeks of the stream: which underlyings need a line, what goes in, what comes out.

The gateway sends no greeks for options without a line, and none for some legs with a line. These
greeks are computed in slices between the flushes, within a budget of processor time.
"""

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.instrument import (
    ContractDetails,
    Instrument,
    Right,
    expiry_moment,
)
from position_sync_dagster.domain.leg import LegState, few
from position_sync_dagster.domain.line_allocation import largest
from position_sync_dagster.domain.valuation import Quote, price_of
from position_sync_dagster.errors import LakeError
from position_sync_dagster.gateway.changes import PendingChanges
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.sync.owner import account_greeks, option_model
from position_sync_dagster.sync.owner.ownership import OwnerContext, Unowned
from position_sync_dagster.sync.owner.publisher import QUEUED
from position_sync_dagster.sync.stream.contract_cache import ContractCache
from position_sync_dagster.sync.stream.followed_holdings import Routes
from position_sync_dagster.sync.stream.lines import LineManager

logger = logging.getLogger(__name__)

EVERY_S = 0.1
"""Seconds between two slices: each is so short that no flush waits for it."""

BUDGET, LARGE_BUDGET = 0.038, 0.095
"""The share of a processor for books of up to `LARGE` options, and for larger ones."""

LARGE = 2000

CHOOSE_S = 60.0
"""Seconds after which underlyings, sizes and dividends are determined again."""

AGAIN_S = 10.0
"""Seconds until the table of contracts is read again after it could not be read."""

LOOK_S = 5.0
"""Seconds between two searches for streamed options without greeks of the gateway."""

GREEKS_WITHIN_S = 10.0
"""A gateway that sends greeks does so within a second or two after the first price."""

AT_ONCE = 500
"""Maximum number of contracts that are looked up in one step."""

SHARE_DIGITS = 4
"""Decimals to which dividends, as a share of the price, are rounded: further decimals change with
each tick."""

OPTION_TYPES = frozenset({"OPT", "FOP"})

STALE = "the underlying has not ticked for a minute in its session"

NO_RATE = "no interest rate of its currency is set"

NAMED = 5
"""The number of underlyings that the status names for each reason."""


AT_THE_OPEN = "09:00:00"
"""When an option that is settled at the open expires, in the zone of its exchange: the prices that
settle it are made from 08:30 (Chicago) or 09:00 (Osaka) on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionContract:
    """The needed part of the details of an option, since thousands of them are kept."""

    right: Right
    strike: float
    expires_at: datetime
    currency: str
    symbol: str
    price_magnifier: int
    underlying: int
    is_on_future: bool
    row: Instrument | None

    @classmethod
    def of(cls, details: ContractDetails, row: Instrument | None = None) -> "OptionContract | None":
        """Return the option of contract details; None if they are of no option, or incomplete.

        Args:
            details: The details, which may be older than a change of the contract.
            row: The contract as the broker's row of a holding names it; its terms count.
        """
        day, clock = details.last_trade_date, details.last_trade_time
        if details.is_settled_at_the_open:
            day, clock = details.expires_on, AT_THE_OPEN
        right, strike = details.right, details.strike
        if row is not None:
            right, strike = row.right or right, row.strike or strike
            if row.expiry not in (None, details.last_trade_date, details.expires_on):
                day = row.expiry
        if details.sec_type not in OPTION_TYPES or details.under_conid is None:
            return None
        if day is None or right is None or strike is None:
            return None
        return cls(
            right=right,
            strike=strike / details.price_magnifier,
            expires_at=expiry_moment(day, clock, details.time_zone),
            currency=details.currency,
            symbol=details.symbol,
            price_magnifier=details.price_magnifier,
            underlying=details.under_conid,
            is_on_future=details.sec_type == "FOP",
            row=row,
        )

    def has_terms_of(self, row: Instrument | None) -> bool:
        """Return whether the row of a holding still has the terms that it had; True without one."""
        old = self.row
        if row is None or old is None or row is old:
            return True
        return (row.right, row.strike, row.expiry) == (old.right, old.strike, old.expiry)


def underlying_price(
    quote: Quote, sec_type: str, *, now: datetime, max_last_age: timedelta
) -> tuple[float, datetime] | None:
    """Return the price of an underlying for the model, and when quote or mark last came.

    An index has no bid and ask: its last price counts. Delayed data is never the present price, and
    nobody has to trade at the price of a halted contract.

    Returns:
        None if it has no present price.

    >>> from datetime import UTC
    >>> now = datetime(2026, 1, 2, tzinfo=UTC)
    >>> index = Quote(conid=1, last=6500.0, quote_time=now)
    >>> underlying_price(index, "IND", now=now, max_last_age=timedelta(60))[0]
    6500.0
    >>> underlying_price(index, "STK", now=now, max_last_age=timedelta(60)) is None
    True
    """
    times = [at for at in (quote.quote_time, quote.mark_time) if at is not None]
    if quote.is_delayed or quote.halted or not times:
        return None
    price = price_of(quote, now=now, max_last_age=max_last_age)
    if price is not None:
        return price.value, max(times)
    return (quote.last, max(times)) if sec_type == "IND" and quote.last is not None else None


@dataclass(eq=False, repr=False)
class ModelGreeks:
    """Follows the options without greeks of the gateway, and publishes computed ones.

    Args:
        contracts: The details of options and underlyings.
        lines: Gets the underlyings that need a line.
        published: Gets the greeks.
    """

    context: OwnerContext
    contracts: ContractCache
    lines: LineManager
    published: account_greeks.PublishedGreeks

    def __post_init__(self) -> None:
        settings = self.context.settings
        # A streamer that is used alone computes nothing.
        usual = 0 if isinstance(self.context.lease, Unowned) else settings.max_lines
        chosen = settings.underlying_lines
        self._most_lines = usual if chosen is None else chosen
        self._clock = self.context.clock
        self._monotonic = self.context.monotonic
        self._rates = dict(settings.interest_rates)
        self._max_last_age = timedelta(seconds=settings.max_last_age_s)
        self._model: option_model.OptionModel | None = None
        self._greeks = account_greeks.AccountGreeks(
            value_of=self._value_of, session_open=self.contracts.session_open
        )
        self._connection: GatewayConnection | None = None
        self._ticks: PendingChanges[int, float] = PendingChanges()
        self._routed: int | None = None
        self._look_at = float("-inf")
        self._silent_since: dict[int, float] = {}
        self._silent: frozenset[int] = frozenset()
        self._keys: dict[int, list[Key]] = {}
        self._unknown: set[int] = set()
        self._wanted: set[int] = set()
        self._options: dict[int, OptionContract] = {}
        self._underlyings: dict[int, ContractDetails] = {}
        self._without_rate: set[int] = set()
        self._read_at = self._choose_at = float("-inf")
        self._known_dividends: dict[int, list[tuple[datetime, float]]] = {}

    def attach(self, connection: GatewayConnection) -> None:
        """Follow the lines and values of a new connection."""
        self._connection, self._ticks = connection, connection.lines.watch()
        self._choose_at = float("-inf")

    async def step(self, connection: GatewayConnection, routes: Routes) -> None:
        """Follow the routes; learn the contracts of options, and choose the underlyings."""
        if not self._most_lines:
            return
        now = self._monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            self._look(connection)
        if routes.version != self._routed:
            self._follow(routes)
        if now >= self._choose_at:
            self._forget_changed(connection)
        if now >= self._read_at:
            try:
                await self._learn(connection)
            except LakeError as error:
                self._read_at = now + AGAIN_S
                logger.warning("options could not be looked up, they are due again: %s", error)
        if now >= self._choose_at:
            self._choose_at = now + CHOOSE_S
            self._choose(connection)

    async def run(self, live_connection: Callable[[], GatewayConnection | None]) -> None:
        """Compute in slices.

        Args:
            live_connection: Returns the connection, or None while its data do not count.
        """
        while True:
            await asyncio.sleep(EVERY_S)
            connection = live_connection()
            if connection is None:
                continue
            if self._model is None:
                if not any(conid in self._ticks for conid in self._underlyings):
                    continue  # without a price there is nothing to compute, and nothing to load
                await asyncio.to_thread(option_model.load_quantlib)
                self._model = option_model.OptionModel()
            self._compute(connection, self._model)

    def summary(self) -> str | None:
        """Return how many options have computed greeks, and why others have none.

        Returns:
            None if there is no option that needs computed greeks.
        """
        options = [conid for conid in self._keys if conid in self._options]
        if not options:
            return None
        without = self._greeks.without
        if self._model is None:
            without = dict.fromkeys(options, option_model.NoGreeks.NO_UNDERLYING_PRICE)
        counts: Counter[str] = Counter()
        symbols: dict[str, set[str]] = defaultdict(set)
        for conid in options:
            reason = NO_RATE if conid in self._without_rate else without.get(conid)
            if reason is not None:
                counts[reason] += 1
                symbols[reason].add(self._options[conid].symbol)
        reasons = [
            f"{count}: {reason} ({few(sorted(symbols[reason]), NAMED)})"
            for reason, count in counts.most_common()
        ]
        if self._unknown:
            reasons.append(f"{len(self._unknown)}: the details of the contract are not known")
        known = len(options) + len(self._unknown)
        computed = f"{len(self.published)} of {known} options without greeks of IB"
        return "; ".join([f"computed greeks of {computed}", *reasons])

    def _look(self, connection: GatewayConnection) -> None:
        """Find the streamed legs for which the gateway sends prices and no greeks.

        A line that does not tick says nothing about that.
        """
        now, since = self._monotonic(), dict[int, float]()
        for conid in self.lines.of_legs:
            line = self.lines.login.line(conid)
            quote = line.counted(connection.lines.quote(conid), self._clock())
            if not line.trusted or quote is None:
                if conid in self._silent_since:
                    since[conid] = self._silent_since[conid]
            elif quote.greeks_time is None:
                since[conid] = self._silent_since.get(conid, now)
        silent = frozenset(conid for conid, at in since.items() if now - at >= GREEKS_WITHIN_S)
        if silent != self._silent:
            self._silent, self._routed = silent, None
        self._silent_since = since

    def _follow(self, routes: Routes) -> None:
        """Record the holdings for which the gateway sends no greeks."""
        keys: dict[int, list[Key]] = defaultdict(list)
        for key, state in routes.states.items():
            if state in QUEUED or (state is LegState.STREAMED and key[1] in self._silent):
                keys[key[1]].append(key)
        for conid in self._keys.keys() - keys.keys():
            self._remove(conid)
        added = keys.keys() - self._keys.keys()
        self._unknown = keys.keys() - self._options.keys()
        self._keys, self._routed = dict(keys), routes.version
        self._add(added & self._options.keys())

    def _row(self, connection: GatewayConnection, conid: int) -> Instrument | None:
        return connection.feed.book.instrument(self._keys[conid][0])

    def _forget_changed(self, connection: GatewayConnection) -> None:
        """Look up the options again whose rows have had other terms since, as after a split."""
        for conid in self._keys.keys() & self._options.keys():
            if not self._options[conid].has_terms_of(self._row(connection, conid)):
                self._remove(conid)
                del self._options[conid]
                self._unknown.add(conid)

    async def _learn(self, connection: GatewayConnection) -> None:
        """Look up options and underlyings whose details have been stored since."""
        found = sorted(self.contracts.available(self._unknown))[:AT_ONCE]
        if found:
            options = {
                conid: option
                for conid, details in (await self.contracts.look_up(found)).items()
                if (option := OptionContract.of(details, self._row(connection, conid))) is not None
            }
            self._unknown.difference_update(found)
            self._options |= options
            self._add(options)
            self._wanted |= {one.underlying for one in options.values()} - self._underlyings.keys()
        if self._wanted:
            self.contracts.want(sorted(self._wanted), first=True)
            known = self.contracts.available(self._wanted)
            if known:
                self._underlyings |= await self.contracts.keep(known)
                self._wanted -= self._underlyings.keys()
                self._choose_at = float("-inf")

    def _choose(self, connection: GatewayConnection) -> None:
        """Determine the largest underlyings, the sizes of options, and dividends again."""
        values = connection.feed.book.values(
            key for conid, keys in self._keys.items() if conid in self._options for key in keys
        )
        sizes: dict[int, float] = defaultdict(float)
        of_underlying: dict[int, float] = defaultdict(float)
        for (_account, conid), value in values.items():
            sizes[conid] += abs(value or 0.0)
            of_underlying[self._options[conid].underlying] += abs(value or 0.0)
        known = {c: value for c, value in of_underlying.items() if c in self._underlyings}
        self.lines.want_underlyings(largest(known, self.lines.held, self._most_lines))
        self.contracts.want(self._unknown)
        self._note_dividends(connection)
        self._add(sizes, sizes)
        for conid in self._greeks.stale(self._clock()):
            # A new request opens with the present price, or shows that trading is halted.
            self.lines.login.line(conid).doubted(self._monotonic(), STALE)

    def _note_dividends(self, connection: GatewayConnection) -> None:
        """Read what streamed options say of the dividends until their expiries."""
        found: dict[int, list[tuple[datetime, float]]] = defaultdict(list)
        for conid in sorted(self.lines.of_legs):
            details = self.contracts.known(conid)
            option = OptionContract.of(details) if details is not None else None
            quote = self.lines.login.line(conid).counted(
                connection.lines.quote(conid), self._clock()
            )
            if option is None or quote is None or quote.pv_dividend is None:
                continue
            if quote.underlying_price:
                share = round(quote.pv_dividend / quote.underlying_price, SHARE_DIGITS)
                found[option.underlying].append((option.expires_at, share))
        # An underlying whose streamed option left keeps what was known of it.
        self._known_dividends |= found

    def _add(self, conids: Iterable[int], sizes: Mapping[int, float] | None = None) -> None:
        """Follow these options from now on, if everything that this needs is known.

        Args:
            sizes: The absolute values of their holdings; None leaves them as they are.
        """
        now = self._clock()
        shares: dict[tuple[int, datetime], float | None] = {}
        for conid in conids:
            option = self._options[conid]
            underlying = self._underlyings.get(option.underlying)
            rate = self._rates.get(option.currency)
            if rate is None:
                self._without_rate.add(conid)
            if underlying is None or rate is None:
                continue
            dated = (option.underlying, option.expires_at)
            if dated not in shares:
                shares[dated] = self._share(option, now)
            method = (
                option_model.Method.EUROPEAN
                if underlying.sec_type == "IND"
                else option_model.Method.AMERICAN
            )
            terms = option_model.OptionTerms(
                right=option.right,
                strike=option.strike,
                expires_at=option.expires_at,
                method=option_model.Method.FUTURE if option.is_on_future else method,
                rate=rate,
                dividend_share=shares[dated],
            )
            size = sizes[conid] if sizes else None
            self._greeks.add(conid, terms, option.underlying, size)

    def _share(self, option: OptionContract, now: datetime) -> float | None:
        known = self._known_dividends.get(option.underlying, ())
        year = timedelta(days=365)
        share = option_model.dividend_share(
            [((at - now) / year, share) for at, share in known], (option.expires_at - now) / year
        )
        return None if share is None else round(share, SHARE_DIGITS)

    def _remove(self, conid: int) -> None:
        self.published.remove(conid)
        self._without_rate.discard(conid)
        self._greeks.remove(conid)

    def _compute(self, connection: GatewayConnection, model: option_model.OptionModel) -> None:
        """Take the newest prices of underlyings, and compute for a slice of time."""
        now = self._clock()
        for conid in self._ticks.take():
            details = self._underlyings.get(conid)
            if details is None:
                continue
            line = self.lines.login.line(conid)
            quote = line.counted(connection.lines.quote(conid), now)
            if quote is None:
                continue
            found = underlying_price(
                quote, details.sec_type, now=now, max_last_age=self._max_last_age
            )
            if found is not None:
                price, at = found
                self._greeks.underlying_ticked(conid, price / details.price_magnifier, at)
        share = BUDGET if len(self._greeks) <= LARGE else LARGE_BUDGET
        for leg in self._greeks.compute(
            model, now, monotonic=self._monotonic(), budget_s=share * EVERY_S
        ):
            hours, came_at = self.contracts.hours(leg.underlying), leg.underlying_at
            # A line that is requested outside the session opens with a price from before.
            dated = hours is None or came_at is None or hours.is_open(came_at) is not False
            self.published.take(leg, self._options[leg.conid].price_magnifier, dated=dated)

    def _value_of(self, conid: int) -> tuple[float, datetime] | None:
        """Return the newest value that the broker gave of an option in any account."""
        if self._connection is None:
            return None
        book, keys = self._connection.feed.book, self._keys.get(conid, ())
        self._connection.pnl.read(keys)
        found = [value for key in keys if (value := book.newest_value(key))]
        return max(found, key=lambda one: one[1], default=None)
