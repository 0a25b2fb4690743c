"""Frames, handshakes and requests, without a socket."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ib_gateway_simulator.errors import MalformedRequestError, WireError
from ib_gateway_simulator.protocol.request_ids import NAMES
from ib_gateway_simulator.protocol.requests import decode
from ib_gateway_simulator.protocol.wire import FrameReader, fields_of, frame, negotiate

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@given(
    messages=st.lists(st.lists(TEXT, min_size=1, max_size=6), max_size=5),
    cuts=st.lists(st.integers(1, 7), max_size=50),
)
def test_frames_are_read_whatever_the_pieces_of_the_stream(messages, cuts):
    stream = b"API\0" + b"".join(frame(fields) for fields in messages)
    reader = FrameReader()
    received = []
    while stream:
        size = cuts.pop() if cuts else len(stream)
        reader.feed(stream[:size])
        stream = stream[size:]
        while (payload := reader.next_frame()) is not None:
            received.append(fields_of(payload))
    assert received == messages
    assert len(reader) == 0


@pytest.mark.parametrize("start", [b"X", b"API1", b"GET /", b"\0\0\0\0"])
def test_a_stream_that_does_not_start_with_api_is_refused(start):
    reader = FrameReader()
    reader.feed(start)
    with pytest.raises(WireError, match="starts with"):
        reader.next_frame()


def test_a_length_that_no_request_has_is_refused_before_it_arrives():
    reader = FrameReader(max_frame_bytes=100)
    reader.feed(b"API\0" + struct.pack(">I", 101))
    with pytest.raises(WireError, match="101 bytes"):
        reader.next_frame()


@pytest.mark.parametrize(
    ("offer", "version"),
    [
        (b"v157..178", 178),
        (b"v157..176", 176),
        (b"v100..187", 178),
        (b"v178", 178),
        (b"v100..157", 157),
        (b"v100..156", None),
        (b"v179..190", None),
    ],
)
def test_versions_are_negotiated(offer, version):
    assert negotiate(offer) == version


@pytest.mark.parametrize("offer", [b"", b"63", b"v", b"v1..", b"vx..y", b"v1..2..3", b"\xff"])
def test_an_offer_that_cannot_be_read_is_refused(offer):
    with pytest.raises(WireError):
        negotiate(offer)


@given(st.lists(TEXT, max_size=30), st.sampled_from(sorted(NAMES)))
def test_any_fields_decode_or_are_malformed(fields, type_id):
    try:
        request = decode([str(type_id), *fields])
    except MalformedRequestError as problem:
        assert problem.field  # noqa: PT017 - both outcomes are right
    else:
        assert request.name == NAMES[type_id]


def test_a_combo_and_a_delta_neutral_part_are_skipped():
    contract = ["0", "SPY", "BAG", "", "0.0", "", "", "SMART", "", "USD", "", ""]
    legs = ["2", *["1", "1", "BUY", "SMART"] * 2]
    neutral = ["1", "5", "0.5", "100"]
    request = decode(["1", "11", "7", *contract, *legs, *neutral, "232, 100", "0", "0", ""])
    assert request.req_id == 7
    assert request.generic_ticks == ("232", "100")
    assert request.contract.exchange == "SMART"


def test_the_largest_double_as_strike_means_none():
    contract = ["5", "", "", "", "1.7976931348623157e+308", "", "", "", "", "", "", ""]
    assert decode(["9", "8", "7", *contract, "0", "", "", ""]).contract.strike == 0
