"""The registry: which legs are active, across processes, without reading ended memberships."""

import shutil
from datetime import date

import pytest

from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.errors import AmbiguousRemovalError, InvalidLegError, UnknownLegError
from position_sync_dagster.lake.given_leg import make_leg
from position_sync_dagster.lake.strategy_registry import StrategyRegistry

LEG = dict(symbol="SPY", right="C", strike=450.0, expiry="20260220")


@pytest.fixture
async def registry(tmp_path, clock):
    made = StrategyRegistry(tmp_path / "legs", clock=clock)
    await made.initialize()
    return made


def leg(clock, conid, strategy_id, **more):
    return make_leg(conid=conid, strategy_id=strategy_id, added_at=clock.now, **(LEG | more))


async def test_an_added_leg_is_active_and_read_by_others(registry, tmp_path, clock):
    added = await registry.add_active(conid=1, strategy_id=7, **LEG)
    assert added.strategy_id == "7"
    assert added.right == Right.CALL
    assert added.expiry == date(2026, 2, 20)
    assert registry.is_active(1)
    assert not registry.is_active(2)
    strategy_registry = StrategyRegistry(tmp_path / "legs", clock=clock)
    assert not strategy_registry.is_active(1)
    await strategy_registry.initialize()
    assert strategy_registry.is_active(1)
    [read] = await strategy_registry.get_all_active()
    assert read == added
    assert read.strategy_id == 7
    assert read.strategy_id != 1
    await strategy_registry.remove_active(1, 7)
    assert await strategy_registry.get_all_active() == []


async def test_the_same_leg_again_changes_nothing(registry, clock):
    first = await registry.add_active(conid=1, strategy_id="ic", **LEG)
    version = registry.version
    clock.advance(60)
    assert await registry.add_active(conid=1, strategy_id="ic", **LEG) == first
    assert registry.version == version


async def test_a_leg_with_other_values_begins_a_new_membership_and_ends_the_former(registry, clock):
    first = await registry.add_active(conid=1, strategy_id="ic", quantity=1, **LEG)
    clock.advance(60)
    second = await registry.add_active(conid=1, strategy_id="ic", quantity=2, **LEG)
    assert await registry.get_all_active() == [second]
    rows = registry.table.rows().sort("added_at").select("quantity", "added_at", "removed_at")
    assert rows.rows() == [(1.0, first.added_at, clock.now), (2.0, clock.now, None)]


async def test_a_leg_of_one_account_is_active_there_and_one_of_no_account_everywhere(registry):
    await registry.add_active(conid=1, strategy_id="a", account="DU1", **LEG)
    await registry.add_active(conid=2, strategy_id="a", **LEG)
    assert registry.is_active(1)
    assert registry.is_active(1, "DU1")
    assert not registry.is_active(1, "DU2")
    assert registry.is_active(2, "DU2")


async def test_a_leg_shared_by_two_strategies_stays_active_until_both_drop_it(registry):
    await registry.add_active(conid=1, strategy_id="a", quantity=1, **LEG)
    await registry.add_active(conid=1, strategy_id="b", quantity=-2, **LEG)
    with pytest.raises(AmbiguousRemovalError, match=r"'a' .*'b'"):
        await registry.remove_active(1)
    ended = await registry.remove_active(1, strategy_id="a")
    assert ended.strategy_id == "a"
    assert ended.quantity == 1.0
    assert registry.is_active(1)
    await registry.remove_active(1)
    assert not registry.is_active(1)
    assert await registry.get_all_active() == []


async def test_two_strategies_cannot_both_hold_the_whole_of_a_leg(registry):
    await registry.add_active(conid=1, strategy_id="a", **LEG)
    version = registry.version
    with pytest.raises(InvalidLegError, match="quantity"):
        await registry.add_active(conid=1, strategy_id="b", **LEG)
    assert registry.version == version
    await registry.add_active(conid=1, strategy_id="b", quantity=1, **LEG)


async def test_a_leg_that_nobody_holds_cannot_be_removed(registry):
    await registry.add_active(conid=1, strategy_id="a", **LEG)
    for call in ({"conid": 2}, {"conid": 1, "strategy_id": "z"}, {"conid": 1, "account": "DU9"}):
        with pytest.raises(UnknownLegError):
            await registry.remove_active(**call)
    assert registry.is_active(1)


async def test_a_refresh_never_reads_ended_memberships(registry, tmp_path, clock):
    strategy_registry = StrategyRegistry(tmp_path / "legs", clock=clock)
    await strategy_registry.initialize()
    await registry.add_active(conid=1, strategy_id="a", **LEG)
    await registry.add_active(conid=2, strategy_id="a", **LEG)
    await registry.remove_active(1)
    shutil.rmtree(tmp_path / "legs" / "bucket=removed")
    assert await strategy_registry.refresh()
    assert [x.conid for x in await strategy_registry.get_all_active()] == [2]


async def test_a_file_of_strategies_becomes_the_registry_in_one_commit(registry, clock):
    legs = [leg(clock, c, "a") for c in (1, 2, 3)]
    assert await registry.replace_all(legs) == (3, 0)
    version = registry.version
    clock.advance(60)
    assert await registry.replace_all([leg(clock, c, "a") for c in (3, 2, 1)]) == (0, 0)
    assert registry.version == version
    changed = [leg(clock, 1, "a"), leg(clock, 2, "a", strike=455.0), leg(clock, 4, "b")]
    assert await registry.replace_all(changed) == (2, 2)
    assert registry.version == version + 1
    active = await registry.get_all_active()
    assert [(x.conid, x.strike) for x in active] == [(1, 450.0), (2, 455.0), (4, 450.0)]
    assert active[0].added_at == legs[0].added_at
    assert await registry.replace_all([]) == (0, 3)


async def test_many_legs_come_in_one_commit_or_none_of_them(registry, clock):
    before = registry.version
    await registry.add_many([leg(clock, c, "a") for c in range(1, 51)])
    assert registry.version == before + 1
    with pytest.raises(InvalidLegError):
        await registry.add_many([leg(clock, 60, "a"), leg(clock, 1, "b")])
    with pytest.raises(InvalidLegError, match="twice"):
        await registry.add_many([leg(clock, 60, "a"), leg(clock, 60, "a", strike=1.0)])
    assert not registry.is_active(60)


async def test_a_contract_that_is_found_changes_neither_the_membership_nor_its_time(
    registry, clock
):
    described = await registry.add_active(strategy_id="s", **LEG)
    assert not registry.is_active(1)
    clock.advance(60)
    registry.sync.settle([(described, 1)])
    [active_leg] = await registry.get_all_active()
    assert active_leg.conid == 1
    assert active_leg.added_at == described.added_at
    assert active_leg.resolved_at == clock.now
    assert registry.is_active(1)
    assert registry.table.rows().height == 1

    again = await registry.add_active(strategy_id="s", **LEG)
    assert again == active_leg
    # Another quantity is another membership, of the same contract.
    assert await registry.replace_all([leg(clock, None, "s", quantity=2)]) == (1, 1)
    [changed] = await registry.get_all_active()
    assert changed.conid == 1
    assert changed.quantity == 2.0


async def test_a_conid_that_a_person_gave_says_nothing_of_a_description(registry, clock):
    await registry.add_active(conid=1, strategy_id="s", **LEG)
    assert await registry.replace_all([leg(clock, None, "s")]) == (1, 1)
    assert (await registry.get_unresolved())[0].strategy_id == "s"


async def test_a_contract_that_cannot_be_shared_leaves_the_leg_with_its_problem(registry):
    await registry.add_active(conid=1, strategy_id="a", **LEG)
    same = await registry.add_active(strategy_id="a", **LEG | {"expiry": "20260221"})
    add_active = await registry.add_active(strategy_id="b", **LEG)
    registry.sync.settle([(same, 1), (add_active, 1)])
    problems = [leg.problem for leg in await registry.get_unresolved()]
    assert "already" in problems[0]
    assert "'a' and 'b' would both hold the whole of leg SPY 450C 20Feb26 (conid 1)" in problems[1]
    assert len(await registry.get_all_active()) == 1


async def test_a_leg_with_its_contract_replaces_the_same_leg_without(registry):
    await registry.add_active(strategy_id="s", **LEG)
    await registry.add_active(conid=1, strategy_id="s", **LEG)
    assert [leg.conid for leg in await registry.get_all_active()] == [1]
    assert await registry.get_unresolved() == []


async def test_what_was_found_for_a_leg_that_was_removed_meanwhile_changes_nothing(registry):
    described = await registry.add_active(strategy_id="s", **LEG)
    await registry.remove_active(symbol="SPY")
    registry.sync.settle([(described, 1)])
    assert await registry.get_all_active() == []
    with pytest.raises(InvalidLegError, match="neither conid nor symbol"):
        await registry.remove_active()
    with pytest.raises(UnknownLegError, match="symbol SPY"):
        await registry.remove_active(symbol="SPY")
