"""Whether a worker drains again at once or rests."""

import pytest

from position_sync_dagster.sync.drain import DrainReport


@pytest.mark.parametrize(
    ("claimed", "released", "exhausted", "unavailable", "expected"),
    [
        (2, 0, False, False, True),
        (4, 3, False, False, True),
        (4, 4, False, False, False),
        (2, 0, True, False, False),
        (2, 0, False, True, False),
        (0, 0, False, False, False),
    ],
)
def test_a_worker_drains_again_at_once_while_requests_are_left_and_can_be_valued(
    claimed, released, exhausted, unavailable, expected
):
    report = DrainReport(
        claimed=claimed, released=released, exhausted=exhausted, unavailable=unavailable
    )
    assert report.may_continue is expected
