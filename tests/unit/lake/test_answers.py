"""Answers of an object store are told apart, and shown without what they repeat of a request."""

import pytest
from deltalake.exceptions import DeltaError
from polars.exceptions import ComputeError

from position_sync_dagster.errors import (
    BrokenTableError,
    CommitContentionError,
    StoreRefusedError,
    StoreUnavailableError,
)
from position_sync_dagster.lake.storage.commit_errors import (
    plain,
    summary,
    to_lake_error,
    without_secrets,
)

TABLE = "s3://bucket/lake/position_queue"
GET = "Generic S3 error: Error performing GET https://me:pw@s3.test/bucket/lake/x in 1.2ms"


def answered(status: str, code: str, more: str = "") -> str:
    body = f"<Error><Code>{code}</Code><Message>It says {code}.</Message>{more}</Error>"
    return f"{GET} - Server returned non-2xx status code: {status}: {body}"


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        (answered("403 Forbidden", "AccessDenied"), StoreRefusedError, "denies access"),
        (answered("403 Forbidden", "SignatureDoesNotMatch"), StoreRefusedError, "denies access"),
        (answered("400 Bad Request", "ExpiredToken"), StoreRefusedError, "have expired"),
        (answered("403 Forbidden", "RequestTimeTooSkewed"), StoreRefusedError, "clock"),
        (answered("404 Not Found", "NoSuchBucket"), StoreRefusedError, "no such bucket"),
        (answered("301 Moved Permanently", "PermanentRedirect"), StoreRefusedError, "AWS_REGION"),
        (f"{GET} - Received redirect without LOCATION, this normally indicates an incorrectly "
         "configured region", StoreRefusedError, "AWS_REGION"),
        ("Generic S3 error: Error performing PUT http://169.254.169.254/latest/api/token in 4ms",
         StoreRefusedError, "no credentials"),
        (f"{GET} - HTTP error: builder error: URL scheme is not allowed", StoreRefusedError,
         "AWS_ALLOW_HTTP"),
        (answered("503 Service Unavailable", "SlowDown"), StoreUnavailableError, "SlowDown"),
        (answered("500 Internal Server Error", "InternalError"), StoreUnavailableError, "again"),
        (f"{GET}, after 4 retries - HTTP error: error sending request: unexpected EOF",
         StoreUnavailableError, "no answer from https://s3.test"),
        (answered("404 Not Found", "NoSuchKey") + " not found", BrokenTableError, "backup"),
        (answered("412 Precondition Failed", "PreconditionFailed") + " already exists",
         CommitContentionError, "Other writers"),
    ],
)  # fmt: skip
def test_each_answer_is_an_error_with_its_cause_and_remedy(text, kind, words):
    for error in (DeltaError(text), ComputeError(text), OSError(text.replace(": ", ": \x1b[31m"))):
        found = to_lake_error(error, TABLE)
        assert type(found) is kind
        assert words in str(found)
        assert "s3://bucket/lake" in found.what
        assert "pw" not in str(found)


def test_nothing_that_a_store_repeats_of_a_request_is_shown():
    more = "<Token-0>the-token</Token-0><StringToSign>signed</StringToSign>"
    error = DeltaError(answered("400 Bad Request", "ExpiredToken", more))
    for shown in (plain(str(error)), str(to_lake_error(error, TABLE)), str(without_secrets(error))):
        assert "ExpiredToken" in shown
        assert "the-token" not in shown
        assert "signed" not in shown


def test_an_outage_has_the_same_words_for_each_request_and_each_try():
    several = {
        summary(
            f"Error performing {method} http://store:9/b/lake/{name} in {took}, after {n} retries"
        )
        for n, (method, name, took) in enumerate([("GET", "x", "1ms"), ("PUT", "y", "2.5ms")])
    }
    assert several == {"no answer from http://store:9"}


def test_errors_of_a_local_disk_stay_as_they_are():
    error = OSError("No space left on device")
    assert without_secrets(error) is error


def test_credentials_that_cannot_be_loaded_are_no_damage_of_a_table():
    text = (
        "Kernel error -> Operation not supported an error occurred while loading credentials "
        "failed to load IMDS session token service error request forbidden"
    )
    error = to_lake_error(DeltaError(text), "s3://bucket/lake/runs")
    assert "there are no credentials" in str(error)
