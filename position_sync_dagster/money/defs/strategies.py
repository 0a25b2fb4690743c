"""The asset `strategy_exposure`, and the checks of the strategies file: rolls, and the limits.

The tick derives the asset, and the UI plots the totals of its events. The checks of limits are
defined when the definitions are loaded. The file is read again at each evaluation: a limit that was
added since is evaluated and sent at once, and is shown in the UI after the next restart.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial

import dagster as dg
from polars import DataFrame

from position_sync_dagster.defs.assets import table_asset
from position_sync_dagster.defs.assets.table_asset import Derived, derived_asset
from position_sync_dagster.defs.checks import evaluation as check
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.instrument import digits
from position_sync_dagster.errors import StrategiesFileError
from position_sync_dagster.lake import derived
from position_sync_dagster.lake.ledger_rows import newest_version
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports import exposure
from position_sync_dagster.money.reports.book import OF_BOOK, Book, read_book
from position_sync_dagster.money.strategies import leg_followers, limit_readings, strategies_file
from position_sync_dagster.money.strategies.limits import Limit, LimitState
from position_sync_dagster.money.strategies.messages import Happened, Wanted
from position_sync_dagster.money.tables import STRATEGY_EXPOSURE
from position_sync_dagster.settings import Settings


@check.table_check("active_strategies", driven=True)
def rolls_are_followed(lake: MoneyLake, settings: Settings) -> dg.AssetCheckResult:
    """Whether each roll of a strategy with `follow_rolls: true` is clear.

    What to do: Write the legs of these strategies as they are now into the strategies file.
    """
    rolls = leg_followers.rolls_to_follow(lake, settings, datetime.now(UTC))
    return check.rows_result(
        DataFrame({"roll": rolls.refused}),
        none="Nothing is left to a person.",
        found="rolls are not followed",
    )


EXPOSURE = dg.AssetKey(STRATEGY_EXPOSURE.name)

# The beginning of the name of each check of a limit.
LIMIT_PREFIX = "limit_"

# The end of a limit's name in messages that say whether its number is known.
OF_VALUE = " (its value)"

DECIDE = "Decide about the position, or change the limit in the strategies file."


def watched_limits(
    settings: Settings, watched_before: Iterable[str] = (), wanted: Wanted | None = None
) -> list[dg.AssetCheckKey]:
    """Return the check of each limit; while the file has a mistake, those watched before.

    Args:
        settings: The settings that name the file.
        watched_before: Names of checks as "asset: check".
        wanted: Leaves out the limits of which no message is wanted.
    """
    try:
        names = [
            limit.name
            for limit in strategies_file.saved_limits(settings.strategies_file)
            if wanted is None or wanted.has(Happened.LIMIT, filter(None, [limit.strategy_id]))
        ]
    except StrategiesFileError:
        names = []
        for text in watched_before:
            name = text.split(": ")[1].removesuffix(OF_VALUE)
            if name.startswith(LIMIT_PREFIX) and name not in names:
                names.append(name)
    return [dg.AssetCheckKey(EXPOSURE, name) for name in dict.fromkeys(names)]


def result_of(evaluated: limit_readings.Evaluated) -> dg.AssetCheckResult:
    """Return the result of the check of a limit; pure."""
    limit = evaluated.limit
    metadata: dict[str, dg.RawMetadataValue] = {"limit": limit.value}
    if evaluated.reading.number is not None:
        metadata["number"] = float(evaluated.reading.number)
    if evaluated.outcome is LimitState.UNKNOWN:
        return check.unknown_result(evaluated.text, **metadata)

    if evaluated.outcome is LimitState.HOLDS:
        return check.passed(evaluated.text, **metadata)
    return check.failed(evaluated.text, what_to_do=DECIDE, error=True, **metadata)


def evaluated_limits(settings: Settings, book: Book) -> dict[dg.AssetCheckKey, dg.AssetCheckResult]:
    """Return the result of each limit for the book of an exposure that was just derived."""
    limits, result_of_file = _read(settings)
    results = {limits_are_read.check_key: result_of_file}
    for evaluated in limit_readings.evaluate(limits, book):
        results[dg.AssetCheckKey(EXPOSURE, evaluated.limit.name)] = result_of(evaluated)
    return results


def _read(settings: Settings) -> tuple[list[Limit], dg.AssetCheckResult]:
    """Return the limits of the strategies file, and the result of the check that reads it."""
    try:
        limits = strategies_file.saved_limits(settings.strategies_file)
    except StrategiesFileError as error:
        return [], check.failed(
            f"No limit is evaluated. {error}", what_to_do=error.remedy, error=True
        )
    return limits, check.passed(f"{len(limits)} limits.", limits=len(limits))


@check.table_check(STRATEGY_EXPOSURE.name)
def limits_are_read(_lake: MoneyLake, settings: Settings) -> dg.AssetCheckResult:
    """Whether the limits in the strategies file can be read. Without a file there are none."""
    _limits, result = _read(settings)
    return result


def _evaluate_alone(name: str, lake: MoneyLake, settings: Settings) -> dg.AssetCheckResult:
    """Return the result of one limit with a book that is read for it."""
    results = evaluated_limits(settings, read_book(lake, settings, utc_now()))
    key = dg.AssetCheckKey(EXPOSURE, name)
    if key not in results:
        return check.unknown_result("the strategies file has no such limit any more.")
    return results[key]


def limit_checks(settings: Settings) -> list[check.TableCheck[MoneyLake]]:
    """Return the check of each limit; with a mistake the file has none.

    The jobs must load all the same, and `limits_are_read` fails.
    """
    limits, _read_result = _read(settings)
    by_name = {limit.name: limit for limit in limits}  # one may be of several kinds
    return list(map(_check_of, by_name.values()))


def _check_of(limit: Limit) -> check.TableCheck[MoneyLake]:
    amount = digits(limit.value)
    if limit.currency:
        amount += f" {limit.currency}"
    description = f"The {limit.bound} of {limit.measure} of {limit.subject} is {amount}."
    define = check.table_check(STRATEGY_EXPOSURE.name, limit.name, description=description)
    return define(partial(_evaluate_alone, limit.name))


# The totals that the UI plots, by label.
PLOTS = {
    "daily": "daily_pnl", "value": "value", "unrealised": "unrealized_pnl", "delta": "dollar_delta",
    "theta": "theta",
}  # fmt: skip


def plots_of(book: Book) -> dict[str, float | None]:
    """Return the totals of currencies that leave nothing out, and those over currencies."""
    numbers: dict[str, float | None] = {}
    for total in book.totals:
        if total.account is not None:
            continue
        for label, name in PLOTS.items():
            if name not in total.unknown:
                numbers[f"{label} {total.currency}"] = getattr(total, name)
    for base in book.in_base:
        if base.account is None and base.currency is not None:
            for label, name in PLOTS.items():
                numbers[f"{label} in {base.currency}"] = getattr(base, name)
    return numbers


# What each column of exposures is made of, beside the legs and their holdings: columns of the
# ledger, or of another table; without an entry, the column of the same name.
_MADE_OF = {
    "asset_class": "sec_type", "notional": "market_value", "nearest_expiry": "expiry",
    "dollar_delta": "delta underlying_price", "gamma_1pct": "gamma underlying_price",
    "legs_without_value": "market_value", "legs_without_greeks": "delta gamma vega theta",
    "oldest_value_at": "value_time timestamp",
    "short_legs_in_money": "active_strategies.strike underlying_price",
    "short_legs_unknown": "underlying_price", "mismatches": "contracts.conid",
    "legs_closed": "closures.cause", "closed": "closures.cause closures.closed_at",
}  # fmt: skip
_LEGS = (
    "active_strategies.strategy_id active_strategies.conid active_strategies.quantity "
    "active_strategies.removed_at position multiplier"
)


@derived_asset(
    STRATEGY_EXPOSURE,
    deps=[*OF_BOOK],
    metadata=table_asset.column_lineage(STRATEGY_EXPOSURE, _MADE_OF, every=_LEGS),
    numbers_first=True,
    freshness_policy=table_asset.QUARTER_HOURLY,
)
def strategy_exposure(lake: MoneyLake, settings: Settings, run_id: str | None) -> Derived:
    """The holdings of each strategy, and their value.

    Written by the sensor drain_queue after each report of the ledger; the table is replaced whole.

    How to read it: one row per strategy, account, currency and class of asset, and one with the
    strategy UNATTRIBUTED for what no strategy has of an account: together they are all holdings.
    Sums are over known values; the number of legs left out is beside them. Futures count as
    notional, never as value.

    Live: `position-sync money` shows these figures as they move, second by second.
    """
    now = datetime.now(UTC)
    table = lake.derived_table(STRATEGY_EXPOSURE)

    def read() -> Book:
        return read_book(lake, settings, now)

    def rows_of(book: Book) -> DataFrame:
        return exposure.exposures(book.split, newest_version(book.priced) or None)

    book, result = derived.derive_from_ledger(table, read, rows_of, run_id=run_id)
    metadata = table_asset.replaced_whole(result)
    metadata |= table_asset.plotted(plots_of(book))
    return Derived(metadata=metadata, checks=evaluated_limits(settings, book))
