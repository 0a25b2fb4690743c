"""Checks of the derived tables: whether their sums equal those of the holdings they are made of."""

from collections.abc import Mapping

import dagster as dg

from position_sync_dagster.defs.checks import check_results
from position_sync_dagster.defs.libraries import codec, derived, exposure, overview, pl, tables
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.lake.schema.tables import LATEST_POSITIONS, STRATEGY_EXPOSURE
from position_sync_dagster.settings import Settings

SUMS_CHECK = "sums_equal_their_parts"

TOLERANCE = 2e-9
"""Maximum difference, as a part of the sum of the absolute values: the rounding of shares such as a
third."""

MONEY = ("market_value", "notional", "unrealized_pnl", "daily_pnl")
GREEKS = ("delta", "gamma", "vega", "theta")
_GROUP = ("account", "currency")

TO_DO = (
    "Use latest_positions and TWS instead of these sums, and launch derive_positions. If the check "
    "fails again, report its rows: this is a mistake of this package."
)


def sums_of_holdings(rows: "pl.DataFrame") -> "pl.DataFrame":
    """Return the sums over whole holdings by account and currency, however they are split.

    Args:
        rows: Rows of position_updates, one for each holding.
    """
    is_future = pl.col("sec_type") == "FUT"
    size = pl.col("position") * pl.col("multiplier")
    return summed(
        rows.filter(pl.col("position") != 0).with_columns(
            market_value=pl.when(~is_future).then("market_value"),
            notional=pl.when(is_future).then("market_value"),
            **{name: pl.col(name) * size for name in GREEKS},
        )
    )


def summed(rows: "pl.DataFrame") -> "pl.DataFrame":
    """Return sums by account and currency, long: with the count of known values and their size."""
    numbers = rows.unpivot([*MONEY, *GREEKS], index=_GROUP, variable_name="sum").drop_nulls("value")
    return numbers.group_by(*_GROUP, "sum").agg(
        pl.col("value").sum(), size=pl.col("value").abs().sum(), known=pl.len()
    )


def unequal(sums: Mapping[str, "pl.DataFrame"]) -> "pl.DataFrame":
    """Return the sums that differ, with the value of each source; an unknown sum is no zero.

    Args:
        sums: As `summed` returns them, by the name of their source; the last one has the holdings.
    """
    *others, whole = sums
    key = [*_GROUP, "sum"]
    found = sums[whole].select(*key, "size", pl.col("value").alias(whole))
    for name in others:
        values = sums[name].select(*key, pl.col("value").alias(name))
        found = found.join(values, on=key, how="full", coalesce=True, nulls_equal=True)
    same = pl.all_horizontal(
        ((pl.col(name) - pl.col(whole)).abs() <= TOLERANCE * pl.col("size")).fill_null(value=False)
        for name in others
    )
    texts = pl.col(*others, whole).cast(pl.String)  # with all digits
    return found.filter(~same).select(*key, texts).sort(key)


def judge_exposure(rows: "pl.DataFrame", book: "overview.Book") -> dg.AssetCheckResult:
    """Return the check's result for rows of strategy_exposure; pure.

    Args:
        rows: The rows of all strategies and of UNATTRIBUTED.
        book: The holdings from which they were made.
    """
    of_accounts = exposure.summed(book.split, _GROUP, book.ages.now)
    holdings = sums_of_holdings(book.priced)
    differing = unequal(
        {"strategies": summed(rows), "accounts": summed(of_accounts), "holdings": holdings}
    )
    return _result(differing, holdings)


def judge_latest(rows: "pl.DataFrame", newest: "pl.DataFrame") -> dg.AssetCheckResult:
    """Return the check's result for rows of latest_positions; pure.

    Holdings with a row that the ledger got later are left out.

    Args:
        rows: The rows of the table.
        newest: The newest row of each holding in the ledger.
    """
    version = rows.get_column("ledger_version").max()
    key = ["account", "conid"]
    later = newest.filter(pl.col("ledger_version") > (version or 0)).select(key)
    ledger = sums_of_holdings(newest.join(later, on=key, how="anti"))
    table = sums_of_holdings(rows.join(later, on=key, how="anti"))
    return _result(unequal({"table": table, "ledger": ledger}), ledger)


def _result(differing: "pl.DataFrame", sums: "pl.DataFrame") -> dg.AssetCheckResult:
    return check_results.rows_result(
        differing,
        passed=f"{sums.height} sums by account and currency, all equal to those of the holdings.",
        failed=f"of {sums.height} sums differ from those of the holdings",
        what_to_do=TO_DO,
        severity=dg.AssetCheckSeverity.ERROR,
    )


def evaluated_sums(
    asset: str, result: dg.AssetCheckResult, instance: dg.DagsterInstance
) -> dg.AssetCheckEvaluation:
    """Return a result as an event about the newest materialization of the asset."""
    return check_results.check_evaluation(
        asset, SUMS_CHECK, result, check_results.newest_materialization(instance, asset)
    )


@check_results.table_check(
    STRATEGY_EXPOSURE.name,
    SUMS_CHECK,
    description="Whether the strategies and UNATTRIBUTED together equal the totals of the accounts "
    "and the sums of all holdings, in each currency. Evaluated with each publication.",
)
def exposure_sums_equal_their_parts(lake: "tables.Lake", settings: Settings) -> dg.AssetCheckResult:
    """Return the result for the holdings of now: those of the last publication are not kept."""
    latest = tables.rows_of_logins(lake.updates.sync.latest(), settings)
    now = utc_now()
    book = overview.read_book(lake, settings, now, latest=latest, of_strategies=True)
    rows = exposure.exposures(book.split, now)
    return judge_exposure(codec.frame_of(STRATEGY_EXPOSURE, rows), book)


@check_results.table_check(
    LATEST_POSITIONS.name,
    SUMS_CHECK,
    description="Whether the sums of the table equal those of the newest rows of the ledger, in "
    "each account and currency. Evaluated with each publication.",
)
def latest_sums_equal_their_parts(lake: "tables.Lake", settings: Settings) -> dg.AssetCheckResult:
    table = derived.DerivedTable(settings.table(LATEST_POSITIONS.name), LATEST_POSITIONS)
    return judge_latest(table.read(), lake.updates.sync.latest())
