"""What is known of an account: when a list that empties it counts, and when its values do."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from position_sync_dagster.domain.account_state import (
    AGAIN,
    OF_POSITIONS,
    OF_VALUES,
    TABLE,
    AccountEvent,
    AccountState,
    AccountStates,
    PositionsState,
    ValuesState,
)
from position_sync_dagster.domain.holding import Completeness
from tests.support.clock import HandClock

LASTS_S, SECOND_S = 180.0, 30.0
MOMENT = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)

KNOWN, EMPTIED, CONTRADICTED = PositionsState
MISSING, DOWNLOADING, WHOLE = ValuesState
INF = float("inf")

# What each event leads to, by the state before it; "=" keeps the state and does what follows; what
# is not named ignores the event.
POSITIONS = {
    "LIST_NAMED": dict.fromkeys(PositionsState, KNOWN),
    "LIST_EMPTIED": {KNOWN: EMPTIED, CONTRADICTED: EMPTIED},
    "LIST_EMPTIED_AGAIN": {EMPTIED: KNOWN},
    "ROW_OPEN": {EMPTIED: CONTRADICTED},
    "ROWS_CLOSED": {EMPTIED: KNOWN, CONTRADICTED: KNOWN},
    "INTERRUPTED": {EMPTIED: CONTRADICTED},
    "DROPPED": {EMPTIED: CONTRADICTED},
}
VALUES = {
    "REQUESTED": dict.fromkeys(ValuesState, DOWNLOADING),
    "DOWNLOAD_OVER": dict.fromkeys(ValuesState, "="),
    "COMPLETED": dict.fromkeys(ValuesState, WHOLE),
    "FAILED": dict.fromkeys(ValuesState, MISSING),
    "CANCELLED": {DOWNLOADING: MISSING},
    "SPOILED": {MISSING: "=", DOWNLOADING: "=", WHOLE: MISSING},
    "END_CAME": dict.fromkeys(ValuesState, "="),
    "DUE": dict.fromkeys(ValuesState, "="),
    "RESTORED": dict.fromkeys(ValuesState, "="),
    "DROPPED": dict.fromkeys(ValuesState, MISSING),
}
# What follows from each event at 100 s, besides the states.
FOLLOWS = {
    "LIST_NAMED": {"emptied_at_s": None},
    "LIST_EMPTIED": {"emptied_at_s": 100.0},
    "LIST_EMPTIED_AGAIN": {"emptied_at_s": None},
    "ROW_OPEN": {"emptied_at_s": 60.0},
    "ROWS_CLOSED": {"emptied_at_s": None},
    "INTERRUPTED": {},
    "REQUESTED": {
        "requested_at": MOMENT, "again_at_s": INF, "whole_since_s": None, "spoiled": None,
        "end_is_due": True,
    },
    "DOWNLOAD_OVER": {"ended_at": MOMENT},
    "COMPLETED": {"whole_since_s": 100.0, "problem": None, "failures": 0},
    "FAILED": {"problem": "why", "failures": 3, "again_at_s": 160.0, "whole_since_s": None},
    "CANCELLED": {"again_at_s": 100.0},
    "SPOILED": {"spoiled": "why"},
    "END_CAME": {"end_is_due": False},
    "DUE": {"again_at_s": 100.0},
    "RESTORED": {"again_at_s": 100.0},
    "DROPPED": {"again_at_s": INF, "ended_at": None, "failures": 0, "problem": None},
}  # fmt: skip


def account_in(positions=KNOWN, values=MISSING):
    """Return an account in two states, with something in each field that events change."""
    return AccountState(
        lasts_s=LASTS_S, second_s=SECOND_S, positions=positions, values=values,
        emptied_at_s=None if positions is KNOWN else 60.0, problem="before", again_at_s=500.0,
        whole_since_s=50.0 if values is WHOLE else None, failures=2, spoiled="before",
        end_is_due=True,
    )  # fmt: skip


def happens(account, event):
    return account.after(event, 100.0, at=MOMENT, why="why")


@pytest.mark.parametrize("event", AccountEvent)
@pytest.mark.parametrize("positions", PositionsState)
@pytest.mark.parametrize("values", ValuesState)
def test_each_event_in_each_state_leads_where_the_table_says(positions, values, event):
    before = account_in(positions, values)
    after = happens(before, event)
    of_positions = POSITIONS.get(event, {}).get(positions)
    of_values = VALUES.get(event, {}).get(values)
    if of_positions is None and of_values is None:
        assert after == before
        return
    assert after.positions is (positions if of_positions is None else of_positions)
    assert after.values is (values if of_values in (None, "=") else of_values)
    assert {name: getattr(after, name) for name in FOLLOWS[event]} == FOLLOWS[event]


def test_the_table_has_one_transition_for_a_state_and_an_event():
    assert len(OF_POSITIONS) + len(OF_VALUES) == sum(len(row.states) for row in TABLE)
    assert {row.event for row in TABLE} == set(AccountEvent)


@pytest.mark.parametrize(
    ("positions", "values", "listed", "odd", "rating"),
    [
        (KNOWN, WHOLE, True, False, Completeness.COMPLETE),
        (KNOWN, WHOLE, True, True, Completeness.PARTIAL),
        (KNOWN, MISSING, True, False, Completeness.PARTIAL),
        (KNOWN, DOWNLOADING, True, False, Completeness.PARTIAL),
        (EMPTIED, WHOLE, True, False, Completeness.UNKNOWN),
        (CONTRADICTED, WHOLE, True, False, Completeness.UNKNOWN),
        (KNOWN, WHOLE, False, False, Completeness.UNKNOWN),
    ],
)
def test_how_much_of_an_account_is_confirmed(positions, values, listed, odd, rating):
    account = account_in(positions, values)
    assert account.completeness(is_listed=listed, has_odd_rows=odd) is rating


# When values are requested again.


def test_a_download_without_its_end_is_tried_again_later_and_later():
    account, waits = replace(account_in(), failures=0), []
    for _ in range(6):
        account = account.after(AccountEvent.FAILED, 1000.0, why="why", jitter=1.1)
        waits.append(account.again_at_s - 1000.0)
    assert waits == pytest.approx([1.1 * AGAIN.delay_s(failures) for failures in range(1, 7)])
    assert waits[-1] >= AGAIN.longest_s
    assert (account.problem, account.is_whole) == ("why", False)


def test_a_subscription_that_lasted_is_requested_again_at_once_and_a_short_one_later():
    account = account_in().after(AccountEvent.REQUESTED, 0.0)
    account = account.after(AccountEvent.COMPLETED, 0.0, stays_open=True)
    assert (account.is_whole, account.failures) == (True, 2)
    account = account.after(AccountEvent.FAILED, LASTS_S, why="silent")
    assert account.again_at_s == LASTS_S
    account = account.after(AccountEvent.REQUESTED, LASTS_S)
    account = account.after(AccountEvent.COMPLETED, LASTS_S, stays_open=True)
    assert (account.again_at_s, account.problem) == (INF, None)
    account = account.after(AccountEvent.FAILED, LASTS_S * 1.5, why="silent")
    assert account.again_at_s == LASTS_S * 1.5 + AGAIN.first_s


def test_what_became_due_during_a_download_is_due_after_it():
    account = account_in().after(AccountEvent.REQUESTED, 0.0).after(AccountEvent.DUE, 1.0)
    assert account.after(AccountEvent.COMPLETED, 2.0).again_at_s == 1.0


def test_an_end_that_comes_late_puts_off_the_next_request():
    assert account_in().after(AccountEvent.COMPLETED, 2.0).again_at_s == INF


def test_an_account_that_waits_for_nothing_is_not_due_after_a_restore():
    whole = replace(account_in(values=WHOLE), again_at_s=INF)
    assert whole.after(AccountEvent.RESTORED, 5.0) == whole


def test_a_subscription_that_is_spoiled_is_requested_again_later():
    spoiled = happens(account_in(values=WHOLE), AccountEvent.SPOILED)
    assert (spoiled.problem, spoiled.again_at_s) == ("why", 100.0 + AGAIN.delay_s(3))


# When a list of positions that empties an account counts.

A, B = "DU1", "DU2"


@pytest.fixture
def clock():
    return HandClock()


class Lists:
    """The accounts of a login, and their lists of positions."""

    def __init__(self, clock):
        self.states = AccountStates([A, B], lasts_s=LASTS_S, second_s=SECOND_S)
        self.clock = clock

    @property
    def now_s(self):
        return self.clock().timestamp()

    @property
    def is_due(self):
        return self.states.need_second_list(self.now_s)

    def __contains__(self, account):
        return self.states.is_doubted(account)

    def record(self, event, *accounts):
        for account in accounts:
            self.states.record(account, event, self.now_s)


@pytest.fixture
def emptied(clock):
    return Lists(clock)


def doubted(emptied, *named, held=(A, B)):
    """Take a list, and return the accounts that are in doubt afterwards."""
    for account in (A, B):
        is_emptied = account in held and account not in named
        emptied.states.take_list(account, emptied.now_s, is_emptied=is_emptied)
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
    if account:
        emptied.record(AccountEvent.ROW_OPEN, account)
    else:
        emptied.record(AccountEvent.INTERRUPTED, A, B)
    clock.advance(SECOND_S)
    assert emptied.is_due
    assert A in doubted(emptied)
    assert (B in emptied) == (account is None)
    assert not emptied.is_due
    clock.advance(SECOND_S)
    assert doubted(emptied, held=(A,) if account else (A, B)) == set()


def test_messages_that_close_every_holding_end_the_doubt(emptied, clock):
    doubted(emptied)
    emptied.record(AccountEvent.ROWS_CLOSED, A)
    assert emptied.states.doubted == [B]
    clock.advance(SECOND_S)
    assert doubted(emptied, held=(B,)) == set()
