"""What is known of closes: the facts, what their absence proves, where an option stood; pure.

`Delivered` decides which options explain the shares that came or went without an execution.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from itertools import product

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.closures import Cause, PositionChange
from position_sync_dagster.domain.instrument import (
    ContractDetails,
    Right,
    expiry_moment,
    parse_trading_hours,
)
from position_sync_dagster.domain.statement import Execution, StatementEvent

NEAR = timedelta(minutes=15)
"""Holdings that close and arrive within this time may belong to one event of the broker."""

A_DAY = timedelta(days=1)

WORTHLESS = 0.05
"""An option that was quoted at this price or below, right before its end, was out of the money,
unless that is much for its strike: an option on a currency is quoted at 0.02 for one of 1.05."""

CLEAR = 0.01
CLEAR_AT_THE_OPEN = 0.05
"""An option is clearly in or out of the money if its underlying is at least this far from the
strike, as a part of the strike. Options that are settled at the open do not trade in the night
before."""

LAST_TRADES = time(17)
"""When the last session of listed options in the US ends (Cboe, curb session), in New York."""

USUAL_CLOSE = time(16, 15)
"""The time of an option's last trade, if its contract names none; in New York."""


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


@dataclass(slots=True)
class Parts:
    """A change, the executions and the events that explain it."""

    change: PositionChange
    taken: list[Execution] = field(default_factory=list)
    events: list[tuple[StatementEvent, float]] = field(default_factory=list)
    spare: bool = False
    """Whether an execution of the day that went the same way fits no change: its time may be wrong,
    or a message lost."""

    @property
    def rest(self) -> float:
        """Return the part of the change that is not explained, with its sign."""
        explained = sum(one.change for one in self.taken) + sum(by for _event, by in self.events)
        return rounded(self.change.by - explained)


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
    own = change.market_price
    if own is None or change.since is None or change.since < ended - NEAR:
        return Moneyness.UNCLEAR
    if own >= clear and own > WORTHLESS:
        return Moneyness.IN
    # A price that follows from a value is in the major unit, where the strike may be in cents.
    most = own * (details.price_magnifier if details is not None else 1)
    quoted_out = most <= min(WORTHLESS, clear) and not at_the_open
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


MOST_FREE = 12
"""Maximum number of options among which those that were exercised or assigned are searched."""


class Delivered:
    """What came or went of underlyings without an execution, and which options explain it."""

    def __init__(
        self,
        facts: Facts,
        parts: Iterable[Parts],
        left: Mapping[Key, Sequence[Execution]],
    ) -> None:
        self._facts = facts
        self._left = left
        self._causes: dict[str, tuple[Cause, int | None]] = {}
        for under, found in self._together(parts):
            self._search(under, found)

    def of(self, change: PositionChange) -> tuple[Cause, int | None] | None:
        """Return the cause of an option or of shares, with the counter-holding."""
        return self._causes.get(change.change_id)

    def stated_counter(self, change: PositionChange) -> int | None:
        """Return the underlying of an option, if it moved with a stated exercise or assignment."""
        under = self._under_conid(change) if change.is_option else None
        if under is None:
            return None
        holding = (change.account, under)
        moved = any(
            other.key == holding and abs(other.seen_at - change.seen_at) <= NEAR
            for other in self._facts.changes
        )
        return under if moved else None

    def _under_conid(self, change: PositionChange) -> int | None:
        details = self._facts.contracts.get(change.conid)
        return details.under_conid if details is not None else None

    def _together(self, parts: Iterable[Parts]) -> Iterator[tuple[int, list[Parts]]]:
        """Yield the changes of each underlying and its options, in groups more than NEAR apart."""
        by_under: defaultdict[Key, list[Parts]] = defaultdict(list)
        for part in parts:
            change = part.change
            under = self._under_conid(change) if change.is_option else change.conid
            if part.rest and under is not None and (change.closed or not change.is_option):
                by_under[change.account, under].append(part)
        for (_account, under), found in by_under.items():
            if not any(one.change.is_option for one in found):
                continue
            group: list[Parts] = []
            for one in sorted(found, key=lambda one: one.change.seen_at):
                # A change seen after a gap may have happened right after the last confirmation.
                since = one.change.since
                if group and since is not None and since - group[-1].change.seen_at > NEAR:
                    yield under, group
                    group = []
                group.append(one)
            yield under, group

    def _search(self, under: int, group: Sequence[Parts]) -> None:
        """Find the options that alone explain what came of their underlying."""
        options = [one for one in group if one.change.is_option]
        shares = [one for one in group if not one.change.is_option]
        account, first = group[0].change.account, group[0].change.seen_at
        if (
            not options
            or not all(covers(self._facts, one.change) and not one.spare for one in group)
            or len(options) > MOST_FREE
            or settles_in_cash(self._facts.contracts.get(options[0].change.conid))
            # Shares may have come, and have been traded away, while nobody looked.
            or any(one.time > first - A_DAY for one in self._left.get((account, under), ()))
            # No exercise and no expiry turns a long position into a short one.
            or any(rounded(one.change.by + one.change.closed) for one in options)
        ):
            return
        came = [one.rest for one in shares]
        choices = [self._choices(one) for one in options]
        fitting = [
            chosen
            for chosen in product(*choices)
            if self._fits(
                [one.change for one, yes in zip(options, chosen, strict=True) if yes], came
            )
        ]
        guessed = any(len(one) > 1 for one in choices)
        sure = len(fitting) == 1 and (not guessed or self._is_complete(options, shares))
        if not sure and not (fitting and any(map(self._is_clear, options))):
            return
        chosen = [
            (one.change, yes)
            for one, yes in zip(options, fitting[0], strict=True)
            if sure or self._is_clear(one)
        ]
        causes = {_by_exercise(one) for one, yes in chosen if yes}
        for one, yes in chosen:
            if not yes:
                self._causes[one.change_id] = (Cause.EXPIRED_WORTHLESS, None)
                continue
            self._causes[one.change_id] = (_by_exercise(one), under)
            for other in shares:
                if sure and other.change.closed and len(causes) == 1:
                    self._causes[other.change.change_id] = (_by_exercise(one), one.conid)

    def _fits(self, ended: Sequence[PositionChange], came: Sequence[float]) -> bool:
        """Return whether the exercise of all these options, and of no other, explains what came."""
        units = [one.units or 0.0 for one in ended]
        if rounded(sum(units)) != rounded(sum(came)):
            return False
        if all(self._is_over(one) for one in ended):
            return _may_be(ended)
        # Before its end an option may also leave by a transfer: then shares are the only evidence.
        one_by_one = sorted(map(rounded, units)) == sorted(map(rounded, came))
        return bool(came) and (one_by_one or _may_be(ended))

    def _is_complete(self, options: Sequence[Parts], shares: Sequence[Parts]) -> bool:
        """Return whether all shares that belong to these options must have come by now.

        Shares and options that changed in a longer gap may have come and gone at any time in it,
        and for other reasons.
        """
        at_once = [
            one.change.since is not None and one.change.seen_at - one.change.since <= NEAR
            for one in (*options, *shares)
        ]
        last = max(one.change.seen_at for one in options)
        _begin, asked_at = self._facts.asked.get(options[0].change.account, (last, last))
        return (
            asked_at >= last + NEAR
            and all(names_all(self._facts, one.change) for one in options)
            and (not shares or all(at_once))
        )

    def _choices(self, one: Parts) -> tuple[bool, ...]:
        """Return whether an option may, or must, have been exercised or assigned."""
        if not self._is_over(one.change):
            return (True,)  # before its end, no other cause is considered here
        where = moneyness(one.change, self._facts)
        return {
            Moneyness.IN: (True,),
            Moneyness.OUT: (False,),
        }.get(where, (True, False))

    def _is_clear(self, one: Parts) -> bool:
        """Return whether the price at its end alone shows if an option was exercised."""
        return self._is_over(one.change) and len(self._choices(one)) == 1

    def _is_over(self, change: PositionChange) -> bool:
        ended = last_trade(change, self._facts.contracts.get(change.conid))
        return ended is not None and change.seen_at >= ended


def _by_exercise(option: PositionChange) -> Cause:
    return Cause.EXERCISED if option.closed > 0 else Cause.ASSIGNED


def _may_be(options: Iterable[PositionChange]) -> bool:
    """Return whether one price of the underlying, at their end, lets all of these be exercised."""
    listed = list(options)
    calls = [one.strike or 0.0 for one in listed if one.right is Right.CALL]
    puts = [one.strike or 0.0 for one in listed if one.right is Right.PUT]
    return not calls or not puts or max(calls) <= min(puts) * (1 + CLEAR)
