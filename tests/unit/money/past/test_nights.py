"""Requests and rows of steady nights: many lines for four hours, on a clock that the test moves."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from position_sync_dagster.domain.exchange_time import parse_trading_hours
from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.domain.line import Denial
from position_sync_dagster.domain.line_allocation import Demand, LineLimit
from position_sync_dagster.domain.login_lines import LoginLines
from position_sync_dagster.domain.position_update import ValueOrigin
from position_sync_dagster.domain.quote import Quote
from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.domain.streamed_holding import StreamedHolding
from tests.support.extent import EVERYTHING
from tests.support.holdings import make_holding
from tests.unit.domain.test_streamed_holding import row_of

LINES = 95 if EVERYTHING else 24
HOUR_S = 3600
# The largest number of requests in an hour of a quiet night.
GOAL = 20

# The same of each line that is refused, or does not answer.
OF_LINE = 7

START = datetime(2026, 3, 4, 3, 0, tzinfo=UTC)
LIMIT = LineLimit(configured=LINES + 5, reserve=5, wait=Backoff(first_s=60.0, longest_s=900.0))
REFUSED = Backoff(first_s=60.0, longest_s=600.0)
CLOSED = parse_trading_hours("20260304:CLOSED", "UTC")


class Night:
    """A login with all its lines, which all ticked once, and a gateway whose book does not move.

    Args:
        broker: The broker's value, as a multiple of the mark; None: it sends none.
        wobble: By how much the mark that a request opens with may differ.
        quoted: Whether there are a bid and an ask.
        hours: When the contracts trade; None: at any time.
        pause_s: The step of the clock while nothing happens.
    """

    def __init__(self, *, broker=None, wobble=0.0, quoted=True, hours=None, pause_s=300):
        self.broker = broker
        self.wobble = wobble
        self.quoted = quoted
        self.hours = hours
        self.pause_s = pause_s
        self.refuses = self.dead = False
        self.now_s = 0.0
        self.requests = 0
        self.rows: list[Any] = []
        self.lines = LoginLines(
            session_open=lambda conid: hours is None, limit=LIMIT, min_hold_s=5.0
        )

        conids = range(1, LINES + 1)
        self.lines.wanted = {
            conid: Demand(conid=conid, priority=1, since=START) for conid in conids
        }
        self.quotes = {}
        self.opening = {}
        self.holdings = {conid: holding(conid) for conid in conids}
        self.states = {conid: StreamedHolding(key=("A", conid)) for conid in conids}
        self.request_wanted()
        self.pass_for(6)

        self.requests = 0
        self.rows = []

    @property
    def now(self):
        return START + timedelta(seconds=self.now_s)

    def request(self, conid):
        self.requests += 1
        self.quotes[conid] = Quote()
        if self.refuses:
            self.refuse(conid)
        elif not self.dead:
            sides = {}
            if self.quoted:
                sides = {"bid": 0.99, "ask": 1.01}

            mark = 1.0 + self.wobble * (self.requests % 7)
            self.opening[conid] = Quote(mark=mark, min_tick=0.01, **sides)

    def request_wanted(self):
        for conid in sorted(self.lines.chosen(0, self.now_s) - self.lines.held.keys()):
            self.lines.put(conid, self.lines.line(conid).requested(self.now_s))
            self.request(conid)

    def refuse(self, conid):
        self.lines.put(conid, self.lines.line(conid).ended(self.now_s, "10197"))
        denial = Denial(reason="10197", wait=REFUSED)
        self.lines.deny(conid, denial, self.now_s)

    def step(self, seconds):
        """Let time pass, then do what the stream does in each second."""
        self.now_s += seconds
        parts = ("received_at", "quote_time", "moved_at", "mark_time")
        ticked = {
            conid: replace(quote, **dict.fromkeys(parts, self.now))
            for conid, quote in self.opening.items()
        }
        self.opening = {}
        self.quotes |= ticked
        self.lines.ticked(ticked, self.now_s)
        for conid, state in self.states.items():
            if conid in ticked:
                state.ticked()
            self.value(conid, state)

        for conid in self.lines.take_due_for_renewal(self.now_s):
            self.request(conid)
        self.request_wanted()

    def value(self, conid, state):
        if self.broker is not None:
            self.holdings[conid] = replace(
                self.holdings[conid], market_value=200.0 * self.broker, received_at=self.now,
                value_source=ValueOrigin.PNL_SINGLE,
            )  # fmt: skip
            state.due = True
        line = self.lines.line(conid)
        if state.is_due(line, self.now_s):
            _row, line = row_of(self, state, self.holdings[conid], self.quotes[conid], line)
            self.lines.put(conid, line)

    def pass_for(self, seconds):
        """Let time pass, in small steps after each request."""
        end_s = self.now_s + seconds
        busy_until_s = self.now_s + 60
        while self.now_s < end_s:
            before = self.requests
            step_s = 3 if self.now_s < busy_until_s else self.pause_s
            self.step(min(step_s, end_s - self.now_s))
            if self.requests > before:
                busy_until_s = self.now_s + 12

    def hours_of_requests(self):
        """Return the requests of each of four hours."""
        counts = []
        for _ in range(4):
            before = self.requests
            self.pass_for(HOUR_S)
            counts.append(self.requests - before)
        return counts


def holding(conid):
    option = Instrument(conid=conid, symbol="SPY", sec_type="OPT", currency="USD", multiplier=100.0)
    return make_holding(conid, START, position=2.0, instrument=option, average_cost=100.0)


def competing():
    """The same user logs in elsewhere, which ends all lines, and stays."""
    night = Night()
    night.refuses = True
    for conid in night.lines.wanted:
        night.refuse(conid)
    return night


def dead(*, broken=False, restored=False):
    """The gateway sends no market data any more, whatever is requested."""
    night = Night()
    night.dead = True
    if broken:
        now_s, now = night.now_s, night.now
        night.lines.happened(lambda line: line.interrupted(now_s, now, "a data farm broke"))
    if restored:
        night.lines.happened(lambda line: line.restored(night.now_s))
    return night


QUIET = {
    "calm": Night,
    "marks that differ in the fourth decimal": lambda: Night(wobble=0.0001),
    "outside the session": lambda: Night(broker=1.0, hours=CLOSED),
}
UNANSWERED = {
    "a competing session": competing,
    "a dead login": dead,
    "a dead login after a restore": lambda: dead(broken=True, restored=True),
    "a farm that stays broken": lambda: dead(broken=True),
}


@pytest.mark.parametrize("name", QUIET)
def test_a_quiet_night_needs_few_requests(name):
    assert max(QUIET[name]().hours_of_requests()) <= GOAL


@pytest.mark.parametrize("name", UNANSWERED)
def test_a_line_that_brings_nothing_is_requested_again_less_and_less_often(name):
    assert max(UNANSWERED[name]().hours_of_requests()) <= OF_LINE * LINES


@pytest.mark.parametrize(("quoted", "source"), [(True, "TICK"), (False, "PNL_SINGLE")])
def test_a_steady_gap_is_confirmed_once_for_each_line_and_settles_on_one_source(quoted, source):
    night = Night(broker=1.05, quoted=quoted)
    first, *later = night.hours_of_requests()
    assert first <= LINES + GOAL
    assert max(later) <= GOAL
    night.rows = []
    night.pass_for(HOUR_S)
    assert {row.value_source for row in night.rows} == {source}
    assert {row.conid for row in night.rows} == set(range(1, LINES + 1))
    assert all("differs" in row.note for row in night.rows)


def test_when_the_competing_session_ends_each_line_is_granted_after_its_wait():
    night = competing()
    night.pass_for(HOUR_S)
    night.refuses = False
    before = night.requests
    night.pass_for(600)
    assert len(night.lines.held) == LINES
    assert night.requests - before == LINES


def test_when_a_dead_login_is_back_all_lines_are_trusted_after_their_next_requests():
    night = dead(broken=True, restored=True)
    night.pass_for(HOUR_S)
    night.dead = False
    night.pass_for(1300)
    assert all(night.lines.line(conid).trusted for conid in night.lines.wanted)
