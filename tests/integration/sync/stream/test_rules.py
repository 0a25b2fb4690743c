"""Rules of the strategies file, over a stream."""

from position_sync_dagster.domain.holding import Reason
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.errors import InvalidLegError
from position_sync_dagster.lake.strategies_file import follow_file
from position_sync_dagster.sync.leg_followers import RuleFollower
from tests.support.booked_legs import CALL, PUT, A
from tests.support.streams import eventually, settings_for, simulate

FILE = """\
strategies:
- rule: calls
  match: {{right: CALL, side: short{more}}}
"""


def legs(lake):
    active = lake.registry.sync.get_all_active()
    return {(leg.strategy_id, leg.conid) for leg in active if leg.account in (None, A)}


async def test_a_leg_that_begins_to_match_is_streamed_and_leaves_when_it_ceases(
    lake, streaming, tmp_path
):
    conid, file = CALL, tmp_path / "strategies.yaml"
    file.write_text(FILE.format(more=""))
    async with simulate() as sim:
        rules = RuleFollower(lake.registry, file)
        async with streaming(sim, rules=rules) as (streamer, _):

            def held():
                rows = lake.broker_positions.read(settings_for(sim).gateway_id)
                return {one.key: one.position for one in rows}.get((A, conid))

            quantity = await eventually(held)
            sim.fill(A, conid, -quantity - 2)
            await eventually(lambda: ("calls", conid) in legs(lake))
            await eventually(lambda: streamer.routes.get((A, conid)) is LegState.STREAMED)
            file.write_text(FILE.format(more=', days: "0-1"'))
            await eventually(lambda: ("calls", conid) not in legs(lake))
            await eventually(lambda: streamer.routes.get((A, conid)) is LegState.MONITORED)
            file.write_text(FILE.format(more=""))
            await eventually(lambda: ("calls", conid) in legs(lake))
            sim.fill(A, conid, 5)
            await eventually(lambda: ("calls", conid) not in legs(lake))


async def test_a_leg_of_a_rule_without_a_line_is_queued_before_all_others(
    lake, streaming, tmp_path
):
    file = tmp_path / "strategies.yaml"
    file.write_text("strategies:\n- rule: all\n  match: {right: PUT}\n")
    async with simulate(max_lines=0) as sim:
        rules = RuleFollower(lake.registry, file)
        async with streaming(sim, rules=rules) as (streamer, _):
            await eventually(lambda: streamer.routes.get((A, PUT)) is LegState.OVERFLOW)

            def queued():
                rows = lake.queue.table.rows().filter(conid=PUT, account=A)
                return rows.filter(reason=Reason.OVERFLOW.value, priority=1).height

            await eventually(queued)


async def test_a_saved_file_is_applied_and_what_its_rules_chose_stays(lake, streaming, tmp_path):
    file = tmp_path / "strategies.yaml"
    rule = "strategies:\n- rule: puts\n  match: {right: PUT}\n"
    file.write_text(rule)
    async with simulate() as sim, streaming(sim, rules=RuleFollower(lake.registry, file)):
        await eventually(lambda: ("puts", PUT) in legs(lake))
        assert follow_file(lake.registry.sync, file) == (0, 0)
        file.write_text(f"{rule}- {{strategy_id: own, legs: [{{conid: {PUT}, symbol: T}}]}}\n")
        await eventually(lambda: {("own", PUT), ("puts", PUT)} & legs(lake) == {("own", PUT)})
        file.write_text(rule)
        await eventually(lambda: {("own", PUT), ("puts", PUT)} & legs(lake) == {("puts", PUT)})
        listed = f"legs: [{{conid: {CALL}, symbol: T}}]"
        file.write_text(f"strategies:\n- {{strategy_id: puts, {listed}}}\n")
        await eventually(lambda: legs(lake) == {("puts", CALL)})


def test_legs_that_conflict_stay_as_they_were_and_end_no_stream(lake, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise InvalidLegError("Two strategies hold the whole.", remedy="Remove one.")

    file = tmp_path / "strategies.yaml"
    file.write_text(FILE.format(more=""))
    monkeypatch.setattr(type(lake.registry.sync), "follow_rules", refuse)
    follower = RuleFollower(lake.registry, file)
    assert follower.is_due({}, first=True)
    follower.follow([], {A})
    follower.follow([], {A})  # the first one applied the file, which has a version of its own
    assert not follower.is_due({}, first=False)
