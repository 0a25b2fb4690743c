"""Failures of storage are told apart, tried again or not, and explained to the caller."""

import errno
import traceback

import pytest
from deltalake.exceptions import CommitFailedError, DeltaError
from polars.exceptions import ComputeError

from position_sync_dagster.errors import (
    BrokenTableError,
    CommitContentionError,
    InvalidRequestError,
    LakeNotWritableError,
    NewerTableError,
    StoreError,
)
from position_sync_dagster.lake.storage.commit_errors import (
    fail,
    to_lake_error,
)
from position_sync_dagster.lake.storage.commits import retried

# What delta-rs says when another process deletes old entries of the log meanwhile.
LOG_IS_CUT = (
    "File not found: /lake/t/_delta_log/00000000000000000005.json",
    "Generic delta kernel error: No files in log segment",
    "No table metadata or protocol found in delta log.",
    "Generic delta kernel error: Expected contiguous commit files, but found gap: ParsedLogPath",
    "Generic delta kernel error: LogSegment end version 11 not the same as the specified end "
    "version 12",
    "Invalid Checkpoint: Had a _last_checkpoint hint but didn't find any checkpoints",
)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (CommitFailedError("a concurrent transactions added new data"), CommitContentionError),
        (CommitFailedError("No space left on device (os error 28)"), LakeNotWritableError),
        (DeltaError("Invalid table version: 7"), CommitContentionError),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), LakeNotWritableError),
        (DeltaError("Unable to create dir: … (os error 13)"), LakeNotWritableError),
        (DeltaError('Error: Os { code: 20, kind: NotADirectory, message: "…" }'),
         LakeNotWritableError),
        (ComputeError("Object at location x not found: … (os error 2)"), BrokenTableError),
        (ComputeError("parquet: File out of specification: file size (0) is …"), BrokenTableError),
        (DeltaError("Generic LocalFileSystem: … (os error 24)"), LakeNotWritableError),
        (DeltaError("Generic LocalFileSystem: Requested range was invalid"), BrokenTableError),
        (DeltaError("Kernel error: Json error"), BrokenTableError),
        (DeltaError("Invalid data found: 1 rows failed validation check."), InvalidRequestError),
        (DeltaError("\x1b[31m↳\x1b[0m Kernel error: Truncated record"), BrokenTableError),
        *((DeltaError(f"Kernel error: {text}"), BrokenTableError) for text in LOG_IS_CUT),
    ],
)  # fmt: skip
def test_failures_are_told_apart_and_name_the_table_and_a_remedy(error, kind):
    lake_error = to_lake_error(error, "/lake/t")
    assert type(lake_error) is kind
    assert "/lake/t" in lake_error.what
    assert "\x1b" not in lake_error.what
    assert lake_error.remedy


TABLE = "s3://bucket/lake/position_queue"
GET = "Generic S3 error: Error performing GET https://me:pw@s3.test/bucket/lake/x in 1.2ms"


def answered(status: str, code: str, more: str = "") -> str:
    body = f"<Error><Code>{code}</Code><Message>It says {code}.</Message>{more}</Error>"
    return f"{GET} - Server returned non-2xx status code: {status}: {body}"


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        (answered("403 Forbidden", "AccessDenied"), StoreError, "AccessDenied"),
        (answered("403 Forbidden", "SignatureDoesNotMatch"), StoreError, "credentials"),
        (answered("400 Bad Request", "ExpiredToken"), StoreError, "ExpiredToken"),
        (answered("403 Forbidden", "RequestTimeTooSkewed"), StoreError, "clock"),
        (answered("404 Not Found", "NoSuchBucket"), StoreError, "NoSuchBucket"),
        (answered("301 Moved Permanently", "PermanentRedirect"), StoreError, "region"),
        (f"{GET} - Received redirect without LOCATION, this normally indicates an incorrectly "
         "configured region", StoreError, "region"),
        ("Generic S3 error: Error performing PUT http://169.254.169.254/latest/api/token in 4ms",
         StoreError, "credentials"),
        ("Kernel error an error occurred while loading credentials failed to load IMDS token",
         StoreError, "loading credentials"),
        (f"{GET} - HTTP error: builder error: URL scheme is not allowed", StoreError,
         "object-store.md"),
        (answered("503 Service Unavailable", "SlowDown"), StoreError, "SlowDown"),
        (answered("500 Internal Server Error", "InternalError"), StoreError, "again"),
        (f"{GET}, after 4 retries - HTTP error: error sending request: unexpected EOF",
         StoreError, "unexpected EOF"),
        (answered("404 Not Found", "NoSuchKey") + " not found", BrokenTableError, "backup"),
        (answered("412 Precondition Failed", "PreconditionFailed") + " already exists",
         CommitContentionError, "Other writers"),
    ],
)  # fmt: skip
def test_each_answer_is_an_error_with_its_cause_and_remedy(text, kind, words):
    for error in (DeltaError(text), ComputeError(text), OSError(text.replace(": ", ": \x1b[31m"))):
        lake_error = to_lake_error(error, TABLE)
        assert type(lake_error) is kind
        assert words in str(lake_error)
        assert "s3://bucket/lake" in lake_error.what
        assert "pw" not in str(lake_error)
        assert "1.2ms" not in str(lake_error), "the same words in an outage are logged once"


def test_nothing_that_a_store_repeats_of_a_request_is_shown():
    more = "<Token-0>the-token</Token-0><StringToSign>signed</StringToSign>"
    error = DeltaError(answered("400 Bad Request", "ExpiredToken", more))
    with pytest.raises(StoreError, match="ExpiredToken") as raised:
        fail(error, TABLE)
    shown = "".join(traceback.format_exception(raised.value))
    assert "the-token" not in shown
    assert "signed" not in shown


CONFLICT = CommitFailedError("a concurrent transaction added new data")
STALE = DeltaError("part-0.parquet not found")
FULL = OSError("No space left on device (os error 28)")
NEWER = NewerTableError("newer", remedy="install it")


@pytest.mark.parametrize(
    ("errors", "contention_s", "end"),
    [
        ([CONFLICT, STALE, CONFLICT], 15, "done"),
        ([*[CONFLICT] * 4, STALE, CONFLICT, STALE], 15, "done"),
        ([STALE] * 4, 15, BrokenTableError),
        ([CONFLICT], 0, CommitContentionError),
        ([FULL], 15, LakeNotWritableError),
        ([NEWER], 15, NewerTableError),
    ],
)
def test_conflicts_are_tried_for_a_time_missing_files_four_times_and_the_rest_once(
    errors, contention_s, end
):
    left = [*errors]

    def attempt() -> str:
        if left:
            raise left.pop(0)
        return "done"

    if end == "done":
        assert retried(attempt, path="/lake/t", contention_s=contention_s) == end
    else:
        with pytest.raises(end):
            retried(attempt, path="/lake/t", contention_s=contention_s)
    assert left == []
