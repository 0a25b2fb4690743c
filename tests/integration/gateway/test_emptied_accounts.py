"""A list that empties an account counts when a second one says the same."""

import pytest

from position_sync_dagster.domain.holding import Completeness
from position_sync_dagster.gateway import account_feed
from position_sync_dagster.gateway.connection import connect

A, B = "DUSIM0001", "DUSIM0002"
CALL, PUT = 921000001, 921000002
# Any later list is a second one.
AT_ONCE_S = 1e-6


@pytest.fixture
async def emptied(simulate, settings_for):
    """Connect, download everything, and take a first list that empties account A."""
    async with simulate() as sim:
        connection = await connect(settings_for(sim, second_list_s=AT_ONCE_S))
        await connection.feed.snapshot()
        await connection.feed.download()
        assert connection.feed.is_complete
        sim.empty_lists(A)
        await connection.feed.snapshot()
        yield sim, connection.feed
        await connection.close()


def held(feed, account=A):
    return sum(row.account == account and row.position != 0 for row in feed.holdings)


async def test_holdings_in_doubt_stay_as_they_were_and_nothing_confirms_them(emptied):
    _sim, feed = emptied
    before = {row.key: row for row in feed.holdings if row.account == A}
    assert held(feed) == 5
    assert feed.completeness == {A: Completeness.UNKNOWN, B: Completeness.COMPLETE}
    await feed.download()  # its end is proper, and names nothing
    for key, row in before.items():
        assert feed.get(key) == row
    assert feed.completeness[A] is Completeness.UNKNOWN
    (problem,) = feed.problems
    assert problem.startswith(f"account {A} has none of its holdings in the list of positions")


async def test_a_second_list_that_says_the_same_closes_them(emptied):
    _sim, feed = emptied
    assert feed.positions_due
    await feed.snapshot()
    assert (held(feed), held(feed, B)) == (0, 4)
    await feed.download()
    assert feed.is_complete
    assert (feed.problems, feed.positions_due) == ([], False)


async def test_a_second_list_that_names_one_counts_and_the_account_is_downloaded_again(emptied):
    sim, feed = emptied
    sim.close_position(A, PUT)
    sim.empty_lists(A, empty=False)
    await feed.snapshot()
    assert held(feed) == 4
    assert feed.overdue == [A]
    await feed.download(feed.overdue)
    assert feed.is_complete


@pytest.mark.parametrize("restored", ["restored_data_kept", "restored_data_lost"])
async def test_after_an_interruption_the_next_list_is_a_first_one(emptied, eventually, restored):
    sim, feed = emptied
    sim.connectivity("lost")
    await eventually(lambda: feed.connectivity.lost is not None)
    sim.connectivity(restored)
    await eventually(lambda: feed.connectivity.lost is None)
    await feed.snapshot()
    assert held(feed) == 5
    await feed.snapshot()
    assert held(feed) == 0


async def test_a_row_that_says_zero_closes_its_holding_and_the_last_one_ends_the_doubt(
    emptied, eventually, monkeypatch
):
    monkeypatch.setattr(account_feed, "LATE_S", 0.0)  # as long after the download
    sim, feed = emptied
    conids = [row.instrument.conid for row in feed.holdings if row.account == A]
    for left, conid in enumerate(conids):
        assert held(feed) == len(conids) - left
        assert A in feed.emptied
        sim.close_position(A, conid)
        await eventually(lambda conid=conid: feed.get((A, conid)).position == 0)
    assert A not in feed.emptied
    assert feed.completeness[A] is Completeness.COMPLETE
