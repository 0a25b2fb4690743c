"""Checks of `strategy_exposure`: sums of derived tables, and the limits of the strategies file.

The checks of limits are defined when the definitions are loaded. The file is read again at each
evaluation: a limit that was added since is evaluated and sent at once, and is shown in the UI
after the next reload.
"""

from collections.abc import Iterable, Mapping
from functools import partial

import dagster as dg
import polars as pl

from position_sync_dagster.defs.checks import check_results
from position_sync_dagster.defs.resources import POSITION_SYNC
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.instrument import digits
from position_sync_dagster.domain.leg import Limit, LimitState
from position_sync_dagster.errors import StrategiesFileError
from position_sync_dagster.lake import derived, strategies_file
from position_sync_dagster.lake import lake as tables
from position_sync_dagster.lake.schema import codec
from position_sync_dagster.lake.schema.tables import LATEST_POSITIONS, STRATEGY_EXPOSURE
from position_sync_dagster.lake.storage import table as storage
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports import exposure, limit_readings, overview

SUMS_CHECK = "sums_equal_their_parts"

TOLERANCE = 2e-9
"""Maximum difference, as a part of the sum of the absolute values: the rounding of shares such as a
third."""

MONEY = ("market_value", "notional", "unrealized_pnl", "daily_pnl")
GREEKS = ("delta", "gamma", "vega", "theta")
_GROUP = ("account", "currency")

TO_DO = (
    "Use latest_positions and TWS instead of these sums, and materialize both tables. If the check "
    "fails again, report its rows: this is a mistake of this package."
)


def sums_of_holdings(rows: pl.DataFrame) -> pl.DataFrame:
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


def summed(rows: pl.DataFrame) -> pl.DataFrame:
    """Return sums by account and currency, long: with the count of known values and their size."""
    numbers = rows.unpivot([*MONEY, *GREEKS], index=_GROUP, variable_name="sum").drop_nulls("value")
    return numbers.group_by(*_GROUP, "sum").agg(
        pl.col("value").sum(), size=pl.col("value").abs().sum(), known=pl.len()
    )


def unequal(sums: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Return the sums that differ, with the value of each source; an unknown sum is not zero.

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


def judge_exposure(rows: pl.DataFrame, book: overview.Book) -> dg.AssetCheckResult:
    """Return the check's result for rows of strategy_exposure; pure.

    Args:
        rows: The rows of all strategies and of UNATTRIBUTED.
        book: The holdings from which they were made.
    """
    of_accounts = exposure.summed(book.split, _GROUP, book.now)
    holdings = sums_of_holdings(book.priced)
    differing = unequal(
        {"strategies": summed(rows), "accounts": summed(of_accounts), "holdings": holdings}
    )
    return _result(differing, holdings)


def judge_latest(rows: pl.DataFrame, newest: pl.DataFrame) -> dg.AssetCheckResult:
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


def _result(differing: pl.DataFrame, sums: pl.DataFrame) -> dg.AssetCheckResult:
    return check_results.rows_result(
        differing,
        passed=f"{sums.height} sums by account and currency, all equal to those of the holdings.",
        found=f"of {sums.height} sums differ from those of the holdings",
        what_to_do=TO_DO,
        severity=dg.AssetCheckSeverity.ERROR,
    )


def rows_to_judge(
    table: storage.Table, result: derived.Replaced, made: pl.DataFrame
) -> pl.DataFrame:
    """Return the stored rows of a derived table that a run has just replaced.

    If another run has replaced them meanwhile, from other rows of the ledger, that run judges them:
    then these are the rows that this run made.
    """
    stored = table.rows()
    return stored if table.version() == result.version else made


@check_results.table_check(STRATEGY_EXPOSURE.name, SUMS_CHECK)
def exposure_sums_equal_their_parts(lake: tables.Lake, settings: Settings) -> dg.AssetCheckResult:
    """Whether the sums of the strategies equal those of the accounts and of all holdings.

    The strategies include UNATTRIBUTED, and each currency is compared. The check is evaluated with
    each publication. Launched alone, it compares the holdings of now, since those of the last
    publication are not kept.
    """
    book = _book_of_now(lake, settings)
    rows = exposure.exposures(book.split, book.now)
    return judge_exposure(codec.frame_of(STRATEGY_EXPOSURE, rows), book)


def _book_of_now(lake: tables.Lake, settings: Settings) -> overview.Book:
    latest = tables.rows_of_logins(lake.updates.sync.latest(), settings)
    return overview.read_book(lake, settings, utc_now(), latest=latest)


@check_results.table_check(LATEST_POSITIONS.name, SUMS_CHECK)
def latest_sums_equal_their_parts(lake: tables.Lake, settings: Settings) -> dg.AssetCheckResult:
    """Whether the sums of the table equal those of the newest rows of the ledger.

    Each account and currency is compared. The check is evaluated with each publication.
    """
    return judge_latest(lake.derived_table(LATEST_POSITIONS).rows(), lake.updates.sync.latest())


EXPOSURE = dg.AssetKey(STRATEGY_EXPOSURE.name)
EXPOSURE_SUMS = dg.AssetCheckKey(EXPOSURE, SUMS_CHECK)

PREFIX = "limit_"
"""The beginning of the name of each check of a limit."""

OF_VALUE = " (its value)"
"""The end of a limit's name in messages that say whether its number is known."""

DECIDE = "Decide about the position, or change the limit in the strategies file."


def watched_limits(settings: Settings, known: Iterable[str] = ()) -> list[dg.AssetCheckKey]:
    """Return the check of each limit; while the file has a mistake, those named in `known`.

    Args:
        settings: The settings that name the file.
        known: Names of checks as "asset: check".
    """
    try:
        names = [limit.name for limit in strategies_file.saved_limits(settings.strategies_file)]
    except StrategiesFileError:
        texts = (text.split(": ")[1].removesuffix(OF_VALUE) for text in known)
        names = list(dict.fromkeys(text for text in texts if text.startswith(PREFIX)))
    return [dg.AssetCheckKey(EXPOSURE, name) for name in names]


def result_of(one: limit_readings.Evaluated) -> dg.AssetCheckResult:
    """Return the result of the check of a limit; pure."""
    metadata: dict[str, dg.RawMetadataValue] = {"limit": one.limit.value, "at": one.limit.place}
    if one.reading.number is not None:
        metadata["number"] = float(one.reading.number)
    if one.outcome is LimitState.UNKNOWN:
        result = check_results.unknown_result(one.text)
        return result._replace(metadata={**metadata, **result.metadata})
    if one.outcome is LimitState.HOLDS:
        return dg.AssetCheckResult(passed=True, description=one.text, metadata=metadata)
    error = dg.AssetCheckSeverity.ERROR
    return check_results.failed(one.text, what_to_do=DECIDE, severity=error, metadata=metadata)


def evaluated_limits(
    settings: Settings, book: overview.Book
) -> dict[dg.AssetCheckKey, dg.AssetCheckResult]:
    """Return the result of each limit for the book of an exposure that was just derived."""
    limits, read = _read(settings)
    found = {limits_are_read.check_key: read}
    for one in limit_readings.evaluate(limits, book):
        found[dg.AssetCheckKey(EXPOSURE, one.limit.name)] = result_of(one)
    return found


def _read(settings: Settings) -> tuple[list[Limit], dg.AssetCheckResult]:
    """Return the limits of the strategies file, and the result of the check that reads it."""
    try:
        limits = strategies_file.saved_limits(settings.strategies_file)
    except StrategiesFileError as error:
        return [], check_results.failed(
            f"No limit is evaluated. {error}",
            what_to_do=error.remedy,
            severity=dg.AssetCheckSeverity.ERROR,
            metadata={},
        )
    text = f"{len(limits)} limits."
    return limits, dg.AssetCheckResult(
        passed=True, description=text, metadata={"limits": len(limits)}
    )


@check_results.table_check(STRATEGY_EXPOSURE.name)
def limits_are_read(_lake: tables.Lake, settings: Settings) -> dg.AssetCheckResult:
    """Whether the limits in the strategies file can be read. Without a file there are none."""
    return _read(settings)[1]


def _evaluate_alone(name: str, lake: tables.Lake, settings: Settings) -> dg.AssetCheckResult:
    """Return the result of one limit with a book that is read for it."""
    limit = next(
        (one for one in strategies_file.saved_limits(settings.strategies_file) if one.name == name),
        None,
    )
    if limit is None:
        return check_results.unknown_result("the strategies file has no such limit any more.")
    return result_of(limit_readings.evaluate([limit], _book_of_now(lake, settings))[0])


@dg.definitions
def limit_checks() -> dg.Definitions:
    """Define the checks of sums and of each limit; a file with a mistake has no limits.

    The jobs must load all the same, and `limits_are_read` fails.
    """
    limits, _read_result = _read(POSITION_SYNC.read_settings())
    sums = [exposure_sums_equal_their_parts, latest_sums_equal_their_parts]
    return dg.Definitions(asset_checks=[*sums, limits_are_read, *map(_check_of, limits)])


def _check_of(limit: Limit) -> dg.AssetChecksDefinition:
    return check_results.table_check(
        STRATEGY_EXPOSURE.name,
        limit.name,
        description=f"The {limit.bound} of {limit.measure} of {limit.subject} is "
        f"{digits(limit.value)}{f' {limit.currency}' if limit.currency else ''}.",
    )(partial(_evaluate_alone, limit.name))
