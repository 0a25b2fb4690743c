"""A streamed holding: its value, when its source confirmed it, and whether a row is due; pure."""

import math
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from position_sync_dagster.domain import valuation
from position_sync_dagster.domain.broker_position import BrokerPosition, Key
from position_sync_dagster.domain.instrument import TradingHours
from position_sync_dagster.domain.login_lines import DIFFERS, Line
from position_sync_dagster.domain.update import PositionUpdate, PriceKind, Source, ValueOrigin

# The broker's own values follow the market after a moment. A line has missed something when they
# differ and it has not ticked for this long.
SETTLE = timedelta(seconds=5)

# The values of a portfolio row without a time may be this old when they arrive. Source: IB,
# "Account Updates" (every three minutes or on a trade).
BROKER_CADENCE = timedelta(minutes=3)

# Seconds beyond the age limit of a last trade at which its holding is valued again.
TOO_OLD_BY_S = 0.001

# Beginning of the column `note` of a price that was written while the contract did not trade.
OUTSIDE_SESSION = "outside the trading session"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRules:
    """The settings of streamed rows.

    Attributes:
        max_last_age: An older last trade is not used.
        band: By what part of the value the broker's newer value may differ from that of a line.
        heartbeat_s: The longest time between two rows, in seconds.
        closed_heartbeat_s: The same while the contract does not trade.
    """

    max_last_age: timedelta
    band: float
    heartbeat_s: float
    closed_heartbeat_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One moment for one contract.

    Attributes:
        now: By the clock of the rows.
        now_s: By that of the lines.
        by: The writer of a row.
        hours: When the contract trades; None: unknown.
        price_magnifier: Divisor from quoted prices to the major unit; None: unknown.
    """

    now: datetime
    now_s: float
    by: valuation.Provenance
    hours: TradingHours | None = None
    price_magnifier: int | None = None

    @property
    def session_open(self) -> bool:
        """Return whether the contract trades; True if unknown."""
        return self.in_session(self.now)

    def in_session(self, at: datetime) -> bool:
        """Return whether the contract traded at a time; True if unknown."""
        return self.hours is None or self.hours.is_open(at) is not False


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """The values of a holding when its line was requested again because they differed.

    If the new request opens with the same price and the broker stays with its value, both sources
    are alive, and one of them values the holding until a side moves.

    Attributes:
        position: The quantity that was valued.
        own, broker: The value by the line, and that of the broker.
        by_line: Whether the line values the holding; None until the new request is answered.
    """

    position: float
    own: float
    broker: float
    by_line: bool | None = None

    def lasts(self, holding: BrokerPosition, own: float, *, allowed: float) -> bool:
        """Return whether neither side has moved by more than the allowed difference."""
        if holding.position != self.position or holding.market_value is None:
            return False
        return max(abs(own - self.own), abs(holding.market_value - self.broker)) <= allowed

    def note(self, currency: str) -> str:
        """Return the value that does not count, for people."""
        if self.by_line:
            return (
                f"the broker's value differs: {self.broker:,.2f} {currency}; a new request "
                "confirmed the price of the line"
            )
        return (
            f"the value by the line differs: {self.own:,.2f} {currency}; no quote with two sides "
            "supports it"
        )


@dataclass(slots=True)
class StreamedHolding:
    """The state of one streamed holding.

    Events (a tick, a change of the broker's values or of the line's trust, the passing of time)
    make it due. `row` then decides the value, and whether a reader could use a row with it.

    Attributes:
        key: (account, conid).
        line: Its line, shared by the holdings of the conid.
        rules: The settings.
        due: Whether it is to be valued at the next flush.
        streamed: Whether it has a line; without one it ends with the row that is due.
        has_ticked: Whether its line ticked since the last row.
        check_at_s: It becomes due at this time by itself.
    """

    key: Key
    line: Line
    rules: StreamRules
    due: bool = False
    streamed: bool = True
    has_ticked: bool = False
    check_at_s: float = math.inf
    _factor: bool | None = None
    _differs: tuple[datetime, float] | None = None
    _asked: Disagreement | None = None
    _by_line: bool = True
    _note: str | None = None
    _line_changes: int = -1
    _written: Any = field(default=None, repr=False)
    _written_at_s: float = -math.inf

    def ticked(self) -> None:
        """Record that its line ticked."""
        self.due = self.has_ticked = True

    def is_due(self, now_s: float) -> bool:
        """Return whether it is to be valued now."""
        if self.due or self.check_at_s <= now_s:
            return True
        return self._line_changes != self.line.changes and not self._may_tick_soon(now_s)

    def row(
        self, holding: BrokerPosition, quote: valuation.Quote | None, at: Moment
    ) -> PositionUpdate | None:
        """Value the holding, and return its row; None when nothing that readers use has changed.

        Args:
            holding: What the broker last reported of it.
            quote: The newest market data of its line, whether it is trusted or not.
            at: The time of the row.
        """
        rules = self.rules
        self.due, self.check_at_s = False, math.inf
        if self._is_withheld(holding, at.now_s):
            self.due = self.has_ticked
            self.check_at_s = self.line.withheld_until_s
            return None
        self.has_ticked = False
        self._check_factor(holding, at.price_magnifier)
        if self._factor is False:
            at = replace(at, price_magnifier=None)
        counts = self.line.counted(quote, at.now)
        self._by_line, self._note = True, None
        update = self._valued(holding, counts, at)
        if self._differs_from_broker(update, holding, counts, at):
            update = self._valued(holding, self.line.counted(quote, at.now), at)
        self._line_changes = self.line.changes
        if update.price_kind is PriceKind.LAST and update.value_time is not None:
            too_old_in = update.value_time + rules.max_last_age - at.now
            self._check_by(at.now_s + max(0.0, too_old_in.total_seconds()) + TOO_OLD_BY_S)
        seen = valuation.values_of(update)
        heartbeat_s = rules.heartbeat_s if at.session_open else rules.closed_heartbeat_s
        if seen == self._written and at.now_s < self._written_at_s + heartbeat_s:
            next_row_s = self._written_at_s + heartbeat_s
            self._check_by(min(next_row_s, at.now_s + rules.heartbeat_s))  # the session may open
            return None
        self._written, self._written_at_s = seen, at.now_s
        self._check_by(at.now_s + min(heartbeat_s, rules.heartbeat_s))
        return update

    def _check_by(self, at_s: float) -> None:
        self.check_at_s = min(self.check_at_s, at_s)

    def _may_tick_soon(self, now_s: float) -> bool:
        """Return whether a line that is not trusted still has time to tick."""
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

    def _differs_from_broker(
        self,
        update: PositionUpdate,
        holding: BrokerPosition,
        quote: valuation.Quote | None,
        at: Moment,
    ) -> bool:
        """Compare a row with the broker's value; return whether it must be valued again.

        The line is requested again when the two differ. If the new request confirms both values,
        the line counts if its quote has two sides, at which the holding can be traded. A mark or a
        model price alone is no better than the broker's own calculation: then the broker counts.
        """
        priced_at = _priced_time(update, quote)
        own, broker = update.market_value, holding.market_value
        if quote is None or priced_at is None or own is None or broker is None:
            self._differs = None
            if not holding.position:
                self.line.agrees(self.key)
            return False
        unit = abs(holding.position) * holding.instrument.multiplier / (at.price_magnifier or 1)
        allowed = allowed_difference(own, quote, unit=unit, band=self.rules.band)
        asked = self._asked
        lasts = asked is not None and asked.lasts(holding, own, allowed=allowed)
        is_newer = _valued_at(holding) > priced_at
        if is_newer and abs(own - broker) <= allowed and not lasts:
            self.line.agrees(self.key)
        contradicted = self._is_contradicted(
            priced_at if is_newer and abs(own - broker) > allowed else None, at
        )
        if asked is not None and lasts and self.line.answered:
            if asked.by_line is None and not contradicted:
                return False
            if asked.by_line is None:
                asked = self._asked = replace(asked, by_line=valuation.has_two_sides(quote))
            self._by_line, self._note = bool(asked.by_line), asked.note(holding.instrument.currency)
            return True
        if contradicted and self.line.disagrees(at.now_s, self.key):
            self._asked = Disagreement(position=holding.position, own=own, broker=broker)
        elif contradicted:
            self._note = DIFFERS
        return contradicted

    def _is_contradicted(self, priced_at: datetime | None, at: Moment) -> bool:
        """Return whether the broker's value has differed from a price for a while.

        Args:
            priced_at: When the price arrived; None: the two do not differ.
            at: The time.
        """
        if priced_at is None:
            self._differs = None
            return False
        if self._differs is None or self._differs[0] != priced_at:
            self._differs = priced_at, at.now_s
        settled_at_s = self._differs[1] + SETTLE.total_seconds()
        if at.now_s < settled_at_s:
            self._check_by(settled_at_s)
        return at.now_s >= settled_at_s

    def _valued(
        self, holding: BrokerPosition, quote: valuation.Quote | None, at: Moment
    ) -> PositionUpdate:
        note = self._note if self.line.trusted else self.line.reason
        update = valuation.revalue(
            holding,
            quote,
            valuation.Writing(source=Source.STREAM, now=at.now, by=at.by, note=note),
            trusted=self.line.trusted and self._by_line,
            price_magnifier=at.price_magnifier,
            max_last_age=self.rules.max_last_age,
        )
        return _with_session(update, at)


def _with_session(update: PositionUpdate, at: Moment) -> PositionUpdate:
    """Return a row without the times of ticks that came while its contract did not trade.

    If a line is requested outside the session, it opens with a price from before, whose time is not
    known. A row that is made outside the session says so.
    """
    by_line, changes = update.value_source is ValueOrigin.TICK, dict[str, Any]()
    for name in ("value_time", "greeks_time") if by_line else ("greeks_time",):
        moment = getattr(update, name)
        if moment is not None and not at.in_session(moment):
            changes[name] = None
    if by_line and not at.session_open:
        note = OUTSIDE_SESSION if update.note is None else f"{OUTSIDE_SESSION}; {update.note}"
        changes["note"] = note
    return replace(update, **changes) if changes else update


def _priced_time(update: PositionUpdate, quote: valuation.Quote | None) -> datetime | None:
    """Return when the price of a row arrived; None where its value is not that of a line."""
    if quote is None or update.value_source is not ValueOrigin.TICK:
        return None
    if update.price_kind is PriceKind.MARK:
        return quote.mark_time
    return quote.greeks_time if update.price_kind is PriceKind.MODEL else quote.quote_time


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
    return max(band * abs(own), width * unit, (quote.min_tick or 0.0) * unit, valuation.ROUNDING)


def _valued_at(holding: BrokerPosition) -> datetime:
    """Return the earliest moment at which the broker's value may have been calculated."""
    if holding.value_source is ValueOrigin.PORTFOLIO:
        return holding.value_time or holding.received_at - BROKER_CADENCE
    return holding.received_at


# The origins of values that the broker calculates.
BROKER = (ValueOrigin.PORTFOLIO, ValueOrigin.PNL_SINGLE)
