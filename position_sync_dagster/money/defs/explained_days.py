"""The assets `profit_explained`, `books` and `closed_campaigns`, with their checks.

The first says where the profit of a trading day came from, the second why net liquidation moved.
The job `close_day` records them after `daily_positions`.
"""

from collections.abc import Mapping
from datetime import date
from itertools import starmap

import dagster as dg
import polars as pl
from polars import DataFrame

from position_sync_dagster.dagster_files import LAUNCHED_BY
from position_sync_dagster.defs import resources
from position_sync_dagster.defs.assets import table_asset
from position_sync_dagster.defs.assets.past_days import (
    days_of,
    exchange_partitions,
    exchange_since,
    over_trading_days,
)
from position_sync_dagster.defs.assets.table_asset import Derived, derived_asset
from position_sync_dagster.defs.checks.evaluation import failed, passed, table_check, unknown_result
from position_sync_dagster.defs.closing import RANGE_END, RANGE_START
from position_sync_dagster.defs.composition import Composition, composition_of
from position_sync_dagster.defs.resources import CLOSE_JOB
from position_sync_dagster.errors import LakeError
from position_sync_dagster.lake import derived, schema
from position_sync_dagster.lake.followed_rows import version_token
from position_sync_dagster.money.campaigns.campaign_days import read_days_of
from position_sync_dagster.money.campaigns.closed_campaigns import CampaignBook
from position_sync_dagster.money.campaigns.results import read_campaigns
from position_sync_dagster.money.defs.statements import importing
from position_sync_dagster.money.lake import IS_STATED, MoneyLake, derived_rows, newest_day
from position_sync_dagster.money.past.movement_book import MovementBook, days_inferred_anew
from position_sync_dagster.money.profit.books import being_made, close_books, open_books
from position_sync_dagster.money.profit.moved_between import TradingDay
from position_sync_dagster.money.profit.profit import explain_days, unknown_profits
from position_sync_dagster.money.profit.structure_days import read_structure_days
from position_sync_dagster.money.tables import (
    BOOKS,
    CLOSED_CAMPAIGNS,
    CLOSURES,
    MOVEMENTS,
    PROFIT_EXPLAINED,
    STATEMENT_EVENTS,
)
from position_sync_dagster.money.trading_days import session_before
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync import exchange_days


def _result_of(replaced: derived.Replaced) -> dg.MaterializeResult[None]:
    """Return what the event of a run says of the days that it made."""
    return dg.MaterializeResult(
        metadata=table_asset.replacement_metadata(replaced),
        data_version=dg.DataVersion(str(replaced.version)),
    )


@derived_asset(
    CLOSED_CAMPAIGNS,
    # Not the strategies and daily_positions, which it reads too: they change all day, and it would
    # be shown as stale until the next close.
    deps=["movements", "closures", "profit_explained"],
    writer=table_asset.CLOSE,
)
def closed_campaigns(lake: MoneyLake, settings: Settings, run_id: str | None) -> Derived:
    """What each campaign of a strategy brought from its first trade until nothing was left of it.

    Written by the job close_day, after profit_explained, with the strategies as they are then.

    How to read it: one row for each campaign that is over, and for each structure of options that
    was in no strategy. Rolls, and what assignments left, belong to it. Profit is after fees. What
    is null, and why, is in profit_unknown and why_unknown. position-sync results has the sums.
    """
    table = lake.derived_table(CLOSED_CAMPAIGNS)

    def make() -> DataFrame:
        book = CampaignBook(lake)
        rows = read_days_of(lake, settings.calendar, book.rows(read_campaigns(lake)))
        rows = read_structure_days(lake, settings, book.campaigns, rows)
        return schema.frame_of(table.spec, rows)

    frame, result = derived.derive(table, make, run_id=run_id)
    metadata = table_asset.replacement_metadata(result)
    metadata["profits_unknown"] = str(frame["profit"].null_count())
    metadata |= table_asset.totals(frame, "profit")
    return Derived(metadata=metadata, version=str(result.version))


@dg.definitions
def explained_days(context: dg.ComponentLoadContext) -> dg.Definitions:
    """Build the assets over the trading days of the exchange, and the import of statements."""
    composition = composition_of(context, MoneyLake)
    days, first = exchange_since(composition.read_settings(), composition.extension.stated)
    partitions = exchange_partitions(days, first)
    sensor = resources.sensor(
        remake_touched_days,
        composition,
        automation=composition.automation,
        job_name=CLOSE_JOB,
        minimum_interval_s=60,
    )
    of_days = dg.Definitions(
        assets=[explained_asset(partitions), books_asset(partitions)], sensors=[sensor]
    )
    return dg.Definitions.merge(of_days, importing(composition, days.timezone))


# Who stated a movement, and when: a newer statement may state the same again.
_WORDING = ("statement", "stated_at", "stated_first", "stated_last")


def remake_touched_days(
    context: dg.SensorEvaluationContext, composition: Composition[MoneyLake]
) -> dg.SensorResult:
    """Record trading days again, from the first one on of which an import says something new.

    It looks each minute at what changed in movements, statement_events and closures since the last
    look. The later days are recorded again too: a trade moves the cost of what is closed after it.
    """
    lake = composition.opened(composition.read_settings()).lake
    tokens = {}
    for spec in (MOVEMENTS, STATEMENT_EVENTS, CLOSURES):
        table = lake.open_table(spec)
        tokens[spec.name] = table.snapshot(version_token)
    # Of a table that an older release did not look at, all is known from now on.
    looked_at = tokens | (resources.cursor_of(dict[str, str], context.cursor) or {})
    cursor = resources.cursor_text(tokens)

    days: set[date] = set()
    if looked_at != tokens:
        is_touched = pl.col("session_date") >= _first_touched(lake, looked_at)
        for table in lake.derived_tables:
            if table.spec.partition_by:
                days.update(derived_rows(table, is_touched)["session_date"])

    if not days:
        return dg.SensorResult(skip_reason="No import says anything new.", cursor=cursor)

    tags = {
        RANGE_START: f"{min(days)}",
        RANGE_END: f"{max(days)}",
        LAUNCHED_BY: "remake_touched_days",
    }
    return dg.SensorResult([dg.RunRequest(cursor, tags=tags)], cursor=cursor)


def _first_touched(lake: MoneyLake, looked_at: Mapping[str, str]) -> date:
    """Return the first day of which tables say something else than at these tokens."""
    try:
        moved, stated, judged = starmap(lake.changed_rows, looked_at.items())
    except LakeError:  # a version was deleted
        return date.min

    movements = pl.concat([moved.rows, moved.gone]).filter(IS_STATED).drop(_WORDING)
    changed = movements.filter(movements.is_unique())
    inferred = days_inferred_anew(lake, judged.rows)
    return min([*changed["session_date"], *stated.rows["day"], *inferred], default=date.max)


# Maximum number of strategies that the check names.
STRATEGIES_SHOWN = 5


# While trades come all the time, what a day follows from changes at each look.
WHILE_TRADED = dg.RetryPolicy(max_retries=3, delay=10)


def explained_asset(partitions: dg.TimeWindowPartitionsDefinition) -> dg.AssetsDefinition:
    """Build the asset over the trading days of an exchange."""

    @over_trading_days(
        PROFIT_EXPLAINED,
        partitions,
        # Not the strategies, as of closed_campaigns.
        deps=["daily_positions", "position_updates", "movements", "closures", "contracts"],
        retry_policy=WHILE_TRADED,
    )
    def profit_explained(
        context: dg.AssetExecutionContext, position_sync: resources.PositionSyncResource
    ) -> dg.MaterializeResult[None]:
        """Where the profit of each trading day came from, by strategy and account.

        Written by the job close_day, after daily_positions, and by backfills of any range.

        How to read it: profit is the sum of the parts: the move of the underlyings (delta, gamma),
        of the volatilities (vega), time (theta), the rest of the repricing, trades and their fees,
        assignments, cash of statements, and what no trade explains. A day is replaced whole.
        """
        lake = position_sync.lake_of(MoneyLake)
        settings = position_sync.settings
        days = days_of(context)
        days_before = [session_before(settings.calendar, day) for day in days]
        closes = exchange_days.closing_times(settings.calendar, [*days, *days_before])
        # What the new rows of daily_positions say of contracts may make a movement's cash known.
        MovementBook(lake, run_id=context.run.run_id).update()

        trading_days = [
            TradingDay(day, before, closes[before], closes[day])
            for day, before in zip(days, days_before, strict=True)
        ]

        frames, replaced = derived.derive(
            lake.derived_table(PROFIT_EXPLAINED),
            lambda: explain_days(lake, settings, trading_days),
            run_id=context.run.run_id,
        )
        for day, rows in frames.items():
            profits = rows["profit"]
            legs_unknown = int(rows["legs_unknown"].sum())
            numbers: dict[str, float] = {
                "dagster/partition_row_count": rows.height,
                "legs_unknown": legs_unknown,
            }
            if not profits.has_nulls():
                numbers["profit"] = float(profits.sum())
            context.add_asset_metadata(numbers, partition_key=day.isoformat())
        return _result_of(replaced)

    return profit_explained


def books_asset(partitions: dg.TimeWindowPartitionsDefinition) -> dg.AssetsDefinition:
    """Build the asset over the trading days of an exchange."""

    @over_trading_days(
        BOOKS, partitions, deps=["profit_explained", "movements", "closures", "statement_events"]
    )
    def books(
        context: dg.AssetExecutionContext, position_sync: resources.PositionSyncResource
    ) -> dg.MaterializeResult[None]:
        """Why the net liquidation of each account moved on each trading day.

        Written by the job close_day, after profit_explained, and by backfills of any range.

        How to read it: change = profit + income + fees + interest + accruals + rates + owner +
        difference, in the base currency of the account, by the statements of the day and of the
        day before. Where a part is not known, so is the difference.
        """
        lake = position_sync.lake_of(MoneyLake)
        settings = position_sync.settings

        def make() -> dict[date, DataFrame]:
            return {day: close_books(lake, settings, day) for day in days_of(context)}

        table = lake.derived_table(BOOKS)
        _frames, replaced = derived.derive(table, make, run_id=context.run.run_id)
        return _result_of(replaced)

    return books


@table_check(BOOKS.name)
def books_close(lake: MoneyLake, settings: Settings) -> dg.AssetCheckResult:
    """Whether the change of net liquidation of each account is explained on the newest day.

    It fails where more than 1 unit of the base currency, and more than 0.01 % of net liquidation,
    is not explained. An account of which a part is not known is not judged, nor are books that are
    being made anew.

    What to do: Compare the largest part with the statement: a booking that no section of the Flex
    query has, or a holding of a type that is not followed, is missing.
    """
    newest = newest_day(lake.derived_table(BOOKS))
    not_known = newest["difference"].null_count()
    differences = open_books(newest.to_dicts())
    if not differences:
        text = f"{newest.height - not_known} accounts are explained, {not_known} are not judged."
        return passed(text, accounts=newest.height, not_known=not_known)

    if being_made(lake, settings, newest):
        return unknown_result("the books are being made anew, since what they rest on changed.")

    named = "; ".join(differences[:ACCOUNTS_SHOWN])
    return failed(
        f"Not explained: {named}.",
        open=len(differences),
        accounts=newest.height,
        not_known=not_known,
    )


# Maximum number of accounts that the check of the books names.
ACCOUNTS_SHOWN = 5


@table_check(PROFIT_EXPLAINED.name)
def profits_are_explained(lake: MoneyLake, settings: Settings) -> dg.AssetCheckResult:
    """Whether the profit of each strategy is known: what moved its holdings, and both values.

    It looks at the newest recorded day. A profit is not known if a quantity came or went without a
    movement, beyond a value of 25 units, or if a value, a price paid or a commission is not known.

    What to do: Import the statement of the day, which names trades and bookings, and fill the
    day again; compare the quantities with TWS.
    """
    newest = newest_day(lake.derived_table(PROFIT_EXPLAINED))
    unknown = unknown_profits(newest.iter_rows(named=True))
    if not unknown:
        text = f"The profit of each of {newest.height} strategies is known."
        return passed(text, strategies=newest.height)

    named = "; ".join(unknown[:STRATEGIES_SHOWN])
    return failed(
        f"Not known: {named}.",
        strategies=newest.height,
        unexplained=len(unknown),
    )
