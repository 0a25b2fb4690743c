"""What is known of closes: the facts, what their absence proves, where an option stood; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from position_sync_dagster.domain.closures import NEW_YORK, PositionChange
from position_sync_dagster.domain.instrument import ContractDetails, Right
from position_sync_dagster.domain.statement import Execution, StatementEvent
from position_sync_dagster.domain.trading_hours import parse_trading_hours

NEAR = timedelta(minutes=15)
"""What closes and what arrives within this time may be one event of the broker's."""

A_DAY = timedelta(days=1)

WORTHLESS = 0.05
"""An option that was quoted at this price or below, right before its end, was out of the money."""

CLEAR = 0.01
CLEAR_AT_THE_OPEN = 0.05
"""How far from the strike, as a part of it, an underlying must be for an option to be clearly in or
out of the money. Options that are settled at the open do not trade in the night before."""

USUAL_CLOSE = time(16, 15)
"""When an option has traded last, where its contract does not say so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known when a close is judged.

    Attributes:
        changes: All changes of positions near the closes, also those that opened something.
        executions: Rows of `executions`.
        events: Rows of `statement_events`.
        contracts: Contract details, by conid.
        stated: The days of each account whose trades a statement has.
        asked: From when and until when the gateway named all executions of an account. Without it
            the absence of an execution proves nothing.
        prices: The last price of the underlying before the end of options, by the option's conid,
            each with its time.
    """

    changes: Sequence[PositionChange]
    executions: Sequence[Execution] = ()
    events: Sequence[StatementEvent] = ()
    contracts: Mapping[int, ContractDetails] = field(default_factory=dict)
    stated: Mapping[str, frozenset[date]] = field(default_factory=dict)
    asked: Mapping[str, tuple[datetime, datetime]] = field(default_factory=dict)
    prices: Mapping[int, tuple[float, datetime]] = field(default_factory=dict)


@dataclass(slots=True)
class Parts:
    """A change, the executions and the events that explain it."""

    change: PositionChange
    taken: list[Execution]
    events: list[tuple[StatementEvent, float]]
    spare: bool = False
    """Whether an execution of the day fits no change: its time may be wrong, or a message lost."""

    @property
    def explained(self) -> float:
        """Return the part of the change that is explained."""
        return sum(one.change for one in self.taken) + sum(by for _event, by in self.events)

    @property
    def rest(self) -> float:
        """Return the part of the change that is not explained, with its sign."""
        return rounded(self.change.by - self.explained)


def rounded(quantity: float) -> float:
    """Return a quantity without the error of a binary sum; fractions of shares have four digits."""
    return round(quantity, 6) + 0.0


class Moneyness(StrEnum):
    """Where an option stood when it was last known.

    QUOTED_OUT: by its own price alone. Near the strike its holder may exercise it all the same, and
    its shares come minutes later.
    """

    IN = "IN"
    OUT = "OUT"
    QUOTED_OUT = "QUOTED_OUT"
    UNCLEAR = "UNCLEAR"


def last_trade(change: PositionChange, details: ContractDetails | None) -> datetime | None:
    """Return when a derivative could be traded last; None where it does not expire."""
    day = details.last_trade_date if details and details.last_trade_date else change.expiry
    if day is None:
        return None
    clock, zone = USUAL_CLOSE, NEW_YORK
    if details is not None and details.last_trade_time and details.time_zone:
        try:
            clock = time.fromisoformat(details.last_trade_time)
            zone = ZoneInfo(details.time_zone.split(" (")[0].strip())
        except (ValueError, LookupError, OSError):
            clock, zone = USUAL_CLOSE, NEW_YORK
    return datetime.combine(day, clock, zone).astimezone(UTC)


def settles_at_the_open(details: ContractDetails | None) -> bool:
    """Return whether the settlement follows the last trading day."""
    return (
        details is not None
        and details.expires_on is not None
        and details.last_trade_date is not None
        and details.expires_on > details.last_trade_date
    )


def settles_in_cash(details: ContractDetails | None) -> bool | None:
    """Return whether an option is settled in cash, as all options on an index; None: not known."""
    kind = details.under_sec_type if details is not None else None
    return None if not kind else kind == "IND"


def moneyness(change: PositionChange, facts: Facts) -> Moneyness:
    """Return where an option stood at its end, only if it is clear."""
    details = facts.contracts.get(change.conid)
    ended = last_trade(change, details)
    if ended is None or change.strike is None or change.right is None:
        return Moneyness.UNCLEAR
    at_the_open = settles_at_the_open(details)
    clear = change.strike * (CLEAR_AT_THE_OPEN if at_the_open else CLEAR)
    price = facts.prices.get(change.conid)
    if price is not None and abs(price[1] - ended) <= NEAR:
        above = price[0] - change.strike
        if abs(above) >= clear:
            is_in = above > 0 if change.right is Right.CALL else above < 0
            return Moneyness.IN if is_in else Moneyness.OUT
    own = change.market_price
    if own is None or change.since is None or change.since < ended - NEAR:
        return Moneyness.UNCLEAR
    if own >= clear and own > WORTHLESS:
        return Moneyness.IN
    quoted_out = own <= WORTHLESS and not at_the_open
    return Moneyness.QUOTED_OUT if quoted_out else Moneyness.UNCLEAR


def covers(facts: Facts, change: PositionChange) -> bool:
    """Return whether every execution that may have made a change would be known.

    They would, if the gateway named all of the time since the quantity before was confirmed. Before
    that time it must not have been possible to trade.
    """
    details = facts.contracts.get(change.conid)
    ended = last_trade(change, details)
    if change.since is None:
        return False
    if ended is not None and change.since >= ended:
        return True
    _begin, end = facts.asked.get(change.account, (change.seen_at, change.since))
    if end < change.seen_at and (ended is None or end < ended):
        return False
    return names_all(facts, change)


def names_all(facts: Facts, change: PositionChange) -> bool:
    """Return whether the gateway named all executions since the quantity before was confirmed."""
    details = facts.contracts.get(change.conid)
    begin, _end = facts.asked.get(change.account, (change.seen_at, change.seen_at))
    if change.since is None:
        return False
    if begin <= change.since:
        return True
    hours = parse_trading_hours(details.trading_hours, details.time_zone) if details else None
    if hours is None or not hours.begins <= change.since <= begin < hours.ends:
        return False
    return not any(opens < begin and closes > change.since for opens, closes in hours.sessions)
