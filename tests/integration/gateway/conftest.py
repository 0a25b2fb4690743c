"""What tests of one gateway share: a simulator, connections to it, and time zones."""

import time
from contextlib import AsyncExitStack

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
async def connected(simulate, settings_for):
    """Return a function that starts a simulator and connects to it, until the end of the test."""
    async with AsyncExitStack() as stack:

        async def start(book="small", options=None, **settings):
            sim = await stack.enter_async_context(simulate(book, **options or {}))
            connection = await connect(settings_for(sim, **settings))
            stack.push_async_callback(connection.close)
            return sim, connection

        yield start


@pytest.fixture
async def opened(connected):
    """A simulator and a connection to it."""
    return await connected()


@pytest.fixture
def set_zone(monkeypatch):
    """Return a function that moves this process to a time zone; the simulator sends UTC."""

    def move(name):
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield move
    monkeypatch.undo()
    time.tzset()
