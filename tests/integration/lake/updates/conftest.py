"""What the tests of the ledger share."""

import pytest

from position_sync_dagster.lake.updates.position_updates import PositionUpdatesTable


@pytest.fixture
def open_ledger(home, clock):
    """Return a function that opens the ledger anew, by the right clock or by another one."""
    return lambda by=clock: PositionUpdatesTable(f"{home}/updates", clock=by).sync
