"""A streamed holding: its value, when its source confirmed it, and whether a row is due; pure."""

import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from position_sync_dagster.domain import valuation
from position_sync_dagster.domain.broker_position import BrokerPosition, Key
from position_sync_dagster.domain.clock import SKEW
from position_sync_dagster.domain.line import Line
from position_sync_dagster.domain.update import PositionUpdate, PriceKind, Source, ValueOrigin

SETTLE = timedelta(seconds=5)
"""The broker's own values follow the market after a moment. A line has missed something when they
differ and it has not ticked for this long."""

BROKER_CADENCE = timedelta(minutes=3)
"""The values of a portfolio row without a time may be this old when they arrive. Source: IB,
"Account Updates" (every three minutes or on a trade)."""

ROUNDING = 0.01
"""The broker rounds money to cents."""

TOO_OLD_BY_S = 0.001
"""A last trade is replaced as soon as it is older than the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRules:
    """The settings of the rule.

    Attributes:
        max_last_age: An older last trade is not used.
        band: By what part of the value the broker's newer value may differ from that of a line.
        heartbeat_s: The longest time between two rows, in seconds.
    """

    max_last_age: timedelta
    band: float
    heartbeat_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One moment, by the clock of the rows and by that of the lines."""

    now: datetime
    now_s: float


class Agreement(Enum):
    """What the broker's value says of the value of a line.

    SILENT: there is none, or none that is newer than the price of the line. AGREES: it is about the
    same. DIFFERS: it is newer and differs. A price that stays as it is has missed something then.
    """

    SILENT = "SILENT"
    AGREES = "AGREES"
    DIFFERS = "DIFFERS"


@dataclass(slots=True)
class StreamedHolding:
    """The state of one streamed holding.

    Events (a tick, a change of the broker's values or of the line's trust, the passing of time)
    make it due. `row` then decides the value, and whether a reader could use a row with it.

    Attributes:
        key: (account, conid).
        line: Its line, shared by the holdings of the conid.
        due: Whether it is to be valued at the next flush.
        streamed: Whether it has a line; without one it ends with the row that is due.
        arrived: When the first tick since the last row arrived, in Unix seconds.
        check_at_s: It becomes due at this time by itself.
    """

    key: Key
    line: Line
    due: bool = False
    streamed: bool = True
    arrived: float | None = None
    check_at_s: float = math.inf
    _factor: bool | None = None
    _differs: tuple[datetime, float] | None = None
    _line_changes: int = -1
    _written: Any = field(default=None, repr=False)
    _written_at_s: float = -math.inf

    def ticked(self, arrived: float) -> None:
        """Record that its line ticked."""
        self.due = True
        self.arrived = arrived if self.arrived is None else self.arrived

    def is_due(self, now_s: float) -> bool:
        """Return whether it is to be valued now."""
        if self.due or self.check_at_s <= now_s:
            return True
        return self._line_changes != self.line.changes and not self._may_tick_soon(now_s)

    def row(
        self,
        holding: BrokerPosition,
        quote: valuation.Quote | None,
        at: Moment,
        *,
        price_magnifier: int | None,
        rules: StreamRules,
        by: valuation.Provenance,
    ) -> PositionUpdate | None:
        """Value the holding, and return its row; None when nothing that readers use has changed.

        Args:
            holding: What the broker last reported of it.
            quote: The newest market data of its line, whether it is trusted or not.
            at: The time of the row.
            price_magnifier: Divisor from quoted prices to the major unit; None: unknown.
            rules: The settings.
            by: The writer of the row.
        """
        self.due, self.check_at_s = False, math.inf
        if self._is_withheld(holding, at.now_s):
            self.due = self.arrived is not None
            self.check_at_s = self.line.withheld_until_s
            return None
        self.arrived = None
        self._check_factor(holding, price_magnifier)
        magnifier = None if self._factor is False else price_magnifier
        counts = self.line.counted(quote, at.now)
        update = self._valued(holding, counts, magnifier, at.now, rules, by)
        contradicted = self._is_contradicted(update, holding, counts, magnifier, at, rules.band)
        if contradicted and self.line.disagrees(at.now_s):
            counts = self.line.counted(quote, at.now)
            update = self._valued(holding, counts, magnifier, at.now, rules, by)
        self._line_changes = self.line.changes
        if update.price_kind is PriceKind.LAST and update.value_time is not None:
            too_old_in = update.value_time + rules.max_last_age - at.now
            self._check_by(at.now_s + max(0.0, too_old_in.total_seconds()) + TOO_OLD_BY_S)
        seen = valuation.values_of(update)
        if seen == self._written and at.now_s < self._written_at_s + rules.heartbeat_s:
            self._check_by(self._written_at_s + rules.heartbeat_s)
            return None
        self._written, self._written_at_s = seen, at.now_s
        self._check_by(at.now_s + rules.heartbeat_s)
        return update

    def _check_by(self, at_s: float) -> None:
        self.check_at_s = min(self.check_at_s, at_s)

    def _may_tick_soon(self, now_s: float) -> bool:
        """Return whether a moment is left to a line that should tick soon."""
        return not self.line.trusted and now_s < self.line.withheld_until_s

    def _is_withheld(self, holding: BrokerPosition, now_s: float) -> bool:
        """Return whether the row waits for the line to tick.

        A close is never withheld, nor a change of the quantity after the first row.
        """
        if not holding.position or not self._may_tick_soon(now_s):
            return False
        return self._written is None or bool(self._written[0] == holding.position)

    def _check_factor(self, holding: BrokerPosition, price_magnifier: int | None) -> None:
        if price_magnifier is not None:
            agrees = valuation.factor_agrees(holding, price_magnifier=price_magnifier)
            self._factor = self._factor if agrees is None else agrees

    def _is_contradicted(
        self,
        update: PositionUpdate,
        holding: BrokerPosition,
        quote: valuation.Quote | None,
        price_magnifier: int | None,
        at: Moment,
        band: float,
    ) -> bool:
        """Return whether a newer value of the broker has differed from a price for a while."""
        priced_at = priced_time(update, quote)
        agreement = compared(
            update, holding, quote, priced_at, price_magnifier=price_magnifier, band=band
        )
        if agreement is Agreement.AGREES:
            self.line.agrees()
        if agreement is not Agreement.DIFFERS or priced_at is None:
            self._differs = None
            return False
        if self._differs is None or self._differs[0] != priced_at:
            self._differs = priced_at, at.now_s
        settled_at_s = self._differs[1] + SETTLE.total_seconds()
        if at.now_s < settled_at_s:
            self._check_by(settled_at_s)
        return at.now_s >= settled_at_s

    def _valued(
        self,
        holding: BrokerPosition,
        quote: valuation.Quote | None,
        price_magnifier: int | None,
        now: datetime,
        rules: StreamRules,
        by: valuation.Provenance,
    ) -> PositionUpdate:
        note = None if self.line.trusted else self.line.reason
        return valuation.revalue(
            holding,
            quote,
            valuation.Writing(source=Source.STREAM, now=now, by=by, note=note),
            trusted=self.line.trusted,
            price_magnifier=price_magnifier,
            max_last_age=rules.max_last_age,
        )


def priced_time(update: PositionUpdate, quote: valuation.Quote | None) -> datetime | None:
    """Return when the price of a row arrived; None where its value is not that of a line."""
    if quote is None or update.value_source is not ValueOrigin.TICK:
        return None
    if update.price_kind is PriceKind.MARK:
        return quote.mark_time
    return quote.greeks_time if update.price_kind is PriceKind.MODEL else quote.quote_time


def compared(
    update: PositionUpdate,
    holding: BrokerPosition,
    quote: valuation.Quote | None,
    priced_at: datetime | None,
    *,
    price_magnifier: int | None,
    band: float,
) -> Agreement:
    """Compare the value of a line with the broker's, where that is newer than the price.

    Args:
        update: The row, valued by the quote.
        holding: What the broker last reported.
        quote: What counts of the newest market data.
        priced_at: When the price of the row arrived; None without one.
        price_magnifier: Divisor from quoted prices to the major unit; None: unknown.
        band: By what part of the value the two may differ.
    """
    own, broker = update.market_value, holding.market_value
    if own is None or broker is None or price_magnifier is None:
        return Agreement.SILENT
    if quote is None or priced_at is None or _valued_at(holding) <= priced_at:
        return Agreement.SILENT
    unit = abs(holding.position) * holding.instrument.multiplier / price_magnifier
    within = abs(own - broker) <= allowed_difference(own, quote, unit=unit, band=band)
    return Agreement.AGREES if within else Agreement.DIFFERS


def allowed_difference(own: float, quote: valuation.Quote, *, unit: float, band: float) -> float:
    """Return by how much the broker's value may differ from that of a line which is alive.

    It is the largest of a part of the value, the width of the quote (a bid that does not exist
    counts as 0), the smallest change of the price, and the broker's rounding.

    Args:
        own: The value by the line.
        quote: Its market data.
        unit: What a price of 1 is worth for the holding.
        band: The part of the value.

    >>> quote = valuation.Quote(conid=1, bid=1.0, ask=1.25)
    >>> allowed_difference(100.0, quote, unit=100.0, band=0.03)
    25.0
    """
    width = max(0.0, quote.ask - (quote.bid or 0.0)) if quote.ask is not None else 0.0
    return max(band * abs(own), width * unit, (quote.min_tick or 0.0) * unit, ROUNDING)


def _valued_at(holding: BrokerPosition) -> datetime:
    """Return the earliest moment at which the broker's value may have been calculated."""
    if holding.value_source is ValueOrigin.PORTFOLIO:
        return holding.value_time or holding.received_at - BROKER_CADENCE
    return holding.received_at


BROKER = (ValueOrigin.PORTFOLIO, ValueOrigin.PNL_SINGLE)
"""The origins of values that the broker calculates."""


def confirmed_time(
    row: PositionUpdate, holding: BrokerPosition | None, now: datetime
) -> datetime | None:
    """Return the newest time at which its source is known to have confirmed a row's value.

    A row of market data is as old as it says. A row of the account feed may have been written long
    after the broker sent its value, and is not written again while the value stays the same: the
    time of the value counts, and each later time at which the broker confirmed the holding while
    it had the same value. A value of PnLSingle is confirmed by its own messages alone. Where
    neither is known, the value is at least as old as the row. A row that says that there is no
    value is as old as it says, or confirmed in the same way.

    Args:
        holding: What the broker reports of the holding; None where that is not known.

    Returns:
        None if the only time is one that a wrong clock wrote: the age is unknown.
    """
    times: list[datetime | None] = []
    no_value = row.value_source is ValueOrigin.NONE and row.market_value is None
    if row.position and (no_value or row.value_source in BROKER):
        times = [row.timestamp if no_value else row.value_time]
        if holding is not None and _agree(row, holding):
            if holding.value_source is ValueOrigin.PNL_SINGLE:
                times.append(holding.received_at)
            else:
                times += [holding.confirmed_at, holding.value_time]
    known = [at for at in times if at is not None and at <= now + SKEW]
    at = max(known, default=row.timestamp)
    return at if at <= now + SKEW else None


def _agree(row: PositionUpdate, holding: BrokerPosition) -> bool:
    return (row.position, row.market_price, row.market_value) == (
        holding.position,
        holding.market_price,
        holding.market_value,
    )
