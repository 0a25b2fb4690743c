"""Random days from Friday to Monday, cut at every message: no close without a row, none false."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from position_sync_dagster.domain.execution import Execution
from position_sync_dagster.domain.position_change import PositionChange
from position_sync_dagster.gateway.connection import day_begin
from position_sync_dagster.money.past import closes
from position_sync_dagster.money.past.causes import ONE_EVENT, SLACK, closures_of
from position_sync_dagster.money.past.closes import FLEX, Cause, Closure, EventKind
from tests.support.extent import EVERYTHING
from tests.support.facts import facts_of
from tests.unit.money.past import test_causes as cases
from tests.unit.money.past.test_causes import (
    ACCOUNT,
    CALL,
    CONTRACTS,
    END,
    PUT,
    SHARES,
    fill,
    period,
)

HISTORIES = 10_000 if EVERYTHING else 200
BLOCK = 50
OPEN = END - timedelta(hours=6)
MONDAY = OPEN + timedelta(days=3)
STRIKES = {CALL: 575.0, cases.OTHER: 580.0, PUT: 560.0}
SPOTS = (545.0, 559.9, 560.2, 567.0, 575.1, 577.0, 579.9, 592.0)
DELAY = timedelta(milliseconds=100)
CONFIRMED_EVERY = timedelta(minutes=3)
LOOKS = [timedelta(seconds=seconds) for seconds in (0, 5, 60, 960)]
MADE = datetime(2026, 3, 24, tzinfo=UTC)
PERIODS = [period(made=MADE), period(MONDAY.date(), MONDAY.date(), MADE)]


@dataclass(frozen=True)
class Move:
    """What happened to a quantity, with its true cause; the position message follows it."""

    at: datetime
    conid: int
    by: float
    cause: Cause


@dataclass
class Days:
    """What happened from Friday's open to Monday: the moves of quantities."""

    random: Random
    spot: float
    start: dict[int, float]
    held: dict[int, float] = field(default_factory=dict)
    moves: list[Move] = field(default_factory=list)

    def move(self, at: datetime, conid: int, by: float, cause: Cause) -> None:
        if by:
            self.held[conid] = self.held.get(conid, 0.0) + by
            self.moves.append(Move(at, conid, by, cause))

    def intrinsic(self, conid: int) -> float:
        above = self.spot - STRIKES[conid]
        return max(0.0, -above if conid == PUT else above)

    def trade(self, at: datetime, conid: int, by: float) -> None:
        """Trade by one order, perhaps in two executions of one second."""
        unit = 100.0 if conid == SHARES else 1.0
        if abs(by) > unit and self.random.random() < 0.5:
            first = unit if by > 0 else -unit
            self.move(at, conid, first, Cause.TRADED)
            at = at + timedelta(seconds=self.random.choice((0.3, 0.9)))
            by -= first
        self.move(at, conid, by, Cause.TRADED)

    def deliver(self, at: datetime, conid: int, quantity: float) -> None:
        """End options with their shares, which may come a little later."""
        cause = Cause.EXERCISED if quantity > 0 else Cause.ASSIGNED
        self.move(at, conid, -quantity, cause)
        later = at + timedelta(seconds=self.random.choice((0, 20, 200)))
        self.move(later, SHARES, quantity * 100 * (-1 if conid == PUT else 1), cause)


def days_of(random: Random) -> Days:
    """Return a Friday with an expiry, its night or the weekend's, and a Monday."""
    start = {conid: float(random.randint(-3, 3)) for conid in STRIKES}
    start[SHARES] = float(random.choice((0, 0, 100, 200, -100)))
    days = Days(random, random.choice(SPOTS), start, dict(start))

    for _ in range(random.randint(0, 5)):
        at = OPEN + (END - OPEN) * random.random() * 0.98
        conid = random.choice((*STRIKES, SHARES))
        held = days.held.get(conid, 0.0)
        kind = random.random()
        if kind < 0.7:
            unit = 100 if conid == SHARES else 1
            days.trade(at, conid, random.choice((-held, unit, -unit)) or unit)
        elif kind < 0.85 and conid != SHARES and held:
            days.deliver(at, conid, held)
        else:
            days.move(at, conid, -held, Cause.TRANSFERRED)

    end = END + timedelta(hours=random.choice((1, 5, 36)))
    for conid in STRIKES:
        held = days.held.get(conid, 0.0)
        pinned = abs(days.spot - STRIKES[conid]) < 0.5
        if held and (random.random() < 0.5 if pinned else days.intrinsic(conid) > 0):
            days.deliver(end, conid, held)
        else:
            days.move(end, conid, -held, Cause.EXPIRED_WORTHLESS)

    held = days.held.get(SHARES, 0.0)
    at = MONDAY + timedelta(minutes=random.randint(1, 300))
    kind = random.random()
    if kind < 0.3:
        days.trade(at, SHARES, -held)
    elif kind < 0.5 and held:
        days.move(at, SHARES, -held, Cause.SPLIT)
        days.move(at, cases.NEW_SHARES, held / 100 * 33, Cause.SPLIT)
    elif kind < 0.6:
        days.move(at, SHARES, -held, Cause.TRANSFERRED)
    days.moves.sort(key=lambda one: one.at)

    # Each message follows its move, before the next one.
    days.moves = [
        replace(move, at=move.at + 2 * number * DELAY) for number, move in enumerate(days.moves)
    ]
    return days


@dataclass
class Watcher:
    """What a program knows: changes, executions, and what the gateway's last answer covers."""

    days: Days
    answers: bool
    quantities: dict[int, float]
    changes: list[PositionChange] = field(default_factory=list)
    seen: int = 0
    now: datetime = OPEN
    confirmed: datetime = OPEN
    moved: dict[int, datetime] = field(default_factory=dict)

    def see(self, until: int, at: datetime) -> None:
        """Receive the messages of all moves until one: sums, as a list of positions has them."""
        sums: dict[int, float] = {}
        for move in self.days.moves[self.seen : until]:
            sums[move.conid] = sums.get(move.conid, 0.0) + move.by

        for conid, by in sums.items():
            held = self.quantities.get(conid, 0.0)
            price = None
            since = max(self.confirmed, self.moved.get(conid, OPEN))
            if conid in STRIKES:
                price = self.days.intrinsic(conid) + (since < END)
            if by:
                self.changes.append(
                    cases.change(
                        conid, held, held + by, at, since=since, market_price=price,
                        change_id=f"{conid} {len(self.changes)}",
                    )
                )  # fmt: skip
                self.quantities[conid] = held + by
                self.moved[conid] = at
        self.seen = until
        self.now = at

    def judge(self, now: datetime) -> list[Closure]:
        """Judge by the answer of the gateway at this moment."""
        begin = day_begin(now)
        asked = {}
        known = []
        if self.answers:
            asked = {ACCOUNT: (begin, now)}
            known = [execution for execution in executions(self.days) if execution.time <= now]

        facts = facts_of(changes=self.changes, executions=known, contracts=CONTRACTS, asked=asked)
        return closures_of(facts)


def executions(days: Days) -> list[Execution]:
    """Return the executions, dated as a gateway dates them: in whole seconds."""
    return [
        fill(move.conid, move.by, move.at.replace(microsecond=0), execution_id=f"1.{number:04}.01")
        for number, move in enumerate(days.moves)
        if move.cause is Cause.TRADED
    ]


def watched(days: Days, cut: int | None, down: timedelta, answers: bool) -> Iterator[Watcher]:
    """Yield what a program knows after each message that reaches it.

    Args:
        days: What happened.
        cut: The message with which the connection is lost; the next one is a list of positions.
        down: For how long.
        answers: Whether the gateway names its executions.
    """
    watcher = Watcher(days, answers, dict(days.start))
    moves = days.moves
    while watcher.seen < len(moves):
        at = moves[watcher.seen].at
        until = watcher.seen + 1
        # The account is confirmed every three minutes while nothing happens.
        quiet = max(timedelta(), at - watcher.confirmed - DELAY)
        watcher.confirmed += quiet // CONFIRMED_EVERY * CONFIRMED_EVERY
        if watcher.seen == cut:
            at += down
            watcher.see(sum(move.at <= at for move in moves), at + DELAY)
            watcher.confirmed = at  # by the list of positions
        else:
            watcher.see(until, at + DELAY)
        yield watcher


def is_coincidence(days: Days, position_change: PositionChange, down: timedelta) -> bool:
    """Return whether a transfer cannot be told apart before the statement; see docs/closures.md.

    Shares that are transferred near an option, or in the same gap, look as if it had been
    exercised; and a transfer near a trade of the same contract looks like that trade.
    """
    span = ONE_EVENT + SLACK + down
    near = [move for move in days.moves if abs(move.at - position_change.seen_at) <= span]
    transferred = {move.conid for move in near if move.cause is Cause.TRANSFERRED}
    traded = {move.conid for move in near if move.cause is Cause.TRADED}
    return {SHARES} < transferred or position_change.conid in transferred & traded


def check(watcher: Watcher, closures: Sequence[Closure], down: timedelta) -> None:
    """Check that each close has its rows, and that each cause is true or not known."""
    days = watcher.days
    for change in watcher.changes:
        parts = [part for part in closures if part.change_id == change.change_id]
        assert sum(part.quantity for part in parts) == change.closed, (change, parts)
        true = {
            move.cause
            for move in days.moves
            if move.conid == change.conid and (change.since or OPEN) < move.at <= change.seen_at
        }
        causes = {part.cause for part in parts}
        if not is_coincidence(days, change, down):
            assert causes <= {*true, Cause.UNEXPLAINED}, (change, parts, days.moves)


def statement_of(days: Days) -> tuple[list[Execution], list[closes.StatementEvent]]:
    """Return the statement of all days: codes of trades and bookings, transfers and the split."""
    codes = {
        Cause.ASSIGNED: "A", Cause.EXERCISED: "Ex", Cause.EXPIRED_WORTHLESS: "Ep",
    }  # fmt: skip
    rows: list[Execution] = []
    events: list[closes.StatementEvent] = []

    for number, move in enumerate(days.moves):
        name = f"1.{number:04}.01"
        at = move.at.replace(microsecond=0)
        if move.cause is Cause.TRADED:
            rows.append(
                fill(
                    move.conid, move.by, at, execution_id=name, source=FLEX, codes="C",
                    transaction_type="ExchTrade",
                )
            )  # fmt: skip
        elif move.cause in codes:
            rows.append(cases.booked(move.conid, move.by, codes[move.cause], at, execution_id=name))
        else:
            kind = EventKind.TRANSFER
            if move.cause is Cause.SPLIT:
                kind = EventKind.CORPORATE_ACTION

            reported_event = cases.event(kind, move.by, conid=move.conid, type="FS", event_id=name)
            events.append(
                replace(reported_event, day=at.date(), direction="IN" if move.by > 0 else "OUT")
                if kind is EventKind.TRANSFER
                else replace(reported_event, day=at.date())
            )
    return rows, events


@pytest.mark.parametrize("block", range(HISTORIES // BLOCK))
def test_a_cause_is_true_or_unexplained_wherever_the_messages_are_cut(block: int) -> None:
    known = total = 0
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        random = Random(seed)
        days = days_of(random)
        length = timedelta(minutes=random.choice((1, 10, 60, 400, 2000)))
        answers = random.random() < 0.8
        for cut in (None, *range(len(days.moves))):
            watcher = Watcher(days, answers, dict(days.start))
            down = timedelta()
            if cut is not None:
                down = length

            for watcher in watched(days, cut, down, answers):
                if cut is None or watcher.seen > cut:  # before the cut all is as without one
                    check(watcher, watcher.judge(watcher.now), down)

            for look in LOOKS[1:] if cut is None else LOOKS[-1:]:
                judgement = watcher.judge(watcher.now + look)
                check(watcher, judgement, down)
            if cut is None and answers:
                known += sum(closure.cause is not Cause.UNEXPLAINED for closure in judgement)
                total += len(judgement)

            rows, events = statement_of(days)
            events += PERIODS
            facts = facts_of(
                changes=watcher.changes, executions=rows, events=events, contracts=CONTRACTS
            )
            stated = closures_of(facts)
            check(watcher, stated, timedelta())
            assert {judged_close.stage for judged_close in stated} <= {closes.Stage.STATED}, seed
    assert known > total / 4, (known, total)
