"""The demo's day: what happens is seeded, comes late enough, and leaves the book as it was."""

from collections import Counter
from importlib.resources import files

from ib_gateway_simulator import SimulatedGateway
from ib_gateway_simulator.books.loader import load_book
from ib_gateway_simulator.control.actions import check, perform
from ib_gateway_simulator.control.scenario import load_scenario
from position_sync_dagster.demo.programs import (
    CLOSES,
    EXPIRING,
    FILLED,
    STATED_S,
    day_events,
    write_day,
)


def test_the_simulator_can_play_the_day(tmp_path):
    write_day(tmp_path / "day.yaml")
    events = load_scenario(tmp_path / "day.yaml")
    assert len(events) == len(day_events())
    closing = {"list_option", "assign", "roll", "expire", "close"}
    assert {event.do for event in events} == {"fill", "connectivity"} | closing


def test_the_same_seed_gives_the_same_day():
    assert day_events(seed=3) == day_events(seed=3)
    assert day_events(seed=3) != day_events(seed=4)


def test_no_leg_of_the_book_opens_closes_or_turns_and_nothing_happens_while_the_demo_starts():
    held = {one.conid: one.quantity for one in load_book("demo").openings}
    for event in day_events():
        assert event["at_s"] >= 40
        if event["do"] == "fill" and event["conid"] in held:
            conid = event["conid"]
            before = held[conid]
            held[conid] += event["quantity"]
            assert before * held[conid] > 0, f"{conid} closes at {event['at_s']} s"
    assert set(FILLED) <= held.keys()


async def test_an_expiry_an_assignment_and_a_roll_come_after_the_first_minute_and_leave_nothing():
    sim = SimulatedGateway("demo", control_port=None, autostep=False, now=lambda: 1_800_000_000.0)
    before = {row["conid"] for row in sim.positions() if row["quantity"]}
    listed = {event["conid"] for event in CLOSES}
    own = [event for event in day_events() if event.get("conid") in listed]
    assert min(event["at_s"] for event in own) > 60
    for event in own:
        arguments = {name: value for name, value in event.items() if name not in ("at_s", "do")}
        await perform(sim, event["do"], check(event["do"], arguments))
    assert {row["conid"] for row in sim.positions() if row["quantity"]} == before
    assert {"assign", "roll", "expire"} <= {event["do"] for event in own}
    times = {event["do"]: event["at_s"] for event in own}
    ends_s = next(one["at_s"] + one["ends_in_s"] for one in own if one.get("conid") == EXPIRING)
    assert ends_s < times["expire"] < STATED_S


def test_each_outage_ends_after_some_seconds_and_the_first_minutes_have_one():
    outages = [event for event in day_events() if event["do"] == "connectivity"]
    assert outages[0]["at_s"] < 300
    lost, back = outages[::2], outages[1::2]
    assert Counter(event["state"] for event in outages)["lost"] == len(back)
    for one, other in zip(lost, back, strict=True):
        assert 2 < other["at_s"] - one["at_s"] < 15


def test_the_legs_that_are_filled_and_rolled_belong_to_strategies_too():
    text = files("ib_gateway_simulator").joinpath("books/demo_strategies.yaml")
    assert sum(str(conid) in text.read_text() for conid in FILLED) >= 5
