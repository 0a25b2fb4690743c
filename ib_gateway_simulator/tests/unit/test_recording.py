"""A recording: what is written of each message and under which names, and how it is read."""

import json
from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ib_gateway_simulator.errors import RecordingError
from ib_gateway_simulator.protocol.message_ids import NAMES
from ib_gateway_simulator.protocol.request_ids import ORDER_REQUESTS
from ib_gateway_simulator.recording.disguise import ENDS_OF_ORDER_LISTS, REPORTS_OF_ORDERS, Disguise
from ib_gateway_simulator.recording.pseudonyms import UNREADABLE, Pseudonyms, scaled
from ib_gateway_simulator.recording.recorder import Recorder
from ib_gateway_simulator.recordings.entry import (
    Closed,
    Header,
    Message,
    Opened,
    entry_of,
    header_of,
)
from ib_gateway_simulator.recordings.recording import MAX_LINE_BYTES, load_recording
from tests.support.recorded_session import SMALL


@pytest.fixture
def recorder(tmp_path):
    times = iter(range(100))
    return Recorder(
        tmp_path / "s.ibrec",
        monotonic=lambda: float(next(times)),
        now=lambda: datetime(2026, 1, 2, tzinfo=UTC),
        random=Random(1),
    )


def lines_of(recorder):
    return [json.loads(line) for line in recorder.path.read_text().splitlines()]


def test_each_line_is_there_as_soon_as_it_happened(recorder):
    with recorder:
        assert len(lines_of(recorder)) == 1
        number = recorder.opened()
        recorder.offer(number, "v176..178")
        recorder.greeting(number, ("178", "20260102 00:00:00", "more"))
        recorder.request(number, "reqPositions", ("61", "1"))
        recorder.message(number, ("62", "1"))
        written = lines_of(recorder)  # a kill costs none of them
        recorder.closed(number, "client")

    assert [line.get("name") for line in written[2:]] == [
        "versionOffer",
        "serverVersion",
        "reqPositions",
        "positionEnd",
    ]
    assert written[3]["fields"] == ["178", ""]
    assert [line["t"] for line in written[1:]] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert lines_of(recorder)[-1] == {"t": 6.0, "connection": 1, "event": "closed", "by": "client"}
    assert recorder.entries == 6


def test_nothing_is_written_after_the_end(recorder):
    with recorder:
        number = recorder.opened()
    text = recorder.path.read_text()
    recorder.message(number, ("62", "1"))
    recorder.closed(number, "recorder")  # a connection may end after the recording
    assert recorder.path.read_text() == text
    assert recorder.entries == 1
    assert recorder.failed is None


def test_a_disk_that_is_full_ends_the_recording_and_nothing_else(recorder, caplog):
    with recorder:
        number = recorder.opened()
        whole = recorder._file
        recorder._file = open("/dev/full", "w", buffering=1)  # noqa: SIM115 - it is the full disk
        recorder.message(number, ("62", "1"))
        recorder.message(number, ("62", "1"))
        recorder.closed(number, "gateway")
        full = recorder._file
        recorder._file = whole
        with pytest.raises(OSError, match="No space"):
            full.close()
    assert recorder.entries == 1
    assert "No space" in recorder.failed
    assert caplog.text.count("nothing is recorded any more") == 1


@pytest.mark.parametrize("name", sorted(ORDER_REQUESTS))
def test_an_order_is_no_matter_for_the_recorder(recorder, name):
    with recorder, pytest.raises(ValueError, match="not recorded"):
        recorder.request(recorder.opened(), name, ("3", "7"))
    assert len(lines_of(recorder)) == 2


@pytest.mark.parametrize(
    ("fields", "name"),
    [((), "unreadable"), (("Marion",), "unreadable"), (("250", "x"), "message 250")],
)
def test_of_what_is_not_known_its_name_alone_is_written(recorder, fields, name):
    with recorder:
        recorder.message(recorder.opened(), fields)
    assert [(line["name"], line["fields"]) for line in lines_of(recorder)[2:]] == [(name, None)]


ACCOUNT = "U1234567"


@pytest.fixture
def disguise():
    return Disguise(Pseudonyms(Random(1)))


@pytest.mark.parametrize(
    "fields",
    [("203", ACCOUNT), ("62", "1", "7", "Group", "Tags", "more"), ("6", "2", "1"), ("7", "3")],
)
def test_nothing_is_written_of_a_request_whose_layout_is_not_known(disguise, fields):
    assert disguise.request(fields) is None


@pytest.mark.parametrize(
    "fields", [("16", "1", ACCOUNT), ("250", "x"), ("6", "2", "Owners", "x", "", ACCOUNT, "more")]
)
def test_nothing_is_written_of_a_message_whose_layout_is_not_known(disguise, fields):
    assert disguise.message(fields) is None


def test_requests_of_an_account_name_its_pseudonym(disguise):
    assert disguise.request(("6", "2", "1", ACCOUNT)) == ("6", "2", "1", "DUSIM0001")
    assert disguise.request(("92", "33", ACCOUNT, "Income")) == ("92", "33", "DUSIM0001", "MODEL1")
    assert disguise.request(("71", "2", "5", "secret")) == ("71", "2", "5", "")
    assert disguise.request(("62", "1", "7", "All", "Tags"))[3] == "All"
    assert disguise.request(("62", "1", "7", "Growth", "Tags"))[3] == "GROUP1"


def test_texts_of_an_account_are_left_out_and_its_amounts_scaled(disguise):
    def value(tag, text):
        return disguise.message(("6", "2", tag, text, "USD", ACCOUNT))[3]

    assert value("Owners", "Marion Holder") == ""
    assert float(value("NetLiquidation", "1000.00")) >= 2000
    assert value("Currency", "USD") == "USD"
    assert value("ExchangeRate", "1.08") == "1.08"
    assert value("AccountCode", ACCOUNT) == "DUSIM0001"


def test_profits_belong_to_the_holding_that_was_asked_for(disguise):
    disguise.request(("94", "5", ACCOUNT, "", "77"))
    row = disguise.message(("95", "5", "3", "10.00", "20.00", "30.00", "40.00"))
    ratio = float(row[2]) / 3
    assert float(row[6]) == pytest.approx(40 * ratio, abs=0.01)


def test_an_error_keeps_its_words_and_digits_only_where_its_text_is_published(disguise):
    published = (
        "Unable to connect as the client id is already in use. Retry with a unique client id."
    )
    assert disguise.message(("4", "2", "-1", "326", published, "{json}"))[4] == published
    text = f"{ACCOUNT} (No 7654321) lost line 7"
    known = disguise.message(("4", "2", "-1", "321", text, "{json}"))
    assert known == ("4", "2", "-1", "321", "DUSIM0001 (No 0000000) lost line 0", "")
    message = disguise.message(("4", "2", "-1", "201", "needs 2,500 USD", ""))
    assert message[4] == "needs 0,000 USD"


def test_an_account_is_replaced_also_where_the_layout_has_none(disguise):
    disguise.message(("15", "1", f"{ACCOUNT},U7654321"))
    assert disguise.message(("46", "6", "5", "62", f"about {ACCOUNT}"))[4] == "about DUSIM0001"


def test_lists_of_orders_have_their_ends():
    ends = {NAMES[kind] for kind in ENDS_OF_ORDER_LISTS}
    assert ends == {"openOrderEnd", "execDetailsEnd", "completedOrdersEnd"}
    assert not REPORTS_OF_ORDERS & ENDS_OF_ORDER_LISTS


@pytest.fixture
def names():
    return Pseudonyms(Random(1))


def test_accounts_are_numbered_by_their_first_appearance(names):
    given_names = ["U1234567", "U7654321", "U1234567", "All", ""]
    numbered = ["DUSIM0001", "DUSIM0002", "DUSIM0001", "All", ""]
    assert [names.account(name) for name in given_names] == numbered


def test_models_and_groups_are_numbered_each_for_themselves(names):
    assert names.name("MODEL", "Income") == "MODEL1"
    assert names.name("GROUP", "Income") == "GROUP1"
    assert names.name("MODEL", "Growth") == "MODEL2"
    assert names.name("MODEL", "Income") == "MODEL1"
    assert names.name("MODEL", "") == ""


def test_an_account_in_a_text_is_replaced_even_if_it_was_never_seen(names):
    assert names.text("no data for U1234567 and du99999") == "no data for DUSIM0001 and DUSIM0002"
    assert names.known_in("U1234567/5") == "DUSIM0001/5"
    assert names.known_in("U7777777") == "U7777777"


def test_the_longer_one_of_two_accounts_is_replaced_as_a_whole(names):
    names.account("U123456")
    names.account("U1234567")
    assert names.known_in("U1234567 U123456") == "DUSIM0002 DUSIM0001"


@given(st.integers(1, 10**9), st.sampled_from([1, -1]))
def test_a_quantity_keeps_its_sign_and_nothing_of_its_size(size, sign):
    names = Pseudonyms(Random(3))
    written = names.quantity("A", "1", str(sign * size))
    assert float(written) * sign >= 2 * size
    assert written == names.quantity("A", "1", str(sign * size))


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=20, unique=True))
def test_different_quantities_of_a_holding_stay_different(sizes):
    names = Pseudonyms(Random(3))
    written = {names.quantity("A", "1", str(size)) for size in sizes}
    assert len(written) == len(sizes)


@pytest.mark.parametrize(
    ("text", "written"),
    [("0", "0"), ("", ""), ("inf", "inf"), ("1.7976931348623157E308", "1.7976931348623157E308"),
     ("many", UNREADABLE), ("0.0000000001", UNREADABLE)],
)  # fmt: skip
def test_a_quantity_that_says_nothing_stays_and_what_is_none_goes(names, text, written):
    assert names.quantity("A", "1", text) == written


def test_amounts_of_a_holding_grow_as_its_quantity_did(names):
    ratio = float(names.quantity("A", "1", "7")) / 7
    assert float(names.of_holding("A", "1", "7", "100.00")) == pytest.approx(100 * ratio, abs=0.01)
    assert names.of_holding("A", "1", "7", "a name") == UNREADABLE
    closed = float(names.of_holding("A", "1", "0", "100.00"))  # its factor, without a quantity
    assert closed >= 200


def test_holdings_and_accounts_have_factors_of_their_own(names):
    amounts = {names.of_account(account, "1000.00") for account in ("A", "B")}
    amounts |= {names.of_holding("A", conid, "x", "1000.00") for conid in ("1", "2")}
    assert len(amounts) == 4


def test_amounts_stay_where_quantities_are_kept():
    names = Pseudonyms(Random(1), keep_quantities=True)
    assert names.quantity("A", "1", "7") == "7"
    assert names.of_holding("A", "1", "7", "1.5") == "1.5"
    assert names.of_account("A", "1.5") == "1.5"
    assert names.account("U1234567") == "DUSIM0001"


def test_an_amount_without_a_value_stays():
    texts = ["", "0", "NaN", "1.7976931348623157E308"]
    assert [scaled(text, 3.0) for text in texts] == texts


AT = {"t": 1.5, "connection": 2}
HEADER = {
    "format": "ibrec",
    "version": 1,
    "started_at": "2026-01-02T03:04:05.678Z",
    "quantities": "kept",
}


@pytest.mark.parametrize(
    "entry",
    [
        Opened(at_s=0.0, connection=1),
        Closed(at_s=1.25, connection=1, by="gateway"),
        Message(at_s=2.0, connection=1, sender="client", name="reqIds", fields=("8", "1", "")),
        Message(at_s=2.0, connection=1, sender="gateway", name="message 250", fields=None),
        Message(at_s=2.0, connection=1, sender="gateway", name="error", fields=("4", "ü\0\n")),
    ],
)
def test_an_entry_is_read_as_it_was_written(entry):
    line = entry.line()
    assert line.isascii()
    assert "\n" not in line
    assert entry_of(json.loads(line)) == entry


def test_a_header_is_read_as_it_was_written():
    header = Header(started_at=datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC), quantities="kept")
    assert json.loads(header.line()) == HEADER
    assert header_of(HEADER) == header


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format": "pcap"}, "no recording"),
        ({"version": 2}, "has version 2"),
        ({"quantities": "some"}, "quantities"),
        ({"started_at": "yesterday"}, "not a time"),
        ({"started_at": "2026-01-02T03:04:05"}, "no time zone"),
    ],
)
def test_a_header_of_something_else_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        header_of(HEADER | changed)


@pytest.mark.parametrize(
    "record",
    [
        [],
        {},
        {"t": -1.0, "connection": 1, "event": "opened"},
        {"t": True, "connection": 1, "event": "opened"},
        {"t": 1e10, "connection": 1, "event": "opened"},
        {"t": 1.0, "connection": 0, "event": "opened"},
        AT | {"event": "paused"},
        AT | {"event": "closed", "by": "nobody"},
        AT | {"from": "server", "name": "x", "fields": ["1"]},
        AT | {"from": "client", "name": 5, "fields": ["1"]},
        AT | {"from": "client", "name": "x", "fields": []},
        AT | {"from": "client", "name": "x", "fields": [1]},
        AT | {"from": "client", "name": "x", "fields": "1"},
    ],
    ids=str,
)
def test_a_line_that_is_no_entry_is_refused(record):
    with pytest.raises(ValueError, match=r"is|are"):
        entry_of(record)


WHOLE_HEADER = (
    '{"format":"ibrec","version":1,"started_at":"2026-01-02T03:04:05Z","quantities":"kept"}\n'
)
OPENED = '{"t":1.0,"connection":1,"event":"opened"}\n'


def test_a_recording_is_read_in_its_order(tmp_path):
    path = tmp_path / "s.ibrec"
    path.write_text(WHOLE_HEADER + OPENED + OPENED.replace("1.0", "2.0"))
    recording = load_recording(path)
    assert [entry.at_s for entry in recording.entries] == [1.0, 2.0]
    assert recording.header.quantities == "kept"


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path, caplog):
    path = tmp_path / "s.ibrec"
    path.write_text(WHOLE_HEADER + OPENED + OPENED[:20])
    assert len(load_recording(path).entries) == 1
    assert "cut off" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        (WHOLE_HEADER[:30], "cut off"),
        ("PK\x03\x04\n", r"s\.ibrec:1: "),
        (WHOLE_HEADER + "{}\n" + OPENED, r"s\.ibrec:2: "),
        (WHOLE_HEADER + OPENED + "[" * 100_000 + "\n", r"s\.ibrec:3: "),
        (WHOLE_HEADER + "x" * (MAX_LINE_BYTES + 1), r"s\.ibrec:2: "),
    ],
    ids=["empty", "half a header", "other", "no entry", "nested", "endless"],
)
def test_a_file_that_is_no_recording_is_refused_by_its_line(tmp_path, text, message):
    path = tmp_path / "s.ibrec"
    path.write_text(text)
    with pytest.raises(RecordingError, match=message) as raised:
        load_recording(path)
    assert "s.ibrec" in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RecordingError, match=r"no\.ibrec"):
        load_recording(tmp_path / "no.ibrec")


def test_the_recording_of_the_tests_is_small_and_has_no_account_of_a_person():
    assert SMALL.stat().st_size < 200_000
    assert '"quantities":"replaced"' in SMALL.read_text().splitlines()[0]
