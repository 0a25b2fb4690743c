"""The check whether a caller may act on requests that it claimed or read."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import Enum, auto

import polars as pl

from position_sync_dagster.errors import LeaseLostError, RequestStateError
from position_sync_dagster.lake.queue.transitions.request_rows import PENDING, PROCESSING, has_id


class Action(Enum):
    """An action on requests that the caller claimed or read."""

    MARK = auto()
    """Success or failure; allowed also for requests that were only read."""

    RELEASE = auto()
    RENEW = auto()


def check_leases(
    live: pl.DataFrame,
    ids: Iterable[str],
    tokens: Mapping[str, str],
    *,
    action: Action,
    now: datetime,
) -> list[str]:
    """Check that the caller may act on each live request.

    Args:
        tokens: The lease tokens of the caller's claims, by request.

    Returns:
        The ids that are not live; the caller decides what they mean.

    Raises:
        LeaseLostError: A lease has expired, or another worker holds it.
        RequestStateError: A request is not PROCESSING.
    """
    wanted = list(ids)
    found = {
        request_id: (status, token, expires_at)
        for request_id, status, token, expires_at in live.filter(has_id(live, wanted))
        .select("request_id", "status", "lease_token", "lease_expires_at")
        .rows()
    }
    for request_id in wanted:
        if request_id not in found:
            continue
        status, token, expires_at = found[request_id]
        held = status == PROCESSING and expires_at > now
        if request_id in tokens:
            if not held or token != tokens[request_id]:
                raise lease_lost(request_id)
        elif held or (status == PROCESSING and action is Action.RENEW):
            raise lease_lost(request_id)
        elif status == PENDING and action is not Action.MARK:
            raise RequestStateError(
                f"The request {request_id} is PENDING.",
                remedy="Claim it first; only a claimed request has a lease.",
            )
    return [request_id for request_id in wanted if request_id not in found]


def lease_lost(request_id: str) -> LeaseLostError:
    """Return the error of a lease that the caller no longer holds."""
    return LeaseLostError(
        f"The lease on request {request_id} has expired, or another worker holds it.",
        remedy="Stop the work on it: the request was, or will be, claimed by another worker.",
    )
