"""When a list of positions that empties an account counts; pure."""

import pytest

from position_sync_dagster.gateway.account_feed import EmptiedAccounts
from tests.support.clock import HandClock

A, B = "DU1", "DU2"
SECOND_S = 30.0


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def emptied(clock):
    return EmptiedAccounts(second_s=SECOND_S, monotonic=lambda: clock().timestamp())


def doubted(emptied, *named, held=(A, B)):
    """Take a list, and return the accounts that are in doubt afterwards."""
    emptied.take_list(set(held), set(named))
    return set(emptied)


def test_a_list_that_empties_every_account_leaves_each_in_doubt(emptied):
    assert doubted(emptied) == {A, B}


def test_an_account_without_open_holdings_is_never_in_doubt(emptied):
    assert doubted(emptied, B, held=(B,)) == set()


def test_a_second_list_counts_when_the_time_has_passed_and_not_before(emptied, clock):
    assert doubted(emptied, B) == {A}
    assert A in emptied
    assert B not in emptied
    assert not emptied.is_due
    clock.advance(SECOND_S - 1)
    assert doubted(emptied, B) == {A}  # it came early, and does not begin the time again
    assert not emptied.is_due
    clock.advance(1)
    assert emptied.is_due
    assert doubted(emptied, B) == set()
    assert not emptied.is_due


def test_each_account_has_its_own_time(emptied, clock):
    doubted(emptied, B)
    clock.advance(SECOND_S)
    assert doubted(emptied) == {B}


def test_a_list_that_names_a_holding_ends_the_doubt(emptied, clock):
    doubted(emptied)
    clock.advance(1)
    assert doubted(emptied, A, B) == set()
    clock.advance(SECOND_S)
    assert doubted(emptied) == {A, B}


@pytest.mark.parametrize("account", [A, None], ids=["a row of it", "an interruption"])
def test_what_contradicts_a_first_list_makes_the_next_one_a_first_one(emptied, clock, account):
    doubted(emptied)
    emptied.take_back(account)
    clock.advance(SECOND_S)
    assert emptied.is_due
    assert A in doubted(emptied)
    assert (B in emptied) == (account is None)
    assert not emptied.is_due
    clock.advance(SECOND_S)
    assert doubted(emptied, held=(A,) if account else (A, B)) == set()


def test_messages_that_close_every_holding_end_the_doubt(emptied, clock):
    doubted(emptied)
    emptied.settle(A)
    assert set(emptied) == {B}
    clock.advance(SECOND_S)
    assert doubted(emptied, held=(B,)) == set()
