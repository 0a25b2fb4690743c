"""Legs that are given without a conid: their contract is found, or the reason is said."""

import pytest

from ib_gateway_simulator import load_book
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.sync.reports.status import leg_states, read_status
from tests.support.booked_legs import CALL, PUT, A, leg, terms_of
from tests.support.short_owner import refresh
from tests.support.streams import eventually, settings_for, simulate

MONTHLY, WEEKLY = 941000001, 941000002
SPX = {"symbol": "SPX", "right": "PUT", "strike": 6000, "expiry": "20281215", "strategy_id": "s"}
BOOK = f"""
as_of: 2028-06-01
accounts: [{{name: {A}}}]
underlyings:
  - {{symbol: SPX, conid: 920000004, price: 6500, volatility: 0.17, exchange: CBOE, sec_type: IND}}
contracts:
  - {{conid: {MONTHLY}, underlying: SPX, sec_type: OPT, expiry: 20281215, strike: 6000, right: P,
     exchange: CBOE, trading_class: SPX}}
  - {{conid: {WEEKLY}, underlying: SPX, sec_type: OPT, expiry: 20281215, strike: 6000, right: P,
     exchange: CBOE, trading_class: SPXW}}
positions:
  - {{account: {A}, conid: {MONTHLY}, quantity: 1}}
  - {{account: {A}, conid: {WEEKLY}, quantity: 2}}
"""


@pytest.fixture
def spx_and_spxw(tmp_path):
    path = tmp_path / "spx.yaml"
    path.write_text(BOOK)
    return load_book(path)


async def test_a_leg_without_a_conid_is_found_stored_and_streamed(streaming, lake):
    await lake.registry.add_active(strategy_id="s", **terms_of(CALL))
    [leg] = lake.registry.unresolved
    async with simulate() as sim, streaming(sim) as (streamer, received):
        row = await eventually(lambda: received.newest(A, CALL))
        assert row.position == 5
        [found] = lake.registry.legs
        assert (found.conid, found.added_at) == (CALL, leg.added_at)
        assert found.resolved_at >= leg.added_at
        assert lake.registry.unresolved == ()
        await eventually(lambda: CALL in lake.contracts.get([CALL]))
        await eventually(lambda: streamer.routes[(A, CALL)] is LegState.STREAMED)
        assert streamer.detail is None


async def test_an_ambiguous_leg_names_its_candidates_and_harms_no_other(
    spx_and_spxw, streaming, lake, caplog
):
    await lake.registry.add_active(**SPX)
    await lake.registry.add_active(**SPX, trading_class="SPXW")
    async with simulate(book=spx_and_spxw) as sim, streaming(sim) as (streamer, received):
        await eventually(lambda: received.newest(A, WEEKLY))
        await eventually(lambda: streamer.detail)
        assert "2 contracts are SPX 2028-12-15 6000 PUT: SPX " in streamer.detail
        [leg] = lake.registry.unresolved
        for conid, trading_class in ((MONTHLY, "SPX"), (WEEKLY, "SPXW")):
            assert f"(conid {conid}, class {trading_class}, expiry 2028-12-15" in leg.problem
        assert "exchange SMART, multiplier 100, USD)" in leg.problem
        assert received.newest(A, MONTHLY) is None
        assert streamer.routes[(A, MONTHLY)] is LegState.MONITORED
        settings = settings_for(sim)
        assert leg_states([leg], lake, settings, utc_now()) == [LegState.ARMED]
        status = read_status(lake, settings, utc_now())
        assert status.unresolved_legs == (f"{leg.described} of strategy s: {leg.problem}",)
        said = [r for r in caplog.records if "6000 PUT of strategy s is not" in r.getMessage()]
        assert len(said) == 1
        # The leg, corrected, takes the place of the description.
        await lake.registry.add_active(MONTHLY, **SPX)
        await eventually(lambda: received.newest(A, MONTHLY))
        assert lake.registry.unresolved == ()
        await eventually(lambda: streamer.detail is None)


async def test_an_unknown_leg_names_what_is_near_it(streaming, lake):
    await lake.registry.add_active(strategy_id="s", **terms_of(CALL) | {"strike": 241})
    await lake.registry.add_active(strategy_id="s", **terms_of(CALL) | {"symbol": "NONE"})
    await lake.registry.add_active(**leg(PUT))
    async with simulate() as sim, streaming(sim) as (_streamer, received):
        await eventually(lambda: received.newest(A, PUT))
        await eventually(lambda: all(leg.problem for leg in lake.registry.unresolved))
        first, second = sorted(lake.registry.unresolved, key=lambda leg: leg.symbol)
        assert first.problem.startswith("The gateway knows no contract AAPL 2028-12-15 241 CALL.")
        assert f"conid {CALL}, class AAPL" in first.problem
        assert second.problem.endswith("and none like it.")


async def test_a_file_that_is_read_again_changes_nothing(lake, tmp_path):
    from position_sync_dagster.lake.strategies_file import load_strategies

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
        found = {leg.conid for leg in lake.registry.legs}
        assert found == {CALL, 920000001, 920000002, 921000005}
        [unknown] = lake.registry.unresolved
        assert "241 CALL" in unknown.problem
        version = lake.registry.version
        assert await lake.registry.replace_all(load_strategies(file)) == (0, 0)
        await refresh(lake, settings_for(sim))
        assert lake.registry.version == version
        assert len(await lake.registry.get_all_active()) == 4


async def test_without_an_answer_nothing_is_said_of_a_leg(lake):
    from position_sync_dagster.gateway.connection import connect
    from position_sync_dagster.sync.stream.contracts import ContractCache, LegResolver
    from position_sync_dagster.sync.stream.ownership import OwnerContext

    await lake.registry.add_active(strategy_id="s", **terms_of(CALL))
    async with simulate() as sim:
        settings = settings_for(sim, gateway_timeout_s=0.5)
        connection = await connect(settings)
        resolver = LegResolver(
            OwnerContext(settings=settings), lake.registry, ContractCache(lake.contracts)
        )
        sim.pause()
        await resolver.resolve(connection, lake.registry.unresolved)
        assert [leg.problem for leg in lake.registry.unresolved] == [None]
        sim.resume()
        await resolver.resolve(connection, lake.registry.unresolved)
        assert [leg.conid for leg in lake.registry.legs] == [CALL]
        await connection.close()


THURSDAYS, FRIDAYS, THURSDAYS_ALONE = 941000003, 941000004, 941000005
WEEKLIES = f"""
as_of: 2028-06-01
accounts: [{{name: {A}}}]
underlyings:
  - {{symbol: QQQ, conid: 920000005, price: 600, volatility: 0.2, exchange: NASDAQ}}
contracts:
  - {{conid: {THURSDAYS}, underlying: QQQ, sec_type: OPT, expiry: 20281214, strike: 600, right: C}}
  - {{conid: {FRIDAYS}, underlying: QQQ, sec_type: OPT, expiry: 20281215, strike: 600, right: C}}
  - {{conid: {THURSDAYS_ALONE}, underlying: QQQ, sec_type: OPT, expiry: 20281214, strike: 605,
     right: C}}
positions:
  - {{account: {A}, conid: {THURSDAYS}, quantity: 1}}
  - {{account: {A}, conid: {FRIDAYS}, quantity: 2}}
  - {{account: {A}, conid: {THURSDAYS_ALONE}, quantity: 3}}
"""


@pytest.mark.parametrize("clock", ["Asia/Shanghai", "Asia/Dubai"])
async def test_a_leg_is_the_contract_of_its_day_whatever_the_zone_of_the_login(
    tmp_path, clock, streaming, lake
):
    path = tmp_path / "weeklies.yaml"
    path.write_text(WEEKLIES)
    leg = {"symbol": "QQQ", "right": "CALL", "expiry": "20281215", "strategy_id": "s"}
    await lake.registry.add_active(strike=600, **leg)
    await lake.registry.add_active(strike=605, **leg)
    async with simulate(book=load_book(path)) as sim:
        sim.last_trade_times("login", clock)
        async with streaming(sim) as (streamer, received):
            await eventually(lambda: received.newest(A, FRIDAYS))
            await eventually(lambda: lake.registry.unresolved[0].problem)
            [other] = lake.registry.unresolved
            assert "expiry 2028-12-14" in other.problem
            assert streamer.routes[(A, THURSDAYS)] is LegState.MONITORED
            assert streamer.routes[(A, THURSDAYS_ALONE)] is LegState.MONITORED
