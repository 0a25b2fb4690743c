"""Lets the sessions pass: what happens at the broker, what the program does, and what must hold."""

import asyncio
import os
import time as machine_time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import time_machine

from ib_gateway_simulator.clearing.securities import Security
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.errors import ClockSetBackError
from position_sync_dagster.processes.sensor_states import mend_tick_times
from tests.support.waiting import eventually
from tests.year import campaigns, events, faults, growth, invariants, profits
from tests.year.book import Book, Strategy
from tests.year.broker import Broker
from tests.year.deviations import Deviation
from tests.year.exchanges import (
    FIRST,
    NEW_YORK,
    close_of,
    session_after,
    session_before,
    sessions_between,
)
from tests.year.gateway import contract_of, executions
from tests.year.growth import Growth
from tests.year.market import forget_options
from tests.year.programs import MovedClock, Program, Watched, open_program

# When the program is looked at on a session.
MORNING_LOOK = time(10, 31)
EVENING = time(16, 21)
BEFORE_CLOSE = timedelta(minutes=3)
AFTER_TRADES = timedelta(minutes=10)
# Rows of a clock that was ahead are the newest until the clock has passed them.
AFTER_JUMP = events.JUMP + timedelta(minutes=5)
IMPORTED = time(6, 1)
FILLED = time(6, 16)
TICKED = time(6, 20)

# In this time the stream looks at its clock, in seconds of the machine.
CLOCK_LOOK_S = 3.0

# As many sessions as the program fills again at night, and as many more where a statement came.
LATE_SESSIONS = 3
FILLED_SESSIONS = 6

# The time zones of traders, one for each seed.
HOMES = ("UTC", "Australia/Sydney", "Europe/Berlin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which year is played.

    Attributes:
        seed: Decides prices, trades and nights.
        strategies: How many there are; the legs of a third are streamed.
        with_gaps: Whether the program is down for a day, and for three weeks.
        with_closes: Whether the stream also runs before the close of each session.
        with_maintenance: Whether the tables are maintained; it is half of Dagster's work.
        with_growth: Whether sizes and times are measured at the end of each month.
        plant: The name of an error that is planted into the program.
    """

    seed: int = 1
    first: date = FIRST
    until: date
    strategies: int = 40
    with_gaps: bool = True
    with_closes: bool = True
    with_maintenance: bool = True
    with_growth: bool = True
    plant: str | None = None


@dataclass(slots=True)
class Played:
    """What came of it.

    Attributes:
        results: A line for each session: the wealth of the accounts, and how much is held.
        growth: What was measured at the end of each month, and at the end.
        planted_on: The session from which on the planted error was there.
    """

    deviations: list[Deviation] = field(default_factory=list)
    sessions: int = 0
    results: list[str] = field(default_factory=list)
    growth: list[Growth] = field(default_factory=list)
    planted_on: date | None = None


def play(plan: Plan, home: Path, *, say: Callable[[str], None]) -> Played:
    """Play a year until a day, and return what came of it.

    With a planted error it ends on the session that shows it.

    Args:
        home: A folder that does not exist, for tables and Dagster.
        say: Gets a line for each session, and for each deviation.
    """
    zone = HOMES[plan.seed % len(HOMES)]
    begin = datetime.combine(plan.first, time(8), NEW_YORK).astimezone(UTC)

    with _living_in(zone), time_machine.travel(begin) as traveller:
        clock = MovedClock(traveller)

        with open_program(home, plan.first, clock) as program:
            year = Year(plan, program, say)
            with ExitStack() as planted:
                for session in sessions_between(plan.first, plan.until):
                    if year.played.sessions == faults.PLANTED_ON and plan.plant is not None:
                        year.played.planted_on = session
                        faults.PLANTS[plan.plant](program, planted)
                    year.pass_session(session)
                    if plan.plant is not None and year.played.deviations:
                        return year.played
                year.at_the_end()
            return year.played


@contextmanager
def _living_in(zone: str) -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = zone
    machine_time.tzset()
    try:
        yield
    finally:
        if before is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = before
        machine_time.tzset()


class Year:
    """The broker and the program, session by session."""

    def __init__(self, plan: Plan, program: Program, say: Callable[[str], None]) -> None:
        forget_options()
        self.plan = plan
        self.program = program
        self._say = say
        self.broker = Broker(plan.seed)
        self.book = Book(plan.seed, plan.strategies)
        self.played = Played()
        self._ledger = invariants.Ledger()
        self._causes = profits.Causes()
        self._down_until = date.min
        # The sessions that the program missed, and has to fill when it runs again.
        self._missed: list[date] = []
        self._passed: list[date] = []
        program.switch_off(maintenance=not plan.with_maintenance)
        program.run_schedules(datetime.combine(plan.first, time(8), NEW_YORK))

    # -- a session ----------------------------------------------------------------------------

    def pass_session(self, session: date) -> None:
        """Let a session pass, with the night after it."""
        events.let_pass(self.broker, self.book, session, self.plan.seed)
        self.program.clock.move_to(self.broker.at(MORNING_LOOK))
        self._activate()
        found: list[Deviation] = []
        if not self._is_down(session):
            found += self._beside_the_gateway(session)
            found += self._evening(session)
        self._passed.append(session)
        self.program.receive(events.delivered(self.broker, self.plan.seed))
        if session > self._down_until:
            found += self._night(session)
        self._record(session, found)
        if session_after(session).month != session.month:
            self._measure(session)

    def _activate(self) -> None:
        """Make the legs of a third of the strategies active: they are streamed."""
        legs = [
            self._active(strategy, leg, quantity)
            for strategy in self.book.strategies[::3]
            for leg, quantity in strategy.held.items()
        ]
        self.program.lake.registry.sync.replace_all(legs)

    def _active(self, strategy: Strategy, leg: Security, quantity: int) -> ActiveContract:
        contract = contract_of(leg)
        return ActiveContract(
            conid=leg.conid,
            symbol=contract.symbol,
            right=Right.CALL if leg.right == "C" else Right.PUT,
            strike=contract.strike,
            expiry=datetime.strptime(contract.expiry, "%Y%m%d").date(),  # noqa: DTZ007
            strategy_id=strategy.name,
            added_at=self.broker.at(MORNING_LOOK),
            account=strategy.account,
            quantity=float(quantity),
        )

    def _is_down(self, session: date) -> bool:
        if session <= self._down_until:
            self._missed.append(session)
            return True
        down: list[Any] = []
        if self.plan.with_gaps:
            down = events.downtime(self.plan.first, session)

        if not down or session == self.plan.first:
            return False
        self._down_until = date.min
        if len(down) > 1:
            self._down_until = down[-1]

        self._missed.append(session)
        return True

    # -- what the program does ----------------------------------------------------------------

    def _beside_the_gateway(self, session: date) -> list[Deviation]:
        """Compare what is seen after the trades, before the close, and each second day before both.

        What happens between them is seen at the close, as by a stream that runs on.
        """
        with_before = self.played.sessions % 2 == 1
        at_trades = self.broker.at(MORNING_LOOK)
        answer = asyncio.run(self._watch_trades(at_trades, with_before=with_before))
        if session == events.JUMP_DAY:
            answer += asyncio.run(self._watch_jumps(at_trades + AFTER_TRADES))
        if self.plan.with_closes:
            before_close = close_of(session) - BEFORE_CLOSE
            answer += asyncio.run(self._watch_close(before_close))
        return answer

    async def _watch_trades(self, at: datetime, *, with_before: bool) -> list[Deviation]:
        trades = [
            entry
            for account in self.broker.closed
            for entry in executions(self.broker.books(account, self.broker.session))
            if entry.at >= at
        ]
        watch_trades: list[Deviation] = []
        async with self.program.streaming(self.broker, at) as watched:
            if with_before or not trades:
                await watched.becomes_current()
                watch_trades += self._live(watched, "before the trades")
            if trades:
                for entry in trades:
                    watched.gateway.execute(entry)
                await watched.becomes_current()
                watch_trades += self._live(watched, "after the trades", before_trades=False)
        return watch_trades

    async def _watch_jumps(self, at: datetime) -> list[Deviation]:
        """Let the clock jump forwards, and back, which ends the stream; one begins later."""
        found: list[Deviation] = []
        with suppress(ClockSetBackError):
            async with self.program.streaming(self.broker, at) as watched:
                self.program.clock.advance(events.JUMP)
                await asyncio.sleep(CLOCK_LOOK_S)
                await watched.tick()
                found += self._live(watched, "while the clock is ahead", before_trades=False)
                self.program.clock.advance(-events.JUMP)
                await eventually(watched.task.done)

        # As the supervisor does, which looks each two minutes.
        mend_tick_times(self.program.instance, utc_now().timestamp())
        async with self.program.streaming(self.broker, at + AFTER_JUMP) as watched:
            await watched.becomes_current()
            return found + self._live(watched, "after the clock was set back")

    async def _watch_close(self, at: datetime) -> list[Deviation]:
        async with self.program.streaming(self.broker, at) as watched:
            await watched.becomes_current()
            return self._live(watched, "before the close")

    def _live(self, watched: Watched, seen: str, *, before_trades: bool = True) -> list[Deviation]:
        live = invariants.Live(self.program, self.broker, watched, seen)
        return live.deviations(before_trades=before_trades)

    def _evening(self, session: date) -> list[Deviation]:
        """Record the session after its close."""
        self.program.run_schedules(self.broker.at(EVENING))
        seen = "in the evening"
        evening = list(invariants.while_down(self.program, self.broker, seen))
        evening += invariants.beginning_of_today(session, seen)
        evening += invariants.schedules(self.program, session)
        if self._is_told_of_before() and not self._missed:
            evening += profits.in_the_evening(self.program, self.broker, session)
        return evening

    def _is_told_of_before(self) -> bool:
        """Return whether the ends of options on the session before are known from statements."""
        seed = self.plan.seed
        return bool(self._passed) and events.is_explained_next_morning(self._passed[-1], seed)

    def _night(self, session: date) -> list[Deviation]:
        """Import statements, fill the last sessions again, and judge the closes."""
        program = self.program
        broker = self.broker
        morning = session + timedelta(days=1)
        program.run_schedules(broker.at(IMPORTED, day=morning))
        program.run_schedules(broker.at(FILLED, day=morning))
        if self._missed:
            # The statement of the last session before them may have come meanwhile.
            program.fill([session_before(self._missed[0]), *self._missed, session])
            is_told = events.is_explained_next_morning(session, self.plan.seed)
            self._missed = [day for day in self._missed if day == session and not is_told]
        program.clock.move_to(broker.at(TICKED, day=morning))
        program.tick()
        return [
            *self._compared_at_night(session),
            *self._ledger.deviations(program, session),
            *invariants.partitions(self.plan.first, session),
            *invariants.beginning_of_today(session, "the morning after"),
        ]

    def _compared_at_night(self, session: date) -> Iterator[Deviation]:
        """Compare the sessions whose statements have arrived, as far as they are filled again."""
        seed = self.plan.seed
        seen = "the morning after"
        number = LATE_SESSIONS
        if session == events.LATE_UNTIL:
            number = FILLED_SESSIONS

        recent = [day for day in self._passed[-number:] if events.is_told(day, session)]
        if not events.is_explained_next_morning(session, seed):
            recent = [day for day in recent if day != session]
        yield from profits.of_profit(self.program, self.broker, recent, seen)
        yield from profits.of_books(self.program, self.broker, recent, seen)
        yield from profits.of_movements(self.program, self.broker, recent, seen)
        yield from campaigns.of_campaigns(self.program, self.broker, self.book, recent, seen)
        is_told = events.is_told(session, session)
        if is_told and events.is_explained_next_morning(session, seed):
            since = self.broker.at(time(0), day=recent[0])
            yield from self._causes.deviations(self.program, self.broker, since)

    def at_the_end(self) -> None:
        """Compare all sessions once more, but those of which statements are under way."""
        sessions = [session for session in self._passed[:-1] if session not in self._missed]
        found = [
            *profits.of_profit(self.program, self.broker, sessions, "at the end"),
            *profits.of_books(self.program, self.broker, sessions, "at the end"),
            *profits.of_movements(self.program, self.broker, sessions, "at the end"),
            *campaigns.of_campaigns(self.program, self.broker, self.book, sessions, "at the end"),
        ]
        self._measure(self._passed[-1])
        self._tell(found)

    def _measure(self, session: date) -> None:
        if not self.plan.with_growth:
            return

        held = sum(len(closed[-1].quantities) for closed in self.broker.closed.values())
        passed = len(self._passed)
        self.played.growth.append(growth.measured(self.program, session, passed, held))

    def _record(self, session: date, deviations: list[Deviation]) -> None:
        self.played.sessions += 1
        books = self.broker.closed
        worth = ", ".join(
            f"{closed[-1].net_liquidation:.2f} {closed[-1].base}" for closed in books.values()
        )
        legs = sum(len(closed[-1].quantities) for closed in books.values())
        self.played.results.append(f"{session} {legs} holdings, {worth}")
        self._say(self.played.results[-1])
        self._tell(deviations)

    def _tell(self, deviations: list[Deviation]) -> None:
        self.played.deviations += deviations
        for deviation in deviations:
            self._say(f"  {deviation}")
