"""Which failures of storage are tried again, and for how long."""

import pytest
from deltalake.exceptions import CommitFailedError, DeltaError
from polars.exceptions import ComputeError

from position_sync_dagster.errors import (
    BrokenTableError,
    CommitContentionError,
    LakeNotWritableError,
    NewerTableError,
)
from position_sync_dagster.lake.storage.commit_errors import RetryCommit
from position_sync_dagster.lake.storage.table import retried

CONFLICT = CommitFailedError("a concurrent transaction added new data")
STALE = DeltaError("part-0.parquet not found")


class Attempts:
    """Fails with each of the errors in turn, then with the last one for ever, or succeeds."""

    def __init__(self, *errors: Exception, succeeds: bool = True) -> None:
        self.errors = list(errors)
        self.succeeds = succeeds
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        if self.count <= len(self.errors):
            raise self.errors[self.count - 1]
        if not self.succeeds:
            raise self.errors[-1]
        return "done"


def test_conflicts_stale_files_and_migrations_are_tried_again():
    attempts = Attempts(CONFLICT, STALE, RetryCommit(), CONFLICT)
    assert retried(attempts, path="/lake/t", contention_s=15) == "done"
    assert attempts.count == 5


def test_a_file_that_stays_missing_is_a_broken_table_after_four_attempts():
    attempts = Attempts(STALE, succeeds=False)
    with pytest.raises(BrokenTableError, match="/lake/t"):
        retried(attempts, path="/lake/t", contention_s=15)
    assert attempts.count == 4


def test_conflicts_do_not_use_up_the_attempts_at_a_missing_file():
    attempts = Attempts(*[CONFLICT] * 4, STALE, CONFLICT, STALE)
    assert retried(attempts, path="/lake/t", contention_s=15) == "done"
    assert attempts.count == 8


def test_conflicts_end_when_the_time_for_them_is_over():
    attempts = Attempts(CONFLICT, succeeds=False)
    with pytest.raises(CommitContentionError, match="/lake/t"):
        retried(attempts, path="/lake/t", contention_s=0)
    assert attempts.count == 1


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError("No space left on device (os error 28)"), LakeNotWritableError),
        (ComputeError("cannot compare string with numeric type (i32)"), ComputeError),
        (NewerTableError("newer", remedy="install it"), NewerTableError),
    ],
)
def test_other_failures_are_not_tried_again(error: Exception, raised: type[Exception]):
    attempts = Attempts(error, succeeds=False)
    with pytest.raises(raised):
        retried(attempts, path="/lake/t", contention_s=15)
    assert attempts.count == 1
