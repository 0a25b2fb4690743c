"""Retries of reads and commits: how often, for how long, and which error remains."""

import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from position_sync_dagster.errors import LakeError
from position_sync_dagster.lake.object_store.answers import without_secrets
from position_sync_dagster.lake.storage.commit_errors import (
    STORAGE_ERRORS,
    ErrorKind,
    RetryCommit,
    classify,
    to_lake_error,
)

T = TypeVar("T")

_STALE_ATTEMPTS = 4
"""A file that is missing on fresh handles too was not vacuumed: the table is broken."""


PAUSE_S, REMOTE_PAUSE_S = 0.25, 0.5
"""The longest pause before another try, in seconds: some times as long as a commit takes."""


def retried(
    attempt: Callable[[], T], *, path: str, contention_s: float, longest_pause_s: float = PAUSE_S
) -> T:
    """Return the result of the first attempt that succeeds.

    Conflicts are tried again for `contention_s` seconds, with growing random pauses; files that
    are missing or not whole yet a few times; everything else not at all.

    Args:
        attempt: Must read anew each time that it runs.
        path: The table's path, for the error.

    Raises:
        LakeError: No attempt succeeded; see `commit_errors.to_lake_error`.
    """
    for trial in Retrying(
        retry=retry_if_exception(_is_worth_retrying),  # `_is_last` ends it
        wait=wait_random_exponential(multiplier=longest_pause_s / 60, max=longest_pause_s),
        reraise=True,
    ):
        with trial:
            try:
                return attempt()
            except STORAGE_ERRORS as error:
                kind = classify(error)
                transient = kind in (ErrorKind.CONFLICT, ErrorKind.STALE)
                if transient and not _is_last(trial.retry_state, kind, contention_s):
                    raise
                raise to_lake_error(error, path) from without_secrets(error)
    raise AssertionError("unreachable")  # pragma: no cover


def _is_last(state: RetryCallState, kind: ErrorKind, contention_s: float) -> bool:
    if kind is ErrorKind.STALE:
        return state.attempt_number >= _STALE_ATTEMPTS
    return time.monotonic() - state.start_time >= contention_s


def _is_worth_retrying(error: BaseException) -> bool:
    return isinstance(error, (*STORAGE_ERRORS, RetryCommit)) and not isinstance(error, LakeError)
