"""The demo's day: it comes late enough, and leaves the book as it was."""

import pytest

from ib_gateway_simulator import SimulatedGateway
from ib_gateway_simulator.books.loader import BOOKS, load_book
from ib_gateway_simulator.control.actions import perform
from ib_gateway_simulator.control.scenario import load_scenario
from position_sync_dagster.demo.programs import STATED_S


@pytest.fixture(scope="module")
def day():
    return load_scenario(BOOKS / "demo_day.yaml")


def test_no_leg_of_the_book_opens_closes_or_turns_and_nothing_happens_while_the_demo_starts(day):
    held = {one.conid: one.quantity for one in load_book("demo").openings}
    filled = [e.arguments for e in day if e.do == "fill" and e.arguments.conid in held]
    for one in filled * 2:
        before = held[one.conid]
        held[one.conid] += one.quantity
        assert before * held[one.conid] > 0
    assert held == {one.conid: one.quantity for one in load_book("demo").openings}
    assert min(event.at_s for event in day) >= 40
    strategies = (BOOKS / "demo_strategies.yaml").read_text()
    assert sum(str(conid) in strategies for conid in {one.conid for one in filled}) >= 5


async def test_an_expiry_an_assignment_and_a_roll_come_after_the_first_minute_and_leave_nothing(
    day,
):
    sim = SimulatedGateway("demo", control_port=None, autostep=False, now=lambda: 1_800_000_000.0)
    before = {row["conid"] for row in sim.positions() if row["quantity"]}
    own = [event for event in day if event.every_s is None]
    assert min(event.at_s for event in own) > 60
    for event in own:
        await perform(sim, event.do, event.arguments)
    assert {row["conid"] for row in sim.positions() if row["quantity"]} == before
    times = {event.do: event.at_s for event in own}
    listed = next(one for one in own if one.do == "list_option")
    assert {"assign", "roll"} <= times.keys()
    assert listed.at_s + listed.arguments.ends_in_s < times["expire"] < STATED_S


def test_each_outage_ends_after_some_seconds_and_the_first_minutes_have_one(day):
    lost, back = (event for event in day if event.do == "connectivity")
    assert lost.at_s < 300
    assert 2 < back.at_s - lost.at_s < 15
    assert lost.every_s == back.every_s
