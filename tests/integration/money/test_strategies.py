"""Strategies that follow from what a stream sees: rules of the file, and proposals."""

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from ib_gateway_simulator.books.loader import load_book
from ib_gateway_simulator.past_sessions import closing_market, play_sessions
from position_sync_dagster import demo
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.domain.queue_request import Reason
from position_sync_dagster.errors import InvalidLegError
from position_sync_dagster.lake.storage.lifecycle_table import LifecycleTable
from position_sync_dagster.money.past.explain_closes import CloseExplainer
from position_sync_dagster.money.past.statement_folder import import_statements
from position_sync_dagster.money.strategies import leg_followers, propose_strategies
from position_sync_dagster.money.strategies.leg_followers import RuleFollower
from position_sync_dagster.money.strategies.strategies_file import (
    RuledFile,
    as_strategies_file,
    load_strategies,
)
from tests.support.booked_legs import CALL, PUT, A
from tests.support.demo_book import strategies_text
from tests.support.short_owner import refresh
from tests.support.streams import eventually, published, settings_for, simulate

RULE = """\
strategies:
- rule: calls
  match: {{right: CALL, side: short{more}}}
"""


@pytest.fixture
def followed(stream_legs, lake, tmp_path):
    """Stream while the rules of a file with this text are followed; return the stream and it."""

    @asynccontextmanager
    async def run(text, **simulator):
        file = tmp_path / "strategies.yaml"
        file.write_text(text)
        rules = RuleFollower(lake.registry, file)
        async with stream_legs(simulator=simulator, rules=rules) as (sim, streamer, _received):
            yield sim, streamer, file

    return run


def legs(lake):
    active = lake.registry.sync.get_all_active()
    return {(leg.strategy_id, leg.conid) for leg in active if leg.account in (None, A)}


async def test_a_leg_that_begins_to_match_is_streamed_and_leaves_when_it_ceases(lake, followed):
    async with followed(RULE.format(more="")) as (sim, streamer, file):
        held = await eventually(lambda: published(lake, streamer.settings).get((A, CALL)))
        sim.fill(A, CALL, -held.position - 2)
        await eventually(lambda: ("calls", CALL) in legs(lake))
        await eventually(lambda: streamer.routes.get((A, CALL)) is LegState.STREAMED)
        file.write_text(RULE.format(more=', days: "0-1"'))
        await eventually(lambda: ("calls", CALL) not in legs(lake))
        await eventually(lambda: streamer.routes.get((A, CALL)) is LegState.MONITORED)
        file.write_text(RULE.format(more=""))
        await eventually(lambda: ("calls", CALL) in legs(lake))
        sim.fill(A, CALL, 5)
        await eventually(lambda: ("calls", CALL) not in legs(lake))


async def test_a_leg_of_a_rule_without_a_line_is_queued_before_allothers(lake, followed):
    text = "strategies:\n- rule: all\n  match: {right: PUT}\n"
    async with followed(text, max_lines=0) as (_sim, streamer, _file):
        await eventually(lambda: streamer.routes.get((A, PUT)) is LegState.OVERFLOW)

        def queued():
            rows = lake.queue.table.rows().filter(conid=PUT, account=A)
            return rows.filter(reason=Reason.OVERFLOW.value, priority=1).height

        await eventually(queued)


async def test_a_saved_file_is_applied_and_what_its_rules_chose_stays(lake, followed):
    rule = "strategies:\n- rule: puts\n  match: {right: PUT}\n"
    async with followed(rule) as (_sim, _streamer, file):
        await eventually(lambda: ("puts", PUT) in legs(lake))
        assert RuledFile(file).apply(lake.registry.sync) == (0, 0)
        file.write_text(f"{rule}- {{strategy_id: own, legs: [{{conid: {PUT}, symbol: T}}]}}\n")
        await eventually(lambda: {("own", PUT), ("puts", PUT)} & legs(lake) == {("own", PUT)})
        file.write_text(rule)
        await eventually(lambda: {("own", PUT), ("puts", PUT)} & legs(lake) == {("puts", PUT)})
        listed = f"legs: [{{conid: {CALL}, symbol: T}}]"
        file.write_text(f"strategies:\n- {{strategy_id: puts, {listed}}}\n")
        await eventually(lambda: legs(lake) == {("puts", CALL)})


def test_a_roll_to_a_leg_that_the_strategy_has_already_changes_nothing(lake):
    for conid in (CALL, PUT):
        lake.registry.sync.add_active(conid, "T", "C", 450.0, "20260220", strategy_id="s")
    before, other = lake.registry.sync.get_all_active()
    to_theother = replace(before, conid=other.conid, rolled_from=str(before.conid))
    change = leg_followers.LegChange(roll=None, before=before, after=to_theother)
    assert leg_followers.apply(lake, [change]) == []
    assert legs(lake) == {("s", CALL), ("s", PUT)}


def test_legs_that_conflict_stay_as_they_were_and_end_no_stream(lake, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise InvalidLegError("Two strategies hold the whole.", remedy="Remove one.")

    file = tmp_path / "strategies.yaml"
    file.write_text(RULE.format(more=""))
    monkeypatch.setattr(leg_followers, "follow_rules", refuse)
    follower = RuleFollower(lake.registry, file)
    assert follower.is_due(0, first=True)
    follower.apply([], {A}, 0)
    follower.apply([], {A}, 0)  # the first one applied the file, which has a version of its own
    assert not follower.is_due(0, first=False)
    assert follower.is_due(1, first=False)


async def test_the_book_of_the_demo_is_proposed_as_it_was_built(stream_legs, lake, tmp_path):
    """Its statements name the orders that opened it, in past sessions."""
    now = utc_now()
    book = load_book("demo")
    closing = closing_market(book, demo.last_close("XNYS", now))
    past = play_sessions(book, demo.past_sessions("XNYS", now), closing)
    for name, content in past.statements():
        (tmp_path / name).write_bytes(content)

    file = tmp_path / "strategies.yaml"
    file.write_text(strategies_text())

    built: dict[Any, Any] = {}
    explainer = CloseExplainer(lake)
    async with stream_legs(book="demo", followers=(explainer,)) as (_sim, streamer, _received):
        settings = streamer.settings
        import_statements(lake, settings.model_copy(update={"flex_folder": tmp_path}))
        await eventually(lambda: len(propose_strategies.held(lake, settings)) == 200)
        held = {
            holding.instrument.conid: holding for holding in propose_strategies.held(lake, settings)
        }
        for leg in load_strategies(str(file)):
            if leg.conid not in held:
                continue  # the day of the demo rolls into it
            quantity = leg.quantity or held[leg.conid].position
            built.setdefault(leg.strategy_id, {})[leg.conid] = quantity
        assert propose_strategies.first_step(lake, settings) == propose_strategies.FIRST_STEP

        proposal = propose_strategies.read_proposal(lake, settings)
        several = [legs for legs in built.values() if len(legs) > 1]
        first = [strategy for strategy in proposal if strategy.why.startswith("opened by")]
        proposed = [{part.conid: part.quantity for part in campaign.legs} for campaign in first]
        assert sorted(map(sorted, proposed)) == sorted(map(sorted, several))
        assert all(legs in proposed for legs in several)

        lake.registry.sync.add_many(propose_strategies.legs_of(first, utc_now()))
        await eventually(lambda: list(streamer.routes.values()).count(LegState.STREAMED) == 19)
        again = propose_strategies.read_proposal(lake, settings)
        assert {strategy.name for strategy in again}.isdisjoint(one.name for one in first)
        assert propose_strategies.first_step(lake, settings) is None


async def test_a_file_that_is_read_again_changes_nothing(lake, tmp_path):
    file = tmp_path / "strategies.yaml"
    file.write_text(
        "strategies: [{strategy_id: s, legs: ["
        "{symbol: AAPL, right: C, strike: 240, expiry: 20281215, trading_class: AAPL},"
        "{symbol: AAPL, quantity: 100}, {symbol: ES, expiry: 20281215},"
        "{symbol: ES, right: P, strike: 6400, expiry: 20281215, sec_type: FOP},"
        "{symbol: AAPL, right: C, strike: 241, expiry: 20281215}]}]"
    )
    assert await lake.registry.replace_all(load_strategies(file)) == (5, 0)

    async with simulate() as sim:
        await refresh(lake, settings_for(sim))
        conids = {leg.conid for leg in lake.registry.legs}
        assert conids == {CALL, 920000001, 920000002, 921000005}
        [unknown] = lake.registry.unresolved
        assert "241 CALL" in unknown.problem
        version = lake.registry.version
        assert await lake.registry.replace_all(load_strategies(file)) == (0, 0)
        await refresh(lake, settings_for(sim))
        assert lake.registry.version == version
        assert len(await lake.registry.get_all_active()) == 4


async def test_a_strategy_that_was_given_as_a_number_is_in_its_file_as_one(lake, tmp_path):
    await lake.registry.add_active(7, "SPY", "PUT", 500.0, "20270115", strategy_id=1)
    file = tmp_path / "file.yaml"
    file.write_text(as_strategies_file(await lake.registry.get_all_active()))
    assert [strategy.strategy_id for strategy in load_strategies(file)] == [1]


def test_a_roll_that_is_followed_while_a_file_is_applied_stays(lake, tmp_path, monkeypatch):
    file = tmp_path / "strategies.yaml"
    leg = "{symbol: SPY, right: CALL, strike: 450, expiry: 20260220}"
    file.write_text(f"strategies: [{{strategy_id: s, follow_rolls: true, legs: [{leg}]}}]")
    registry = lake.registry.sync
    assert RuledFile(file).apply(registry) == (1, 0)
    [described] = registry.get_unresolved()
    registry.settle([(described, 1)])
    [active_leg] = registry.get_all_active()
    change = LifecycleTable.change

    def after_the_roll(*arguments):
        monkeypatch.setattr(LifecycleTable, "change", change)
        rolled = replace(active_leg, conid=2, strike=460.0, rolled_from="1")
        registry.change(lambda _before, _: {rolled.key: rolled}, "roll")
        return change(*arguments)

    monkeypatch.setattr(LifecycleTable, "change", after_the_roll)
    assert RuledFile(file).apply(registry) == (0, 0)
    assert [active.conid for active in registry.get_all_active()] == [2]
