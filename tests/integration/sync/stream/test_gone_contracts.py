"""Contracts of which the gateway has no details any more: the simulator counts the requests."""

from contextlib import asynccontextmanager

import pytest

from position_sync_dagster.gateway.connection import connect
from position_sync_dagster.processes.preflight import Level, of_gateway
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.stream.contracts import ContractCache, LegResolver
from position_sync_dagster.sync.stream.ownership import OwnerContext
from tests.support.legs import leg
from tests.support.streams import settings_for, simulate

# A contract that the simulator does not know, as a gateway an expired one.
GONE = 921999999


@pytest.fixture
def gateway():
    """Return a simulator, a connection to it, and what counts the requests for details."""

    @asynccontextmanager
    async def run():
        async with simulate() as sim:
            connection = await connect(settings_for(sim))

            def asked() -> int:
                of_clients = sim.stats()["requests"].values()
                return sum(counts.get("reqContractDetails", 0) for counts in of_clients)

            yield sim, connection, asked
            await connection.close()

    return run


async def test_a_described_leg_that_has_expired_is_told_and_not_looked_up(gateway, lake) -> None:
    await lake.registry.add_active(
        symbol="AAPL", right="CALL", strike=240, expiry="20240119", strategy_id="old"
    )
    times = iter(range(0, 10**9, 86_400))
    async with gateway() as (_sim, connection, asked):
        context = OwnerContext(settings=Settings(), monotonic=lambda: float(next(times)))
        resolver = LegResolver(context, lake.registry, ContractCache(None))
        for _day in range(3):
            await resolver.resolve_due(connection)
        (one,) = lake.registry.unresolved
        assert one.problem.startswith("It expired on 2024-01-19")
        version = lake.registry.table.version()
        await resolver.resolve(connection, lake.registry.unresolved)
        assert (lake.registry.table.version(), asked()) == (version, 0)


async def test_doctor_says_that_a_leg_has_expired_and_asks_for_no_details_of_it(gateway) -> None:
    async with gateway() as (sim, _connection, asked):
        held = await of_gateway(settings_for(sim), [])
        before = asked()
        gone = leg(GONE, "old", expiry=leg().expiry.replace(year=2024))
        found = await of_gateway(settings_for(sim), [gone])
        assert asked() == 2 * before
    told = [one for one in found if one.check == "legs"]
    assert [one.level for one in told] == [Level.WARNING]
    assert "expired" in told[0].text
    assert len(found) == len(held)
