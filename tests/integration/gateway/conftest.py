"""What tests of one gateway share."""

import pytest

from position_sync_dagster.gateway.connection import connect

ONE_ACCOUNT = """\
name: one
as_of: 2028-06-01
accounts: [{name: DUSIM0001}]
underlyings: [{symbol: SPY, conid: 930000001, price: 620, volatility: 0.17}]
positions: [{account: DUSIM0001, conid: 930000001, quantity: 10}]
"""


@pytest.fixture
def one_account(tmp_path):
    """The book of a login with one account and one holding."""
    path = tmp_path / "one.yaml"
    path.write_text(ONE_ACCOUNT)
    return path


@pytest.fixture
async def opened(simulate, settings_for):
    """A simulator and a connection to it."""
    async with simulate() as sim:
        connection = await connect(settings_for(sim))
        yield sim, connection
        await connection.close()
