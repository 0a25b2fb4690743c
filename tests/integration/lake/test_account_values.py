"""account_values: appended once, fenced, read by account, and as cheap after a long time."""

from dataclasses import replace
from datetime import timedelta

import pytest

from position_sync_dagster.domain.holding import AccountSource, AccountSummary
from position_sync_dagster.errors import LeaseLostError
from position_sync_dagster.lake.storage.table import data_files

A, B = "DUSIM0001", "DUSIM0002"
LOGIN = "127.0.0.1:7497"


@pytest.fixture
def row(clock):
    def make(account=A, net=1000.0, **more):
        given = {
            "currency": "USD", "timestamp": clock.now, "gateway_id": LOGIN, "fencing_token": 1,
        }  # fmt: skip
        return AccountSummary(account=account, net_liquidation=net, **given | more)

    return make


async def net_of(lake):
    return {r.account: r.net_liquidation for r in lake.account_values.latest_summaries()}


async def test_unknown_amounts_are_null_and_come_back_as_none(lake, row, clock):
    values = row(net=None, currency=None, daily_pnl=-1.5, pnl_received_at=clock.now)
    assert lake.account_values.append([values]).rows == 1
    [read] = lake.account_values.latest_summaries()
    assert read == replace(values, row_id=read.row_id, trading_mode="SIMULATED")
    frame = lake.account_values.latest()
    assert frame.select("net_liquidation", "cash", "currency").row(0) == (None, None, None)


@pytest.mark.in_store
async def test_the_same_row_is_written_once(lake, row):
    assert (lake.account_values.append([row(), row(B)])).rows == 2
    again = lake.account_values.append([row(), row(B), row(B, net=5.0)])
    assert again.rows == 1
    assert await net_of(lake) == {A: 1000.0, B: 5.0}


async def test_a_row_from_a_clock_that_ran_ahead_hides_nothing(lake, row, clock):
    lake.account_values.append([row(net=1.0, timestamp=clock.now + timedelta(days=400))])
    lake.account_values.append([row(net=2.0), row(B)])
    assert await net_of(lake) == {A: 2.0, B: 1000.0}


async def test_rows_of_statements_stand_apart(lake, row, clock):
    flex = {"source": AccountSource.FLEX, "gateway_id": None, "fencing_token": None}
    lake.account_values.append([row(net=3.0)])
    for days in (1, 5):
        at = clock.now - timedelta(days=days)
        lake.account_values.append([row(net=days, timestamp=at, **flex)])
    assert await net_of(lake) == {A: 3.0}


@pytest.mark.in_store
async def test_an_owner_that_was_followed_by_another_writes_nothing_more(lake, row):
    lake.account_values.fence(LOGIN, 2)
    with pytest.raises(LeaseLostError, match="newer owner"):
        lake.account_values.append([row()])
    lake.account_values.append([row(fencing_token=2, net=7.0)])
    with pytest.raises(LeaseLostError, match="newer owner"):
        lake.account_values.fence(LOGIN, 1)
    assert await net_of(lake) == {A: 7.0}


async def test_an_append_and_a_read_cost_the_same_after_many_days(lake, row, clock, files_read):
    start = clock.now
    for day in range(20):
        clock.now = start + timedelta(days=day)
        for net in range(8):
            lake.account_values.append([row(net=net + day)])
    table = lake.account_values.table
    files = table.snapshot(data_files).height
    files_read.clear()
    lake.account_values.append([row(net=-1.0)])
    assert files_read == [], "an append of a new row reads no older rows"
    assert await net_of(lake) == {A: -1.0}
    # Fifteen days of eight rows, however long the table has grown, and the row of this test.
    assert files_read[-1] <= 15 * 8 + 1 < files
