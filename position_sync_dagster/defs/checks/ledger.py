"""Checks of queue and ledger: requests, ids, values, agreement with the broker, breaks."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import dagster as dg
import polars as pl

from position_sync_dagster.defs.assets import table_asset
from position_sync_dagster.defs.checks import check_results
from position_sync_dagster.domain.clock import SKEW
from position_sync_dagster.domain.reconciliation import Break, BreakState, DiscrepancyType
from position_sync_dagster.domain.update import QueueStatus, Source
from position_sync_dagster.lake import derived
from position_sync_dagster.lake import lake as tables
from position_sync_dagster.lake.ledger_rows import rows_between
from position_sync_dagster.lake.schema import codec
from position_sync_dagster.lake.schema.codec import id_prefix
from position_sync_dagster.lake.schema.tables import RECONCILIATION_BREAKS
from position_sync_dagster.lake.storage.lifecycle_table import in_bucket
from position_sync_dagster.lake.storage.table import may_have
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports import reconciliation

# Maximum age of a failure in the check; `position-sync queue list --status FAILED` has older
# ones.
LOOK_BACK = timedelta(days=1)

# A holding whose values can be read is requested again far more often than this.
ANSWERED_WITHIN = timedelta(hours=1)

_COLUMNS = ["request_id", "account", "conid", "symbol", "status", "error_message"]


def _finished(lake: tables.Lake, status: QueueStatus, since: datetime) -> pl.DataFrame:
    """Return the requests with a final status that were inserted since then."""
    first = id_prefix(since)
    chosen = in_bucket(status.value) & may_have("request_id", first)
    rows = lake.queue.sync.store.finished(chosen, [*_COLUMNS, "created_at", "updated_at"])
    return rows.filter(pl.col("request_id") >= first)


@check_results.table_check("position_queue")
def requests_are_answered(lake: tables.Lake, settings: Settings) -> dg.AssetCheckResult:
    """Whether requests are FAILED and their holding has had no value since, or wait for long.

    Long is more than ten minutes.
    """
    now = datetime.now(UTC)
    failed = _finished(lake, QueueStatus.FAILED, now - LOOK_BACK)
    answered = failed.clear().select("account", "conid", at="updated_at")
    if not failed.is_empty():
        done = _finished(lake, QueueStatus.SUCCESS, now - ANSWERED_WITHIN)
        closed = pl.col("position") == 0  # a closed holding needs no value
        at = pl.when(closed).then(pl.lit(now)).otherwise("timestamp").alias("at")
        rows = lake.updates.sync.latest().select("account", "conid", at)
        any_account = rows.with_columns(account=pl.lit(None, pl.String))
        done = done.select("account", "conid", at="updated_at")
        answered = pl.concat([done, rows, any_account])
    live = lake.queue.sync.store.snapshot().live
    old_after = timedelta(seconds=settings.stale_after_s)
    waited = f"have waited for more than {old_after.total_seconds() / 60:.0f} min"
    newest = answered.group_by("account", "conid").agg(pl.col("at").max())
    lasting = failed.join(newest, on=["account", "conid"], how="left", nulls_equal=True).filter(
        pl.col("at").is_null() | (pl.col("at") < pl.col("updated_at"))
    )
    old = live.filter(pl.col("created_at") < now - old_after)
    named = ((lasting, "updated_at"), (old, "created_at"))
    return check_results.rows_result(
        pl.concat([of.sort(at).select(*_COLUMNS, since=at) for of, at in named]),
        none=f"No request failed for good; {live.height} wait, none for long.",
        found=f"requests are FAILED or {waited}",
        what_to_do="Read error_message; `position-sync queue retry --all` tries FAILED requests "
        "again. Old ones wait for the broker: see the check a_stream_watches.",
        failed_for_good=lasting.height,
        old=old.height,
        waiting=live.height,
    )


# Discrepancy types that concern the holding itself; they make the check an ERROR.
ERROR_TYPES = frozenset(
    {DiscrepancyType.MISSING, DiscrepancyType.SURPLUS, DiscrepancyType.QUANTITY}
)


TO_DO = (
    "Compare the rows of the check with TWS. MISSING, SURPLUS and QUANTITY are wrong positions "
    "here until the next refresh; correct LEG_QUANTITY and LEG_MISMATCH in the strategies."
)

# Metadata key with the number of differences that are too young to fail the check.
UNCONFIRMED = "unconfirmed"


@check_results.table_check("position_updates")
def agrees_with_the_broker(lake: tables.Lake, settings: Settings) -> dg.AssetCheckResult:
    """Whether the newest rows agree with the broker's last complete snapshot and the registry.

    A difference that the next drain resolves is no failure: it fails the check after 15 s. A
    snapshot that is missing or incomplete does not pass either.
    """
    result = asyncio.run(reconciliation.ReconciliationService(lake, settings).run())
    confirmed = result.confirmed
    passed = result.complete and not confirmed
    is_error = any(d.type in ERROR_TYPES for d in confirmed)
    summary = f"{result.checked} holdings compared, {len(confirmed)} discrepancies"
    if result.unconfirmed:
        summary += (
            f", and {len(result.unconfirmed)} first seen less than "
            f"{reconciliation.CONFIRM_AFTER.seconds} s ago, which the next drain may resolve"
        )
    if result.accepted:
        summary += f", and {result.accepted} that a person accepted"
    if not result.complete:
        summary += "; the snapshot does not cover every account, so what is absent proves nothing"
    shown = [
        asdict(one) | {"type": one.type.value}
        for one in result.discrepancies[: check_results.SHOWN]
    ]
    return dg.AssetCheckResult(
        passed=passed,
        severity=dg.AssetCheckSeverity.ERROR if is_error else dg.AssetCheckSeverity.WARN,
        description=summary,
        metadata={
            "checked": result.checked,
            "accepted": result.accepted,
            **({UNCONFIRMED: len(result.unconfirmed)} if result.unconfirmed else {}),
            **({} if passed else {check_results.WHAT_TO_DO: TO_DO}),
            "snapshot_complete": result.complete,
            **{kind.value.lower(): result.count(kind) for kind in DiscrepancyType},
            "discrepancies": check_results.table_of_rows(pl.DataFrame(shown)),
        },
    )


# Time span of the checked rows: twice the longest time between two evaluations.
WINDOW = timedelta(minutes=30)

COUNT_ONCE = (
    "A value was written twice, as by two programs that compact at once: count each update_id once "
    "in your reports, and leave the compaction to `position-sync maintain`."
)


@check_results.table_check("position_updates")
def ids_are_unique(lake: tables.Lake, settings: Settings) -> dg.AssetCheckResult:
    """Whether each row of the ledger of the last half hour is there once."""
    now, ledger = datetime.now(UTC), lake.updates.table
    rows = ledger.snapshot(
        lambda handle: (
            rows_between(ledger, handle, now - WINDOW, now + SKEW)
            .select("update_id", "account", "conid")
            .collect()
        )
    )
    repeated = (
        rows.group_by("update_id")
        .agg(pl.col("account", "conid").first(), rows=pl.len())
        .filter(pl.col("rows") > 1)
    )
    return check_results.rows_result(
        repeated.sort("rows", "update_id", descending=True),
        none="Each row of the last half hour has an id of its own.",
        found="ids are in the ledger more than once",
        what_to_do=COUNT_ONCE,
        error=True,
    )


@check_results.table_check("position_updates", each_login=True)
def legs_have_values(lake: tables.Lake, login: Settings) -> dg.AssetCheckResult:
    """Whether the newest row of each open holding has a value."""
    newest = check_results.newest_values(lake, login)
    if newest.is_empty():
        return check_results.unknown_result("the ledger has no open holding of this gateway yet.")
    without = newest.filter(pl.col("market_value").is_null()).sort("timestamp")
    return check_results.rows_result(
        without.select("account", "conid", "symbol", "position", "source", "timestamp", "note"),
        none=f"{newest.height} holdings, all with a value.",
        found=f"of {newest.height} holdings have no value",
        what_to_do="Their value is unknown, not zero, and in no total. Read note; check whether "
        "TWS shows a price, and whether the login has market data permission for the contract.",
        holdings=newest.height,
    )


# Maximum time between two compared values: further apart, the market may have moved.
SAME_TIME = timedelta(seconds=5)


@check_results.table_check("position_updates", each_login=True)
def values_match_the_broker(lake: tables.Lake, login: Settings) -> dg.AssetCheckResult:
    """Whether streamed values are close to the broker's own of the same time.

    Drained values are the broker's own. The greatest relative difference is
    3 %. Differences below five cents of the price are ignored, since one tick
    of a cheap option is a large part of its price.
    """
    band, broker = login.value_band, check_results.held_at_the_broker(lake, login)
    pairs = (
        check_results.newest_values(lake, login)
        .filter(pl.col("source") == Source.STREAM.value)
        .select("account", "conid", "position", "market_value", "timestamp", "price_kind")
        .join(broker, on=["account", "conid"], suffix="_broker")
        .drop_nulls(["market_value", "market_value_broker"])
        .filter(pl.col("position") == pl.col("position_broker"))
    )
    if pairs.is_empty():
        return check_results.unknown_result(
            "no holding has both our own value and one of the broker."
        )
    difference = (pl.col("market_value") - pl.col("market_value_broker")).abs()
    units = pl.col("position").abs() * pl.col("multiplier").fill_null(1.0)
    allowed = pl.max_horizontal(
        band * pl.col("market_value_broker").abs(), derived.LEAST_DIFFERENCE * units
    )
    apart = pairs.with_columns(difference=difference).filter(difference > allowed)
    same_time = (pl.col("timestamp") - pl.col("received_at")).abs() <= SAME_TIME
    wrong = apart.filter(same_time.fill_null(value=False))
    return check_results.rows_result(
        wrong.sort("difference", descending=True).select(
            "account",
            "conid",
            "symbol",
            "price_kind",
            "market_value",
            broker_value="market_value_broker",
            at="timestamp",
            broker_at="received_at",
        ),
        none=f"{pairs.height} values compared, none differs by more than {band:.0%} from the "
        "broker's of the same time.",
        found=f"of {pairs.height} values differ by more than {band:.0%} from the broker's of the "
        "same time",
        what_to_do="Compare the price in TWS. A wide quote explains it, and so does a multiplier "
        "or a price magnifier.",
        compared=pairs.height,
        apart_at_another_time=apart.height - wrong.height,
    )


# How long a difference may stay before somebody has to decide about it; most end with the next
# refresh of the account.
UNDECIDED_AFTER = timedelta(hours=1)

DECIDE = (
    "Compare the holding with TWS. If the difference is right as it is, accept it: `position-sync "
    "breaks accept ID --reason TEXT`; otherwise correct the strategies, or run `position-sync "
    "doctor`."
)


def _rows_of_breaks(breaks: Sequence[Break]) -> pl.DataFrame:
    """Return breaks as the rows of a page."""
    return codec.frame_of(RECONCILIATION_BREAKS, map(codec.fields_of, breaks)).select(
        *("break_id", "state", "type", "account", "conid", "symbol"),
        pl.col("expected").alias("broker"),
        pl.col("actual").alias("tables"),
        pl.col("opened_at").dt.strftime("%Y-%m-%d %H:%M"),
        *("detail", "accepted_by", "note"),
    )


def breaks_event(lake: tables.Lake) -> dg.AssetMaterialization:
    """Return the event of the table: how many breaks are open in each state, and which."""
    found = lake.breaks.open_breaks()
    counts = Counter(one.state for one in found)
    metadata = table_asset.state_of(lake, RECONCILIATION_BREAKS) | {
        f"open/{state.lower()}": counts[state]
        for state in (BreakState.OPENED, BreakState.CONFIRMED, BreakState.ACCEPTED)
    }
    if found:
        metadata["open_breaks"] = check_results.table_of_rows(_rows_of_breaks(found))
    return table_asset.runless(RECONCILIATION_BREAKS.name, metadata)


def judge_breaks(breaks: Sequence[Break], now: datetime) -> dg.AssetCheckResult:
    """Return the result of the check for the open breaks; pure."""
    accepted = sum(one.state is BreakState.ACCEPTED for one in breaks)
    waiting = [
        one
        for one in breaks
        if one.state is not BreakState.ACCEPTED and now - one.opened_at > UNDECIDED_AFTER
    ]
    return check_results.rows_result(
        _rows_of_breaks(waiting),
        none=f"{len(breaks)} differences are open, {accepted} of them accepted; none of the "
        "others is older than an hour.",
        found="differences have been open for more than an hour, and nobody accepted them",
        what_to_do=DECIDE,
        open=len(breaks),
        accepted=accepted,
    )


@check_results.table_check(RECONCILIATION_BREAKS.name)
def breaks_are_decided(lake: tables.Lake, _settings: Settings) -> dg.AssetCheckResult:
    """Whether each difference ends, or a person accepts it, within an hour.

    The differences are those between broker and tables.
    """
    return judge_breaks(lake.breaks.open_breaks(), datetime.now(UTC))
