"""Checks of the queue: each request ends once, with a value."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

import dagster as dg

from position_sync_dagster.defs.checks import check_results
from position_sync_dagster.defs.libraries import inspection, lifecycle_partitions, pl, tables
from position_sync_dagster.domain.request import QueueStatus
from position_sync_dagster.settings import Settings

LOOK_BACK = timedelta(days=1)
"""Maximum age of a failure in the check; `position-sync queue list --status FAILED` has older
ones."""

ANSWERED_WITHIN = timedelta(hours=1)
"""A holding whose values can be read is requested again far more often than this."""

_COLUMNS = ["request_id", "account", "conid", "symbol", "status", "since", "error_message"]


@check_results.table_check(
    "position_queue",
    description="Whether requests are FAILED and their holding has no value since, or wait for "
    "longer than POSITION_SYNC_STALE_AFTER_S.",
)
def requests_are_answered(lake: "tables.Lake", settings: Settings) -> dg.AssetCheckResult:
    """Return the check's result now."""
    now = datetime.now(UTC)
    failed = inspection.finished_requests(lake, QueueStatus.FAILED.value, now - LOOK_BACK)
    answered = failed.clear().select("account", "conid", at="updated_at")
    if not failed.is_empty():
        success = QueueStatus.SUCCESS.value
        done = inspection.finished_requests(lake, success, now - ANSWERED_WITHIN)
        closed = pl.col("position") == 0  # a closed holding needs no value, whenever it closed
        at = pl.when(closed).then(pl.lit(now)).otherwise("timestamp").alias("at")
        rows = lake.updates.sync.latest().select("account", "conid", at)
        any_account = rows.with_columns(account=pl.lit(None, pl.String))
        done = done.select("account", "conid", at="updated_at")
        answered = pl.concat([done, rows, any_account])
    return judge_requests(
        failed,
        inspection.live_requests(lake),
        answered,
        foreign=inspection.foreign_requests(lake),
        now=now,
        old_after=timedelta(seconds=settings.stale_after_s),
    )


def judge_requests(
    failed: "pl.DataFrame",
    live: "pl.DataFrame",
    answered: "pl.DataFrame",
    *,
    foreign: "pl.DataFrame",
    now: datetime,
    old_after: timedelta,
) -> dg.AssetCheckResult:
    """Return the check's result; pure.

    Args:
        failed: Requests that are FAILED.
        live: Requests that are not finished.
        answered: When holdings were valued (`account`, `conid`, `at`): earlier failures do not
            count.
        foreign: Rows of the queue that another program wrote and that are no requests.
        now: The current time.
        old_after: How long a request may wait.
    """
    newest = answered.group_by("account", "conid").agg(pl.col("at").max())
    lasting = failed.join(newest, on=["account", "conid"], how="left", nulls_equal=True).filter(
        pl.col("at").is_null() | (pl.col("at") < pl.col("updated_at"))
    )
    live = live.join(foreign, on="request_id", how="anti", nulls_equal=True)
    old = live.filter(pl.col("created_at") < now - old_after)
    rows = pl.concat(
        [
            lasting.sort("updated_at").select(pl.all(), since="updated_at").select(_COLUMNS),
            old.sort("created_at").select(pl.all(), since="created_at").select(_COLUMNS),
            foreign.select(pl.all(), since="created_at").select(_COLUMNS),
        ]
    )
    return check_results.rows_result(
        rows,
        passed=f"No request failed for good; {live.height} wait, none for long.",
        failed="requests are FAILED, have waited for more than "
        f"{old_after.total_seconds() / 60:.0f} min, or are none"
        if foreign.height
        else "requests are FAILED or have waited for more than "
        f"{old_after.total_seconds() / 60:.0f} min",
        what_to_do="Read error_message; `position-sync queue retry --all` tries FAILED requests "
        "again. Old ones wait for the broker: see the check a_stream_watches. Rows without an id, "
        "a conid or a known status are of another Delta writer, and never claimed: delete them.",
        failed_for_good=lasting.height,
        old=old.height,
        waiting=live.height,
        foreign=foreign.height,
    )


WINDOW = timedelta(minutes=30)
"""Time span of the checked requests: twice the longest time between two evaluations."""


@check_results.table_check(
    "position_queue",
    description="Of the requests of the last half hour: each is live, or ended once, and the row "
    "that answers it is in the ledger.",
)
def requests_end_once(lake: "tables.Lake", settings: Settings) -> dg.AssetCheckResult:
    """Return the check's result now.

    The queue is read first: a row is committed before its request is marked.
    """
    requests = inspection.requests_since(lake, datetime.now(UTC) - WINDOW)
    answers = requests.get_column("update_id").drop_nulls().unique()
    return judge_ends(requests, rows=lake.updates.sync.existing(answers))


def judge_ends(requests: "pl.DataFrame", *, rows: Collection[str]) -> dg.AssetCheckResult:
    """Return the check's result; pure.

    Args:
        requests: The stored requests, live and finished.
        rows: The `update_id`s of these requests that are in the ledger.
    """
    live = [QueueStatus.PENDING.value, QueueStatus.PROCESSING.value]
    is_live = pl.col("bucket") == lifecycle_partitions.LIVE
    answer = pl.col("update_id")
    why = (
        pl.when(pl.len().over("request_id") > 1)
        .then(pl.lit("stored more than once"))
        .when(is_live & ~pl.col("status").is_in(live))
        .then(pl.lit("finished, and still among the live ones"))
        .when(~is_live & (pl.col("status") != pl.col("bucket")))
        .then(pl.lit("ended with another status than its partition says"))
        .when(
            answer.is_not_null() & ~answer.is_in(pl.Series(list(rows), dtype=pl.String).implode())
        )
        .then(pl.lit("the row that answers it is not in the ledger"))
    )
    wrong = requests.with_columns(why=why).filter(pl.col("why").is_not_null())
    return check_results.rows_result(
        wrong.sort("request_id").select(
            "request_id", "account", "conid", "status", "update_id", "why"
        ),
        passed=f"{requests.height} requests, each live or ended once.",
        failed="requests did not end exactly once",
        what_to_do="Run `position-sync doctor`; `position-sync trace REQUEST_ID` shows what "
        "belongs to each.",
        severity=dg.AssetCheckSeverity.ERROR,
        checked=requests.height,
    )
