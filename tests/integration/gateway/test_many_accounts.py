"""Logins with more than 50 accounts: their positions are listed account by account."""

from datetime import timedelta

import pytest

from position_sync_dagster.domain.broker_position import Completeness
from position_sync_dagster.errors import GatewayTimeoutError, TooManyAccountsError
from position_sync_dagster.gateway import account_feed
from position_sync_dagster.gateway import login as gateway_login
from position_sync_dagster.gateway.connection import connect

LONG = timedelta(hours=1)
ACCOUNTS = [f"DUSIM{number:04}" for number in range(1, 61)]
STOCK, CALL = 930000001, 931000000
A, B = ACCOUNTS[:2]

BOOK = """\
name: advisor
as_of: 2028-06-01
accounts: [{accounts}]
underlyings:
  - {{symbol: SPY, conid: 930000001, price: 620, volatility: 0.17}}
chains:
  - {{name: spy, underlying: SPY, first_conid: 931000000, expiries: [20281215],
     strikes: {{start: 600, stop: 600, step: 10}}}}
positions: [{positions}]
"""


def book_of(accounts, path):
    text = BOOK.format(
        accounts=", ".join(f"{{name: {name}}}" for name in accounts),
        positions=", ".join(
            f"{{account: {name}, conid: {STOCK}, quantity: {number}}}"
            for number, name in enumerate(accounts, 1)
        ),
    )
    path.write_text(text)
    return path


@pytest.fixture
async def login(simulate, settings_for, tmp_path, monkeypatch):
    """Return a simulator of 5 accounts, where more than 3 are many, and a connection to it."""
    for module in (account_feed, gateway_login):
        monkeypatch.setattr(module, "LISTED_TOGETHER", 3)
    async with simulate(book_of(ACCOUNTS[:5], tmp_path / "advisor.yaml")) as sim:
        # A second list that empties an account counts at once.
        connection = await connect(settings_for(sim, second_list_s=0.001))
        yield sim, connection
        await connection.close()


def requested(sim, name):
    return sum(counts.get(name, 0) for counts in sim.stats()["requests"].values())


async def test_the_positions_of_60_accounts_are_listed_and_valued(simulate, settings_for, tmp_path):
    async with simulate(book_of(ACCOUNTS, tmp_path / "advisor.yaml")) as sim:
        connection = await connect(settings_for(sim))
        feed = connection.feed
        await feed.ensure(LONG)
        held = {h.account: h.position for h in feed.holdings}
        assert held == dict(zip(ACCOUNTS, range(1, 61), strict=True))
        assert all(h.market_value is not None for h in feed.holdings)
        assert feed.is_complete
        assert requested(sim, "reqPositions") == 0
        assert requested(sim, "reqPositionsMulti") == len(ACCOUNTS)
        await connection.close()


async def test_changes_follow_the_lists_and_a_new_list_takes_the_place_of_the_old(
    login, eventually
):
    sim, connection = login
    feed = connection.feed
    await feed.snapshot()
    sim.fill(B, STOCK, 5)
    sim.fill(A, CALL, -2)
    await eventually(lambda: feed.get((B, STOCK)).position == 7 and feed.get((A, CALL)))
    sim.close_position(A, CALL)
    await eventually(lambda: feed.get((A, CALL)).position == 0)
    await feed.snapshot()
    assert requested(sim, "reqPositions") == 0
    assert requested(sim, "reqPositionsMulti") == 2 * 5
    assert requested(sim, "cancelPositionsMulti") == 5
    assert len(feed.holdings) == 6


async def test_a_list_that_omits_a_holding_closes_it_and_one_of_nothing_does_not(login):
    sim, connection = login
    feed = connection.feed
    sim.fill(A, CALL, 2)
    await feed.ensure(LONG)
    sim.holding(A, CALL, 0)
    sim.empty_lists(B)
    await feed.snapshot()
    assert feed.get((A, CALL)).position == 0
    assert feed.get((B, STOCK)).position == 2
    assert feed.completeness[B] is Completeness.UNKNOWN


async def test_an_account_whose_list_is_refused_keeps_its_holdings_and_is_named(login, monkeypatch):
    _, connection = login
    feed, client = connection.feed, connection.ib.client
    await feed.ensure(LONG)
    usual = client.reqPositionsMulti
    problem = f"account {A}: the gateway refused its list of positions (code 321)"
    named = []

    def request(request, account, model):
        named.append(problem in feed.problems)
        usual(request, "DU999" if account == A else account, model)

    with monkeypatch.context() as patched:
        patched.setattr(client, "reqPositionsMulti", request)
        for _ in range(2):
            await feed.snapshot()
            assert feed.completeness[A] is Completeness.PARTIAL
    assert feed.get((A, STOCK)).position == 1
    assert feed.completeness[B] is Completeness.COMPLETE
    assert problem in feed.problems
    assert named == [False] * 5 + [True] * 5  # also while the next lists are awaited
    await feed.snapshot()
    assert feed.problems == []
    assert feed.completeness[A] is Completeness.COMPLETE


async def test_a_part_in_a_model_is_not_added_to_the_holding(login):
    sim, connection = login
    feed = connection.feed
    sim.holding(B, STOCK, 3, model="Growth")
    await feed.snapshot()
    (problem,) = feed.problems
    assert f"conid {STOCK} of {B} (a part in the model 'Growth')" in problem
    await feed.ensure(LONG)
    assert feed.get((B, STOCK)).position == 2
    sim.holding(B, STOCK, None, model="Growth")
    await feed.snapshot()
    assert (feed.get((B, STOCK)).position, feed.problems) == (2, [])


async def test_lists_that_do_not_end_close_nothing_and_end_the_connection(login, monkeypatch):
    sim, connection = login
    await connection.feed.ensure(LONG)
    sim.positions_end(None)
    monkeypatch.setattr(connection.feed._list, "_timeout_s", 0.2)
    with pytest.raises(GatewayTimeoutError, match=r"whole list of positions \(reqPositionsMulti\)"):
        await connection.feed.snapshot()
    assert not connection.is_connected
    assert connection.feed.get((A, STOCK)).position == 1


async def test_a_list_with_a_row_that_cannot_be_read_closes_nothing_and_ends_the_connection(
    login, monkeypatch
):
    sim, connection = login
    feed, decoder = connection.feed, connection.ib.client.decoder
    sim.fill(A, CALL, 2)
    await feed.ensure(LONG)
    usual = decoder.interpret

    def cut_row(fields):
        usual(fields[:-1] if fields[3:5] == [A, str(STOCK)] else fields)

    monkeypatch.setattr(decoder, "interpret", cut_row)
    monkeypatch.setattr(feed._list, "_timeout_s", 1.0)
    with pytest.raises(GatewayTimeoutError):
        await feed.snapshot()
    assert not connection.is_connected
    assert feed.get((A, STOCK)).position == 1


async def test_a_login_with_more_accounts_than_are_served_is_refused_by_name(login, monkeypatch):
    _, connection = login
    monkeypatch.setattr(account_feed, "MAX_ACCOUNTS", 4)
    with pytest.raises(TooManyAccountsError, match="has 5 accounts; this program serves up to 4"):
        await connection.feed.snapshot()
