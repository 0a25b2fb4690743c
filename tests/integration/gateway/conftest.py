"""What tests of one gateway share."""

import pytest

from position_sync_dagster.gateway.connection import connect


@pytest.fixture
async def opened(simulate, settings_for):
    """A simulator and a connection to it."""
    async with simulate() as sim:
        connection = await connect(settings_for(sim))
        yield sim, connection
        await connection.close()
