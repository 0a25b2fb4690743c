"""Changes of positions: why holdings closed, which records of it count, and what was rolled."""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from operator import attrgetter, itemgetter

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.instrument import NEW_YORK, Right, contract_name
from position_sync_dagster.domain.statement import Execution, current_executions


class Cause(StrEnum):
    """Why a holding, or a part of it, closed.

    CASH_SETTLED: it expired with a value, which was paid. CORPORATE_ACTION: any but a split.
    CORRECTED: the broker cancelled or corrected the trade that had opened it.
    """

    TRADED = "TRADED"
    EXPIRED_WORTHLESS = "EXPIRED_WORTHLESS"
    ASSIGNED = "ASSIGNED"
    EXERCISED = "EXERCISED"
    CASH_SETTLED = "CASH_SETTLED"
    SPLIT = "SPLIT"
    CORPORATE_ACTION = "CORPORATE_ACTION"
    TRANSFERRED = "TRANSFERRED"
    CORRECTED = "CORRECTED"
    UNEXPLAINED = "UNEXPLAINED"


class Stage(StrEnum):
    """Whether a cause is provisional, or stated by the broker, which replaces the former."""

    PROVISIONAL = "PROVISIONAL"
    STATED = "STATED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedHolding:
    """The holding that a row of `position_changes` or of `closures` is about.

    Attributes:
        account: IB account.
        conid: IB's contract id.
        symbol: Symbol of the underlying, as IB writes it.
        sec_type: IB's security type.
        right: CALL or PUT; null of what is no option.
        strike: Strike of an option. Unit: as quoted.
        expiry: Expiry of an option or a future.
    """

    change_id: str
    account: str
    conid: int
    symbol: str
    sec_type: str
    right: Right | None
    strike: float | None
    expiry: date | None


TERMS = tuple(field.name for field in fields(ChangedHolding))


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionChange(ChangedHolding):
    """A change of a quantity, as the owner of the login saw it: a row of `position_changes`.

    Attributes:
        change_id: Id of the change; the same if it is recorded again.
        multiplier: Units of the underlying in one contract.
        currency: ISO code of the currency.
        before: Signed quantity before. Unit: contracts or shares.
        after: Signed quantity after. Unit: contracts or shares.
        average_cost: Average cost of one contract or share before. Unit: `currency`.
        market_price: Price of one unit by the broker's last value before; null where it sent none.
            Unit: `currency`, also of what is quoted in cents.
        since: Until when the broker is known to have confirmed `before` (UTC).
        seen_at: When the new quantity was received (UTC).
        gateway_id: The login that saw it.
        snapshot_id: The account download that the row was part of.
        run_id: The Dagster run that wrote the row.
    """

    multiplier: float
    currency: str
    before: float
    after: float
    average_cost: float | None
    market_price: float | None
    since: datetime | None
    seen_at: datetime
    gateway_id: str
    snapshot_id: str
    run_id: str | None = None

    @property
    def key(self) -> Key:
        """The holding's (account, conid)."""
        return (self.account, self.conid)

    @property
    def by(self) -> float:
        """Return by how much the quantity changed, with a sign."""
        return self.after - self.before

    @property
    def closed(self) -> float:
        """Return the part of `before` that is gone, with its sign; 0 if nothing was closed."""
        if self.before * self.after < 0:
            return self.before
        return self.before - self.after if abs(self.after) < abs(self.before) else 0.0

    @property
    def is_option(self) -> bool:
        """Return whether it is an option, on whatever underlying."""
        return self.right is not None and self.strike is not None

    @property
    def units(self) -> float | None:
        """Return the change of the underlying if the closed options were exercised or assigned."""
        if self.right is None:
            return None
        each = 1.0 if self.sec_type == "FOP" else self.multiplier  # one future for an option on it
        return self.closed * each * (1 if self.right is Right.CALL else -1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Closure(ChangedHolding):
    """The cause of a close, or of a part of it: a row of the table `closures`.

    Of the rows of a change those that were judged last count.

    Attributes:
        change_id: The change of position_changes that it explains.
        closed_at: When it was seen to be gone, or was traded (UTC).
        quantity: What was closed, with the sign it had. Unit: contracts or shares.
        price: Price of one unit; null where it is not known. Unit: as quoted.
        cause: TRADED, EXPIRED_WORTHLESS, ASSIGNED, EXERCISED, CASH_SETTLED, SPLIT,
            CORPORATE_ACTION, TRANSFERRED, CORRECTED or UNEXPLAINED.
        stage: PROVISIONAL, or STATED by a statement of the broker.
        detail: Why, in words.
        realized_pnl: Realized profit of what was closed: as the broker names it, or of a worthless
            expiry its cost. Unit: `currency`.
        currency: ISO code of the currency.
        executions: Evidence: ids of executions, separated by commas.
        order_ids: Evidence: the permanent ids of their orders, separated by commas.
        events: Evidence: ids of statement_events, separated by commas.
        statement: Evidence: the statement that says it.
        counter_conid: Evidence: the holding that came or went with it, by its conid.
        judged_at: When it was judged (UTC).
        run_id: The Dagster run that wrote the row.
    """

    closed_at: datetime
    quantity: float
    price: float | None
    cause: Cause
    stage: Stage
    detail: str
    realized_pnl: float | None
    currency: str
    executions: str | None = None
    order_ids: str | None = None
    events: str | None = None
    statement: str | None = None
    counter_conid: int | None = None
    judged_at: datetime | None = None
    run_id: str | None = None

    @property
    def name(self) -> str:
        """Return the contract as a trader writes it."""
        return contract_name(self)


_WORDS = {
    Cause.TRADED: "traded",
    Cause.EXPIRED_WORTHLESS: "expired",
    Cause.CASH_SETTLED: "expired and settled in cash",
    Cause.ASSIGNED: "assigned",
    Cause.EXERCISED: "exercised",
    Cause.SPLIT: "split",
    Cause.CORPORATE_ACTION: "closed by a corporate action",
    Cause.TRANSFERRED: "transferred",
    Cause.CORRECTED: "corrected by the broker",
}
_AT_EXPIRY = frozenset({Cause.EXPIRED_WORTHLESS, Cause.CASH_SETTLED})


def end_text(causes: Sequence[Closure]) -> str | None:
    """Return what ended a holding and when, such as "expired on 2026-11-20".

    Args:
        causes: The causes that count of its last change; none while it is not judged.

    Returns:
        None while it is not known.
    """
    if not causes or any(one.cause not in _WORDS for one in causes):
        return None
    words = dict.fromkeys(_WORDS[one.cause] for one in causes)
    last = max(causes, key=lambda one: one.closed_at)
    at_expiry = all(one.cause in _AT_EXPIRY for one in causes) and last.expiry is not None
    day = last.expiry if at_expiry else last.closed_at.astimezone(NEW_YORK).date()
    return f"{' and '.join(words)} on {day}"


def counted_ends(texts: Iterable[str]) -> str | None:
    """Return what happened to several legs, with their number; None if there are none.

    >>> counted_ends(["traded on 2026-11-19", "expired on 2026-11-20", "traded on 2026-11-19"])
    'one expired on 2026-11-20, 2 traded on 2026-11-19'
    """
    counts = sorted(Counter(texts).items())
    return ", ".join(f"{'one' if n == 1 else n} {text}" for text, n in counts) or None


def knows_more(new: Sequence[Closure], old: Sequence[Closure]) -> bool:
    """Return whether new causes of a close replace the ones that counted.

    A stated cause replaces a provisional one and never the other way round. A provisional cause is
    not replaced by causes that explain less: the gateway names executions only on their day.
    """
    if [_content(one) for one in new] == [_content(one) for one in old]:
        return False
    if is_stated(new):
        return True
    return not old or (not is_stated(old) and _known(new) >= _known(old))


def is_stated(ones: Sequence[Closure]) -> bool:
    """Return whether a statement says the cause of all that was closed."""
    return bool(ones) and all(one.stage is Stage.STATED for one in ones)


def _known(ones: Sequence[Closure]) -> float:
    total = sum(abs(one.quantity) for one in ones) or 1.0
    return sum(abs(one.quantity) for one in ones if one.cause is not Cause.UNEXPLAINED) / total


def _content(one: Closure) -> Closure:
    return replace(one, judged_at=None, run_id=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Roll:
    """A position that was traded away, and the one that took its place.

    Attributes:
        roll_id: The permanent id of the combo order, or an id of the executions.
        quantity: What was rolled, with its sign.
        complete: Whether nothing of the closed position is left.
        opened: The change that opened the other contract.
    """

    roll_id: str
    account: str
    at: datetime
    closed_conid: int
    closed_name: str
    quantity: float
    complete: bool
    opened: PositionChange

    @property
    def opened_name(self) -> str:
        """Return the new contract as a trader writes it."""
        return contract_name(self.opened)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnclearRoll:
    """Positions that were closed and opened; it is unclear which replaced which."""

    account: str
    closed: tuple[PositionChange, ...]
    opened: tuple[PositionChange, ...]

    def __str__(self) -> str:
        """Return which positions these are, for people."""
        gone, new = (
            " and ".join(sorted(map(contract_name, ones))) for ones in (self.closed, self.opened)
        )
        return f"it is not clear which of {new} took the place of {gone} of {self.account}"


def rolls_of(
    closures: Iterable[Closure],
    changes: Iterable[PositionChange],
    executions: Iterable[Execution],
    within: timedelta,
) -> tuple[list[Roll], list[UnclearRoll]]:
    """Return the rolls, oldest first, and what may be one.

    Both sides have the same account, underlying, type and right, and equal quantities. They have
    the same order, or executions that lie near each other. A position takes the place of at most
    one other, and at most one takes its place. If several fit, the one of the same order counts;
    without such a position the roll is unclear.

    Args:
        closures: The causes that count.
        within: How far apart the executions of two orders may be.
    """
    made: defaultdict[Key, list[Execution]] = defaultdict(list)
    for execution in current_executions(executions):
        made[execution.account, execution.conid].append(execution)
    other = {one.change_id for one in closures if one.cause is not Cause.TRADED}
    traded = {one.change_id for one in closures if one.cause is Cause.TRADED} - other
    sides = _in_one_order(
        _Side(one, _executions_of(one, made[one.key]))
        for one in sorted(changes, key=lambda one: (one.seen_at, one.change_id))
        if one.change_id not in other
    )
    of_order: defaultdict[tuple[object, ...], list[_Side]] = defaultdict(list)
    of_kind: defaultdict[tuple[object, ...], list[tuple[datetime, _Side]]] = defaultdict(list)
    for side in sides:
        if side.change.before * side.change.after >= 0:
            kind = _kind_of(side.change, side.change.by)
            for order in side.orders:
                of_order[kind, order].append(side)
            of_kind[kind] += [(one.time, side) for one in side.executions]
    for opened in of_kind.values():
        opened.sort(key=itemgetter(0))
    closed = [side for side in sides if side.id in traded and side.executions]
    for old in closed:
        kind = _kind_of(old.change, old.change.closed)
        old.choose(new for order in old.orders for new in of_order[kind, order])
    taken = {new.id for old in closed for new in old.choices}
    for old in closed:
        if not old.choices:
            opened = of_kind[_kind_of(old.change, old.change.closed)]
            near = (new for one in old.executions for new in _near(opened, one.time, within))
            old.choose(new for new in near if new.id not in taken)
    rivals_of: defaultdict[str, list[_Side]] = defaultdict(list)
    for old in closed:
        for new in old.choices:
            rivals_of[new.id].append(old)
    rolls: list[Roll] = []
    unclear: dict[tuple[str, ...], UnclearRoll] = {}
    for old in closed:
        rivals = {one.id: one for new in old.choices for one in rivals_of[new.id]}
        if len(old.choices) == len(rivals) == 1:
            rolls.append(_roll(old, old.choices[0]))
        elif old.choices:
            ids = sorted(new.id for new in old.choices)
            unclear[(*sorted(rivals), *ids)] = UnclearRoll(
                account=old.change.account,
                closed=tuple(one.change for one in rivals.values()),
                opened=tuple(new.change for new in old.choices),
            )
    return rolls, list(unclear.values())


@dataclass(slots=True, eq=False)
class _Side:
    """A change, the executions that made it, and the changes that may have taken its place."""

    change: PositionChange
    executions: list[Execution]
    choices: list["_Side"] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.change.change_id

    @property
    def orders(self) -> set[str]:
        return {one.order_id for one in self.executions if one.order_id is not None}

    def choose(self, found: Iterable["_Side"]) -> None:
        """Keep those of another contract, each once and in order of time."""
        others = {one.id: one for one in found if one.change.conid != self.change.conid}
        self.choices = sorted(others.values(), key=lambda one: (one.change.seen_at, one.id))


def _kind_of(change: PositionChange, quantity: float) -> tuple[object, ...]:
    """Return what the old and the new contract of a roll have in common."""
    return change.account, change.symbol, change.sec_type, change.right, quantity


def _near(
    opened: Sequence[tuple[datetime, _Side]], at: datetime, within: timedelta
) -> Iterable[_Side]:
    """Return what was opened by executions near a time; the executions are in order of time."""
    first = bisect_left(opened, at - within, key=itemgetter(0))
    last = bisect_right(opened, at + within, key=itemgetter(0))
    return (side for _time, side in opened[first:last])


def _in_one_order(sides: Iterable[_Side]) -> list[_Side]:
    """Return the changes; consecutive ones of a contract by one order are merged."""
    found: list[_Side] = []
    last_of: dict[Key, _Side] = {}
    for side in sides:
        change, last = side.change, last_of.get(side.change.key)
        is_one = last is not None and len(side.orders) == 1 and side.orders == last.orders
        if last is not None and is_one and _goes_on(last.change, change):
            last.change = replace(change, before=last.change.before, since=last.change.since)
            last.executions = list(dict.fromkeys((*last.executions, *side.executions)))
        else:
            last_of[change.key] = side
            found.append(side)
    return found


def _goes_on(first: PositionChange, then: PositionChange) -> bool:
    return then.before == first.after and then.by * first.by > 0


def _roll(old: _Side, new: _Side) -> Roll:
    ids = sorted(one.execution_id for one in (*old.executions, *new.executions))
    common = sorted(old.orders & new.orders)
    return Roll(
        roll_id=common[0] if common else sha256(repr(ids).encode()).hexdigest()[:16],
        account=old.change.account,
        at=max(one.time for one in new.executions),
        closed_conid=old.change.conid,
        closed_name=contract_name(old.change),
        quantity=old.change.closed,
        complete=old.change.after == 0,
        opened=new.change,
    )


# Maximum delay of the time of an execution after its effect: there are two clocks, and messages
# wait.
SLACK = timedelta(minutes=2)


def _executions_of(change: PositionChange, listed: Sequence[Execution]) -> list[Execution]:
    """Return those of a holding's executions, in order of time, that may have made a change."""
    begin = (change.since or change.seen_at) - SLACK
    first = bisect_left(listed, begin, key=attrgetter("time"))
    last = bisect_right(listed, change.seen_at + SLACK, key=attrgetter("time"))
    return [one for one in listed[first:last] if one.change * change.by > 0]
