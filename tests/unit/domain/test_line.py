"""When the values of a line count, and when it is requested again."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from position_sync_dagster.domain.line import (
    DIFFERS,
    FIRST_TICK_GRACE_S,
    Denial,
    Dispute,
    Line,
    LineState,
)
from position_sync_dagster.domain.quote import Quote
from position_sync_dagster.domain.retry import Backoff

START = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)
HOLDING = ("A", 7)


def second(number):
    return START + timedelta(seconds=number)


IDLE, WAITING, TRUSTED, INTERRUPTED, SUSPECT, REFUSED = LineState
HELD = {WAITING, TRUSTED, INTERRUPTED, SUSPECT}

# What each event at 100 s makes of a line.
EVENTS = {
    "REQUESTED": lambda line: line.requested(100.0),
    "REOPENED": lambda line: line.reopened(100.0),
    "CANCELLED": lambda line: line.cancelled(),
    "ENDED": lambda line: line.ended(100.0, "why"),
    "PRICED": lambda line: line.priced(),
    "SILENT": lambda line: line.elapsed(110.0),
    "OUTSIDE_SESSION": lambda line: line.elapsed(100.0, session_open=False),
    "INTERRUPTED": lambda line: line.interrupted(100.0, second(50), "why"),
    "RESTORED": lambda line: line.restored(100.0),
    "DOUBTED": lambda line: line.doubted(100.0, "why"),
    "DISAGREED": lambda line: line.compared(HOLDING, agrees=False),
    "AGREED": lambda line: line.compared(HOLDING, agrees=True),
}
# What each event leads to, by the state before it; "=" keeps the state, and what is not named
# ignores the event.
EXPECTED = {
    "REQUESTED": dict.fromkeys(LineState, WAITING),
    "REOPENED": dict.fromkeys(HELD, WAITING),
    "CANCELLED": dict.fromkeys(LineState, IDLE),
    "ENDED": dict.fromkeys(LineState, REFUSED),
    "PRICED": {WAITING: TRUSTED, INTERRUPTED: TRUSTED, SUSPECT: TRUSTED, TRUSTED: "="},
    "SILENT": {WAITING: SUSPECT, TRUSTED: SUSPECT, INTERRUPTED: SUSPECT},
    "OUTSIDE_SESSION": dict.fromkeys(HELD - {SUSPECT}, "="),
    "INTERRUPTED": dict.fromkeys(HELD, INTERRUPTED),
    "RESTORED": dict.fromkeys(HELD, "="),
    "DOUBTED": {TRUSTED: SUSPECT},
    "DISAGREED": {TRUSTED: SUSPECT},
    "AGREED": dict.fromkeys([*HELD, REFUSED], "="),
}
# The fields that follow from each event at 100 s, besides the state.
FOLLOWS = {
    "REQUESTED": {
        "held_since_s": 100.0, "reason": None, "overdue_at_s": 130.0, "withheld_until_s": 105.0,
    },
    "REOPENED": {
        "reason": None, "overdue_at_s": 130.0, "withheld_until_s": 105.0,
        "renew_at_s": -math.inf, "dispute": None, "renewals": 0,
    },
    "CANCELLED": {"held_since_s": None, "overdue_at_s": math.inf, "dispute": None, "renewals": 0},
    "ENDED": {"held_since_s": None, "overdue_at_s": math.inf, "reason": "why"},
    "PRICED": {
        "reason": None, "was_renewed": False, "dispute": Dispute(holding=HOLDING),
        "overdue_at_s": math.inf,
    },
    "SILENT": {"overdue_at_s": math.inf, "since": second(9)},
    "OUTSIDE_SESSION": {"overdue_at_s": 130.0},
    "INTERRUPTED": {"reason": "why", "since": second(50), "overdue_at_s": 130.0},
    "RESTORED": {"overdue_at_s": 110.0},
    "DOUBTED": {"reason": "why", "withheld_until_s": 105.0, "since": second(9)},
    "DISAGREED": {"reason": DIFFERS, "dispute": Dispute(holding=HOLDING), "withheld_until_s": 1.0},
    "AGREED": {"dispute": None, "renewals": 0},
}  # fmt: skip


def line_in(state):
    """Return a line in a state, with something in each field that events change."""
    held = state in HELD
    return Line(
        state=state, held_since_s=50.0 if held else None, reason="before",
        withheld_until_s=1.0, overdue_at_s=110.0 if held else math.inf, renewals=2,
        dispute=Dispute(holding=HOLDING), changes=4, heard_at=second(9), priced_at=second(8),
    )  # fmt: skip


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("state", LineState)
def test_each_event_in_each_state_leads_where_the_table_says(state, event):
    before = line_in(state)
    after = EVENTS[event](before)
    expected = EXPECTED[event].get(state)  # type: ignore[attr-defined]
    if expected is None:
        assert after == before
        return
    assert after.state is (state if expected == "=" else expected)
    assert after.changes == (4 if expected == "=" else 5)
    follows = FOLLOWS[event] | {"state": after.state, "changes": after.changes}
    assert {name: getattr(after, name) for name in follows} == follows


class LineWithEvents:
    """A line to which events happen; what it does not define is that of the line."""

    def __init__(self):
        self.line = Line().requested(0.0)

    def __getattr__(self, name):
        return getattr(self.line, name)

    def record(self, event, *what):
        """Let one of the methods of the line say what becomes of it."""
        self.line = event(self.line, *what)

    def ticked(self):
        """Let a price come."""
        self.line = self.line.priced()

    def interrupted(self, now_s, at=START):
        self.record(Line.interrupted, now_s, at, "a farm broke")

    def restored(self, now_s):
        self.record(Line.restored, now_s)

    def disagrees(self, now_s):
        """Let the broker's value differ; return whether that makes the line suspect."""
        if not self.may_be_disputed(now_s):
            return False
        self.line = self.line.compared(HOLDING, agrees=False)
        return self.suspect

    def elapsed(self, now_s, **session):
        """Let time pass; return whether the line became suspect."""
        was_suspect = self.suspect
        self.line = self.line.elapsed(now_s, **session)
        return self.suspect and not was_suspect

    def heard(self, quote):
        """Take a quote; return whether a price that counts was in it."""
        before = self.line
        self.line = before.heard(quote)
        return self.priced_at != before.priced_at

    def deny(self, now_s, denial):
        self.line = replace(self.line, denial=self.line.denial_counted_on(denial, now_s))
        return self.denial


@pytest.fixture
def line():
    return LineWithEvents()


def test_a_line_that_does_not_answer_its_request_is_requested_again_less_and_less_often(line):
    assert not line.elapsed(29.9)
    assert line.elapsed(30.0)
    renewals = []
    for second in range(30, 3600):
        if line.is_due_for_renewal(second):
            renewals.append(second)
            line.record(Line.renewed, second)
    waits = [b - a for a, b in pairwise(renewals)]
    assert waits == [30, 60, 120, 240, 480, 900, 900]


def test_the_model_of_a_line_says_nothing_about_prices_that_are_awaited_after_a_restore(line):
    parts = dict.fromkeys(("quote_time", "greeks_time"), second(1))
    line.heard(Quote(received_at=second(1), **parts))
    line.restored(2.0)
    line.heard(Quote(received_at=second(3), **parts | {"greeks_time": second(3)}))
    assert line.elapsed(32.0)


def test_a_line_that_may_only_be_quiet_has_a_moment_to_answer_before_a_row_says_so(line):
    line.ticked()
    line.restored(0.0)
    assert line.elapsed(30.0)
    assert line.withheld_until_s == 30.0 + FIRST_TICK_GRACE_S


def test_a_line_that_the_broker_contradicts_is_requested_again_at_a_growing_pace(line):
    line.ticked()
    suspected = []
    for second in range(100, 1000):
        if line.disagrees(float(second)):
            suspected.append(second)
            line.record(Line.renewed, float(second))
            line.ticked()  # it is alive: the broker values the holding in another way
    waits = [b - a for a, b in pairwise(suspected)]
    assert waits == [30, 60, 120, 240]
    line.line = line.compared(HOLDING, agrees=True)
    assert line.renewals == 0


def test_outside_its_session_a_line_has_the_whole_time_to_tick_once_it_opens(line):
    line.ticked()
    line.interrupted(0.0)
    line.restored(0.0)
    for second in range(0, 5000, 7):
        assert not line.elapsed(float(second), session_open=False)
    assert line.state == LineState.INTERRUPTED
    assert not line.elapsed(second + 29.0)
    assert line.elapsed(second + 30.0)
    assert line.reason == "a farm broke"


def test_after_an_interruption_for_long_a_line_has_the_whole_time_to_tick(line):
    line.ticked()
    line.interrupted(100.0)
    line.restored(1000.0)
    assert line.elapsed(1029.0) is False
    assert line.elapsed(1030.0) is True


def test_outside_its_session_only_what_the_broker_contradicts_is_requested_again(line):
    assert line.elapsed(30.0)
    assert not line.is_due_for_renewal(40.0, session_open=False)
    assert line.is_due_for_renewal(40.0)
    line.ticked()
    assert line.disagrees(50.0)
    assert line.is_due_for_renewal(50.0, session_open=False)


def test_the_wait_after_a_denial_grows_and_a_refusal_of_delayed_data_is_the_same_denial(line):
    refused = Denial(reason="354", wait=Backoff(first_s=60.0, longest_s=900.0))
    assert line.deny(0.0, replace(refused, may_be_delayed=True)).until_s == 60.0
    assert line.deny(1.0, refused) == replace(refused, since_s=0.0, until_s=61.0, times=1)
    assert line.denied(61.0) is None
    assert line.deny(61.0, refused).times == 2
    assert line.denied(180.9).until_s == 181.0


def test_the_model_shows_nothing_about_the_prices_of_a_line(line):
    model = Quote(received_at=second(1), delta=0.5, greeks_time=second(1))
    assert not line.heard(model)
    assert not line.trusted
    assert line.elapsed(30.0)


@pytest.mark.parametrize("part", ["quote_time", "mark_time"])
def test_a_price_of_the_quote_or_a_mark_makes_a_line_trusted_once(line, part):
    priced = Quote(received_at=second(1), **{part: second(1)})
    assert line.heard(priced)
    assert line.trusted
    assert not line.heard(priced)  # the model ticked meanwhile


def test_after_an_interruption_each_part_counts_again_with_its_own_next_tick(line):
    parts = dict(bid=1.0, ask=1.2, mark=1.1, delta=0.5)
    before = dict.fromkeys(("quote_time", "mark_time", "greeks_time"), second(1))
    line.heard(Quote(received_at=second(1), **parts, **before))
    line.interrupted(2.0, second(2))
    line.restored(3.0)
    after = Quote(received_at=second(4), **parts, **before | {"quote_time": second(4)})
    assert line.heard(after)
    counted = line.counted(after)
    assert line.trusted
    assert counted.bid == 1.0
    assert counted.ask == 1.2
    assert counted.mark is None
    assert counted.delta is None
    assert not line.elapsed(33.0)


def test_what_a_suspect_line_said_counts_no_more_when_a_single_part_of_it_ticks(line):
    quote = Quote(mark=1.5, received_at=second(1), mark_time=second(1))
    line.heard(quote)
    assert line.disagrees(10.0)
    sized = Quote(bid=4.0, ask=4.1, mark=1.5, received_at=second(11), mark_time=second(1),
        quote_time=second(11),
    )  # fmt: skip
    line.heard(sized)
    counted = line.counted(sized)
    assert counted.mark is None
    assert counted.bid == 4.0


def test_greeks_without_a_quote_count(line):
    greeks = Quote(delta=0.5, received_at=second(2), greeks_time=second(2))
    line.heard(greeks)
    assert line.counted(greeks).delta == 0.5


def test_greeks_that_stand_still_while_the_price_moves_do_not_count(line):
    quote = Quote(bid=1.0, delta=0.5, model_price=1.1, received_at=second(60),
        quote_time=second(60), moved_at=second(31), greeks_time=second(1),
    )  # fmt: skip
    line.heard(quote)
    assert line.counted(quote).delta == 0.5
    silent = line.counted(replace(quote, moved_at=second(32)))
    assert silent.delta is None
    assert silent.model_price is None
    assert silent.greeks_time is None
    assert silent.bid == 1.0
