"""Events of lines and holdings become rows: which values count, and which lines are renewed."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.domain.line_allocation import LineLimit
from position_sync_dagster.domain.login_lines import RENEWALS_AT_ONCE, LoginLines
from position_sync_dagster.domain.quote import Quote
from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.domain.streamed_holding import StreamedHolding
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.stream.parts import PublishedGreeks
from position_sync_dagster.sync.stream.pricing import StreamPricer
from tests.support.holdings import make_holding
from tests.support.unowned import unowned

START = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)
SETTINGS = Settings(_env_file=None)
QUIET = 1
BUSY = 2
KEY = ("A", QUIET)


class PricerWithLines:
    """A pricer of some lines; `flush` returns the rows by conid."""

    def __init__(self, *conids):
        self.second = 0.0
        self.back = timedelta()
        self.closed: set[Any] = set()
        self.unreadable = set()
        self.lines = LoginLines(
            session_open=lambda conid: conid not in self.closed,
            limit=LineLimit(configured=100, reserve=5, wait=Backoff(first_s=60.0, longest_s=900.0)),
            min_hold_s=5.0,
        )  # fmt: skip
        self.pricer = StreamPricer(
            unowned(
                settings=SETTINGS, clock=lambda: self.now, monotonic=lambda: self.second
            ),
            self.lines, SimpleNamespace(magnifier=lambda _conid: 1, hours=lambda _conid: None),
            PublishedGreeks(),
        )  # fmt: skip
        self.ticks = {}
        self.bid = 1.0
        self.values = {}
        for conid in conids:
            self.lines.put(conid, self.lines.line(conid).requested(0.0))

        for conid in conids:
            self.pricer.reroute(("A", conid), None, LegState.STREAMED)

    @property
    def now(self):
        return START + timedelta(seconds=self.second) - self.back

    def flush(self, after_s, *ticked, valued=()):
        self.second = after_s
        for conid in ticked:
            self.ticks[conid] = (self.now, self.bid)
        for conid, value in dict(valued).items():
            self.values[conid] = (value, self.now)
        connection = SimpleNamespace(
            feed=SimpleNamespace(
                is_known=lambda _holding: True, book=SimpleNamespace(get=self._holding)
            ),
            lines=SimpleNamespace(quote=self._quote),
        )
        updates = self.pricer.flush(
            connection, set(ticked), {("A", conid) for conid in dict(valued)}
        )
        self.rows = {holding.key: update for update, holding in updates}
        return {update.conid: update for update, _holding in updates}

    def source(self, after_s, *ticked):
        """Return the source of the quiet holding's row, which is due; None without a row."""
        self.pricer.mark_due([KEY])
        row = self.flush(after_s, *ticked).get(QUIET)
        if row is None:
            return None

        return row.value_source

    def interrupt(self, reason):
        self.lines.happened(lambda line: line.interrupted(self.second, self.now, reason))

    def due_for_renewal(self):
        return self.lines.take_due_for_renewal(self.second)

    def _quote(self, conid):
        if conid in self.unreadable:
            raise ValueError("no number")
        at, bid = self.ticks.get(conid, (None, self.bid))
        return Quote(bid=bid, ask=1.2, received_at=at, quote_time=at)

    def _holding(self, key, _greeks):
        instrument = Instrument(
            conid=key[1], symbol="SPY", sec_type="OPT", currency="USD", multiplier=100.0
        )
        holding = make_holding(
            key[1], START, account=key[0], instrument=instrument, market_price=1.1,
            market_value=110.0, value_source="PORTFOLIO",
        )  # fmt: skip
        if key[1] not in self.values:
            return holding
        value, at = self.values[key[1]]
        return replace(
            holding, market_value=value, market_price=None, received_at=at,
            value_source="PNL_SINGLE",
        )  # fmt: skip


@pytest.fixture
def two_lines():
    two_lines = PricerWithLines(QUIET, BUSY)
    assert two_lines.source(0, QUIET, BUSY) == "TICK"
    return two_lines


MANY = range(1, 26)


@pytest.fixture
def lines():
    lines = PricerWithLines(*MANY)
    lines.flush(0, *MANY)
    return lines


def test_a_tick_that_waited_for_the_flush_while_the_farm_broke_gives_no_trust(two_lines):
    two_lines.second = 3
    two_lines.interrupt("a farm broke")
    two_lines.second = 2
    two_lines.flush(2, QUIET)
    assert two_lines.source(8) == "PORTFOLIO"


def test_a_second_holding_of_a_line_that_ticks_has_its_row_at_once(two_lines):
    other = ("B", QUIET)
    two_lines.pricer.reroute(other, None, LegState.STREAMED)
    assert two_lines.pricer.is_due(other)


def test_a_line_that_one_holding_finds_dead_counts_for_none_of_its_holdings(two_lines):
    other = ("B", QUIET)
    two_lines.pricer.reroute(other, None, LegState.STREAMED)
    two_lines.flush(1, QUIET)
    two_lines.flush(20, valued={QUIET: 300.0})  # of the first account
    two_lines.flush(25)
    assert two_lines.rows[other].value_source == "PNL_SINGLE"


def test_a_dead_line_among_live_ones_is_found_by_the_brokers_value(two_lines):
    assert two_lines.flush(1, BUSY, valued={QUIET: 110.0}).keys() <= {QUIET, BUSY}
    two_lines.flush(20, BUSY, valued={QUIET: 300.0, BUSY: 300.0})
    rows = two_lines.flush(25, BUSY)
    assert rows[QUIET].market_value == 300.0
    assert rows[QUIET].value_source == "PNL_SINGLE"
    assert "differs" in rows[QUIET].note
    assert BUSY not in rows  # it has just ticked: the broker's value may be the older one
    assert two_lines.due_for_renewal() == [QUIET]
    assert two_lines.due_for_renewal() == []
    assert next(iter(two_lines.lines.suspects())).startswith("the broker's newer")

    two_lines.flush(26, BUSY)
    rows = two_lines.flush(27, QUIET)
    assert rows[QUIET].value_source == "TICK"
    assert rows[QUIET].note is None
    assert not two_lines.lines.suspects()


def test_lines_that_do_not_answer_are_requested_again_a_few_at_once_and_less_often(lines):
    lines.interrupt("a data farm broke")
    requested = []
    for second in range(30, 600):
        lines.flush(second)
        requested += [second for _ in lines.due_for_renewal()]
    assert max(map(requested.count, requested)) == RENEWALS_AT_ONCE
    assert sorted(set(requested)) == [
        *(30, 31, 32), *(60, 61, 62), *(120, 121, 122), *(240, 241, 242), *(480, 481, 482),
    ]  # fmt: skip


def test_an_error_in_one_holding_sets_it_aside_by_name_and_the_others_have_their_rows(
    two_lines, monkeypatch, caplog
):
    step = StreamedHolding.step
    broken = {KEY}

    def step_or_fail(state, *args):
        if state.key in broken:
            raise ZeroDivisionError("a multiplier of 0")
        return step(state, *args)

    monkeypatch.setattr(StreamedHolding, "step", step_or_fail)
    for second in range(1, 10):
        two_lines.bid += 0.01
        assert two_lines.flush(second, QUIET, BUSY).keys() == {BUSY}
    why = "it cannot be valued: ZeroDivisionError: a multiplier of 0"
    assert two_lines.pricer.set_aside == {KEY: why}
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [f"conid {QUIET} of A is set aside: {why}"], "once for each outage"
    assert caplog.records[0].exc_info

    broken.clear()
    assert two_lines.flush(10, BUSY).keys() == set(), "it is tried again later"
    assert two_lines.flush(60).keys() == {QUIET}
    assert two_lines.pricer.set_aside == {}


def test_a_holding_that_was_set_aside_is_tried_at_once_when_it_closes(two_lines, monkeypatch):
    step = StreamedHolding.step
    monkeypatch.setattr(StreamedHolding, "step", lambda *_: 1 / 0)
    two_lines.bid = 1.1
    assert two_lines.flush(1, QUIET) == {}
    monkeypatch.setattr(StreamedHolding, "step", step)
    two_lines.pricer.reroute(KEY, LegState.STREAMED, LegState.CLOSED)
    assert two_lines.flush(2).keys() == {QUIET}


def test_market_data_that_cannot_be_read_sets_the_holdings_of_its_line_aside(two_lines):
    two_lines.unreadable = {QUIET}
    two_lines.bid = 1.1
    assert two_lines.flush(1, QUIET, BUSY).keys() == {BUSY}
    assert two_lines.pricer.set_aside == {KEY: "it cannot be valued: ValueError: no number"}


def test_a_holding_that_is_not_streamed_any_more_is_forgotten(two_lines):
    two_lines.pricer.reroute(KEY, LegState.STREAMED, LegState.OVERFLOW)
    two_lines.flush(1)
    assert QUIET not in two_lines.flush(100)
    assert not two_lines.pricer.is_due(KEY)


def test_a_line_that_the_gateway_ended_values_nothing_and_the_row_says_why(two_lines):
    two_lines.second = 1
    two_lines.lines.put(QUIET, two_lines.lines.line(QUIET).ended(1, "354 Not subscribed."))
    assert two_lines.source(2) is None  # a moment later it is queued, or requested as delayed data
    two_lines.pricer.mark_due([KEY])
    row = two_lines.flush(6)[QUIET]
    assert row.value_source == "PORTFOLIO"
    assert row.bid is None
    assert row.note == "354 Not subscribed."
    assert two_lines.due_for_renewal() == []


def test_a_holding_without_its_line_is_left_to_the_queue(two_lines):
    two_lines.pricer.mark_due([KEY])
    two_lines.lines.put(QUIET, two_lines.lines.line(QUIET).ended(1, "101 Max number."))
    two_lines.pricer.reroute(KEY, LegState.STREAMED, LegState.OVERFLOW)
    two_lines.flush(2, QUIET)
    assert not two_lines.pricer.is_due(KEY)
    assert QUIET not in two_lines.flush(100)


def test_when_all_lines_stop_without_a_notice_the_broker_shows_those_that_moved(lines):
    moved = dict.fromkeys((1, 2, 3), 500.0)
    for second in range(20, 27):
        lines.flush(second, valued=moved)
    assert sorted(lines.due_for_renewal()) == [1, 2, 3]
    assert lines.lines.line(4).trusted
