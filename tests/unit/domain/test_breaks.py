"""Breaks: confirmed when they are seen again, accepted by people, ended when they are gone."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import nan

from position_sync_dagster.domain.reconciliation import (
    CONFIRM_AFTER,
    Break,
    BreakState,
    Discrepancy,
    DiscrepancyType,
    ReconciliationResult,
    after_comparison,
    break_key,
    ended,
    seen_again,
)

FIRST = datetime(2026, 1, 2, 15, tzinfo=UTC)
LATER = FIRST + timedelta(minutes=1)

OPENED = Break(
    break_id="b-1",
    gateway_id="main",
    account="U1",
    conid=7,
    symbol="SPY",
    type=DiscrepancyType.QUANTITY,
    expected=2.0,
    actual=1.0,
    detail="2 at the broker, 1 here",
    state=BreakState.OPENED,
    opened_at=FIRST,
    last_seen_at=FIRST,
)
SEEN = replace(OPENED, break_id="b-2", opened_at=LATER, last_seen_at=LATER)


def test_a_break_is_confirmed_when_it_is_seen_again_and_keeps_its_id_and_beginning() -> None:
    after = seen_again(OPENED, SEEN)
    assert after.state == BreakState.CONFIRMED
    assert after.confirmed_at == LATER
    assert after.break_id == "b-1"
    assert after.opened_at == FIRST
    assert after.last_seen_at == LATER


def test_a_confirmed_break_changes_with_its_quantities_alone() -> None:
    confirmed = seen_again(OPENED, SEEN)
    assert seen_again(confirmed, replace(SEEN, last_seen_at=LATER + timedelta(1))) == confirmed

    changed = seen_again(confirmed, replace(SEEN, actual=0.0, opened_at=LATER + timedelta(1)))
    assert changed.actual == 0.0
    assert changed.confirmed_at == LATER


def test_an_unknown_quantity_is_the_same_as_an_unknown_one() -> None:
    unknown = replace(OPENED, state=BreakState.CONFIRMED, expected=nan, actual=None)
    assert seen_again(unknown, replace(SEEN, expected=nan, actual=None)).last_seen_at == FIRST
    assert seen_again(unknown, replace(SEEN, expected=nan, actual=1.0)).last_seen_at == LATER


def test_an_acceptance_ends_when_the_quantities_change_and_the_note_says_so() -> None:
    accepted = replace(OPENED, state=BreakState.ACCEPTED, accepted_by="Ada", note="a gift")
    assert seen_again(accepted, SEEN) == accepted

    after = seen_again(accepted, replace(SEEN, actual=5.0))
    assert after.state is BreakState.CONFIRMED
    assert after.note == "Ada accepted 2.0 against 1.0 (a gift); that has changed"


def test_a_break_that_is_gone_is_resolved_unless_a_person_accepted_it() -> None:
    assert ended(OPENED, LATER).state is BreakState.RESOLVED
    accepted = ended(replace(OPENED, state=BreakState.ACCEPTED), LATER)
    assert accepted.state == BreakState.ACCEPTED
    assert accepted.resolved_at == LATER


def test_a_difference_keeps_its_key_while_its_quantities_change() -> None:
    assert break_key(OPENED) == break_key(replace(SEEN, actual=9.0))
    assert break_key(OPENED) != break_key(replace(SEEN, account="U2"))


def test_a_comparison_opens_confirms_and_ends_breaks_and_leaves_the_same_ones_out() -> None:
    same = replace(OPENED, break_id="same", conid=1, state=BreakState.CONFIRMED)
    absent = replace(OPENED, break_id="absent", conid=2)
    new = replace(SEEN, break_id="new", conid=3)
    found = {break_key(brk): brk for brk in (SEEN, replace(same, break_id="b-9"), new)}

    live, over = after_comparison([same, OPENED, absent], found, LATER)

    assert live == [seen_again(OPENED, SEEN), new]
    assert over == [ended(absent, LATER)]
    assert len(found) == 3
    assert after_comparison([], {}, LATER) == ([], [])


def test_of_two_breaks_with_one_key_the_older_one_goes_on() -> None:
    younger = replace(OPENED, break_id="b-2", opened_at=LATER)
    live, over = after_comparison([OPENED, younger], {break_key(SEEN): SEEN}, LATER)
    assert [brk.break_id for brk in live] == ["b-1"]
    assert [brk.break_id for brk in over] == ["b-2"]


def test_a_result_counts_what_lasted_and_leaves_out_what_a_person_accepted() -> None:
    def difference(conid: int) -> Discrepancy:
        return Discrepancy(DiscrepancyType.QUANTITY, "U1", conid, "SPY", 2.0, 1.0, "differs")

    def opened(conid: int, age: timedelta, **changes: BreakState) -> Break:
        return replace(OPENED, conid=conid, opened_at=LATER - age, **changes)

    result = ReconciliationResult(
        at=LATER, complete=True, checked=4, discrepancies=tuple(map(difference, range(4)))
    )
    moment = timedelta(seconds=1)
    judged = result.judged_by(
        [
            opened(0, CONFIRM_AFTER),
            opened(1, CONFIRM_AFTER - moment),
            opened(2, CONFIRM_AFTER, state=BreakState.ACCEPTED),
        ]
    )
    assert [entry.conid for entry in judged.discrepancies] == [0, 1, 3]
    assert [entry.conid for entry in judged.confirmed] == [0]
    assert [entry.conid for entry in judged.unconfirmed] == [1, 3]
    assert judged.accepted == 1
