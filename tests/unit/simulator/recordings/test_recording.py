"""Reading a recording: whole lines, and the line that is wrong is named."""

import pytest

from ib_gateway_simulator.errors import RecordingError
from ib_gateway_simulator.recordings.recording import MAX_LINE_BYTES, load_recording
from tests.support.recorded_session import SMALL

HEADER = '{"format":"ibrec","version":1,"started_at":"2026-01-02T03:04:05Z","quantities":"kept"}\n'
OPENED = '{"t":1.0,"connection":1,"event":"opened"}\n'


def test_a_recording_is_read_in_its_order(tmp_path):
    path = tmp_path / "s.ibrec"
    path.write_text(HEADER + OPENED + OPENED.replace("1.0", "2.0"))
    recording = load_recording(path)
    assert [entry.at_s for entry in recording.entries] == [1.0, 2.0]
    assert recording.header.quantities == "kept"


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path, caplog):
    path = tmp_path / "s.ibrec"
    path.write_text(HEADER + OPENED + OPENED[:20])
    assert len(load_recording(path).entries) == 1
    assert "cut off" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        (HEADER[:30], "cut off"),
        ("PK\x03\x04\n", r"s\.ibrec:1: "),
        (HEADER + "{}\n" + OPENED, r"s\.ibrec:2: "),
        (HEADER + OPENED + "[" * 100_000 + "\n", r"s\.ibrec:3: "),
        (HEADER + "x" * (MAX_LINE_BYTES + 1), r"s\.ibrec:2: "),
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
