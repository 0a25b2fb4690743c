"""Contract details that are fetched in the background: a few at a time, stored in larger parts."""

import asyncio

import pytest

from position_sync_dagster.errors import LakeNotWritableError
from position_sync_dagster.gateway.connection import connect
from position_sync_dagster.sync.stream import contract_cache
from position_sync_dagster.sync.stream.contract_cache import ContractCache

CONIDS = (920000001, 920000002, *range(921000001, 921000007))
UNKNOWN = 999999999


@pytest.fixture(autouse=True)
def parts(monkeypatch):
    """Fetch two at a time, and store four."""
    monkeypatch.setattr(contract_cache, "CHUNK", 2)
    monkeypatch.setattr(contract_cache, "STORED_AT_ONCE", 4)


async def steps(cache, connection, condition):
    """Do what the stream does each second, until a condition holds."""
    async with asyncio.timeout(60):
        while not await condition():
            cache.fetch_in_background(connection, streamed=())
            await asyncio.sleep(0.01)


async def test_details_are_known_at_once_and_stored_in_parts(simulate, settings_for, lake):
    async with simulate() as sim:
        connection = await connect(settings_for(sim))
        cache = ContractCache(lake.contracts)
        cache.want([*CONIDS, UNKNOWN])
        before = lake.contracts.table.version()

        async def three_fetched():
            return cache.magnifier(CONIDS[1]) is not None

        await steps(cache, connection, three_fetched)
        assert await lake.contracts.get() == {}

        async def all_stored():
            return (await lake.contracts.get()).keys() == set(CONIDS)

        await steps(cache, connection, all_stored)
        assert lake.contracts.table.version() - before <= 3
        await cache.close()
        await connection.close()


async def test_a_part_that_could_not_be_stored_is_stored_later(
    simulate, settings_for, lake, monkeypatch
):
    async with simulate() as sim:
        connection = await connect(settings_for(sim))
        cache = ContractCache(lake.contracts)
        put, failed = lake.contracts.put, []

        async def put_later(details):
            if len(failed) < 3:
                failed.append(len(details))
                raise LakeNotWritableError("It is full.", remedy="Make room.")
            await put(details)

        monkeypatch.setattr(lake.contracts, "put", put_later)
        cache.want(CONIDS)

        async def all_stored():
            return (await lake.contracts.get()).keys() == set(CONIDS)

        await steps(cache, connection, all_stored)
        assert len(failed) == 3
        assert sim.stats()["messages_sent"]["contractDetails"] == len(CONIDS)
        await cache.close()
        await connection.close()
