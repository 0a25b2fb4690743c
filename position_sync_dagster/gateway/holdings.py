"""The book of holdings: what the broker last reported of each, merged from its three feeds.

Holdings are immutable: each row, of a list of positions or of the portfolio, replaces one. What
PnLSingle sends of a holding is kept beside it, and merged when the holding is read. It is followed
while such a message comes about every second. A value that stays the same although portfolio rows
move stands still, and does not count: PnLSingle has missed a move. Any other value of PnLSingle
counts before that of a row, unless it is older by more than `FOLLOWED_S` (`Profit.counts`).

Confirmations of whole accounts are kept with their states, and each holding that is returned
contains its newest one. Watchers collect what changed.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypeVar
from weakref import ref

from position_sync_dagster.domain import streamed_holding
from position_sync_dagster.domain.account_state import AccountStates
from position_sync_dagster.domain.clock import Clock
from position_sync_dagster.domain.holding import (
    AccountConfirmation,
    BrokerPosition,
    Completeness,
    HoldingGreeks,
    Holdings,
    Key,
)
from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.domain.position_update import ValueOrigin
from position_sync_dagster.domain.valuation import ROUNDING, price_of_value
from position_sync_dagster.gateway.codes import Connectivity
from position_sync_dagster.gateway.translate import known

# A holding is followed while its newest profit message (PnLSingle) is not older: the gateway
# sends one about every second. Source: IB, "Profit and Loss".
FOLLOWED_S = 5.0


# The computed greeks of options.
GreeksByConid = Mapping[int, HoldingGreeks]
NO_GREEKS: GreeksByConid = MappingProxyType({})

K = TypeVar("K")


class PendingChanges(Generic[K]):
    """The keys that changed since a watcher last took them.

    Attributes:
        urgent: Set by a change that should be taken at once; cleared by `take`.

    >>> changes = PendingChanges()
    >>> changes.note("a"); changes.note("a"); changes.note("b")
    >>> sorted(changes.take()), changes.take()
    (['a', 'b'], set())
    """

    def __init__(self) -> None:
        self._noted: set[K] = set()
        self.urgent = asyncio.Event()

    def __bool__(self) -> bool:
        return bool(self._noted)

    def take(self) -> set[K]:
        """Return what changed since the last call, and start anew."""
        noted = self._noted
        self._noted = set()
        self.urgent.clear()
        return noted

    def note(self, *keys: K, urgent: bool = False) -> None:
        """Add changes, or put back those that could not be processed."""
        self._noted.update(keys)
        if urgent:
            self.urgent.set()

    def forget(self, key: K) -> None:
        """Remove the change of a key."""
        self._noted.discard(key)


class Watchers(Generic[K]):
    """Those who collect the same changes; one that nobody holds any more is dropped."""

    def __init__(self) -> None:
        # They are few, and changes many: to iterate a `WeakSet` takes longer than to note a change.
        self._watchers: list[ref[PendingChanges[K]]] = []

    def __iter__(self) -> Iterator[PendingChanges[K]]:
        return iter([held for watcher in self._watchers if (held := watcher()) is not None])

    def watch(self) -> PendingChanges[K]:
        """Return a new watcher, which collects the changes from now on; drop those of nobody."""
        watcher: PendingChanges[K] = PendingChanges()
        self._watchers = [ref(held) for held in (*self, watcher)]
        return watcher

    def note(self, *keys: K, urgent: bool = False) -> None:
        """Add changes to every watcher."""
        for watcher in self:
            watcher.note(*keys, urgent=urgent)


class PnlValues(NamedTuple):
    """The values of a PnLSingle message as sent: one that the broker does not know is DBL_MAX."""

    position: float
    daily: float
    unrealized: float
    realized: float
    value: float


@dataclass(slots=True)
class Profit:
    """What PnLSingle sends of a holding, and how far that counts.

    Attributes:
        sent: The newest message that counts.
        at: When it was received.
        same_since: Since when its value has been the same.
        value_at_daily: The value with which the daily profit came first.
        stands_still: A portfolio row showed that the value does not follow the market (`take_row`);
            until the value changes.
    """

    sent: PnlValues
    at: datetime
    same_since: datetime
    value_at_daily: float
    stands_still: bool = False

    def take(self, sent: PnlValues, at: datetime) -> bool:
        """Take a message; return whether it counts.

        One that repeats a value which stands still does not: then the older one stays, and gets no
        newer time.
        """
        if sent.value != self.sent.value:
            self.same_since = at
            self.stands_still = False
        elif self.stands_still:
            return False
        if sent.daily != self.sent.daily:
            self.value_at_daily = sent.value
        self.sent = sent
        self.at = at
        return True

    def take_row(self, before: BrokerPosition, value: float | None, now: datetime) -> bool:
        """Take a portfolio row that arrives now; return whether this value follows the market.

        It does not if it is silent while the row has another value. Nor does it if it has repeated
        its own value while the row moved, and differs from the row by more than `VALUE_BAND`: then
        it `stands_still`, and does not count until it moves. In both cases PnLSingle missed a move,
        and the caller has it requested again.

        Args:
            before: The holding as the portfolio row before left it.
            value: The value of the new row.
            now: The present time.
        """
        if value is None:
            return True
        if not self.is_followed(now):
            return not _differ(value, self.sent.value)
        moved = before.market_value is not None and _differ(value, before.market_value)
        # The row moved, and this value has been the same since before the row before.
        if moved and self.same_since <= before.received_at:
            self.stands_still |= _differ(value, self.sent.value, streamed_holding.VALUE_BAND)
        return not self.stands_still

    def is_followed(self, now: datetime) -> bool:
        """Return whether the newest message is recent."""
        return (now - self.at).total_seconds() <= FOLLOWED_S

    def counts(self, row: BrokerPosition) -> bool:
        """Return whether its value is newer than that of the other feeds."""
        return not self.stands_still and (
            row.market_value is None or self.is_followed(row.received_at)
        )

    def daily(self, row: BrokerPosition) -> float | None:
        """Return the daily profit, if it came with the value that counts: the two move together.

        The value of a row counts only if it is the very one that the profit came with. A value of
        PnLSingle may have moved by `VALUE_BAND` since, until the next profit comes.

        Args:
            row: The holding as its last row left it, before what PnLSingle says is merged.
        """
        value = row.market_value
        band = 0.0
        if self.counts(row):
            value = self.sent.value
            band = streamed_holding.VALUE_BAND
        if value is None or _differ(value, self.value_at_daily, band):
            return None
        return known(self.sent.daily)


def _differ(value: float, compared: float, band: float = 0.0) -> bool:
    """Return whether two values differ by more than this part of the first and the rounding."""
    return abs(value - compared) > max(band * abs(value), ROUNDING)


def with_exchange(instrument: Instrument, before: BrokerPosition | None) -> Instrument:
    """Return an instrument with the exchange of the holding before, if a message leaves it empty.

    If nothing else differs, that is the instrument before: all copies of a holding share it.
    """
    if before is None:
        return instrument
    if not instrument.exchange:
        instrument = replace(instrument, exchange=before.instrument.exchange)
    return before.instrument if instrument == before.instrument else instrument


class HoldingsBook:
    """Every holding of the login, merged from position, portfolio and PnLSingle messages.

    A holding that is closed stays in the book with a position of 0.0.

    A PnLSingle message is merged when its holding is read: hundreds come in a second.

    Args:
        gateway_id: The login, as in the tables.
        states: The state of each account.
        connectivity: Whether the gateway has IB; what it sends without IB confirms nothing.
        clock: The time of receipt.

    Attributes:
        changes: Watchers of the holdings that messages change; a changed quantity is urgent.
        all_changes: Watchers of every change, but of confirmations and values of PnLSingle.
        snapshot_id: The id of the newest list of positions, from its request on.
        moves: How often a holding was added, opened, closed or turned from long to short.
        profits: What PnLSingle has sent of each holding.
        missed: The holdings of which PnLSingle missed a move: they are requested again.
        magnifier: Returns the price magnifier of a conid; None: unknown.
        states: What is known of each account.
        unmanaged: Holdings, from earlier connections, of accounts that the login does not manage
            now. Its lists do not name them, so they are not in the book and stay unknown.
    """

    def __init__(
        self,
        gateway_id: str,
        states: AccountStates,
        connectivity: Connectivity,
        *,
        clock: Clock,
    ) -> None:
        self._gateway_id = gateway_id
        self.states = states
        self._connectivity = connectivity
        self._clock = clock

        # What the lists of positions and the portfolio rows say of the accounts of the login.
        self._holdings: Holdings = {}
        self.unmanaged: Holdings = {}
        self.snapshot_id = ""
        self.moves = 0
        # How many holdings are open, by account and security type.
        self._open: Counter[tuple[str, str]] = Counter()

        # What PnLSingle says, which is merged with them when a holding is read.
        self.profits: dict[Key, Profit] = {}
        self.missed: PendingChanges[Key] = PendingChanges()
        self.magnifier: Callable[[int], int | None] = lambda _conid: None

        self.changes: Watchers[Key] = Watchers()
        self.all_changes: Watchers[Key] = Watchers()

    @property
    def holdings(self) -> tuple[BrokerPosition, ...]:
        """Return every holding, closed ones with a position of 0.0."""
        return tuple(self._all(self._holdings).values())

    @property
    def rows(self) -> Collection[BrokerPosition]:
        """Return every holding as its last row left it: what is held, and no newest value."""
        return self._holdings.values()

    def get(self, key: Key, greeks: GreeksByConid = NO_GREEKS) -> BrokerPosition | None:
        """Return one holding, with its computed greeks."""
        return self._all((key,), greeks).get(key)

    def instrument(self, key: Key) -> Instrument | None:
        """Return the instrument of a holding as its newest row has it."""
        row = self._holdings.get(key)
        return None if row is None else row.instrument

    def last_values(self, keys: Iterable[Key]) -> dict[Key, float | None]:
        """Return the values by which the largest of some holdings are chosen; None: unknown.

        A value of PnLSingle is the last one, also where it does not count any more.
        """
        return {
            key: self.profits[key].sent.value
            if key in self.profits
            else self._holdings[key].market_value
            for key in keys
            if key in self._holdings
        }

    def daily_profits(
        self, account: str, sec_types: Collection[str]
    ) -> Iterator[tuple[str, float | None]]:
        """Yield currency and profit of the day of each subscribed holding; None: unknown.

        Their sum is `open_pnl` of the row of the account: no other message has it of a holding.

        Args:
            account: The account.
            sec_types: The security types that are valued.
        """
        for key, profit in self.profits.items():
            row = self._holdings[key]
            if row.account == account and row.instrument.sec_type in sec_types:
                yield row.instrument.currency, profit.daily(row)

    def reported(
        self, keys: Iterable[Key] | None = None, greeks: GreeksByConid = NO_GREEKS
    ) -> Holdings:
        """Return holdings as their last messages left them, with the completeness of their account.

        So the publisher writes them. They lack later confirmations of the account: these are stored
        once for it, else each would publish all its rows again. By default all are returned, also
        those of accounts that the login does not manage: their greeks are renewed only so.
        """
        if keys is None:
            return {
                key: replace(row, greeks=_greeks_of(row, greeks))
                for key, row in self.unmanaged.items()
            } | self.reported(self._holdings, greeks)
        return self._all(keys, greeks, by_account=False)

    def _all(
        self, keys: Iterable[Key], greeks: GreeksByConid = NO_GREEKS, *, by_account: bool = True
    ) -> Holdings:
        """Return these holdings with their newest values and greeks.

        Args:
            keys: Those that are not in the book are left out.
            greeks: What was computed, by conid.
            by_account: Whether a message of its account confirms a holding too; not for what is
                published, where the confirmation of an account is stored once for all of its rows.
        """
        now = self._clock()
        return {
            key: self._stated(
                row, self._newest(key, row, now), _greeks_of(row, greeks), by_account=by_account
            )
            for key in keys
            if (row := self._holdings.get(key)) is not None
        }

    def confirmations(self) -> dict[str, AccountConfirmation]:
        """Return until when the broker has confirmed each account, and how much of it is covered.

        `followed_until` is that of the holding that was heard of least recently, of those of the
        account that PnLSingle follows; None without one.
        """
        now = self._clock()
        followed_until: dict[str, datetime] = {}
        for (account, _conid), profit in self.profits.items():
            if profit.is_followed(now) and not profit.stands_still:
                followed_until[account] = min(followed_until.get(account, now), profit.at)
        return {
            account: AccountConfirmation(
                state.confirmed_at, followed_until.get(account), self.states.completeness(account)
            )
            for account, state in self.states.items()
        }

    def keys_of(self, conid: int) -> list[Key]:
        """Return the keys of the holdings of a conid; a login has few accounts."""
        return [(account, conid) for account in self.states if (account, conid) in self._holdings]

    def one_of(self, account: str) -> Key | None:
        """Return the key of one holding of an account, an open one if any is; None without one."""
        keys = (key for key in self._holdings if key[0] == account)
        return max(keys, key=lambda key: self._holdings[key].position != 0, default=None)

    def of_conid(self, conid: int) -> Iterable[BrokerPosition]:
        """Return the holdings of a conid."""
        return self._all(self.keys_of(conid)).values()

    def remember(self, holdings: Iterable[BrokerPosition]) -> None:
        """Add the holdings of an earlier connection, so that closes since then are noticed.

        It is called before the first list of positions of a connection. All are UNKNOWN until that
        list names or closes them; of an account that the login no longer manages they stay so.
        """
        for holding in holdings:
            unknown = replace(
                holding,
                completeness=Completeness.UNKNOWN,
                confirmed_at=None,
                daily_pnl=None,
                followed=False,
                greeks=None,
            )
            if holding.account not in self.states:
                self.unmanaged[holding.key] = unknown
            elif holding.key not in self._holdings:
                self._store(unknown)

    def put_position(
        self, account: str, instrument: Instrument, position: float, cost: float | None
    ) -> bool:
        """Merge a position row, which has no values.

        Returns:
            Whether a holding is open with another quantity now, for which values are missing.
        """
        key = (account, instrument.conid)
        before = self._holdings.get(key)
        if position == 0:
            if before is not None and before.position:
                self._close(before)
            return False

        if before is not None and before.position == position:
            self.change(
                key,
                instrument=with_exchange(instrument, before),
                average_cost=cost if cost is not None else before.average_cost,
                snapshot_id=self.snapshot_id,
            )
            return False

        self.put(self._row(key, instrument, position, self._clock(), average_cost=cost))
        return True

    def put_portfolio(
        self, key: Key, instrument: Instrument, position: float, values: dict[str, float | None]
    ) -> None:
        """Merge a portfolio row; a closed holding that is not in the book is left out."""
        before = self._holdings.get(key)
        if before is None and position == 0:
            return
        now = self._clock()
        value = values["market_value"]
        if before is not None and before.position == position:
            profit = self.profits.get(key)
            if profit is not None and not profit.take_row(before, value, now):
                self.missed.note(key)  # PnLSingle missed a move, and is requested again

        origin = ValueOrigin.NONE if value is None else ValueOrigin.PORTFOLIO
        confirmed_at = now if self._connectivity.lost is None else None  # without IB a row is old
        stated = self._row(
            key, instrument, position, now, value_source=origin, confirmed_at=confirmed_at, **values
        )
        self.put(stated)

    def put_pnl(self, key: Key, sent: PnlValues) -> bool:
        """Take a PnLSingle message if it has a value for the quantity that is held.

        Messages that come while the gateway has lost IB are old.

        Returns:
            Whether it counts.
        """
        if known(sent.value) is None or self._connectivity.lost is not None:
            return False
        profit = self.profits.get(key)
        if profit is not None:  # of the quantity that is held: another one ends it (`put`)
            return sent.position == profit.sent.position and profit.take(sent, self._clock())

        holding = self._holdings.get(key)
        if holding is None or not holding.position or sent.position != holding.position:
            return False
        now = self._clock()
        self.profits[key] = Profit(sent, now, same_since=now, value_at_daily=sent.value)
        return True

    def forget_pnl(self, key: Key) -> None:
        """Keep the value of a holding, not its daily profit: what PnLSingle said counts no more.

        Its subscription ended, or the holding is in doubt.
        """
        if key not in self.profits:
            return
        holding = self._holdings[key]
        newest = self._newest(key, holding, self._clock())
        del self.profits[key]
        self._store(replace(holding, **newest | {"daily_pnl": None, "followed": False}))

    def _newest(self, key: Key, holding: BrokerPosition, now: datetime) -> dict[str, Any]:
        """Return what the newest PnLSingle message changes of a holding, as far as it counts.

        The message has no price and no time: its price follows from its value. The realized profit
        is that of the day, and unset until the position trades: that of the portfolio row counts
        then.
        """
        profit = self.profits.get(key)
        if profit is None:
            return {}
        daily = profit.daily(holding)
        if not profit.counts(holding):
            return {} if daily is None else {"daily_pnl": daily}
        sent = profit.sent
        magnifier = self.magnifier(key[1])
        realized = known(sent.realized)
        return {
            "market_price": price_of_value(holding, sent.value, price_magnifier=magnifier),
            "market_value": sent.value,
            "unrealized_pnl": known(sent.unrealized),
            "realized_pnl": holding.realized_pnl if realized is None else realized,
            "daily_pnl": daily,
            "value_source": ValueOrigin.PNL_SINGLE,
            "value_time": None,
            "received_at": profit.at,
            "confirmed_at": max(holding.confirmed_at or profit.at, profit.at),
            "followed": profit.is_followed(now),
        }

    def confirm(self, account: str) -> None:
        """Record that the broker confirmed every holding of an account, unless it is in doubt.

        Call it only for a received message: the end of a download, or a later row or time of a
        subscription whose download ended. After a download the gateway sends only what changed, so
        each message confirms the rest. Source: IB, "Account Updates".
        """
        state = self.states[account]
        if not state.is_doubted and self._connectivity.lost is None:
            state.confirmed_at = self._clock()

    def doubt(self, key: Key) -> None:
        """Confirm a holding with its account no more, until a row of it comes that can be used."""
        profit = self.profits.get(key)
        if profit is not None and not profit.is_followed(self._clock()):
            self.forget_pnl(key)  # else its old message would confirm it again
        self.change(key, confirmed_at=None)

    def doubt_values_before(self, account: str, since: datetime) -> None:
        """Doubt the values of an account whose rows came before a moment: a download lacks them.

        Values of PnLSingle are confirmed by their own messages.
        """
        if self.states[account].is_doubted:
            return  # nothing confirms them anyway
        for key, holding in self._holdings.items():
            of_row = holding.value_source is ValueOrigin.PORTFOLIO and holding.position
            if key[0] == account and of_row and holding.received_at < since:
                self.doubt(key)

    def open_in(self, account: str, sec_types: Collection[str] | None = None) -> int:
        """Return how many holdings of an account are open, by default of any security type."""
        return sum(
            number
            for (name, sec_type), number in self._open.items()
            if name == account and (sec_types is None or sec_type in sec_types)
        )

    def close_absent(self, reported: Collection[Key], except_in: Container[str] = ()) -> None:
        """Close every holding that a whole list of positions does not name.

        Args:
            reported: The keys of the holdings that the list names.
            except_in: The accounts whose holdings stay open.
        """
        for key, holding in list(self._holdings.items()):
            if key not in reported and holding.position and key[0] not in except_in:
                self._close(holding)

    def invalidate(self) -> None:
        """Mark every account as UNKNOWN and unconfirmed: the gateway dropped every subscription."""
        self.states.drop()
        for key in list(self.profits):
            self.forget_pnl(key)
        for key in self._holdings:
            self.doubt(key)

    def put(self, holding: BrokerPosition) -> None:
        """Replace a holding and notify the watchers, of a changed quantity at once.

        What PnLSingle said of another quantity ends.
        """
        key = holding.key
        before = self._holdings.get(key)
        moved = before is None or before.position != holding.position
        if moved:
            self.profits.pop(key, None)
        self._store(holding)
        self.changes.note(key, urgent=moved)

    def _stated(
        self,
        holding: BrokerPosition,
        newest: Mapping[str, Any],
        greeks: HoldingGreeks | None,
        *,
        by_account: bool,
    ) -> BrokerPosition:
        """Return a holding with its newest values and the completeness of its account, in one copy.

        Args:
            holding: The holding as its last row left it.
            newest: What a later message of PnLSingle changes of it; empty if none counts.
            greeks: What was computed of it.
            by_account: Whether a message of its account confirms it too. It confirms any holding
                but one with a value that nothing has confirmed yet.
        """
        completeness = self.states.completeness(holding.account)
        confirmed_at = newest.get("confirmed_at", holding.confirmed_at)
        value = newest.get("market_value", holding.market_value)
        if by_account and (confirmed_at is not None or value is None):
            times = (confirmed_at, self.states[holding.account].confirmed_at)
            confirmed_at = max(filter(None, times), default=None)

        if not newest and _stated_of(holding) == (completeness, confirmed_at, greeks):
            return holding  # nothing differs: no copy
        return replace(
            holding,
            **{**newest, "completeness": completeness, "confirmed_at": confirmed_at},
            greeks=greeks,
        )

    def change(self, key: Key, **changes: Any) -> None:
        """Change what the book has of a holding, if it has it."""
        holding = self._holdings.get(key)
        if holding is not None:
            self._store(replace(holding, **changes))

    def _store(self, holding: BrokerPosition) -> None:
        """Replace a holding, and count what is open by account and type.

        A move from one side to another, or from nothing, grows `moves`: who caches what follows
        from sides, as the router and the lines, computes it anew.
        """
        key = holding.key
        before = self._holdings.get(key)
        if before is None or _side(before) != _side(holding):
            self.moves += 1
        for row, number in ((before, -1), (holding, 1)):
            if row is not None and row.position:
                self._open[row.account, row.instrument.sec_type] += number
        self._holdings[key] = holding
        self.all_changes.note(key)

    def _close(self, holding: BrokerPosition) -> None:
        """Replace a holding by one of 0 that keeps its newest realized profit."""
        key = holding.key
        now = self._clock()
        realized = self._newest(key, holding, now).get("realized_pnl", holding.realized_pnl)
        self.put(self._row(key, holding.instrument, 0.0, now, realized_pnl=realized))

    def _row(
        self, key: Key, instrument: Instrument, position: float, now: datetime, **values: Any
    ) -> BrokerPosition:
        """Return a holding as the message that was received now has it."""
        before = self._holdings.get(key)
        position_time = now
        if before is not None and before.position == position:
            position_time = before.position_time
        return BrokerPosition(
            gateway_id=self._gateway_id,
            account=key[0],
            instrument=with_exchange(instrument, before),
            position=position,
            received_at=now,
            position_time=position_time,
            snapshot_id=self.snapshot_id,
            # So that reading it makes no copy, as a rule.
            completeness=self.states.completeness(key[0]),
            **values,
        )


# What `HoldingsBook` states of a holding besides its newest message.
_stated_of = attrgetter("completeness", "confirmed_at", "greeks")


def _greeks_of(holding: BrokerPosition, greeks: GreeksByConid) -> HoldingGreeks | None:
    """Return the computed greeks of a holding; a closed one has none."""
    return greeks.get(holding.instrument.conid) if holding.position else None


def _side(holding: BrokerPosition) -> int:
    """Return whether a holding is long (1), short (-1) or closed (0)."""
    return (holding.position > 0) - (holding.position < 0)
