"""The modelled greeks of a login's options: what is computed when, in a budget of processor time.

A value of the broker and the price of the underlying at its time give the volatility. It and the
price of the underlying now give the greeks. Only what changed is computed again. `PublishedGreeks`
publishes greeks that moved enough, or are old enough: not each tick makes a row.
"""

import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import heappop, heappush
from typing import NamedTuple

from position_sync_dagster.domain.broker_position import BrokerPosition, HoldingGreeks
from position_sync_dagster.domain.clock import elapsed
from position_sync_dagster.gateway.changes import ChangeNotifier, PendingChanges
from position_sync_dagster.sync.owner.option_model import (
    ModelledGreeks,
    NoGreeks,
    OptionModel,
    OptionTerms,
)

LARGEST = 2000
"""Number of options of the largest value that each pass computes; the others follow in turn."""

PASS_S, TURN_S = 5.0, 60.0
"""Seconds between two computations of one of the largest, and of one of the others."""

OLD = timedelta(minutes=1)
"""A price of the underlying that is older counts only while its session is closed."""

KEPT = timedelta(minutes=5)
"""How long prices of an underlying are kept: account rows arrive every three minutes."""

SPACING = timedelta(seconds=1)
"""Older prices of an underlying are kept at this distance from each other."""


class _Inputs(NamedTuple):
    """The inputs from which greeks were computed; `over`: the option has expired."""

    terms: OptionTerms
    value_at: datetime | None
    spot: float | None
    old: bool
    over: bool


@dataclass(slots=True, kw_only=True)
class ModelledLeg:
    """An option with its newest greeks, or why it has none.

    Attributes:
        size: The absolute value of its holdings.
        value, value_at: The broker's newest value, and when it was true; None before the first.
        spot_then: The price of the underlying at the time `value_at`.
        volatility: The volatility that follows from `value` and `spot_then`, or why there is none.
        solved_at: The `value_at` for which the volatility was computed; None before the first.
        near: The last volatility that was known.
        used: The inputs of the last computation of the greeks; None before it.
        greeks: The newest greeks; None if there is a reason why the option has none.
        underlying_at: When the underlying had the price from which the greeks follow.
    """

    conid: int
    terms: OptionTerms
    underlying: int
    size: float = 0.0
    value: float = 0.0
    value_at: datetime | None = None
    spot_then: float | None = None
    solved_at: datetime | None = None
    volatility: float | NoGreeks = NoGreeks.NO_PRICE_THEN
    near: float | None = None
    used: _Inputs | None = None
    greeks: ModelledGreeks | None = None
    reason: NoGreeks | None = None
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
    """Computes the greeks of options when their inputs moved, the largest first.

    Args:
        value_of: Returns the broker's value of an option for one unit of its underlying, and when
            it was true; None: unknown.
        session_open: Returns whether an underlying trades now, by conid; None: unknown, as open.
        processor: Measures processor time, in seconds.
    """

    value_of: Callable[[int], tuple[float, datetime] | None]
    session_open: Callable[[int], bool | None]
    processor: Callable[[], float] = time.thread_time

    def __post_init__(self) -> None:
        self._legs: dict[int, ModelledLeg] = {}
        self._prices: dict[int, _Prices] = {}
        self._due: dict[float, list[tuple[float, float, int]]] = {PASS_S: [], TURN_S: []}
        self._ranked_at = float("-inf")

    def stale(self, now: datetime) -> list[int]:
        """Return the underlyings whose price is too old although they trade."""
        return [
            conid
            for conid, prices in self._prices.items()
            if prices.newest is not None and self._is_old(conid, prices.newest[1], now)
        ]

    def _is_old(self, underlying: int, at: datetime, now: datetime) -> bool:
        return elapsed(at, now) > OLD and self.session_open(underlying) is not False

    def __len__(self) -> int:
        return len(self._legs)

    @property
    def without(self) -> dict[int, NoGreeks]:
        """Why options have no greeks, by conid."""
        return {conid: leg.reason for conid, leg in self._legs.items() if leg.reason}

    def add(
        self, conid: int, terms: OptionTerms, underlying: int, size: float | None = None
    ) -> None:
        """Follow an option; new terms of a known one are used from now on.

        Args:
            conid: The option.
            terms: Its terms.
            underlying: The conid of its underlying.
            size: The absolute value of its holdings: the largest are computed most often. None:
                as before.
        """
        leg = self._legs.get(conid)
        if leg is None:
            leg = self._legs[conid] = ModelledLeg(conid=conid, terms=terms, underlying=underlying)
            heappush(self._due[PASS_S], (0.0, -(size or 0.0), conid))
        elif (leg.terms, leg.underlying) != (terms, underlying):
            leg.terms, leg.underlying, leg.solved_at = terms, underlying, None
        leg.size = leg.size if size is None else size

    def remove(self, conid: int) -> None:
        """Follow an option no more."""
        self._legs.pop(conid, None)

    def underlying_ticked(self, conid: int, price: float, at: datetime) -> None:
        """Record the price of an underlying."""
        self._prices.setdefault(conid, _Prices()).add(price, at)

    def compute(
        self, model: OptionModel, now: datetime, *, monotonic: float, budget_s: float
    ) -> list[ModelledLeg]:
        """Compute what is due, for as long as the budget lasts.

        The largest options may use half of it first, then the others all that is left. If they
        leave something, the largest may use that too.

        Args:
            model: Prices the options.
            now: The present moment.
            monotonic: The present moment in seconds, by a clock that is never set back.
            budget_s: Processor time.

        Returns:
            The options that were computed again.
        """
        began = self.processor()
        if monotonic - self._ranked_at >= TURN_S:
            self._rank(monotonic)
        changed = []
        for interval_s, share in ((PASS_S, 0.5), (TURN_S, 1.0), (PASS_S, 1.0)):
            due, ends = self._due[interval_s], began + share * budget_s
            while due and due[0][0] <= monotonic and self.processor() < ends:
                leg = self._legs.get(heappop(due)[2])
                if leg is None:
                    continue
                heappush(due, (monotonic + interval_s, -leg.size, leg.conid))
                if self._is_computed(leg, model, now):
                    changed.append(leg)
        return changed

    def _rank(self, monotonic: float) -> None:
        """Choose the options that are computed at each pass, by the size of their holdings."""
        self._ranked_at = monotonic
        known = {conid: at for due in self._due.values() for at, _size, conid in due}
        ranked = sorted(self._legs.values(), key=lambda leg: (-leg.size, leg.conid))
        for interval_s, legs in ((PASS_S, ranked[:LARGEST]), (TURN_S, ranked[LARGEST:])):
            latest = monotonic + interval_s
            self._due[interval_s] = sorted(
                (min(known.get(leg.conid, 0.0), latest), -leg.size, leg.conid) for leg in legs
            )

    def _is_computed(self, leg: ModelledLeg, model: OptionModel, now: datetime) -> bool:
        """Compute the greeks of an option; return False if nothing moved.

        A value that is older than the last one is not used, unless the clock was set back since.
        """
        prices, valued = self._prices.get(leg.underlying), self.value_of(leg.conid)
        before = leg.value_at
        if valued is not None and (
            before is None or valued[1] > before or valued[1] <= now < before
        ):
            leg.value, leg.value_at = valued
            then = prices.at(leg.value_at) if prices else None
            is_known = then is not None and not self._is_old(leg.underlying, then[1], leg.value_at)
            leg.spot_then = then[0] if then is not None and is_known else None
        spot, spot_at = (prices.newest if prices else None) or (None, None)
        old = spot_at is not None and self._is_old(leg.underlying, spot_at, now)
        used = _Inputs(leg.terms, leg.value_at, spot, old, leg.terms.expires_at <= now)
        if leg.used is not None and (used == leg.used or self._can_wait(leg, used, now)):
            return False
        leg.used = used
        found: ModelledGreeks | NoGreeks
        if leg.value_at is None:
            found = NoGreeks.NO_VALUE
        elif spot is None:
            found = NoGreeks.NO_UNDERLYING_PRICE
        elif old:
            found = NoGreeks.UNDERLYING_OLD
        else:
            found = self._greeks(leg, model, spot, now)
        leg.greeks = found if isinstance(found, ModelledGreeks) else None
        leg.reason = found if isinstance(found, NoGreeks) else None
        leg.underlying_at = spot_at
        return True

    @staticmethod
    def _can_wait(leg: ModelledLeg, inputs: _Inputs, now: datetime) -> bool:
        """Return whether new inputs can wait until the greeks are renewed in any case.

        The underlying moved so little that it hardly changes delta. A new volatility waits too.
        """
        last, greeks, at = leg.used, leg.greeks, leg.underlying_at
        if greeks is None or at is None or last is None or last.spot is None or inputs.spot is None:
            return False
        if inputs._replace(value_at=last.value_at, spot=last.spot) != last:
            return False
        moved = abs(greeks.gamma * (inputs.spot - last.spot))
        return moved < DELTA_MOVE / 2 and timedelta() <= now - at < RENEWED

    @staticmethod
    def _greeks(
        leg: ModelledLeg, model: OptionModel, spot: float, now: datetime
    ) -> ModelledGreeks | NoGreeks:
        if leg.value_at is not None and leg.solved_at != leg.value_at:
            leg.solved_at = leg.value_at
            leg.volatility = (
                NoGreeks.NO_PRICE_THEN
                if leg.spot_then is None
                else model.implied_volatility(
                    leg.terms,
                    value=leg.value,
                    spot=leg.spot_then,
                    at=leg.value_at,
                    near=leg.near,
                    vega=leg.greeks.vega if leg.greeks else None,
                )
            )
        if isinstance(leg.volatility, NoGreeks):
            return leg.volatility
        leg.near = leg.volatility
        return model.greeks(leg.terms, volatility=leg.volatility, spot=spot, now=now)


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
        self._changes: ChangeNotifier[int, None] = ChangeNotifier()

    def __len__(self) -> int:
        return len(self._greeks)

    def watch(self) -> PendingChanges[int, None]:
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
        self._changes.note(leg.conid, None)

    def remove(self, conid: int) -> None:
        """Publish that an option has no computed greeks."""
        if self._greeks.pop(conid, None) is not None:
            self._changes.note(conid, None)

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
