"""One streamed holding: when a row of it is due, its value, and what that shows of its line; pure.

A step returns the row, and the line with what was learned of it: whoever has the set of the lines
records it there.

The value by the line is its price times the factor, the multiplier of the contract over its price
magnifier. A portfolio row of the broker has a price and a value: it agrees with the factor, or
speaks against it. A row waits a moment for a line that may tick soon.

The broker has a value of its own (PORTFOLIO, PNL_SINGLE). If it is newer and differs for some time,
the line may have missed something: it is requested again, which is its dispute. Its first price
after that is the answer. If the two values still differ then, one of the two sources is chosen
until one of the values moves.
"""

import math
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

from position_sync_dagster.domain import valuation
from position_sync_dagster.domain.holding import BrokerPosition, Key
from position_sync_dagster.domain.line import DIFFERS, Line
from position_sync_dagster.domain.position_update import PositionUpdate, PriceKind, ValueOrigin
from position_sync_dagster.domain.quote import Quote
from position_sync_dagster.domain.valuation import (
    BROKER_CADENCE,
    ROUNDING,
    Moment,
    factor_agrees,
    has_two_sides,
    revalue,
    values_of,
)

# A streamed holding without any change has a row this often, a sign that it is watched.
ROW_INTERVAL_S = 60.0

# A monitored holding without any change, or a streamed one that does not trade, has a row this
# often: a thousand of them at `ROW_INTERVAL_S` would be most of the ledger.
MONITORED_ROW_INTERVAL_S = 3600.0


# Seconds beyond the age limit of a last trade at which its holding is valued again.
TOO_OLD_BY_S = 0.001

# The part by which a line's value may differ from a newer value of the broker: theirs is up to
# three minutes old. A line that differs by more is requested again. The same part decides whether
# PnLSingle follows a portfolio row (`Profit` of `gateway/holdings.py`), and the check
# `values_match_the_broker`.
VALUE_BAND = 0.03

# The broker's own values follow the market after a moment. A line has missed something when
# they differ and it has not ticked for so many seconds.
SETTLE_S = 5.0


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a comparison of a row with the broker's value decides.

    Attributes:
        agrees: Whether the broker's value agrees with that of the line; None: it shows nothing.
        by_line: Whether the line may value the holding.
        note: Why the value is not the usual one.
    """

    agrees: bool | None = None
    by_line: bool = True
    note: str | None = None


# Nothing speaks against the row: the line values it, and nothing is learned of the line.
AS_USUAL = Comparison()


class _Difference(NamedTuple):
    """Since when the broker's value has differed from that of the line.

    Attributes:
        priced_at: When the price of the line came; a newer price begins a new difference.
        since_s: When the difference was noticed.
    """

    priced_at: datetime
    since_s: float


@dataclass(slots=True)
class StreamedHolding:
    """The state of one streamed holding.

    Events (a tick, a change of the broker's values or of the line's trust, the passing of time)
    make it due. `step` then decides the value, and whether a reader could use a row with it. It
    remembers what its last row said (`_written`), and by `Line.changes` which state of the line it
    was valued with (`_valued_at_changes`).

    Attributes:
        key: (account, conid).
        due: Whether it is to be valued at the next flush.
        streamed: Whether it has a line; without one it ends with the row that is due.
        has_ticked: Whether its line ticked since the last row.
        check_at_s: It becomes due at this time by itself.
    """

    key: Key
    due: bool = False
    streamed: bool = True
    has_ticked: bool = False
    check_at_s: float = math.inf
    _factor_agrees: bool | None = None  # None: no portfolio row has shown it yet
    _difference: _Difference | None = None  # None while the two values do not differ
    _disagreement: Disagreement | None = None  # the values with which the line was requested again
    _valued_at_changes: int = -1  # `changes` of the line when the holding was last valued
    _written: Any = field(default=None, repr=False)  # `values_of` its last row
    _written_at_s: float = -math.inf  # when that row was made

    def ticked(self) -> None:
        """Record that its line ticked."""
        self.due = True
        self.has_ticked = True

    def is_due(self, line: Line, now_s: float) -> bool:
        """Return whether it is to be valued now."""
        if self.due or self.check_at_s <= now_s:
            return True
        # A line that changed its state makes it due; one that may tick soon is given its moment.
        return self._valued_at_changes != line.changes and not _may_tick_soon(line, now_s)

    def step(
        self, holding: BrokerPosition, quote: Quote | None, line: Line, at: Moment
    ) -> tuple[PositionUpdate | None, Line]:
        """Value the holding; return its row, and its line with what was learned of it.

        The row is None when nothing that readers use has changed.

        Args:
            holding: What the broker last reported of it.
            quote: The newest market data of its line, whether it is trusted or not.
            line: Its line, shared by the holdings of the conid.
            at: The time of the row.
        """
        self.due = False
        self.check_at_s = math.inf
        if self._is_withheld(holding, line, at.now_s):
            # The row waits for a price until `withheld_until_s`. After any tick it stays due: so
            # it is still written if the holding loses its line meanwhile.
            self.due = self.has_ticked
            self.check_at_s = line.withheld_until_s
            return None, line

        self.has_ticked = False
        self._record_factor(holding, at.price_magnifier)
        if self._factor_agrees is False:
            # Its portfolio row speaks against the factor: without one the broker's value counts.
            at = replace(at, price_magnifier=None)

        counting = line.counted(quote)
        row = self._valued(holding, counting, line, at)
        comparison = self._compare(row, holding, counting, line, at)
        if comparison.agrees is not None:  # None: the two values show nothing of the line
            line = line.compared(self.key, agrees=comparison.agrees)
        if comparison.agrees is False or comparison.note is not None:
            # The first row took the line at its word; this one has what was decided.
            counting = line.counted(quote)
            row = self._valued(holding, counting, line, at, comparison)
        self._valued_at_changes = line.changes  # any later change makes it due (`is_due`)

        return (row if self._record_if_news(row, at) else None), line

    def _valued(
        self,
        holding: BrokerPosition,
        quote: Quote | None,
        line: Line,
        at: Moment,
        comparison: Comparison = AS_USUAL,
    ) -> PositionUpdate:
        """Return the row: by the line if that is trusted and may value it, else by the broker."""
        return revalue(
            holding,
            quote,
            at,
            trusted=line.trusted and comparison.by_line,
            note=comparison.note if line.trusted else line.reason,
        )

    def _record_if_news(self, row: PositionUpdate, at: Moment) -> bool:
        """Record a row as written if readers could use it; return whether they could.

        In both cases, set when the holding is valued again without an event: when a last trade is
        too old, and when the next row is due in any case.
        """
        if row.price_kind is PriceKind.LAST and row.value_time is not None:
            age_s = (at.now - row.value_time).total_seconds()
            too_old_in_s = max(0.0, valuation.MAX_LAST_AGE_S - age_s)
            self._check_by(at.now_s + too_old_in_s + TOO_OLD_BY_S)

        values = values_of(row)
        longest_s = ROW_INTERVAL_S if at.session_open else MONITORED_ROW_INTERVAL_S
        next_row_s = self._written_at_s + longest_s
        is_news = values != self._written or at.now_s >= next_row_s
        if is_news:
            self._written = values
            self._written_at_s = at.now_s
            next_row_s = at.now_s + longest_s
        # Outside the session rows are rare, but it is looked at as often as within: it may open.
        self._check_by(min(next_row_s, at.now_s + ROW_INTERVAL_S))
        return is_news

    def _check_by(self, at_s: float) -> None:
        """Make it due at this time at the latest."""
        self.check_at_s = min(self.check_at_s, at_s)

    def _is_withheld(self, holding: BrokerPosition, line: Line, now_s: float) -> bool:
        """Return whether the row waits for the line to tick.

        A close is never withheld, nor a change of the quantity after the first row.
        """
        if not holding.position or not _may_tick_soon(line, now_s):
            return False
        # The first of the values that were written is the quantity.
        return self._written is None or bool(self._written[0] == holding.position)

    def _record_factor(self, holding: BrokerPosition, price_magnifier: int | None) -> None:
        """Record whether the portfolio row agrees with the factor from price to value.

        If it shows nothing, the last answer stays: the factor is that of the contract.
        """
        if price_magnifier is None:
            return
        agrees = factor_agrees(holding, price_magnifier=price_magnifier)
        if agrees is not None:
            self._factor_agrees = agrees

    def _compare(
        self,
        row: PositionUpdate,
        holding: BrokerPosition,
        quote: Quote | None,
        line: Line,
        at: Moment,
    ) -> Comparison:
        """Compare a row with the broker's value.

        A difference that lasts `SETTLE_S` is a disagreement: the line is requested again, and its
        dispute lasts until it is answered. Then one of the two is chosen (`_decided`). Until
        something is decided the row stays as it is (`AS_USUAL`).
        """
        priced_at = _priced_time(row, quote)
        own, broker = row.market_value, holding.market_value
        if quote is None or priced_at is None or own is None or broker is None:
            self._difference = None
            # Nothing to compare; of a holding that is closed a dispute is over.
            return Comparison(agrees=None if holding.position else True)

        unit = abs(holding.position) * holding.instrument.multiplier / (at.price_magnifier or 1)
        allowed = allowed_difference(
            own, bid=quote.bid, ask=quote.ask, unit=unit, min_tick=quote.min_tick
        )
        calculated_at = earliest_calculation(
            holding.value_source, holding.value_time, holding.received_at
        )
        is_newer = calculated_at > priced_at
        differs = is_newer and abs(own - broker) > allowed
        if not differs:
            self._difference = None
        is_contradicted = differs and self._record_difference(priced_at, at)

        # With these two values the line was requested again; while both stay, its answer decides.
        asked = self._disagreement
        if asked is None or not asked.lasts(holding, own, allowed=allowed):
            if is_newer and not differs:
                return Comparison(agrees=True)
        elif line.dispute is not None and line.dispute.answered:
            return self._decided(asked, holding, quote, is_contradicted=is_contradicted)

        if not is_contradicted:
            return AS_USUAL
        if not line.may_be_disputed(at.now_s):
            return Comparison(note=DIFFERS)  # it was requested lately: a request shows no more
        self._disagreement = Disagreement(position=holding.position, own=own, broker=broker)
        return Comparison(agrees=False)

    def _decided(
        self, asked: Disagreement, holding: BrokerPosition, quote: Quote, *, is_contradicted: bool
    ) -> Comparison:
        """Choose the line or the broker, whose values stay apart after a new request was answered.

        The line counts if its quote has two sides, at which the holding can be traded. A mark or a
        model price alone is no better than the broker's own calculation: then the broker counts.

        Args:
            asked: The values when the line was requested again, and what was chosen, if it was.
            holding: The holding with the broker's value.
            quote: What counts of the market data of the line.
            is_contradicted: Whether the broker's value has differed for `SETTLE_S` from the newest
                price of the line, too. Before, the choice waits.
        """
        if asked.by_line is None:  # the answer has just come
            if not is_contradicted:
                return AS_USUAL
            asked = replace(asked, by_line=has_two_sides(quote))
            self._disagreement = asked
        return Comparison(by_line=bool(asked.by_line), note=asked.note(holding.instrument.currency))

    def _record_difference(self, priced_at: datetime, at: Moment) -> bool:
        """Record that the broker's value differs from this price; return whether it lasts.

        It lasts after `SETTLE_S`, when the holding is valued again in any case.
        """
        if self._difference is None or self._difference.priced_at != priced_at:
            self._difference = _Difference(priced_at, at.now_s)

        settled_at_s = self._difference.since_s + SETTLE_S
        if at.now_s < settled_at_s:
            self._check_by(settled_at_s)
        return at.now_s >= settled_at_s


def _may_tick_soon(line: Line, now_s: float) -> bool:
    """Return whether a line that is not trusted still has time to tick."""
    return not line.trusted and now_s < line.withheld_until_s


def _priced_time(update: PositionUpdate, quote: Quote | None) -> datetime | None:
    """Return when the price of a row arrived, to compare with the broker's; None: not of a line."""
    if quote is None or update.value_source is not ValueOrigin.TICK:
        return None
    if update.price_kind is PriceKind.MARK:
        return quote.mark_time
    if update.price_kind is PriceKind.MODEL:
        return quote.greeks_time

    return quote.quote_time


def allowed_difference(
    by_line: float,
    *,
    bid: float | None,
    ask: float | None,
    unit: float,
    min_tick: float | None = None,
) -> float:
    """Return by how much the broker's value may differ from that of a line which is alive.

    It is the largest of a part of the value, the width of the quote (a bid that does not exist
    counts as 0), the smallest change of the price, and the broker's rounding.

    Args:
        by_line: The value by the line.
        bid, ask: The quote of the line.
        unit: What a price of 1 is worth for the holding.
        min_tick: The smallest change of the price, where it is known.

    >>> allowed_difference(100.0, bid=1.0, ask=1.25, unit=100.0)
    25.0
    """
    width = 0.0 if ask is None else ask - (bid or 0.0)
    return max(VALUE_BAND * abs(by_line), unit * max(width, min_tick or 0.0), ROUNDING)


def earliest_calculation(
    origin: ValueOrigin, value_time: datetime | None, received_at: datetime
) -> datetime:
    """Return the earliest moment at which the broker may have calculated its value.

    A portfolio row without a time may be as old as the time between two of them.
    """
    if origin == ValueOrigin.PORTFOLIO:
        return value_time or received_at - BROKER_CADENCE
    return received_at
