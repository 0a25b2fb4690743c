"""Whether a worker drains again at once or rests."""

import pytest

from position_sync_dagster.sync.drain import BatchReport, DrainReport


def batch(*, released: int) -> BatchReport:
    return BatchReport(
        batch_id="b", claimed=2, succeeded=2 - released, failed=0, released=released,
        oldest_wait_s=1.0, duration_s=0.1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("released", "exhausted", "unavailable", "expected"),
    [
        ((0,), False, None, True),
        ((2, 1), False, None, True),
        ((2, 2), False, None, False),
        ((0,), True, None, False),
        ((0,), False, "The owner is BLIND.", False),
        ((), False, None, False),
    ],
)
def test_a_worker_drains_again_at_once_while_requests_are_left_and_can_be_valued(
    released, exhausted, unavailable, expected
):
    report = DrainReport(
        batches=tuple(batch(released=n) for n in released), duration_s=1.0,
        exhausted=exhausted, unavailable=unavailable,
    )  # fmt: skip
    assert report.may_continue is expected
