"""What was said so far: half of a list is never passed on as a whole one."""

import pytest

from ib_gateway_simulator.protocol import requests
from ib_gateway_simulator.replay.known import Known

A = "DUSIM0001"
HELD = ("61", "3", A, "77", *["x"] * 12)
ROW = ("7", "8", "77", *["x"] * 16, A)
VALUE = ("6", "2", "Cash", "5.00", "USD", A)


@pytest.fixture
def known():
    return Known()


def ask(*fields):
    return requests.decode([str(field) for field in fields])


POSITIONS, UPDATES = (61, 1), (6, 2, 1, A)


def test_positions_are_known_only_after_the_end_of_their_list(known):
    known.note(HELD, None)
    assert known.answer(ask(*POSITIONS), 0.0) is None
    known.note(("62", "1"), None)
    assert known.answer(ask(*POSITIONS), 0.0) == [HELD, ("62", "1")]


def test_a_download_is_known_only_after_its_end(known):
    known.note(VALUE, None)
    known.note(ROW, None)
    assert known.answer(ask(*UPDATES), 0.0) is None
    known.note(("54", "1", A), None)
    answer = known.answer(ask(*UPDATES), 0.0)
    assert answer[:2] == [VALUE, ROW]
    assert answer[-1][0] == "54"


def test_an_end_without_a_name_belongs_to_the_account_that_was_asked_for(known):
    known.note(("54", "1", ""), ask(*UPDATES))
    assert known.answer(ask(*UPDATES), 0.0) is not None
    assert known.answer(ask(6, 2, 1, "DUSIM0002"), 0.0) is None


def test_the_newest_row_of_a_holding_counts(known):
    newer = (*HELD[:14], "9", "1.5")
    for fields in (HELD, newer, ("62", "1")):
        known.note(fields, None)
    assert known.answer(ask(*POSITIONS), 0.0)[:-1] == [newer]


def test_the_time_is_that_of_the_replay(known):
    assert known.answer(ask(49, 1), 1234.9) == [("49", "1", "1234")]


def test_nothing_is_invented_for_what_was_not_recorded(known):
    assert known.answer(ask(8, 1, ""), 0.0) is None
    assert known.log_in() == []
