"""What is known of closes: the facts, what their absence proves, where an option stood; pure."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.clock import NEVER
from position_sync_dagster.domain.closures import PositionChange
from position_sync_dagster.domain.instrument import (
    ContractDetails,
    Right,
    expiry_moment,
    parse_trading_hours,
)
from position_sync_dagster.domain.statement import (
    EventKind,
    Execution,
    StatementEvent,
    current_executions,
)

# Holdings that close and arrive within this time may belong to one event of the broker.
NEAR = timedelta(minutes=15)

A_DAY = timedelta(days=1)

# An option that was quoted at this price or below, right before its end, was out of the money,
# unless that is much for its strike: an option on a currency is quoted at 0.02 for one of 1.05.
WORTHLESS = 0.05

CLEAR = 0.01
# An option is clearly in or out of the money if its underlying is at least this far from the
# strike, as a part of the strike. Options that are settled at the open do not trade in the night
# before.
CLEAR_AT_THE_OPEN = 0.05

# When the last session of listed options in the US ends (Cboe, curb session), in New York.
LAST_TRADES = time(17)

# The time of an option's last trade, if its contract names none; in New York.
USUAL_CLOSE = time(16, 15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known when a close is judged.

    Attributes:
        changes: All changes of positions near the closes, also those that opened something.
        executions: Rows of `executions`.
        events: Rows of `statement_events`.
        contracts: Contract details, by conid.
        stated: For each account, the days whose trades a statement has, each with the time until
            which the statement has them. If the statement was made on the day, that is when it was
            made.
        asked: From when and until when the gateway named all executions of an account. Without it
            the absence of an execution proves nothing.
        prices: The last price of the underlying before the end of options, by the option's conid,
            each with its time.
    """

    changes: Sequence[PositionChange]
    executions: Sequence[Execution] = ()
    events: Sequence[StatementEvent] = ()
    contracts: Mapping[int, ContractDetails] = field(default_factory=dict)
    stated: Mapping[str, Mapping[date, datetime]] = field(default_factory=dict)
    asked: Mapping[str, tuple[datetime, datetime]] = field(default_factory=dict)
    prices: Mapping[int, tuple[float, datetime]] = field(default_factory=dict)


class History:
    """The facts, by holding and in order of time; each look-up costs what it finds."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.changes: defaultdict[Key, list[PositionChange]] = defaultdict(list)
        for change in sorted(facts.changes, key=lambda one: (one.seen_at, one.change_id)):
            self.changes[change.key].append(change)
        self.executions: defaultdict[Key, list[Execution]] = defaultdict(list)
        for execution in current_executions(facts.executions):
            self.executions[execution.account, execution.conid].append(execution)
        versions = sorted(facts.events, key=lambda one: one.stated_at or NEVER)
        newest = {(one.account, one.conid, one.event_id): one for one in versions}
        self.events: defaultdict[Key, list[StatementEvent]] = defaultdict(list)
        self._actions: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
        for event in sorted(newest.values(), key=lambda one: (one.day, one.event_id)):
            if event.conid is not None:
                self.events[event.account, event.conid].append(event)
                if event.kind is EventKind.CORPORATE_ACTION and (action := action_of(event)):
                    self._actions[event.account, action].add(event.conid)

    def details(self, change: PositionChange) -> ContractDetails | None:
        """Return the contract details of what changed."""
        return self.facts.contracts.get(change.conid)

    def under_conid(self, option: PositionChange) -> int | None:
        """Return the contract id of an option's underlying."""
        details = self.details(option)
        return details.under_conid if details is not None else None

    def moved_with(self, change: PositionChange, conid: int) -> bool:
        """Return whether another holding of the account changed at about the same time."""
        others = self.changes.get((change.account, conid), ())
        return any(abs(one.seen_at - change.seen_at) <= NEAR for one in others)

    def counter_of(self, event: StatementEvent) -> int | None:
        """Return the other contract of a corporate action, by the action's id."""
        others = self._actions.get((event.account, action_of(event) or ""), set()) - {event.conid}
        return others.pop() if len(others) == 1 else None


def action_of(event: StatementEvent) -> str | None:
    """Return the broker's id of a corporate action."""
    found = json.loads(event.attributes).get("actionID")
    return str(found) if found else None


def rounded(quantity: float) -> float:
    """Return a quantity without the error of a binary sum; fractions of shares have four digits."""
    return round(quantity, 6) + 0.0


class Moneyness(StrEnum):
    """Where an option stood when it was last known.

    QUOTED_OUT: out of the money by its own price alone. Near the strike its holder may exercise it
    all the same, and its shares come minutes later.
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
    clock, zone = (details.last_trade_time, details.time_zone) if details else (None, None)
    return expiry_moment(day, clock, zone, usual=USUAL_CLOSE).astimezone(UTC)


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
    at_the_open = details is not None and details.is_settled_at_the_open
    clear = change.strike * (CLEAR_AT_THE_OPEN if at_the_open else CLEAR)
    price = facts.prices.get(change.conid)
    if price is not None and abs(price[1] - ended) <= NEAR:
        above = price[0] - change.strike
        if abs(above) >= clear:
            is_in = above > 0 if change.right is Right.CALL else above < 0
            return Moneyness.IN if is_in else Moneyness.OUT
    if change.market_price is None or change.since is None or change.since < ended - NEAR:
        return Moneyness.UNCLEAR
    if details is None:
        return Moneyness.UNCLEAR  # its price is in dollars, its strike perhaps in cents
    own = change.market_price * details.price_magnifier
    if own >= clear and own > WORTHLESS:
        return Moneyness.IN
    quoted_out = own <= min(WORTHLESS, clear) and not at_the_open
    return Moneyness.QUOTED_OUT if quoted_out else Moneyness.UNCLEAR


def covers(facts: Facts, change: PositionChange) -> bool:
    """Return whether every execution that may have made a change would be known.

    That is so if the contract had ended when the previous quantity was confirmed, or if the
    gateway named all executions from then until the change was seen or the contract ended.
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
