"""The check `requests_end_once`: whether every request is live, or ended once and with a row."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from position_sync_dagster.defs.checks.check_results import rows_result, table_check
from position_sync_dagster.domain.request import QueueStatus

if TYPE_CHECKING:
    import polars as pl

    from position_sync_dagster.lake.lake import Lake
    from position_sync_dagster.settings import Settings

CHECK_NAME = "requests_end_once"

WINDOW = timedelta(minutes=30)
"""Twice as long as the longest time between two evaluations."""


def evaluate(lake: "Lake", settings: "Settings") -> dg.AssetCheckResult:
    """Return the check's result now.

    The queue is read first: a row is committed before its request is marked.
    """
    from position_sync_dagster.lake import inspection

    requests = inspection.requests_since(lake, datetime.now(UTC) - WINDOW)
    answers = requests.get_column("update_id").drop_nulls().unique()
    return judge_ends(requests, rows=lake.updates.sync.existing(answers))


def judge_ends(requests: "pl.DataFrame", *, rows: Collection[str]) -> dg.AssetCheckResult:
    """Return the check's result; pure.

    Args:
        requests: As stored, live and finished ones.
        rows: Those of their `update_id`s that the ledger has.
    """
    import polars as pl

    from position_sync_dagster.lake.schema.partitions import LIVE

    live = [QueueStatus.PENDING.value, QueueStatus.PROCESSING.value]
    is_live = pl.col("bucket") == LIVE
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
    return rows_result(
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


requests_end_once = table_check(
    "position_queue",
    CHECK_NAME,
    evaluate,
    description="Of the requests of the last half hour: each is live, or ended once, and the row "
    "that answers it is in the ledger.",
)
