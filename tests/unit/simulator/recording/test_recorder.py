"""The recorder: what it writes, line by line, and how it ends."""

import json
from datetime import UTC, datetime
from random import Random

import pytest

from ib_gateway_simulator.protocol.request_ids import ORDER_REQUESTS
from ib_gateway_simulator.recording.recorder import Recorder


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
    assert (recorder.entries, recorder.failed) == (1, None)


def test_a_disk_that_is_full_ends_the_recording_and_nothing_else(recorder, caplog):
    with recorder:
        number = recorder.opened()
        whole = recorder._file
        recorder._file = open("/dev/full", "w", buffering=1)  # noqa: SIM115 - it is the full disk
        recorder.message(number, ("62", "1"))
        recorder.message(number, ("62", "1"))
        recorder.closed(number, "gateway")
        full, recorder._file = recorder._file, whole
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
