"""Computed greeks as they are published: rounded in time, so that not each tick makes a row."""

from datetime import timedelta

from position_sync_dagster.domain.broker_position import BrokerPosition, HoldingGreeks
from position_sync_dagster.gateway.changes import ChangeNotifier, PendingChanges
from position_sync_dagster.sync.owner.account_greeks import ModelledLeg

DELTA_MOVE = 0.005
"""A change of delta that is published at once."""

MOVE_PART = 0.03
"""The part of gamma, vega or theta whose change is published at once."""

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

    def take(self, leg: ModelledLeg, price_magnifier: int) -> None:
        """Take a new result of an option, if it says more than what is published.

        Args:
            leg: The result.
            price_magnifier: Of the option: in its row, the price of the underlying is as quoted.
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
            greeks_time=leg.underlying_at,
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
    return at - before.greeks_time >= RENEWED
