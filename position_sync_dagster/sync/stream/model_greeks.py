"""Computed greeks of the stream: which underlyings need a line, what goes in, what comes out.

The gateway sends no greeks for options without a line, and none for some legs with a line. These
greeks are computed as one batch a few times a minute.
"""

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.instrument import ContractDetails, ExpectedDividend, Instrument
from position_sync_dagster.domain.leg import QUEUED, LegState, few
from position_sync_dagster.domain.line_allocation import largest
from position_sync_dagster.domain.valuation import Quote, price_of
from position_sync_dagster.errors import LakeError
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.gateway.holdings import PendingChanges
from position_sync_dagster.lake.records import DividendsTable
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.risk.account import NoGreeks, Reason, greeks_of_account
from position_sync_dagster.risk.model import Exercise
from position_sync_dagster.risk.terms import (
    CONTRACT_FIELDS,
    Contract,
    DatedDividend,
    OptionTerms,
    dated_dividends,
    expected_dividends,
    expires_at,
    option_terms,
    stated_dividend,
)
from position_sync_dagster.sync.stream import account_greeks
from position_sync_dagster.sync.stream.contract_cache import ContractCache
from position_sync_dagster.sync.stream.lines import LineManager
from position_sync_dagster.sync.stream.ownership import OwnerContext, Unowned

logger = logging.getLogger(__name__)

BATCH_S = 10.0
"""Seconds between two batches. One is computed beside the stream, in a thread of its own."""

FIRST_S = 1.0
"""Seconds between two batches until the first greeks are known."""

PRICES_S = 0.5
"""Seconds between two looks at the prices of underlyings: a value is explained by the price at its
time."""

SLICE = 200
"""Number of values that are read before the stream has its turn."""

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

SHARE_MOVE = 0.05
"""A change of an estimated dividend by less than this part of it is not stored."""

STALE = "the underlying has not ticked for a minute in its session"

NAMED = 5
"""The number of underlyings that the status names for each reason."""


class _Option(NamedTuple):
    """An option of the book.

    Attributes:
        details: Its contract details, without what takes most memory.
        row: The contract as the broker's row of a holding names it.
    """

    details: ContractDetails
    row: Instrument

    @property
    def underlying(self) -> int:
        return self.details.under_conid or 0

    def has_terms_of(self, row: Instrument | None) -> bool:
        """Return whether the row of a holding still has the terms that it had; True without one."""
        if row is None or row is self.row:
            return True
        return (row.right, row.strike, row.expiry) == (
            self.row.right, self.row.strike, self.row.expiry,
        )  # fmt: skip


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
        dividends: Gets the expected dividends; with None, they are not stored.
    """

    context: OwnerContext
    contracts: ContractCache
    lines: LineManager
    published: account_greeks.PublishedGreeks
    dividends: DividendsTable | None = None

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
        self._greeks = account_greeks.AccountGreeks(session_open=self.contracts.session_open)
        self._ticks: PendingChanges[int] = PendingChanges()
        self._routed: int | None = None
        self._look_at = float("-inf")
        self._silent_since: dict[int, float] = {}
        self._silent: frozenset[int] = frozenset()
        self._keys: dict[int, list[Key]] = {}
        self._unknown: set[int] = set()
        self._wanted: set[int] = set()
        self._options: dict[int, _Option] = {}
        self._underlyings: dict[int, ContractDetails] = {}
        self._read_at = self._choose_at = float("-inf")
        self._dividends: dict[int, list[ExpectedDividend]] = {}
        self._unstored: set[int] = set()
        self._known_dividends: dict[int, tuple[DatedDividend, ...]] = {}

    def attach(self, connection: GatewayConnection) -> None:
        """Follow the lines and values of a new connection."""
        self._ticks = connection.lines.watch()
        self._choose_at = float("-inf")

    async def step(
        self, connection: GatewayConnection, routes: Mapping[Key, LegState], version: int
    ) -> None:
        """Follow the routes; learn the contracts of options, and choose the underlyings.

        Args:
            version: Changes with the routes.
        """
        if not self._most_lines:
            return
        now = self._monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            self._look(connection)
        if version != self._routed:
            self._follow(routes)
            self._routed = version
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
            await self._choose(connection)

    async def run(self, live_connection: Callable[[], GatewayConnection | None]) -> None:
        """Compute in batches.

        Args:
            live_connection: Returns the connection, or None while its data do not count.
        """
        due_at = self._monotonic()
        while True:
            await asyncio.sleep(PRICES_S)
            connection = live_connection()
            if connection is None or not self._options:
                continue
            self._read_prices(connection)
            if self._monotonic() >= due_at:
                await self._compute(connection)
                due_at = self._monotonic() + (BATCH_S if len(self.published) else FIRST_S)

    def summary(self) -> str | None:
        """Return how many options have computed greeks, and why others have none.

        Returns:
            None if there is no option that needs computed greeks.
        """
        options = [conid for conid in self._keys if conid in self._options]
        if not options:
            return None
        without = self._greeks.without
        counts: Counter[str] = Counter()
        symbols: dict[str, set[str]] = defaultdict(set)
        for conid in options:
            reason = without.get(conid)
            if reason is not None:
                counts[reason] += 1
                symbols[reason].add(self._options[conid].details.symbol)
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

    def _follow(self, routes: Mapping[Key, LegState]) -> None:
        """Record the holdings for which the gateway sends no greeks."""
        keys: dict[int, list[Key]] = defaultdict(list)
        for key, state in routes.items():
            if state in QUEUED or (state is LegState.STREAMED and key[1] in self._silent):
                keys[key[1]].append(key)
        for conid in self._keys.keys() - keys.keys():
            self._remove(conid)
        added = keys.keys() - self._keys.keys()
        self._unknown = keys.keys() - self._options.keys()
        self._keys = dict(keys)
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
                conid: _Option(replace(details, trading_hours=None, valid_exchanges=None), row)
                for conid, details in self.contracts.of(found).items()
                if conid in self._keys
                and details.under_conid is not None
                and (row := self._row(connection, conid)) is not None
            }
            self._unknown.difference_update(found)
            self._options |= options
            self._add(options)
            self._wanted |= {one.underlying for one in options.values()} - self._underlyings.keys()
        if self._wanted:
            self.contracts.want(sorted(self._wanted), first=True)
            known = self.contracts.available(self._wanted)
            if known:
                self._underlyings |= self.contracts.of(known)
                self._wanted -= self._underlyings.keys()
                self._choose_at = float("-inf")

    async def _choose(self, connection: GatewayConnection) -> None:
        """Determine the largest underlyings, the sizes of options, and dividends again."""
        values = connection.feed.book.values(
            key for conid, keys in self._keys.items() if conid in self._options for key in keys
        )
        of_underlying: dict[int, float] = defaultdict(float)
        for (_account, conid), value in values.items():
            of_underlying[self._options[conid].underlying] += abs(value or 0.0)
        known = {c: value for c, value in of_underlying.items() if c in self._underlyings}
        self.lines.want_underlyings(largest(known, self.lines.held, self._most_lines))
        self.contracts.want(self._unknown)
        self._read_dividends(connection)
        await self._store_dividends()
        self._add(self._keys.keys() & self._options.keys())
        for conid in self._greeks.stale(self._clock()):
            # A new request opens with the present price, or shows that trading is halted.
            self.lines.login.line(conid).doubted(self._monotonic(), STALE)

    def _read_dividends(self, connection: GatewayConnection) -> None:
        """Read what the lines say of dividends: of a stock, or until the expiries of its options.

        An underlying of which no line speaks any more keeps what was known of it.
        """
        now, shares = self._clock(), defaultdict[int, list[tuple[datetime, float]]](list)
        found: dict[int, list[ExpectedDividend]] = {}
        for conid in sorted(self.lines.of_legs):
            details = self.contracts.known(conid)
            quote = self.lines.login.line(conid).counted(connection.lines.quote(conid), now)
            if details is None or details.under_conid is None or quote is None:
                continue
            ends = expires_at(None, details)
            if ends is not None and quote.pv_dividend is not None and quote.underlying_price:
                share = round(quote.pv_dividend / quote.underlying_price, SHARE_DIGITS)
                shares[details.under_conid].append((ends, share))
        for conid, details in self._underlyings.items():
            quote, known = connection.lines.quote(conid), shares.get(conid)
            stated = quote.dividends if quote is not None else None
            if stated is not None and (stated.next_date is not None or stated.next_year == 0):
                found[conid] = [stated_dividend(details, stated, now)]
            elif known:
                found[conid] = expected_dividends(details, known, now)
        for conid, rows in found.items():
            if _differ(rows, self._dividends.get(conid, [])):
                self._dividends[conid] = rows
                self._unstored.add(conid)
                self._known_dividends[conid] = dated_dividends(rows)[conid]

    async def _store_dividends(self) -> None:
        if self.dividends is None or not self._unstored:
            return
        rows = [row for conid in self._unstored for row in self._dividends[conid]]
        await offload(self.dividends.add, rows, None, self.context.lease.check)
        self._unstored.clear()

    def _add(self, conids: Iterable[int]) -> None:
        """Follow these options from now on, if everything that this needs is known."""
        for conid in conids:
            option = self._options[conid]
            underlying = self._underlyings.get(option.underlying)
            if underlying is None:
                continue
            contract = Contract(**{name: getattr(option.row, name) for name in CONTRACT_FIELDS})
            details = replace(option.details, under_sec_type=underlying.sec_type)
            known = self._known_dividends.get(option.underlying)
            terms: OptionTerms | Reason = option_terms(contract, details, self._rates, known)
            if isinstance(terms, OptionTerms) and terms.exercise is Exercise.EUROPEAN_FUTURE:
                terms = NoGreeks.FOLLOWS_A_FUTURE
            self._greeks.add(conid, terms, option.underlying)

    def _remove(self, conid: int) -> None:
        self.published.remove(conid)
        self._greeks.remove(conid)

    def _read_prices(self, connection: GatewayConnection) -> None:
        """Record the newest prices of underlyings."""
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

    async def _compute(self, connection: GatewayConnection) -> None:
        """Read the newest values, compute what moved as one batch, and publish it."""
        now = self._clock()
        for n, conid in enumerate(self._greeks):
            value = self._value_of(connection, conid)
            if value is not None:
                self._greeks.valued(conid, *value, now)
            if n % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        due = self._greeks.due(now)
        moved = [(leg, option) for leg, option in due if option is not None]
        if moved:
            legs, options = zip(*moved, strict=True)
            found = await asyncio.to_thread(greeks_of_account, options, now)
            self._greeks.computed(legs, options, *found)
        for n, (leg, _option) in enumerate(due):
            option = self._options.get(leg.conid)
            if option is None or leg.conid not in self._keys:
                continue  # it left meanwhile
            hours, came_at = self.contracts.hours(leg.underlying), leg.underlying_at
            # A line that is requested outside the session opens with a price from before.
            dated = hours is None or came_at is None or hours.is_open(came_at) is not False
            self.published.take(leg, option.details.price_magnifier, dated=dated)
            if n % SLICE == SLICE - 1:
                await asyncio.sleep(0)

    def _value_of(self, connection: GatewayConnection, conid: int) -> tuple[float, datetime] | None:
        """Return the newest value that the broker gave of an option in any account."""
        book, keys = connection.feed.book, self._keys.get(conid, ())
        connection.pnl.read(keys)
        found = [value for key in keys if (value := book.newest_value(key))]
        return max(found, key=lambda one: one[1], default=None)


def _differ(rows: Sequence[ExpectedDividend], before: Sequence[ExpectedDividend]) -> bool:
    """Return whether dividends changed by more than the rounding of `pvDividend` explains."""
    if len(rows) != len(before):
        return True
    return any(
        (one.source, one.ex_date, one.amount, one.next_year)
        != (old.source, old.ex_date, old.amount, old.next_year)
        or abs((one.share or 0.0) - (old.share or 0.0)) > SHARE_MOVE * (old.share or 0.0)
        for one, old in zip(rows, before, strict=True)
    )
