"""One streamed holding: cases that a trader meets, then any history of events.

`HISTORIES=10000 pytest -k Histories` runs more of the same seed.
"""

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from position_sync_dagster.domain.exchange_time import parse_trading_hours
from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.domain.line import Line, LineState
from position_sync_dagster.domain.position_update import PriceKind, ValueOrigin
from position_sync_dagster.domain.quote import Quote
from position_sync_dagster.domain.streamed_holding import ROW_INTERVAL_S, StreamedHolding
from position_sync_dagster.domain.valuation import Moment, Provenance
from tests.support.holdings import make_holding

START = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)
KEY = ("A", 7)
INSTANT_S = 0.001
OPTION = Instrument(conid=7, symbol="SPY", sec_type="OPT", currency="USD", multiplier=100.0)


class World:
    """A holding, its line and its broker, with a clock that only `wait` moves."""

    def __init__(self):
        self.now_s = 0.0
        self.line = Line().requested(0.0)
        self.state = StreamedHolding(key=KEY)
        self.quote = Quote()
        self.holding = make_holding(7, START, position=-2.0, instrument=OPTION, average_cost=100.0)
        self.rows = []
        self.hours = None

    @property
    def now(self):
        return START + timedelta(seconds=self.now_s)

    def wait(self, seconds):
        self.now_s += seconds

    def tick(self, **values):
        """Send prices; without any, a size of the quote."""
        self.wait(INSTANT_S)
        if "mark" in values:
            values["mark_time"] = self.now
        if {"bid", "ask", "last"} & values.keys() or not values:
            values["quote_time"] = self.now
        if {"bid", "ask"} & values.keys():
            values["moved_at"] = self.now
        self.quote = replace(self.quote, received_at=self.now, **values)
        self.line = self.line.heard(self.quote)
        self.state.ticked()

    def interrupt(self):
        self.line = self.line.interrupted(self.now_s, self.now, "a farm broke")

    def broker(self, price, source=ValueOrigin.PNL_SINGLE, value_time=None):
        self.holding = replace(
            self.holding,
            market_value=self.holding.position * price * 100,
            market_price=price if source is ValueOrigin.PORTFOLIO else None,
            value_source=source, received_at=self.now, value_time=value_time,
        )  # fmt: skip
        self.state.due = True

    def hold(self, position):
        self.holding = replace(
            self.holding, position=position, market_value=None, market_price=None,
            received_at=self.now, value_source=ValueOrigin.NONE,
        )  # fmt: skip
        self.state.due = True

    def renew(self, **values):
        """Request the line again, which opens with these prices."""
        assert self.line.is_due_for_renewal(self.now_s)
        self.line = self.line.renewed(self.now_s)
        self.quote = Quote()
        self.tick(**values)

    def differ(self, price):
        """Let the broker say another value, until the line is suspect."""
        for _ in range(8):
            self.wait(1)
            self.broker(price)
            self.flush()

    def pass_for(self, seconds, step_s=60):
        """Flush, and let time pass, again and again."""
        for _ in range(0, seconds, step_s):
            self.flush()
            self.wait(step_s)

    def flush_at_once(self):
        """Flush although nothing happened; return the row that was written last."""
        self.state.due = True
        self.flush()
        return self.rows[-1]

    def flush(self):
        self.line = self.line.elapsed(self.now_s)
        if not self.state.is_due(self.line, self.now_s):
            return None
        row, self.line = row_of(self, self.state, self.holding, self.quote, self.line)
        return row


def row_of(world, state, holding, quote, line):
    """Make the step of a holding, and keep its row."""
    now = {"now": world.now, "now_s": world.now_s, "hours": world.hours}
    at = Moment(**now, by=Provenance(), price_magnifier=1)
    row, line = state.step(holding, quote, line, at)
    world.rows += [row] if row is not None else []
    return row, line


@pytest.fixture
def world():
    return World()


def test_a_quiet_short_wing_keeps_its_mark_and_has_a_row_a_minute(world):
    world.tick(ask=0.05, last=1.2, mark=0.02)
    world.pass_for(300, step_s=1)
    assert {(r.market_value, r.price_kind, r.value_time) for r in world.rows} == {
        (-4.0, PriceKind.MARK, START + timedelta(seconds=INSTANT_S))
    }
    assert len(world.rows) == 5


def test_a_tick_without_news_for_a_reader_writes_nothing(world):
    world.tick(bid=1.0, ask=1.2, mark=1.1)
    assert world.flush()
    world.wait(1)
    world.tick()  # a size
    assert world.flush() is None
    world.tick(bid=1.05)
    assert world.flush()


def test_a_line_that_has_missed_a_move_is_suspect_and_the_row_says_why(world):
    world.tick(bid=1.0, ask=1.2, mark=1.1)
    world.flush()
    world.wait(6)
    world.broker(2.0)
    assert world.flush() is None

    world.wait(5)
    row = world.flush()
    assert row.market_value == (-400.0)
    assert row.value_source == ValueOrigin.PNL_SINGLE
    assert "differs" in row.note
    assert row.bid is None
    assert world.line.is_due_for_renewal(world.now_s)
    world.tick(bid=1.9, ask=2.1, mark=2.01)
    row = world.flush()
    assert row.market_value == pytest.approx(-402.0)
    assert row.price_kind == PriceKind.MARK
    assert row.note is None


QUOTED = {"bid": 0.99, "ask": 1.01, "mark": 1.0}
MARK_ALONE = {"mark": 1.0}


@pytest.mark.parametrize(
    ("opening", "source", "note"),
    [
        (QUOTED, "TICK", "the broker's value differs: -210.00 USD; a new request confirmed"),
        (MARK_ALONE, "PNL_SINGLE", "the value by the line differs: -200.00 USD; no quote with two"),
    ],
)
def test_a_difference_that_a_new_request_confirms_settles_on_one_source(
    world, opening, source, note
):
    world.tick(**opening)
    world.differ(1.05)
    assert world.line.suspect
    world.renew(**opening)
    world.differ(1.05)
    world.rows.clear()
    for _ in range(60):
        world.wait(60)
        world.broker(1.05)
        world.flush()
        assert world.line.trusted
    assert {row.value_source for row in world.rows} == {source}
    assert len({row.note for row in world.rows}) == 1
    assert world.rows[0].note.startswith(note)


def flush_beside(world, other):
    """Flush a holding and that of another account, which shares its line."""
    world.flush()
    other.now_s = world.now_s
    other.quote = world.quote
    other.line = world.line
    other.broker(1.0)
    other.flush()
    world.line = other.line


def test_a_difference_in_one_account_settles_although_the_broker_agrees_in_another(world):
    other = World()
    other.state = StreamedHolding(key=("B", 7))
    world.tick(**QUOTED)
    requests = 0
    for _ in range(600):
        world.wait(1)
        world.broker(1.05)
        flush_beside(world, other)
        if world.line.is_due_for_renewal(world.now_s):
            world.renew(**QUOTED)
            requests += 1
    assert requests == 1

    row = world.flush_at_once()
    assert row.value_source == "TICK"
    assert row.note.split(":")[0] == "the broker's value differs"
    assert other.flush_at_once().note is None

    world.hold(0.0)  # what another account says counts again once that holding is closed
    flush_beside(world, other)
    world.wait(60)
    flush_beside(world, other)
    assert world.line.dispute is None


@pytest.mark.parametrize("moved", ["broker away", "broker back", "line"])
def test_a_settled_difference_is_asked_again_or_over_when_one_side_moves(world, moved):
    world.tick(**QUOTED)
    world.differ(1.05)
    world.renew(**QUOTED)
    world.differ(1.05)
    assert "confirmed" in world.flush_at_once().note

    if moved == "line":
        world.tick(bid=1.04, ask=1.06, mark=1.05)
    else:
        world.wait(600)
        world.differ(1.0 if moved == "broker back" else 1.2)
    row = world.flush_at_once()
    if moved == "broker away":
        assert world.line.suspect
        assert row.value_source is ValueOrigin.PNL_SINGLE
    else:
        assert row.market_price == (1.05 if moved == "line" else 1.0)
        assert row.note is None


def test_a_line_that_opens_with_another_price_has_its_difference_asked_anew(world):
    world.tick(**QUOTED)
    world.differ(2.0)
    world.renew(bid=1.79, ask=1.81, mark=1.8)  # it had missed a move, and still differs
    world.differ(2.0)
    assert world.rows[-1].note == "the broker's newer value differs from that of the line"
    world.wait(30)
    world.differ(2.0)
    assert world.line.suspect


NIGHT = parse_trading_hours("20260304:0930-20260304:1600", "US/Eastern")


def test_outside_the_session_an_unchanged_holding_has_a_row_an_hour_and_says_so(world):
    world.hours = NIGHT
    world.tick(**QUOTED)
    arrived = world.now
    world.flush()
    world.now_s = 6 * 3600.0  # 21:30 UTC: closed since 21:00
    world.pass_for(180 * 60)
    closed = [row for row in world.rows if row.note]
    assert {row.note for row in closed} == {"outside the trading session"}
    assert {row.value_time for row in closed} == {arrived}
    assert len(closed) == 3


def test_a_price_that_a_request_opens_with_outside_the_session_has_no_time(world):
    world.hours = NIGHT
    world.now_s = 6 * 3600.0
    world.tick(delta=0.5, greeks_time=world.now, **QUOTED)
    row = world.flush()
    assert row.market_price == 1.0
    assert row.value_time is None
    assert row.greeks_time is None


def test_a_price_from_before_the_session_has_no_time_in_it_either_until_it_ticks(world):
    world.hours = parse_trading_hours("20260304:1031-20260304:1600", "US/Eastern")
    world.tick(bid=1.0, ask=1.25, mark=1.12, delta=-0.2, greeks_time=START)
    world.wait(61)
    row = world.flush_at_once()
    assert row.value_source == ValueOrigin.TICK
    assert row.market_price == 1.12
    assert row.note is None
    assert row.delta == (-0.2)
    assert row.value_time is None
    assert row.greeks_time is None
    world.tick(mark=1.13)
    assert world.flush().value_time == world.now


def test_greeks_from_outside_the_session_have_no_time_beside_a_value_of_the_broker(world):
    world.hours = NIGHT
    world.wait(7 * 3600)
    world.tick(ask=0.05, delta=-0.2, greeks_time=world.now)
    world.broker(0.02)
    row = world.flush_at_once()
    assert row.value_source == ValueOrigin.PNL_SINGLE
    assert row.delta == (-0.2)
    assert row.value_time == world.now
    assert row.greeks_time is None


def test_a_row_a_minute_follows_soon_after_the_session_opens(world):
    world.hours = NIGHT
    world.now_s = -3600.0  # an hour before half past ten in New York, the beginning of these tests
    world.hours = parse_trading_hours("20260304:1030-20260304:1600", "US/Eastern")
    world.tick(**QUOTED)
    world.pass_for(75 * 60)
    opened = [row for row in world.rows if row.note is None]
    assert len(opened) >= 10


@pytest.mark.parametrize("price", [1.12, 1.28, 0.92])
def test_a_value_of_the_broker_within_the_width_of_the_quote_raises_no_suspicion(world, price):
    world.tick(bid=1.0, ask=1.2, mark=1.1)
    world.wait(60)
    world.broker(price)
    assert world.flush().price_kind is PriceKind.MARK
    assert world.line.trusted


def test_a_portfolio_row_may_be_three_minutes_old_when_it_arrives(world):
    world.tick(bid=2.0, ask=2.1, mark=2.05)
    world.wait(170)
    world.broker(1.0, ValueOrigin.PORTFOLIO)
    assert world.flush().price_kind is PriceKind.MARK
    assert world.line.trusted
    world.broker(1.0, ValueOrigin.PORTFOLIO, value_time=world.now - timedelta(seconds=20))
    world.flush()
    world.wait(5)
    assert world.flush().price_kind is PriceKind.PORTFOLIO
    assert world.line.suspect


def test_a_broken_farm_that_returns_within_seconds_writes_no_other_value(world):
    world.tick(bid=1.0, ask=1.2, mark=1.1)
    world.flush()
    world.interrupt()
    world.broker(1.11)
    assert world.flush() is None
    world.wait(2)
    world.tick(bid=1.0, ask=1.2, mark=1.1)
    assert world.flush() is None
    assert len(world.rows) == 1


def test_after_an_interruption_that_lasts_the_brokers_value_is_used(world):
    world.broker(1.15)
    world.tick(bid=1.0, ask=1.2, mark=1.1)
    world.flush()
    world.interrupt()
    world.wait(5)
    row = world.flush()
    assert row.market_value == pytest.approx(-230.0)
    assert row.note == "a farm broke"
    assert row.bid is None


def test_a_first_row_waits_a_moment_for_the_first_tick(world):
    world.broker(1.1)
    assert world.flush() is None
    world.wait(5)
    assert world.flush().value_source is ValueOrigin.PNL_SINGLE


def test_a_factor_that_the_portfolio_row_contradicts_stays_refused_when_a_profit_comes(world):
    world.broker(1.1, ValueOrigin.PORTFOLIO)
    world.holding = replace(world.holding, market_value=world.holding.market_value / 50)
    world.tick(mark=1.1)
    assert world.flush().value_source is ValueOrigin.PORTFOLIO
    world.broker(1.2)
    assert world.flush().value_source is ValueOrigin.PNL_SINGLE


prices = st.integers(1, 400).map(lambda n: n / 100)


class Histories(RuleBasedStateMachine):
    """Any order of events; `price` is what the market would say."""

    def __init__(self):
        super().__init__()
        self.world = World()
        self.alive = True
        self.broken = False
        self.price = 1.0
        self.ticked_s = None  # the last tick of the present request
        self.counts = False  # it ticked after its request and the last interruption
        self.pnl_s = None

    @rule(price=prices)
    def the_market_moves(self, price):
        self.price = price
        if self.alive and not self.broken:
            self.tick()

    @rule()
    def sizes_tick(self):
        if self.alive and not self.broken and self.ticked_s is not None:
            self.ticked_s = self.world.now_s
            self.counts = True
            self.world.tick()

    @rule()
    def the_line_dies(self):
        self.alive = False

    @rule()
    def the_farm_breaks(self):
        self.broken = True
        self.counts = False
        self.world.interrupt()

    @precondition(lambda self: self.broken)
    @rule(alive=st.booleans())
    def the_farm_returns(self, alive):
        self.broken = False
        self.alive = self.alive and alive
        self.record(Line.restored)

    @rule()
    def the_gateway_ends_the_line(self):
        world = self.world
        self.record(Line.ended, "354 Not subscribed.")
        world.quote = Quote()
        self.ticked_s = None
        self.counts = self.alive = False

    @precondition(lambda self: self.world.line.refused)
    @rule(works=st.booleans())
    def an_ended_line_is_granted_again(self, works):
        self.record(Line.requested)
        self.open(works)

    @precondition(lambda self: self.world.holding.position)
    @rule()
    def a_profit_arrives(self):
        self.pnl_s = self.world.now_s
        self.world.broker(self.price)

    @precondition(lambda self: self.world.holding.position)
    @rule(dated=st.booleans())
    def a_portfolio_row_arrives(self, dated):
        self.pnl_s = None
        at = None
        if dated:
            at = self.world.now.replace(second=0)

        self.world.broker(self.price, ValueOrigin.PORTFOLIO, at)

    @rule(position=st.sampled_from([-2.0, -1.0, 0.0, 3.0]))
    def the_position_changes(self, position):
        if position != self.world.holding.position:
            self.pnl_s = None
            self.world.hold(position)

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.0, 31.0, 200.0]))
    def time_passes(self, seconds):
        self.world.wait(seconds)

    @rule(works=st.booleans())
    def a_suspect_line_is_requested_again(self, works):
        world = self.world
        if world.line.is_due_for_renewal(world.now_s):
            self.record(Line.renewed)
            world.quote = Quote()
            self.ticked_s = None
            self.counts = False
            self.open(works)

    @rule()
    def flush(self):
        self.check(self.world.flush())

    @invariant()
    def the_last_row_says_what_is_held(self):
        """Flush: then no close is lost, and none is false."""
        world = self.world
        self.check(world.flush())
        written = None
        if world.rows:
            written = world.rows[-1]

        if written is not None and not world.state.due:
            assert written.position == world.holding.position
        if world.holding.position == 0:
            assert written is not None
            assert written.position == 0.0
            assert written.market_value == 0.0
        assert world.flush() is None

    def record(self, event, *what):
        self.world.line = event(self.world.line, self.world.now_s, *what)

    def open(self, works):
        """Begin a request, which answers if the gateway works and the farm does."""
        self.alive = works
        if works and not self.broken:
            self.tick()

    def tick(self):
        self.ticked_s = self.world.now_s
        self.counts = True
        self.world.tick(bid=self.price, ask=self.price + 0.01, mark=self.price)

    def check(self, row):
        if row is None:
            return
        world = self.world
        holding = self.world.holding
        assert row.position == holding.position

        if row.position == 0:
            assert len(world.rows) < 2 or world.rows[-2].position or self.is_heartbeat()
            return
        if holding.market_value is not None:
            assert row.market_value is not None

        if row.value_source is ValueOrigin.TICK:
            assert self.counts
            assert row.market_value == pytest.approx(row.position * row.market_price * 100)
            assert row.market_price == pytest.approx(world.quote.mark, abs=0.01)
            assert row.note is None or "differs" in row.note
        else:
            assert not world.line.trusted
            assert row.note is not None or world.line.state is LineState.WAITING
            assert row.market_value == holding.market_value
            assert row.bid is None
        self.check_that_a_contradicted_line_is_not_used(row)

    def is_heartbeat(self):
        newest = self.world.rows[-1]
        before = self.world.rows[-2]
        return newest.timestamp - before.timestamp >= timedelta(seconds=ROW_INTERVAL_S)

    def check_that_a_contradicted_line_is_not_used(self, row):
        world = self.world
        if self.pnl_s is None or self.ticked_s is None or self.pnl_s <= self.ticked_s:
            return
        paced = world.now_s < world.line.renew_at_s
        late = world.now_s - self.pnl_s >= 5
        if row.value_source is not ValueOrigin.TICK or paced or not late:
            return
        own = row.market_value
        broker = world.holding.market_value
        assert abs(own - broker) <= max(0.03 * abs(own), 3.0 * abs(row.position))


class TestHistories(Histories.TestCase):  # type: ignore[valid-type]
    settings = settings(
        max_examples=int(os.environ.get("HISTORIES", "40")), stateful_step_count=40, deadline=None,
        derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
