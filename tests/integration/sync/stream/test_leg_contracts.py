"""The contract of each leg: compared with its terms, or found by them, or the reason is said."""

from contextlib import asynccontextmanager

import pytest

from ib_gateway_simulator import load_book
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.gateway import codes
from position_sync_dagster.gateway.codes import GatewayCode
from position_sync_dagster.gateway.connection import connect
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.stream import contracts
from position_sync_dagster.sync.stream.contracts import ContractCache, LegResolver
from tests.support.booked_legs import CALL, PUT, A, leg, terms_of
from tests.support.streams import eventually, settings_for, simulate
from tests.support.unowned import unowned


async def test_a_leg_with_another_strike_than_its_contract_is_not_streamed(stream_legs, lake):
    legs = leg(PUT, strike=230), leg(CALL)
    async with stream_legs(*legs, rows=False) as (sim, streamer, received):
        await received.row(CALL)
        await eventually(lambda: streamer.detail)
        assert "of strategy s is not streamed" in streamer.detail
        assert str(PUT) not in streamer.detail
        assert "its strike is 220, not 230" in streamer.detail
        assert streamer.routes[(A, PUT)] is LegState.MONITORED
        assert sim.stats()["peak_lines"] == 1
        await lake.registry.add_active(**leg(PUT))
        await eventually(lambda: streamer.routes[(A, PUT)] is LegState.STREAMED)
        await eventually(lambda: streamer.detail is None)


async def test_a_stream_that_ends_stores_the_details_that_it_fetched(
    stream_legs, lake, monkeypatch
):
    monkeypatch.setattr(contracts, "CHUNK", 1)  # it ends while details are still fetched
    async with stream_legs(leg(CALL)) as (_sim, _streamer, received):
        await received.row(CALL)
    assert CALL in lake.contracts.get([CALL])


@pytest.mark.parametrize("farm_is_away", [True, False])
async def test_a_leg_streams_as_soon_as_its_refused_details_come(farm_is_away, stream_legs):
    # The message that the farm is back does not wait for the time to fetch again.
    again_s = 3600.0 if farm_is_away else 1.0
    again = Backoff(first_s=again_s, longest_s=again_s)

    def refuse(sim):
        sim.refuse_details(200 if farm_is_away else 100)
        if farm_is_away:
            sim.farm("secdefnj", 2157)

    stream = stream_legs(PUT, prepare=refuse, rows=False, details_again=again)
    async with stream as (sim, streamer, received):
        refused = "the gateway gave no contract details"
        await eventually(lambda: refused in (streamer.detail or ""))
        sim.refuse_details(None)
        if farm_is_away:
            sim.farm("secdefnj", 2158)
        await received.row(PUT)
        await eventually(lambda: streamer.routes[(A, PUT)] is LegState.STREAMED)
        await eventually(lambda: streamer.detail is None)


async def test_a_line_that_a_broken_farm_cut_is_requested_when_the_farm_is_back(
    stream_legs, monkeypatch
):
    an_hour = Backoff(first_s=3600.0, longest_s=3600.0)
    monkeypatch.setitem(codes.RETRY_WAITS, GatewayCode.CUT_BY_FARM, an_hour)
    cut = lambda sim: sim.answer_line(PUT, 10182)  # noqa: E731
    async with stream_legs(PUT, prepare=cut, rows=False) as (sim, streamer, _received):
        await eventually(lambda: "10182" in (streamer.detail or ""))
        sim.answer_line(PUT, None)
        sim.farm("usfarm", 2104)
        await eventually(lambda: streamer.routes[(A, PUT)] is LegState.STREAMED)


MONTHLY = 941000001
WEEKLY = 941000002
SPX = dict(symbol="SPX", right="PUT", strike=6000, expiry="20281215", strategy_id="s")
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


def book_of(folder, text):
    path = folder / "book.yaml"
    path.write_text(text)
    return load_book(path)


async def test_a_leg_without_a_conid_is_found_stored_and_streamed(stream_legs, lake):
    await lake.registry.add_active(strategy_id="s", **terms_of(CALL))
    [described] = lake.registry.unresolved
    async with stream_legs() as (_sim, streamer, received):
        assert (await received.row(CALL)).position == 5
        [leg] = lake.registry.legs
        assert leg.conid == CALL
        assert leg.added_at == described.added_at
        assert leg.resolved_at >= described.added_at
        assert lake.registry.unresolved == ()
        await eventually(lambda: CALL in lake.contracts.get([CALL]))
        await eventually(lambda: streamer.routes[(A, CALL)] is LegState.STREAMED)
        assert streamer.detail is None


async def test_an_ambiguous_leg_names_its_candidates_and_harms_no_other(
    stream_legs, lake, tmp_path, caplog
):
    legs = (SPX, SPX | {"trading_class": "SPXW"})
    book = book_of(tmp_path, BOOK)
    async with stream_legs(*legs, book=book) as (_sim, streamer, received):
        await received.row(WEEKLY)
        await eventually(lambda: streamer.detail)
        assert "2 contracts are SPX 2028-12-15 6000 PUT: SPX " in streamer.detail

        [leg] = lake.registry.unresolved
        for conid, trading_class in ((MONTHLY, "SPX"), (WEEKLY, "SPXW")):
            assert f"(conid {conid}, class {trading_class}, expiry 2028-12-15" in leg.problem
        assert "exchange SMART, multiplier 100, USD)" in leg.problem
        assert received.newest(A, MONTHLY) is None
        assert streamer.routes[(A, MONTHLY)] is LegState.MONITORED
        said = [r for r in caplog.records if "6000 PUT of strategy s is not" in r.getMessage()]
        assert len(said) == 1

        # The leg, corrected, takes the place of the description.
        await lake.registry.add_active(MONTHLY, **SPX)
        await received.row(MONTHLY)
        assert lake.registry.unresolved == ()
        await eventually(lambda: streamer.detail is None)


async def test_a_leg_that_no_contract_fits_says_so(stream_legs, lake):
    described = {"strategy_id": "s"} | terms_of(CALL)
    unknown = described | {"trading_class": "OTHER"}, described | {"symbol": "NONE"}
    async with stream_legs(*unknown, PUT):
        await eventually(lambda: all(leg.problem for leg in lake.registry.unresolved))
        first, second = sorted(lake.registry.unresolved, key=lambda leg: leg.symbol)
        for leg in (first, second):
            assert leg.problem == f"The gateway knows no contract {leg.described}."


async def test_without_an_answer_nothing_is_said_of_a_leg(lake):
    await lake.registry.add_active(strategy_id="s", **terms_of(CALL))
    async with connected(gateway_timeout_s=0.5) as (sim, connection, _asked):
        context = unowned(settings=Settings())
        resolver = LegResolver(context, lake.registry, ContractCache(lake.contracts))
        sim.pause()
        await resolver.resolve(connection, lake.registry.unresolved)
        assert [leg.problem for leg in lake.registry.unresolved] == [None]
        sim.resume()
        await resolver.resolve(connection, lake.registry.unresolved)
        assert [leg.conid for leg in lake.registry.legs] == [CALL]


# A contract that the simulator does not know, as a gateway an expired one.
GONE = 921999999


@asynccontextmanager
async def connected(**settings):
    """Return a simulator, a connection to it, and what counts the requests for details."""
    async with simulate() as sim:
        connection = await connect(settings_for(sim, **settings))

        def asked() -> int:
            of_clients = sim.stats()["requests"].values()
            return sum(counts.get("reqContractDetails", 0) for counts in of_clients)

        yield sim, connection, asked
        await connection.close()


async def test_a_described_leg_that_has_expired_is_told_and_not_looked_up(lake) -> None:
    await lake.registry.add_active(
        symbol="AAPL", right="CALL", strike=240, expiry="20240119", strategy_id="old"
    )
    times = iter(range(0, 10**9, 86_400))
    async with connected() as (_sim, connection, asked):
        context = unowned(settings=Settings(), monotonic=lambda: float(next(times)))
        resolver = LegResolver(context, lake.registry, ContractCache(None))
        for _day in range(3):
            await resolver.resolve_due(connection)
        (unresolved,) = lake.registry.unresolved
        assert unresolved.problem.startswith("It expired on 2024-01-19")

        version = lake.registry.table.version()
        await resolver.resolve(connection, lake.registry.unresolved)
        assert lake.registry.table.version() == version
        assert asked() == 0
