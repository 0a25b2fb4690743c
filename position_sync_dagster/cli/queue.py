"""The commands `position-sync queue …`: list requests and attempts, retry those that failed."""

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import typer

from position_sync_dagster.cli import options
from position_sync_dagster.cli.app import app
from position_sync_dagster.domain.clock import seconds_since, utc_now
from position_sync_dagster.domain.queue_request import QueuedPosition, QueueStatus
from position_sync_dagster.errors import RequestStateError, UnknownRequestError
from position_sync_dagster.lake.position_queue import SyncQueue
from position_sync_dagster.money.reports.columns import duration
from position_sync_dagster.terminal import output

group = typer.Typer(cls=options.ListByDefault)
app.add_typer(group, name="queue")


@group.callback()
def queue() -> None:
    """List requests and their attempts, and retry those that failed. Without a command: `list`."""


@group.command("list")
def list_requests(
    status: Annotated[
        QueueStatus | None,
        typer.Option(case_sensitive=False, help="Show the requests of this status too."),
    ] = None,
    limit: options.Limit = 50,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Count the requests by status. With --status, show those requests and their errors.

    PENDING and PROCESSING requests come in the order in which they are claimed, the others newest
    first. The age counts from the creation of the request.
    """
    stored = options.opened(home)[1].queue.sync
    overview = stored.overview()
    now = utc_now()
    oldest_pending_age_s = seconds_since(overview.oldest_pending_at, now)
    counts = {state.value: overview.counts[state] for state in QueueStatus}
    listed = None
    if status is not None:
        listed = [as_data(request, now) for request in stored.get_batch(None, limit, status)]
    if json:
        output.print_json(
            {
                "counts": counts,
                "oldest_pending_age_s": oldest_pending_age_s,
                "status": status,
                "requests": listed,
            }
        )
        return

    for state, count in counts.items():
        typer.echo(f"{state.lower():<18} {count:,}")
    typer.echo(f"{'oldest pending':<18} {duration(oldest_pending_age_s)}")

    if status is None or listed is None:
        return
    typer.echo()
    output.show_rows(listed, _REQUEST, json=False, none=f"No request is {status}.")
    if len(listed) < counts[status]:
        typer.echo(f"{len(listed):,} of {counts[status]:,} are shown; --limit shows more.")


# The columns of a request on a terminal.
_REQUEST = (
    "request_id", "account", "conid", "symbol", "priority", "attempts", "age_s", "error_message",
)  # fmt: skip


def as_data(request: QueuedPosition, now: datetime) -> dict[str, Any]:
    """Return a request as plain data, without its lease token: only its worker may know that."""
    fields = asdict(request)
    del fields["lease_token"]
    return fields | {"age_s": (now - request.created_at).total_seconds()}


@group.command("attempts")
def list_attempts(
    request_id: Annotated[
        str | None, typer.Argument(help="Only requests whose ids begin so.")
    ] = None,
    limit: options.Limit = 50,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show each attempt to value a request: its worker, begin, end, outcome and error.

    Those in progress come first, then the newest. RELEASED: the worker gave the request back;
    EXPIRED: its lease ran out. Of a request, the last 20 before the newest one are kept.
    """
    stored = options.opened(home)[1].queue.sync
    if request_id is not None and not stored.beginning_with(request_id):
        raise UnknownRequestError(
            f"No request of the queue has an id that begins with {request_id[:80]!r}.",
            remedy="`position-sync queue attempts` alone lists the newest, with their ids.",
        )
    attempts = stored.attempts(limit, request_id)
    output.show_rows(attempts, _ATTEMPT, json=json, none="No request was processed.")


# The columns of an attempt on a terminal.
_ATTEMPT = (
    "request_id", "account", "conid", "symbol", "number", "worker", "began_at", "ended_at",
    "outcome", "error",
)  # fmt: skip


@group.command("retry")
def retry_requests(
    request_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="REQUEST_ID", help="An id from `queue --status FAILED`."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Retry all FAILED requests.")] = False,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Put FAILED requests back to PENDING with fresh attempts: all named requests, or none.

    If a live request for the same position exists already, the request stays FAILED. The output
    then shows the id of the live one.
    """
    if bool(request_ids) == every:
        raise typer.BadParameter("Give either ids of requests or --all.")
    stored = options.opened(home)[1].queue.sync
    live_ids = retry_all(stored) if every else retry(stored, request_ids or [])
    requests = [
        {"request_id": request_id, "put_back": request_id == live, "stands_for_it": live}
        for request_id, live in live_ids.items()
    ]
    output.show_rows(requests, json=json, none="No request is FAILED.")


def retry(queue: SyncQueue, request_ids: Iterable[str]) -> dict[str, str]:
    """Put FAILED requests back in one commit.

    Returns:
        Request id → id of the live request for the same position. For a request that was put back,
        the two are the same.

    Raises:
        UnknownRequestError: A request does not exist. None is changed.
        RequestStateError: A request is not FAILED. None is changed.
    """
    ids = list(dict.fromkeys(request_ids))
    return dict(zip(ids, queue.retry(ids), strict=True))


def retry_all(queue: SyncQueue) -> dict[str, str]:
    """Put all FAILED requests back, except those that another program puts back meanwhile."""
    while failed := queue.counts()[QueueStatus.FAILED]:
        requests = queue.get_batch(None, failed, QueueStatus.FAILED)
        try:
            return retry(queue, [request.request_id for request in requests])
        except RequestStateError:
            continue  # another program has put one back: read again
    return {}
