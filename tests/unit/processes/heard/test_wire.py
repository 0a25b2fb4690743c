"""What is known of the wire has every recorded message; what is new is named without its values."""

import json

import pytest

from ib_gateway_simulator.protocol import request_ids
from ib_gateway_simulator.protocol.codes import Code
from ib_gateway_simulator.protocol.message_ids import NAMES
from position_sync_dagster.processes.heard import wire
from position_sync_dagster.processes.heard.wire import Heard, Said, SaidKind, vocabulary
from tests.support import known_wire


def new_in(heard):
    return {said.name for said in heard.take() if not vocabulary().knows(said)}


def test_nothing_that_was_recorded_is_new():
    heard = Heard()
    heard(False, (wire.GREETING, "178"))
    for fields in known_wire.recorded_messages():
        heard(False, fields)
    known_wire.hear_recording(heard, known_wire.SMALL)
    assert new_in(heard) == set()
    assert heard.server_version == 178


def test_the_tables_of_the_simulator_are_known():
    known = vocabulary()
    assert known.names == known_wire.names_of_messages()
    assert {*NAMES.values()} <= {*known.names.values()}
    assert known.requests == {str(number): name for number, name in request_ids.NAMES.items()}
    assert all(Said(SaidKind.CODE, f"{int(code)} (error)") in known.said for code in Code)
    stored = json.loads(known_wire.FILE.read_text())
    assert stored["answers"] == known_wire.ANSWERS
    assert stored["about"] == known_wire.ABOUT
    assert stored["assumed"] == known_wire.ASSUMED


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        (("46", "6", "9", "105", "7"), {"105 (tickString)"}),
        (("1", "6", "9", "1", "2.5", "3"), {"tickPrice has 6 fields"}),
        (("6", "2", "NewTag", "1", "USD", "X"), {"NewTag (updateAccountValue)"}),
        (("95", "9", "1", "", "1", "1", "1"), {"pnlSingle: field 3 is empty"}),
        (("4", "2", "-1", "2104", "Marion is OK", ""), {"2104: … is OK"}),
        (("4", "2", "-1", "2104", "Market data farm connection is OK:Marion", ""), set()),
        (("Marion", "98765.43"), {"unreadable", "unreadable has 2 fields",
                                  "unreadable: field 1 is number"}),
    ],
)  # fmt: skip
def test_what_is_new_is_named_by_its_kind(fields, names):
    heard = Heard()
    heard(False, fields)
    assert new_in(heard) == names


@pytest.mark.parametrize(
    "text",
    ["", "-", "x", "12:00", "1:30", "5abc", "+1", ".5", "-.5", "5.", "1E5", " 1", "\u0663", "inf",
     "Infinity", "NaN", "nan", "N", "1.7976931348623157E308", "-1e300", "1e299", "9" * 400],
)  # fmt: skip
def test_a_field_looks_the_same_among_numbers_as_beside_what_is_none(text):
    among_numbers = Heard()
    among_numbers(False, ("46", "1", text, "-2.5"))
    beside_none = Heard()
    beside_none(False, ("46", "1", text, ""))

    name = "tickString: field 2"
    forms = [
        [said.name for said in heard.take() if said.name.startswith(name)]
        for heard in (among_numbers, beside_none)
    ]
    assert forms[0] == forms[1]
    assert len(forms[0]) == 1


def test_garbage_is_counted_and_raises_nothing():
    heard = Heard()
    for kind in (*vocabulary().names, wire.GREETING, wire.HUNG_UP, "", "x", "9" * 99):
        for field in ("", "1", "-1", "x", "1.7976931348623157E308", "\u0663", "12:00"):
            for count in range(9):
                heard(False, [kind, *[field] * count])
    assert heard.server_version in (None, 1, 111111)
    assert "unreadable" in new_in(heard)
