"""Strategies proposed from what a stream saw, and made active."""

from importlib.resources import files

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.lake.strategies_file import load_strategies
from position_sync_dagster.sync import propose_strategies
from position_sync_dagster.sync.explain_closes import CloseExplainer
from tests.support.streams import eventually, settings_for, simulate


def streamed(streamer):
    return list(streamer.routes.values()).count(LegState.STREAMED)


async def test_the_book_of_the_demo_is_proposed_as_it_was_built(lake, streaming):
    file = files("ib_gateway_simulator") / "books" / "demo_strategies.yaml"
    built = {}
    async with simulate("demo") as sim:
        settings = settings_for(sim)
        async with streaming(sim, closes=CloseExplainer(lake)) as (streamer, _):
            await eventually(lambda: len(lake.executions.records()) == 21)
            await eventually(lambda: len(propose_strategies.held(lake, settings)) == 200)
            held = {one.instrument.conid: one for one in propose_strategies.held(lake, settings)}
            for leg in load_strategies(str(file)):
                quantity = leg.quantity or held[leg.conid].position
                built.setdefault(leg.strategy_id, {})[leg.conid] = quantity
            assert "strategies propose" in propose_strategies.next_step(lake, settings, utc_now())
            found = propose_strategies.read_proposal(lake, settings)
            first = found.strategies[:8]
            proposed = [{part.conid: part.quantity for part in one.legs} for one in first]
            assert sorted(map(sorted, proposed)) == sorted(map(sorted, built.values()))
            assert all(legs in proposed for legs in built.values())
            assert found.left_over == ()

            propose_strategies.accept(lake, settings, first, utc_now())
            await eventually(lambda: streamed(streamer) == 20)
            again = propose_strategies.read_proposal(lake, settings)
            assert {one.name for one in again.strategies}.isdisjoint(one.name for one in first)
            assert propose_strategies.next_step(lake, settings, utc_now()) is None
            sim.fill("DUSIM0001", 912000001, -3)
            sim.fill("DUSIM0001", 912000005, 4)
            await eventually(lambda: lake.position_changes.records())
            line = propose_strategies.next_step(lake, settings, utc_now())
            assert line is not None
            assert "in no strategy: `position-sync strategies propose`" in line
