"""Failures of storage are told apart and explained to the caller."""

import errno

import pytest
from deltalake.exceptions import CommitFailedError, DeltaError
from polars.exceptions import ComputeError

from position_sync_dagster.errors import (
    BrokenTableError,
    CommitContentionError,
    LakeNotWritableError,
)
from position_sync_dagster.lake.storage.commit_errors import ErrorKind, classify, to_lake_error

LOG_IS_CUT = (
    "File not found: /lake/t/_delta_log/00000000000000000005.json",
    "Generic delta kernel error: No files in log segment",
    "No table metadata or protocol found in delta log.",
    "Generic delta kernel error: Expected contiguous commit files, but found gap: ParsedLogPath",
    "Generic delta kernel error: LogSegment end version 11 not the same as the specified end "
    "version 12",
    "Invalid Checkpoint: Had a _last_checkpoint hint but didn't find any checkpoints",
)
"""What delta-rs says when another process deletes old entries of the log meanwhile."""


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (CommitFailedError("a concurrent transactions added new data"), ErrorKind.CONFLICT),
        (CommitFailedError("No space left on device (os error 28)"), ErrorKind.UNWRITABLE),
        (DeltaError("Invalid table version: 7"), ErrorKind.CONFLICT),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), ErrorKind.UNWRITABLE),
        (DeltaError("Unable to create dir: … (os error 13)"), ErrorKind.UNWRITABLE),
        (DeltaError('Error: Os { code: 20, kind: NotADirectory, message: "…" }'),
         ErrorKind.UNWRITABLE),
        (ComputeError("Object at location x not found: … (os error 2)"), ErrorKind.STALE),
        (ComputeError("parquet: File out of specification: file size (0) is …"), ErrorKind.STALE),
        (ComputeError("cannot compare string with numeric type (i32)"), ErrorKind.QUERY),
        (DeltaError("Generic LocalFileSystem: … (os error 24)"), ErrorKind.EXHAUSTED),
        (DeltaError("Generic LocalFileSystem: Requested range was invalid"), ErrorKind.STALE),
        (DeltaError("Kernel error: Json error"), ErrorKind.STALE),
        *((DeltaError(f"Kernel error: {text}"), ErrorKind.STALE) for text in LOG_IS_CUT),
    ],
)  # fmt: skip
def test_failures_are_told_apart(error, kind):
    assert classify(error) is kind


def test_each_failure_names_the_table_and_a_remedy_without_a_backtrace():
    torn = DeltaError(
        "\x1b[31m↳\x1b[0m Kernel error: Truncated record\n   0: <unknown>\n   1: <unknown>"
    )
    for error, kind in (
        (torn, BrokenTableError),
        (DeltaError("Read-only file system (os error 30)"), LakeNotWritableError),
        (CommitFailedError("added new data"), CommitContentionError),
    ):
        message = to_lake_error(error, "/lake/t")
        assert isinstance(message, kind)
        assert "/lake/t" in message.what
        assert "\x1b" not in message.what
        assert message.remedy
        assert "<unknown>" not in str(message)
