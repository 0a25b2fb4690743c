"""What is known of an account: when a list that empties it counts, and when its values do."""

from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from position_sync_dagster.domain.account_state import (
    ACCOUNT_AGAIN,
    ACCOUNT_INTERVAL_S,
    ACCOUNT_QUIET_S,
    LATE_END,
    LONGEST_TIMEOUTS,
    SECOND_LIST_S,
    AccountState,
    AccountStates,
)
from position_sync_dagster.domain.holding import Completeness
from tests.support.clock import HandClock

INF = float("inf")
MOMENT = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)


WHOLE = {"whole_since_s": 50.0, "is_covered": True}
EMPTIED = {"emptied_at_s": 60.0}


@pytest.mark.parametrize(
    ("fields", "listed", "odd", "rating"),
    [
        (WHOLE, True, False, Completeness.COMPLETE),
        (WHOLE, True, True, Completeness.PARTIAL),
        ({}, True, False, Completeness.PARTIAL),
        (WHOLE | EMPTIED, True, False, Completeness.UNKNOWN),
        (WHOLE | EMPTIED | {"is_contradicted": True}, True, False, Completeness.UNKNOWN),
        (WHOLE, False, False, Completeness.UNKNOWN),
    ],
)
def test_how_much_of_an_account_is_confirmed(fields, listed, odd, rating):
    states = AccountStates([A, B])
    states[A] = AccountState(**fields)
    states.listed_at = MOMENT if listed else None
    states.odd_rows[A if odd else B][7] = "no symbol"
    assert states.completeness(A) is rating


class Unread(dict[int, str]):
    """Rows that nobody may look at."""

    def __len__(self) -> int:
        raise AssertionError

    __iter__ = __bool__ = __len__  # type: ignore[assignment]


def test_rows_of_other_accounts_are_not_looked_at_to_rate_an_account():
    states = AccountStates([A])
    states[A] = AccountState(**WHOLE)
    states.listed_at = MOMENT
    states.odd_rows[B] = Unread()
    assert states.completeness(A) is Completeness.COMPLETE


# When values are requested again.


def test_a_download_without_its_end_is_tried_again_later_and_later():
    account = AccountState()
    for failures in range(1, 7):
        account.fail(1000.0, "why", Random(failures))
        delay_s = ACCOUNT_AGAIN.delay_s(failures, Random(failures))
        assert account.again_at_s == pytest.approx(1000.0 + delay_s)
    assert delay_s >= ACCOUNT_AGAIN.longest_s
    assert account.problem == "why"
    assert account.is_whole is False


def test_a_subscription_that_lasted_is_requested_again_at_once_and_a_short_one_later():
    account = AccountState(failures=2, again_at_s=500.0)
    account.begin(MOMENT)
    account.complete(0.0, stays_open=True)
    assert account.is_whole is True
    assert account.failures == 2
    account.fail(ACCOUNT_INTERVAL_S, "silent")
    assert account.again_at_s == ACCOUNT_INTERVAL_S
    account.begin(MOMENT)
    account.complete(ACCOUNT_INTERVAL_S, stays_open=True)
    assert account.again_at_s == INF
    assert account.problem is None
    account.fail(ACCOUNT_INTERVAL_S * 1.5, "silent")
    assert account.again_at_s == ACCOUNT_INTERVAL_S * 1.5 + ACCOUNT_AGAIN.first_s


def test_a_download_begins_anew_and_its_end_is_a_success():
    account = AccountState(failures=2, again_at_s=500.0, spoiled="before", **WHOLE)
    account.begin(MOMENT)
    assert account.again_at_s == INF
    assert account.is_whole is False
    assert account.spoiled is None
    assert account.requested_at == MOMENT
    assert account.end_is_due is True
    account.complete(100.0, stays_open=False)
    assert account.is_whole is True
    assert account.failures == 0
    assert account.problem is None


def test_a_download_is_awaited_longer_for_its_first_message_unless_the_last_one_failed():
    account = AccountState()
    timeout_s = 3 * ACCOUNT_QUIET_S

    def until_s(heard_s: float, *, has_spoken: bool) -> float:
        return account.awaited_until_s(
            began_s=100.0, heard_s=heard_s, has_spoken=has_spoken, timeout_s=timeout_s
        )

    assert until_s(100.0, has_spoken=False) == 100.0 + timeout_s
    assert until_s(101.0, has_spoken=True) == 101.0 + ACCOUNT_QUIET_S
    account.fail(90.0, "its download did not end")
    assert until_s(100.0, has_spoken=False) == 100.0 + ACCOUNT_QUIET_S
    assert until_s(1e6, has_spoken=True) == 100.0 + LONGEST_TIMEOUTS * timeout_s


def test_an_end_without_a_name_may_be_one_that_is_late_for_some_time():
    account = AccountState()
    at = datetime(2026, 1, 2, tzinfo=UTC)
    assert not account.may_end_late(at)
    account.begin(at)
    assert account.may_end_late(at + LATE_END - timedelta(seconds=1))
    assert not account.may_end_late(at + LATE_END)


def test_what_became_due_during_a_download_is_due_after_it():
    account = AccountState(again_at_s=1.0)
    account.complete(2.0, stays_open=False)
    assert account.again_at_s == 1.0


def test_an_end_that_comes_late_puts_off_the_next_request():
    account = AccountState(again_at_s=500.0)
    account.complete(2.0, stays_open=False, is_late=True)
    assert account.again_at_s == INF


def test_after_a_restore_what_waits_is_due_at_once_and_nothing_else_is():
    whole = AccountState(**WHOLE)
    waiting = AccountState(again_at_s=500.0)
    whole.restore(5.0)
    waiting.restore(5.0)
    assert whole.again_at_s == INF
    assert waiting.again_at_s == 5.0


def test_what_is_spoiled_during_a_download_shows_at_its_end():
    account = AccountState(again_at_s=500.0)
    account.spoil(100.0, "why")
    assert account.spoiled == "why"
    assert account.problem is None
    assert account.again_at_s == 500.0


def test_a_subscription_that_is_spoiled_is_requested_again_later():
    account = AccountState(failures=2, **WHOLE)
    account.spoil(100.0, "why")
    assert account.is_whole is False
    assert account.spoiled == "why"
    assert account.problem == "why"
    assert account.again_at_s == 100.0 + ACCOUNT_AGAIN.delay_s(3)


def test_of_an_account_that_was_dropped_only_the_doubt_stays():
    account = AccountState(failures=2, again_at_s=5.0, spoiled="why", ended_at=MOMENT, **EMPTIED)
    account.drop()
    assert account == AccountState(is_contradicted=True, **EMPTIED)


# When a list of positions that empties an account counts.

A = "DU1"
B = "DU2"


@pytest.fixture
def clock():
    return HandClock()


class Lists:
    """The accounts of a login, and their lists of positions."""

    def __init__(self, clock):
        self.states = AccountStates([A, B])
        self.clock = clock

    @property
    def now_s(self):
        return self.clock().timestamp()

    @property
    def is_due(self):
        return any(state.needs_second_list(self.now_s) for state in self.states.values())

    def __contains__(self, account):
        return self.states[account].is_doubted


@pytest.fixture
def emptied(clock):
    return Lists(clock)


def doubted(emptied, *named, held=(A, B)):
    """Take a list, and return the accounts that are in doubt afterwards."""
    for account in (A, B):
        is_emptied = account in held and account not in named
        emptied.states[account].take_list(emptied.now_s, is_emptied=is_emptied)
    return set(emptied.states.doubted)


def test_a_list_that_empties_every_account_leaves_each_in_doubt(emptied):
    assert doubted(emptied) == {A, B}


def test_an_account_without_open_holdings_is_never_in_doubt(emptied):
    assert doubted(emptied, B, held=(B,)) == set()


def test_a_second_list_counts_when_the_time_has_passed_and_not_before(emptied, clock):
    assert doubted(emptied, B) == {A}
    assert A in emptied
    assert B not in emptied
    assert not emptied.is_due
    clock.advance(SECOND_LIST_S - 1)
    assert doubted(emptied, B) == {A}  # it came early, and does not begin the time again
    assert not emptied.is_due
    clock.advance(1)
    assert emptied.is_due
    assert doubted(emptied, B) == set()
    assert not emptied.is_due


def test_each_account_has_its_own_time(emptied, clock):
    doubted(emptied, B)
    clock.advance(SECOND_LIST_S)
    assert doubted(emptied) == {B}


def test_a_list_that_names_a_holding_ends_the_doubt(emptied, clock):
    doubted(emptied)
    clock.advance(1)
    assert doubted(emptied, A, B) == set()
    clock.advance(SECOND_LIST_S)
    assert doubted(emptied) == {A, B}


@pytest.mark.parametrize("account", [A, None], ids=["a row of it", "an interruption"])
def test_what_contradicts_a_first_list_makes_the_next_one_a_first_one(emptied, clock, account):
    doubted(emptied)
    for name in (account,) if account else (A, B):
        emptied.states[name].contradict()
    clock.advance(SECOND_LIST_S)
    assert emptied.is_due
    assert A in doubted(emptied)
    assert (B in emptied) == (account is None)
    assert not emptied.is_due
    clock.advance(SECOND_LIST_S)
    assert doubted(emptied, held=(A,) if account else (A, B)) == set()


def test_messages_that_close_every_holding_end_the_doubt(emptied, clock):
    doubted(emptied)
    emptied.states[A].end_doubt()
    assert emptied.states.doubted == [B]
    clock.advance(SECOND_LIST_S)
    assert doubted(emptied, held=(B,)) == set()
