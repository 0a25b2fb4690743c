"""The modelled greeks of a login's options: their inputs, and which results are published.

A value of the broker and the price of the underlying at its time give the volatility. It and the
price of the underlying now give the greeks. `PublishedGreeks` publishes greeks that moved enough,
or are old enough: not each batch makes a row.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from position_sync_dagster.domain.broker_position import BrokerPosition, HoldingGreeks
from position_sync_dagster.domain.clock import elapsed
from position_sync_dagster.gateway.holdings import ChangeNotifier, PendingChanges
from position_sync_dagster.risk.account import ModelledGreeks, NoGreeks, Reason, ValuedOption
from position_sync_dagster.risk.terms import OptionTerms

OLD = timedelta(minutes=1)
"""A price of the underlying that is older counts only while its session is closed."""

KEPT = timedelta(minutes=5)
"""How long prices of an underlying are kept: account rows arrive every three minutes."""

SPACING = timedelta(seconds=1)
"""Older prices of an underlying are kept at this distance from each other."""


@dataclass(slots=True, kw_only=True)
class ModelledLeg:
    """An option with its newest greeks, or why it has none.

    Attributes:
        value, value_at: The broker's newest value, and when it was true; None before the first.
        spot_then: The price of the underlying at the time `value_at`.
        volatility: The volatility that follows from them, or why there is none; None: not computed.
        near: The last volatility that was known.
        used: The inputs of the last batch that computed it; None before the first.
        greeks: The newest greeks; None if there is a reason why the option has none.
        underlying_at: When the underlying had the price from which the greeks follow.
    """

    conid: int
    terms: OptionTerms
    underlying: int
    value: float = 0.0
    value_at: datetime | None = None
    spot_then: float | None = None
    volatility: float | Reason | None = None
    near: float | None = None
    used: ValuedOption | None = None
    greeks: ModelledGreeks | None = None
    reason: Reason | None = None
    underlying_at: datetime | None = None


class _Prices:
    """The prices of one underlying in the last minutes."""

    def __init__(self) -> None:
        self._times: list[datetime] = []
        self._prices: list[float] = []

    def add(self, price: float, at: datetime) -> None:
        if self._times and at < self._times[-1]:  # the clock was set back
            first = bisect_left(self._times, at)
            del self._times[first:], self._prices[first:]
        # The newest two are always kept; of those before, one in each second.
        if len(self._times) > 1 and self._times[-1] - self._times[-2] < SPACING:
            self._times.pop()
            self._prices.pop()
        self._times.append(at)
        self._prices.append(price)
        if at - self._times[0] > 2 * KEPT:
            first = bisect_right(self._times, at - KEPT)
            del self._times[:first], self._prices[:first]

    def at(self, moment: datetime) -> tuple[float, datetime] | None:
        """Return the price at a moment, and since when it was known; None before the first one."""
        place = bisect_right(self._times, moment)
        return (self._prices[place - 1], self._times[place - 1]) if place else None

    @property
    def newest(self) -> tuple[float, datetime] | None:
        return (self._prices[-1], self._times[-1]) if self._times else None


@dataclass(eq=False, repr=False, kw_only=True)
class AccountGreeks:
    """The options of a login, with the inputs and the results of each batch.

    Args:
        session_open: Returns whether an underlying trades now, by conid; None: unknown, as open.
    """

    session_open: Callable[[int], bool | None]

    def __post_init__(self) -> None:
        self._legs: dict[int, ModelledLeg] = {}
        self._prices: dict[int, _Prices] = {}
        self._not_priced: dict[int, Reason] = {}

    def stale(self, now: datetime) -> list[int]:
        """Return the underlyings whose price is too old although they trade."""
        return [
            conid
            for conid, prices in self._prices.items()
            if prices.newest is not None and self._is_old(conid, prices.newest[1], now)
        ]

    def _is_old(self, underlying: int, at: datetime, now: datetime) -> bool:
        return elapsed(at, now) > OLD and self.session_open(underlying) is not False

    def __iter__(self) -> Iterator[int]:
        return iter(list(self._legs))

    @property
    def without(self) -> dict[int, Reason]:
        """Why options have no greeks, by conid."""
        return self._not_priced | {
            conid: leg.reason for conid, leg in self._legs.items() if leg.reason is not None
        }

    def add(self, conid: int, terms: OptionTerms | Reason, underlying: int) -> None:
        """Follow an option; new terms of a known one are used from now on.

        Args:
            conid: The option.
            terms: Its terms, or why the model does not fit it.
            underlying: The conid of its underlying.
        """
        if not isinstance(terms, OptionTerms):
            self.remove(conid)
            self._not_priced[conid] = terms
            return
        self._not_priced.pop(conid, None)
        leg = self._legs.get(conid)
        if leg is None:
            self._legs[conid] = ModelledLeg(conid=conid, terms=terms, underlying=underlying)
        elif (leg.terms, leg.underlying) != (terms, underlying):
            leg.terms, leg.underlying, leg.volatility = terms, underlying, None

    def remove(self, conid: int) -> None:
        """Follow an option no more."""
        self._legs.pop(conid, None)
        self._not_priced.pop(conid, None)

    def underlying_ticked(self, conid: int, price: float, at: datetime) -> None:
        """Record the price of an underlying."""
        self._prices.setdefault(conid, _Prices()).add(price, at)

    def valued(self, conid: int, value: float, at: datetime, now: datetime) -> None:
        """Record the broker's value of an option for one unit of its underlying.

        A value that is older than the last one is not used, unless the clock was set back since.
        """
        leg = self._legs.get(conid)
        if leg is None:
            return
        before = leg.value_at
        if before is None or at > before or at <= now < before:
            prices = self._prices.get(leg.underlying)
            then = prices.at(at) if prices else None
            is_known = then is not None and not self._is_old(leg.underlying, then[1], at)
            leg.value, leg.value_at, leg.volatility = value, at, None
            leg.spot_then = then[0] if then is not None and is_known else None

    def due(self, now: datetime) -> list[tuple[ModelledLeg, ValuedOption | None]]:
        """Return the options whose inputs moved; None: it has no greeks, for its new reason."""
        found: list[tuple[ModelledLeg, ValuedOption | None]] = []
        for leg in self._legs.values():
            prices = self._prices.get(leg.underlying)
            spot, leg.underlying_at = (prices.newest if prices else None) or (None, None)
            if leg.value_at is None:
                reason: Reason | None = NoGreeks.NO_VALUE
            elif spot is None or leg.underlying_at is None:
                reason = NoGreeks.NO_UNDERLYING_PRICE
            elif self._is_old(leg.underlying, leg.underlying_at, now):
                reason = NoGreeks.UNDERLYING_OLD
            else:
                option = ValuedOption(
                    terms=leg.terms,
                    value=leg.value,
                    value_at=leg.value_at,
                    spot_then=leg.spot_then,
                    spot=spot,
                    volatility=leg.volatility,
                    near=leg.near,
                )
                if option != leg.used or leg.terms.expires_at <= now:
                    found.append((leg, option))
                continue
            if reason != leg.reason or leg.greeks is not None:
                leg.greeks, leg.reason, leg.used = None, reason, None
                found.append((leg, None))
        return found

    @staticmethod
    def computed(
        legs: Iterable[ModelledLeg],
        options: Sequence[ValuedOption],
        volatility: Sequence[float | Reason],
        greeks: Sequence[ModelledGreeks | Reason],
    ) -> None:
        """Record what a batch computed; what came in meanwhile is due at the next one."""
        for leg, option, vol, found in zip(legs, options, volatility, greeks, strict=True):
            if (leg.value_at, leg.terms) == (option.value_at, option.terms):
                leg.volatility = vol
            if isinstance(vol, float):
                leg.near = vol
            leg.greeks = found if isinstance(found, ModelledGreeks) else None
            leg.reason = None if isinstance(found, ModelledGreeks) else found
            leg.used = replace(option, volatility=leg.volatility, near=leg.near)


DELTA_MOVE = 0.005
"""A change of delta that is published at once."""

MOVE_PART = 0.03
"""A change of gamma, vega or theta by this share of it is published at once."""

RENEWED = timedelta(seconds=10)
"""Greeks whose inputs are newer than the published ones by this time are published in any case."""


class PublishedGreeks:
    """The greeks that `broker_positions` has, or gets at the next publication, by conid."""

    def __init__(self) -> None:
        self._greeks: dict[int, HoldingGreeks] = {}
        self._changes: ChangeNotifier[int] = ChangeNotifier()

    def __len__(self) -> int:
        return len(self._greeks)

    def watch(self) -> PendingChanges[int]:
        """Collect from now on the options whose greeks are to be published."""
        return self._changes.watch()

    def take(self, leg: ModelledLeg, price_magnifier: int, *, dated: bool = True) -> None:
        """Publish the new greeks of an option, if they differ enough from the published ones.

        Args:
            leg: The option.
            price_magnifier: Of the option, whose row has the underlying's price as it is quoted.
            dated: Whether the arrival of the underlying's price is its time.
        """
        before, found = self._greeks.get(leg.conid), leg.greeks
        if found is None or leg.underlying_at is None or leg.value_at is None:
            self.remove(leg.conid)
            return
        method = leg.terms.text
        if before is not None and before.greeks_method == method and not _moved(before, leg):
            return
        self._greeks[leg.conid] = HoldingGreeks(
            implied_vol=found.implied_vol,
            delta=found.delta,
            gamma=found.gamma,
            vega=found.vega,
            theta=found.theta,
            underlying_price=found.underlying_price * price_magnifier,
            greeks_time=leg.underlying_at if dated else None,
            greeks_method=method,
            volatility_time=leg.value_at,
        )
        self._changes.note(leg.conid)

    def remove(self, conid: int) -> None:
        """Publish that an option has no computed greeks."""
        if self._greeks.pop(conid, None) is not None:
            self._changes.note(conid)

    def of(self, holding: BrokerPosition) -> HoldingGreeks | None:
        """Return the greeks of a holding; None of a closed one."""
        return self._greeks.get(holding.instrument.conid) if holding.position else None


def _moved(before: HoldingGreeks, leg: ModelledLeg) -> bool:
    found, at = leg.greeks, leg.underlying_at
    if found is None or at is None or abs(found.delta - before.delta) >= DELTA_MOVE:
        return True
    pairs = ((found.gamma, before.gamma), (found.vega, before.vega), (found.theta, before.theta))
    if any(abs(now - then) > MOVE_PART * abs(then) for now, then in pairs):
        return True
    return before.greeks_time is None or elapsed(before.greeks_time, at) >= RENEWED
