"""A book of 500 holdings (TESTS=all: 2,000): what a change costs depends on it, not on the book."""

from datetime import UTC, datetime

import polars as pl
import pytest
from ib_async.client import Client

from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.lake.given_leg import make_leg
from position_sync_dagster.lake.storage.data_files import data_files
from tests.support.booked_legs import FIRST, A, book_of_chain, terms_of
from tests.support.extent import EVERYTHING
from tests.support.streams import eventually, offline, published

ACTIVE = 60
STRIKES = 500 if EVERYTHING else 125
HOLDINGS = 4 * STRIKES
JOINING = 2 * STRIKES
TEN_LINES = {"max_lines": 10, "reserved_lines": 0}
PNL_SINGLE = 94
MARKET_DATA = 1
POSITIONS = 61
ACCOUNT = 6


@pytest.fixture
def book(tmp_path):
    return book_of_chain(tmp_path, STRIKES)


@pytest.fixture
def stream_large(stream_legs, book):
    """Stream the book, of which the first few contracts are legs."""

    def run(count, **settings):
        conids = range(FIRST, FIRST + count)
        legs = ({"conid": conid, "strategy_id": "s"} | terms_of(conid, book) for conid in conids)
        return stream_legs(*legs, book=book, rows=False, **{"pnl_subscriptions": 0} | settings)

    return run


async def waiting(lake):
    """Count the requests that wait."""
    return (await lake.queue.overview()).counts.get("PENDING", 0)


def positions(lake, streamer):
    return {key[1]: row.position for key, row in published(lake, streamer.settings).items()}


async def _enough(lake, count):
    return await waiting(lake) >= count


async def test_a_fill_is_published_without_the_rest_of_the_book(stream_large, lake):
    async with stream_large(1) as (sim, streamer, _received):
        await eventually(lambda: _enough(lake, HOLDINGS - 1))
        conid = FIRST + 3 * STRIKES
        table = lake.broker_positions.table
        before = set(table.snapshot(data_files)["path"])
        sim.fill(A, conid, 4)
        await eventually(lambda: positions(lake, streamer)[conid] == 5.0)
        files = table.snapshot(data_files)
        assert before <= set(files["path"])
        added = files.filter(~pl.col("path").is_in(before)).get_column("num_records")
        assert added.len()
        assert added.max() <= 5  # its row, and perhaps some of legs that ticked
        assert len(positions(lake, streamer)) == HOLDINGS


async def test_a_whole_list_without_any_of_the_holdings_closes_them_in_few_commits(
    stream_large, lake
):
    async with stream_large(1, second_list_s=1.0) as (sim, streamer, received):
        await eventually(lambda: received.newest(A, FIRST) and _enough(lake, HOLDINGS - 1))
        batch = await lake.queue.claim_batch(2 * HOLDINGS)
        await lake.queue.mark_success([request.request_id for request in batch])
        before = lake.broker_positions.table.version()
        queued_before = (await lake.queue.overview()).version
        # As a gateway that restarts over night, with everything expired meanwhile.
        sim.disconnect(busy_s=0.2)
        for n in range(HOLDINGS):
            sim.close_position(A, FIRST + n)
        sim.reset_day()

        await eventually(lambda: set(positions(lake, streamer).values()) == {0.0})
        await eventually(lambda: _enough(lake, HOLDINGS - 1))
        await eventually(lambda: received.closes(FIRST) or _enough(lake, HOLDINGS))
        assert len(positions(lake, streamer)) == HOLDINGS
        assert lake.broker_positions.table.version() - before <= 6
        assert (await lake.queue.overview()).version - queued_before <= 6


async def test_many_legs_that_join_and_leave_at_once_are_routed_in_few_commits(
    stream_large, lake, book
):
    usual = {"strategy_id": "s", "added_at": datetime.now(UTC)}
    conids = range(FIRST, FIRST + JOINING)
    legs = [make_leg(conid=conid, **usual, **terms_of(conid, book)) for conid in conids]
    async with stream_large(0, **TEN_LINES) as (sim, streamer, _received):
        await eventually(lambda: _enough(lake, HOLDINGS))
        before = (await lake.queue.overview()).version

        def routed(state):
            return sum(route is state for route in streamer.routes.values())

        await lake.registry.replace_all(legs)
        await eventually(lambda: routed(LegState.OVERFLOW) == JOINING - 10)
        await eventually(lambda: sim.stats()["lines_in_use"] == 10)
        await lake.registry.replace_all([])
        await eventually(lambda: routed(LegState.MONITORED) == HOLDINGS)
        await eventually(lambda: sim.stats()["lines_in_use"] == 0)
        assert sim.stats()["peak_lines"] == 10
        assert await waiting(lake) == HOLDINGS, "each holding waits once"
        assert (await lake.queue.overview()).version - before <= 8


async def test_after_1101_positions_and_lines_are_requested_before_profits(
    stream_large, monkeypatch
):
    async with stream_large(ACTIVE, **TEN_LINES) as (sim, streamer, _received):
        await eventually(lambda: sim.stats()["pnl_subscriptions"] == ACTIVE - 10)
        assert sum(s is LegState.OVERFLOW for s in streamer.routes.values()) == ACTIVE - 10
        sent = []
        send = Client.send

        def recorded(client, *fields):
            sent.append(int(fields[0]))
            return send(client, *fields)

        monkeypatch.setattr(Client, "send", recorded)
        await offline(sim, streamer, "restored_data_lost")
        await eventually(lambda: sim.stats()["pnl_subscriptions"] == ACTIVE - 10)
        first = sent.index(PNL_SINGLE)
        assert sent.count(PNL_SINGLE) == ACTIVE - 10
        assert POSITIONS in sent[:first]
        assert sent[:first].count(MARKET_DATA) == 10
        monkeypatch.undo()
