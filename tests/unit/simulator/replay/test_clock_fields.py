"""The times in messages move with the replay, and nothing else does."""

import pytest

from ib_gateway_simulator.replay.clock_fields import shifted


@pytest.mark.parametrize(
    ("fields", "moved"),
    [
        (("49", "1", "1000"), ("49", "1", "1060")),
        (("46", "6", "5", "45", "1000"), ("46", "6", "5", "45", "1060")),
        (("46", "6", "5", "88", "1000"), ("46", "6", "5", "88", "1060")),
        (("46", "6", "5", "45", "0"), ("46", "6", "5", "45", "0")),  # no trade yet
        (("46", "6", "5", "84", "1000"), ("46", "6", "5", "84", "1000")),
        (("8", "1", "23:59"), ("8", "1", "00:00")),
        (("8", "1", "soon"), ("8", "1", "soon")),
        (("61", "3", "DUSIM0001", "1000"), ("61", "3", "DUSIM0001", "1000")),
    ],
    ids=str,
)
def test_a_minute_later_the_times_are_a_minute_later(fields, moved):
    assert shifted(fields, 60.0) == moved


def test_at_the_time_of_the_recording_nothing_moves():
    assert shifted(("8", "1", "12:34"), 0.0) == ("8", "1", "12:34")
