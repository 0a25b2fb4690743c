"""What happened is told once: of each kind, also after kills, and after quiet hours."""

import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta

import dagster as dg
import pytest

from position_sync_dagster.defs.resources import cursor_of
from position_sync_dagster.domain.instrument import Instrument, Right
from position_sync_dagster.lake.derived import derive
from position_sync_dagster.lake.schema import frame_of
from position_sync_dagster.money.campaigns.closed_campaign import CampaignEnd
from position_sync_dagster.money.defs import alerts as alerts_module
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.closes import Cause
from position_sync_dagster.money.past.explain_closes import CloseExplainer
from position_sync_dagster.money.reports import alerts
from position_sync_dagster.money.reports.alerts import AlertCursor
from position_sync_dagster.money.reports.happenings import read_happenings
from position_sync_dagster.money.tables import CLOSED_CAMPAIGNS
from position_sync_dagster.money.trading_days import session_before
from tests.support.executions import executed
from tests.support.legs import leg
from tests.unit.money.campaigns.test_campaign_days import CAMPAIGN
from tests.unit.money.past import test_causes as cases
from tests.unit.money.reports.test_changes import closure

pytestmark = pytest.mark.extra

AT = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=10)
OPTION = dict(sec_type="OPT", right=Right.PUT, symbol="SPY", expiry=date(2028, 12, 15))
PUTS = {
    conid: Instrument(
        conid=conid, currency="USD", multiplier=100.0, strike=500.0 + conid, **OPTION
    )
    for conid in range(1, 10)
}  # fmt: skip


def ended(lake: MoneyLake, conid: int, cause: Cause) -> None:
    """Store that two short puts are gone, and why."""
    change = cases.change(
        conid, -2.0, 0.0, AT, change_id=f"gone-{conid}", strike=500.0 + conid, **OPTION
    )
    why = closure(
        conid, cause, 150.0, change_id=change.change_id, quantity=-2.0, closed_at=AT,
        judged_at=AT, strike=500.0 + conid, account=change.account, **OPTION,
    )  # fmt: skip
    lake.position_changes.add([change])
    lake.closures.add([why])


def fill(
    lake: MoneyLake, conid: int, quantity: float, price: float, order: int, at: datetime = AT
) -> None:
    made = executed(PUTS[conid], quantity, price, at, account=cases.ACCOUNT, order_id=order)
    CloseExplainer(lake).explain([made])


def roll(lake: MoneyLake) -> None:
    """Store an order that closed a put and opened one of another strike."""
    ended(lake, 5, Cause.TRADED)
    new = cases.change(6, 0.0, -2.0, AT, change_id="new-6", strike=506.0, **OPTION)
    lake.position_changes.add([new])
    fill(lake, 5, 2.0, 2.0, 72)
    fill(lake, 6, -2.0, 3.5, 72)


# The newest trading day: on a weekend another one than that of `AT`.
SESSION = session_before("XNYS", AT.date() + timedelta(days=1))


def close(lake: MoneyLake, day: date = SESSION) -> None:
    """Store a campaign that is over since a day."""
    over = replace(
        CAMPAIGN, strategy_id="wheel", opened=day, closed=day, ended=CampaignEnd.EXPIRED,
        profit=397.0, profit_reached=0.794,
    )  # fmt: skip
    table = lake.derived_table(CLOSED_CAMPAIGNS)
    derive(table, lambda: frame_of(table.spec, [over]))


# What happens, and what is said of it.
HAPPENINGS: dict[str, tuple[Callable[[MoneyLake], object], str]] = {
    "assigned": (
        lambda lake: ended(lake, 1, Cause.ASSIGNED),
        "assigned: SPY 501P 15Dec28  -2 → 0, +150 USD",
    ),
    "exercised": (
        lambda lake: ended(lake, 2, Cause.EXERCISED),
        "exercised: SPY 502P 15Dec28  -2 → 0, +150 USD",
    ),
    "expired": (
        lambda lake: ended(lake, 3, Cause.EXPIRED_WORTHLESS),
        "expired worthless: SPY 503P 15Dec28  -2 → 0, +150 USD",
    ),
    "filled": (lambda lake: fill(lake, 4, -1.0, 2.25, 71), "sold 1 SPY 504P 15Dec28 at 2.25"),
    "rolled": (roll, "rolled 2 SPY 505P 15Dec28 → 506P, +1.50"),
    "closed": (close, "SPY: expired, profit 397 USD, 79.4 % of the greatest"),
}


@pytest.fixture
def legs(lake) -> None:
    """Let each put that something happens to be a leg of a strategy."""
    lake.registry.sync.replace_all(
        [leg(conid, f"wheel {conid}", right=Right.PUT) for conid in PUTS]
    )


class Ticks:
    """Evaluates the sensor; a kill loses the cursor and the deliveries of a tick."""

    def __init__(self, instance, composition) -> None:
        self._instance, self._composition = instance, composition
        self.stored: str | None = None
        self.kill()

    def kill(self) -> None:
        self._messages = alerts_module.Messages(self._composition, alerts.Deliveries())

    def tick(self, *, killed: bool = False) -> None:
        with dg.build_sensor_context(instance=self._instance, cursor=self.stored) as context:
            result = alerts_module.tell_people(context, self._messages)
        assert isinstance(result, dg.SensorResult)
        if killed:
            self.kill()
        else:
            self.stored = result.cursor


@pytest.mark.parametrize(
    ("calendar", "day", "hour_utc"),
    [("XNYS", date(2026, 11, 27), 18), ("XNYS", date(2026, 11, 25), 21),
     ("XLON", date(2026, 11, 25), 16)],
    ids=["a half day", "a usual day", "London"],
)  # fmt: skip
def test_a_campaign_is_over_at_the_close_of_its_session(calendar, day, hour_utc, lake):
    close(lake, day)
    [told] = read_happenings(lake, calendar, datetime.combine(day, time(12), UTC))
    assert told.at.replace(minute=0) == datetime.combine(day, time(hour_utc), UTC)


def test_a_campaign_that_closed_on_no_trading_day_of_this_calendar_is_told_and_says_it(lake):
    thanksgiving = date(2026, 11, 26)
    close(lake, thanksgiving)
    [told] = read_happenings(lake, "XNYS", datetime.combine(thanksgiving, time(12), UTC))
    assert told.at == datetime(2026, 11, 27, 5, tzinfo=UTC)  # the end of that day in New York
    assert "2026-11-26 is no trading day of XNYS" in told.text


@pytest.fixture
def ticks(instance, composition) -> Ticks:
    return Ticks(instance, composition)


@pytest.mark.parametrize("kind", HAPPENINGS)
def test_each_kind_is_told_once_whatever_is_killed(kind, ticks, lake, legs, receiver):
    before, _said = HAPPENINGS["assigned" if kind != "assigned" else "expired"]
    before(lake)
    ticks.tick()
    act, said = HAPPENINGS[kind]
    act(lake)
    for _ in range(3):  # found; sent; known to be sent
        ticks.tick(killed=True)
        ticks.tick()

    [(title, body)] = receiver.taken()
    assert title.startswith("wheel")
    assert title.endswith(f": {kind}")
    assert said in body
    assert str(SESSION if kind == "closed" else AT.date()) in body


def test_what_fills_later_of_an_order_is_told_again_and_several_are_one_message(
    ticks, lake, legs, receiver
):
    ticks.tick()
    fill(lake, 4, -1.0, 2.25, 71)
    ticks.tick()
    fill(lake, 4, -2.0, 2.25, 71, AT + timedelta(minutes=1))
    fill(lake, 4, -1.0, 3.0, 99, AT + timedelta(minutes=2))
    ticks.tick()
    ticks.tick()
    first, second = [body for _title, body in receiver.taken()]
    assert "sold 1 SPY 504P" in first
    assert [line.split("UTC  ")[1] for line in second.splitlines()] == [
        "sold 3 SPY 504P 15Dec28 at 2.25", "sold 1 SPY 504P 15Dec28 at 3.00",
    ]  # fmt: skip


FILE = """\
messages: {{about: [assigned, filled], quiet: {{from: "{begin}", to: "{end}", timezone: UTC}}}}
strategies:
  - {{strategy_id: wheel 4, legs: [], messages: [expired]}}
"""


def test_what_is_not_chosen_is_not_told_and_quiet_hours_are_told_together_at_their_end(
    ticks, lake, legs, receiver, strategies_file
):
    hours = [f"{AT + timedelta(hours=hours):%H:%M}" for hours in (-2, -1, 0, 2)]
    strategies_file.write_text(FILE.format(begin=hours[2], end=hours[3]))
    ticks.tick()
    for kind in ("assigned", "expired", "filled"):
        HAPPENINGS[kind][0](lake)
    fill(lake, 7, 1.0, 9.0, 77)
    for _ in range(3):
        ticks.tick()
    assert receiver.messages == []
    assert sum(map(len, cursor_of(AlertCursor, ticks.stored).outbox.values())) == 2

    strategies_file.write_text(FILE.format(begin=hours[0], end=hours[1]))
    ticks.tick()
    ticks.tick()
    [(title, body)] = receiver.taken()
    assert title == "Position Sync: 2 messages"
    assert "assigned: SPY 501P" in body
    assert "bought 1 SPY 507P" in body
    assert "503P" not in body
    assert "504P" not in body


def test_each_kind_is_told_once_under_twenty_kills(lake, legs, receiver, tmp_path):
    chance = random.Random(7)
    cursor = tmp_path / "cursor"

    def run(lines: int) -> None:
        """Run the program for so many ticks, and kill it at some moment after them."""
        command = [sys.executable, "-W", "ignore", "-m", "tests.support.teller", str(cursor)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
            for _ in range(lines):
                assert program.stdout.readline()
            try:
                program.wait(chance.uniform(0.0, 1.5))
            except subprocess.TimeoutExpired:
                program.kill()

    run(1)
    kinds = [*HAPPENINGS]
    for number in range(20):
        if number % 3 == 0 and kinds:
            HAPPENINGS[kinds.pop(0)][0](lake)
        run(chance.randrange(3))
    run(12)

    told = receiver.text()
    for _act, said in HAPPENINGS.values():
        assert told.count(said) == 1, said
