"""The commands `position-sync queue …`: what waits, what failed, and another try for it."""

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from position_sync_dagster.cli.options import HomeFolder, Json, existing, settings_for
from position_sync_dagster.domain.request import QueueStatus
from position_sync_dagster.terminal.output import print_json, print_noted
from position_sync_dagster.terminal.text import age, duration, printable

if TYPE_CHECKING:
    from position_sync_dagster.domain.request import QueuedPosition
    from position_sync_dagster.lake.queue.operations import SyncQueue

COLUMNS = {
    "id": "left",
    "account": "left",
    "conid": "right",
    "symbol": "left",
    "priority": "right",
    "attempts": "right",
    "age": "right",
}


class ListByDefault(TyperGroup):
    """The group without a command's name is its command `list`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `list` before options that are not the group's own."""
        own = ctx.help_option_names
        if not args or (args[0].startswith("-") and args[0] not in own):
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=ListByDefault,
    help="The requests for positions to be valued. Without a command: `list`.",
)


def open_queue(home: HomeFolder) -> "SyncQueue":
    """Give the queue of the lake that the settings name; a lake is not made.

    Raises:
        LakeError: There is no lake.
    """
    from position_sync_dagster.lake import Lake

    return existing(Lake.of(settings_for(home))).queue.sync


@app.command("list")
def list_requests(
    status: Annotated[
        QueueStatus | None,
        typer.Option(case_sensitive=False, help="Also the requests of this status."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Requests shown at most.")] = 50,
    json: Json = False,
    home: HomeFolder = None,
) -> None:
    """Count the requests by status and, with --status, show them with their error.

    Those that wait or are being valued come in the order of claims; those that ended, newest
    first. The age counts from when the position was asked for.
    """
    from position_sync_dagster.domain.clock import utc_now

    queue = open_queue(home)
    overview = queue.overview()
    requests = None if status is None else queue.get_batch(None, limit, status)
    now = utc_now()
    oldest = overview.oldest_pending_at
    oldest_s = None if oldest is None else (now - oldest).total_seconds()
    counts = {one.value: overview.counts[one] for one in QueueStatus}
    if json:
        print_json(
            {
                "counts": counts,
                "oldest_pending_age_s": oldest_s,
                "status": status,
                "requests": None if requests is None else [as_data(r, now) for r in requests],
            }
        )
        return
    for name, count in counts.items():
        typer.echo(f"{name.lower():<18} {count:,}")
    typer.echo(f"{'oldest pending':<18} {duration(oldest_s)}")
    if status is None or requests is None:
        return
    typer.echo()
    print_requests(requests, now) if requests else typer.echo(f"No request is {status}.")
    if len(requests) < counts[status]:
        typer.echo(f"{len(requests):,} of {counts[status]:,} are shown; --limit shows more.")


def as_data(request: "QueuedPosition", now: datetime) -> dict[str, object]:
    """Give a request as plain data; its lease token is nobody's but the worker's."""
    fields = asdict(request)
    del fields["lease_token"]
    return fields | {"age_s": (now - request.created_at).total_seconds()}


def print_requests(requests: "Iterable[QueuedPosition]", now: datetime) -> None:
    """Print requests as a table, the first line of an error below its request."""
    print_noted(
        COLUMNS,
        (
            (
                (
                    request.request_id,
                    request.account or "any",
                    str(request.conid),
                    request.symbol,
                    str(request.priority),
                    str(request.attempts),
                    age(request.created_at, now),
                ),
                first_line(request.error_message or ""),
            )
            for request in requests
        ),
    )


def first_line(text: str) -> str:
    r"""Give the first line that says something.

    >>> first_line("\n  No value came.\nTraceback: ...")
    'No value came.'
    """
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


@app.command("retry")
def retry_requests(
    request_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="REQUEST_ID", help="As `queue --status FAILED` shows them."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Each request that is FAILED.")] = False,
    json: Json = False,
    home: HomeFolder = None,
) -> None:
    """Put FAILED requests back to PENDING with fresh attempts: all that are named, or none.

    Told is the id that stands for each. It is another one, and the request stays FAILED, where a
    live request asks for the same position already.
    """
    if bool(request_ids) == every:
        raise typer.BadParameter("Give either ids of requests or --all.")
    queue = open_queue(home)
    stands = retry_all(queue) if every else retry(queue, request_ids or [])
    if json:
        print_json(
            [
                {"request_id": asked, "stands_for_it": live, "put_back": asked == live}
                for asked, live in stands.items()
            ]
        )
        return
    if not stands:
        typer.echo("No request is FAILED.")
    for asked, live in stands.items():
        typer.echo(
            printable(
                f"{asked} is PENDING again."
                if asked == live
                else f"{asked} stays FAILED: {live} asks for the same position already."
            )
        )


def retry(queue: "SyncQueue", request_ids: Iterable[str]) -> dict[str, str]:
    """Put FAILED requests back in one commit; give the id that stands for each, by its own.

    Raises:
        UnknownRequestError, RequestStateError: One is not there, or not FAILED; none is changed.
    """
    from position_sync_dagster.errors import UnknownRequestError

    ids = list(dict.fromkeys(request_ids))
    try:
        return dict(zip(ids, queue.retry(ids), strict=True))
    except UnknownRequestError as error:
        raise UnknownRequestError(
            error.what,
            remedy="Nothing was changed. `position-sync queue --status FAILED` lists the ids.",
        ) from error


def retry_all(queue: "SyncQueue") -> dict[str, str]:
    """Put all FAILED requests back; one that somebody else puts back meanwhile is left out."""
    from position_sync_dagster.errors import RequestStateError

    while failed := queue.counts()[QueueStatus.FAILED]:
        requests = queue.get_batch(None, failed, QueueStatus.FAILED)
        try:
            return retry(queue, [request.request_id for request in requests])
        except RequestStateError:
            continue  # the next look does not find it
    return {}
