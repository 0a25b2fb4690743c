"""The lines of a recording: what is written can be read, and what is none is refused."""

import json
from datetime import UTC, datetime

import pytest

from ib_gateway_simulator.recordings.entry import (
    Closed,
    Header,
    Message,
    Opened,
    entry_of,
    header_of,
)

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
