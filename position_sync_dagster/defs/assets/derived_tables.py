"""The assets `latest_positions`, `strategy_exposure` and `risk_scenarios`, which the tick derives.

The first two are derived from the newest rows of the ledger, and replaced whole. Their pages show
money first: a table of each currency, because currencies are never added, then the risk. In the
tables an unknown number is a dash; in the numbers that the UI plots it is left out. Scenarios are
appended each quarter of an hour.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import polars as pl

from position_sync_dagster.defs.assets import table_asset
from position_sync_dagster.defs.assets.table_asset import Derived, derived_asset
from position_sync_dagster.defs.checks.evaluation import EVALUATE, failed, passed, table_check
from position_sync_dagster.domain.leg import UNATTRIBUTED
from position_sync_dagster.lake import derived, schema
from position_sync_dagster.lake import lake as tables
from position_sync_dagster.lake.ledger_rows import newest_version
from position_sync_dagster.money.defs import strategy_checks as strategies
from position_sync_dagster.money.reports import exposure
from position_sync_dagster.money.reports.book import Book, read_book
from position_sync_dagster.money.risk import recorded_risk as risk
from position_sync_dagster.money.risk.deliveries import early_assignments
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync import confirmations
from position_sync_dagster.terminal.money_tables import SUMS, money_lines, sums_table
from position_sync_dagster.terminal.text import Column, Row

MOST_CURRENCIES = 5
MOST_STRATEGIES = 50

# The totals that the UI plots, by label. Long labels would leave no room for the tables.
PLOTS = {
    "daily": "daily_pnl", "value": "value", "unrealised": "unrealized_pnl", "delta": "dollar_delta",
    "theta": "theta",
}  # fmt: skip

# Shown instead of a currency for legs that are not held and have never been valued.
NOT_VALUED = "not valued"


def money_metadata(book: Book) -> "dict[str, dg.RawMetadataValue]":
    """Return the tables of each currency, money before risk, and the totals that the UI plots.

    A star marks a sum that leaves out a holding; such a sum is not plotted.
    """
    totals = [*book.totals, *book.in_base]
    listed = [*book.strategies[:MOST_STRATEGIES], *book.rest, *totals]
    currencies = dict.fromkeys(sums.currency for sums in (*totals, *listed))
    shown: dict[str, dg.RawMetadataValue] = {}

    for label, columns in (("money", _MONEY), ("risk", _RISK)):
        for currency in list(currencies)[:MOST_CURRENCIES]:
            rows = [sums for sums in listed if sums.currency == currency]
            (title, *_others), lines = sums_table("strategy", rows)
            name = f"{label} {currency or NOT_VALUED}"
            shown[name] = aligned_table([title, *columns], lines)

    notes = money_lines(book)
    if notes:
        shown["notes"] = dg.MetadataValue.text("; ".join(notes))
    return shown | plotted(_known_totals(book))


def _known_totals(book: Book) -> dict[str, float | None]:
    """Return the totals of currencies, and of accounts in their bases, that leave nothing out."""
    numbers: dict[str, float | None] = {}
    for total in book.totals:
        if total.account is not None:
            continue
        for label, name in PLOTS.items():
            if name not in total.unknown:
                numbers[f"{label} {total.currency}"] = getattr(total, name)

    for total in book.in_base:
        if "daily_pnl" not in total.unknown:
            label = f"daily {total.account} in {total.currency}"
            numbers[label] = total.daily_pnl
    return numbers


_SUMS = {column.heading: column for column in SUMS}
_MONEY = [_SUMS[heading] for heading in ("value", "unreal", "daily", "legs", "oldest")]
_RISK = [_SUMS[heading] for heading in ("$delta", "$gamma 1%", "theta", "vega", "expiry")]


def aligned_table(columns: Iterable[Column], rows: Sequence[Row]) -> dg.TableMetadataValue:
    """Return a table of texts for the UI, its figures aligned to the right; pure.

    The UI aligns each cell to the left, in letters of one width: no-break spaces fill the cells.
    """
    texts: dict[str, list[str]] = {}
    for column in columns:
        cells = column.cells(rows)
        if not column.left:
            widest = max(map(len, cells), default=0)
            cells = [cell.rjust(widest).replace(" ", "\u00a0") for cell in cells]
        texts[column.heading] = cells

    named_rows: list[dict[str, str]] = []
    for row in zip(*texts.values(), strict=True):
        named_rows.append(dict(zip(texts, row, strict=True)))
    return table_asset.table_of(named_rows)


def plotted(numbers: Mapping[str, float | None]) -> dict[str, dg.MetadataValue]:
    """Return the known numbers as metadata that the UI plots."""
    metadata: dict[str, dg.MetadataValue] = {}
    for name, value in numbers.items():
        if value is not None:
            rounded = round(float(value), 4)
            metadata[name] = dg.MetadataValue.float(rounded)
    return metadata


def seldom(**counts: int) -> dict[str, int]:
    """Return the counts that are not zero, since a plot of zeros alone has no use."""
    return {name: count for name, count in counts.items() if count}


def counted(**counts: Any) -> dict[str, str]:
    """Return counts as texts: the UI would plot numbers, beside those of money."""
    return {name: f"{count:,}" for name, count in counts.items()}


# How long a closed holding stays in the table. Its cost must not grow with the history: the table
# is replaced whole, and each process that asks for the newest rows begins with it.
CLOSED_KEPT = timedelta(days=14)


@derived_asset(
    schema.LATEST_POSITIONS,
    deps=["position_updates", "broker_positions"],
    metadata=table_asset.column_lineage(
        schema.LATEST_POSITIONS,
        {"confirmed_at": "broker_positions.confirmed_at value_time timestamp"},
    ),
    money_first=True,
    freshness_policy=table_asset.QUARTER_HOURLY,
)
def latest_positions(lake: tables.Lake, settings: Settings, run_id: str | None) -> Derived:
    """The newest row of every holding that is open or closed lately, for readers without code.

    Written by the sensor drain_queue after each report of the ledger; the table is replaced whole.

    How to read it: one row per account and contract, with the columns of position_updates, and
    when its price arrived or the broker last confirmed it. A closed holding stays for 14 days, that
    of an active leg as long as the leg. PositionUpdatesTable.latest() returns the rows as they are
    now.

    Live: `position-sync money` shows these figures as they move, second by second.
    """
    now = datetime.now(UTC)
    table = lake.derived_table(schema.LATEST_POSITIONS)

    def make() -> tuple[tuple[pl.DataFrame, pl.DataFrame], pl.DataFrame]:
        legs = {leg.conid for leg in lake.registry.sync.get_all_active()}
        listing = listed(lake.updates.sync.latest(), legs, now)
        holdings = tables.all_broker_rows(lake, settings)
        priced = confirmations.with_priced(listing, holdings, now, band=settings.value_band)
        rows = priced.select(*listing.columns, confirmed_at=confirmations.PRICED)
        return (listing, rows), rows

    (latest, rows), result = derived.derive_whole(table, make, run_id=run_id)
    held = rows.filter(pl.col.position != 0)
    without_value = rows["market_value"].null_count()
    counts = counted(held=held.height, without_value=without_value)
    return Derived(metadata=counts | _replaced(result, latest))


def _replaced(result: derived.Replaced, made_of: pl.DataFrame) -> "dict[str, dg.RawMetadataValue]":
    version = newest_version(made_of) or "unknown"
    counts = {"dagster/row_count": result.rows, "ledger_version": str(version)}
    return {**counts, **table_asset.replacement_metadata(result)}


def listed(rows: pl.DataFrame, legs: Collection[int], now: datetime) -> pl.DataFrame:
    """Return the rows that the table has of the newest rows of the ledger; pure.

    Reports take account and currency of a leg that is not held from its closed holding.

    Args:
        rows: The newest row of each holding.
        legs: The conids of the active legs.
        now: The current time.
    """
    is_old = pl.col.timestamp < now - CLOSED_KEPT
    closed_long_ago = (pl.col.position == 0) & is_old
    is_of_leg = pl.col.conid.is_in(legs)
    return rows.filter(is_of_leg | ~closed_long_ago.fill_null(value=False))


# What each column of exposures is made of, beside the legs and their holdings: columns of the
# ledger, or of another table; without an entry, the column of the same name.
_MADE_OF = {
    "asset_class": "sec_type", "notional": "market_value", "nearest_expiry": "expiry",
    "dollar_delta": "delta underlying_price", "gamma_1pct": "gamma underlying_price",
    "by_underlying": "symbol delta gamma vega theta underlying_price",
    "legs_without_value": "market_value", "legs_without_greeks": "delta gamma vega theta",
    "legs_without_value_time": "value_time", "oldest_value_at": "value_time timestamp",
    "worst_value_age_s": "value_time timestamp", "legs_expiring": "contracts.expires_on",
    "short_legs_in_money": "active_strategies.strike underlying_price",
    "short_legs_unknown": "underlying_price", "mismatches": "contracts.conid",
    "options": "right", "options_with_greeks": "delta", "options_modelled": "greeks_source",
    "legs_closed": "closures.cause", "closed": "closures.cause closures.closed_at",
}  # fmt: skip
_LEGS = (
    "active_strategies.strategy_id active_strategies.conid active_strategies.quantity "
    "active_strategies.removed_at position multiplier"
)


@derived_asset(
    schema.STRATEGY_EXPOSURE,
    deps=["position_updates", "active_strategies", "contracts", "closures"],
    metadata=table_asset.column_lineage(schema.STRATEGY_EXPOSURE, _MADE_OF, every=_LEGS),
    money_first=True,
    freshness_policy=table_asset.QUARTER_HOURLY,
)
def strategy_exposure(lake: tables.Lake, settings: Settings, run_id: str | None) -> Derived:
    """The holdings of each strategy, and their value.

    Written by the sensor drain_queue after each report of the ledger; the table is replaced whole.

    How to read it: one row per strategy, account, currency and class of asset, and one with the
    strategy UNATTRIBUTED for what no strategy has of an account: together they are all holdings.
    Sums are over known values; the number of legs left out is beside them, and how many options
    have greeks. Futures count as notional, never as value.

    Live: `position-sync money` shows these figures as they move, second by second.
    """
    now = datetime.now(UTC)
    table = lake.derived_table(schema.STRATEGY_EXPOSURE)

    def make() -> tuple[tuple[Book, pl.DataFrame], pl.DataFrame]:
        book = read_book(lake, settings, now)
        version = newest_version(book.priced) or None
        sums = exposure.exposures(book.split, now, version)
        return (book, sums), sums

    (book, sums), result = derived.derive_whole(table, make, run_id=run_id)
    metadata = money_metadata(book) | _counts_of_legs(sums) | _replaced(result, book.priced)
    for column, label in (("mismatches", "mismatches"), ("differences", "quantities")):
        texts = sums.select("strategy_id", column).drop_nulls()
        for strategy, text in texts.iter_rows():
            metadata[f"{label}/{strategy}"] = text
    return Derived(metadata=metadata, checks=strategies.evaluated_limits(settings, book))


def _counts_of_legs(sums: pl.DataFrame) -> dict[str, str]:
    """Return the counts of strategies and of their legs, and of what is in none."""
    is_in_none = pl.col.strategy_id == UNATTRIBUTED
    unattributed = sums.filter(is_in_none)
    of_strategies = sums.filter(~is_in_none)
    return counted(
        strategies=of_strategies["strategy_id"].n_unique(),
        legs=of_strategies["legs"].sum(),
        legs_held=of_strategies["legs_held"].sum(),
        unattributed=unattributed["legs"].sum(),
        without_value=of_strategies["legs_without_value"].sum(),
        without_greeks=of_strategies["legs_without_greeks"].sum(),
    )


# Maximum number of options that a check names.
MOST_NAMED = 5


@derived_asset(
    schema.RISK_SCENARIOS,
    deps=["position_updates", "active_strategies"],
    freshness_policy=table_asset.QUARTER_HOURLY,
)
def risk_scenarios(lake: tables.Lake, settings: Settings, run_id: str | None) -> Derived:
    """What each strategy would gain and lose under other prices and volatilities.

    Written by the sensor drain_queue each quarter of an hour, and when the active strategies
    changed.

    How to read it: one row per time, strategy, account and scenario; rows are only appended, so
    that the risk of yesterday can be read tomorrow. A leg that cannot be priced is counted in
    left_out and is in no number. `position-sync what-if` computes other scenarios.
    """
    now = datetime.now(UTC)
    _book, chosen, legs = risk.read_risk(lake, settings, now)
    rows = risk.risk_rows(legs, chosen, run_id)
    lake.risk_scenarios.record(rows)

    profits = [row["profit"] for row in rows if row["profit"] is not None]
    left_out = legs.left_out()
    metadata: dict[str, dg.RawMetadataValue] = {"dagster/row_count": len(rows)}
    if profits:
        metadata["worst_profit"] = min(profits)
    metadata["left_out"] = sum(left_out.values())
    metadata["scenarios"] = str(len(chosen.recorded))

    results: dict[dg.AssetCheckKey, dg.AssetCheckResult] = {}
    for check in (losses_are_within_their_limits, early_assignment):
        results[check.check_key] = EVALUATE[check.check_key](lake, settings)
    return Derived(metadata=metadata, checks=results)


@table_check(schema.RISK_SCENARIOS.name)
def losses_are_within_their_limits(lake: tables.Lake, settings: Settings) -> dg.AssetCheckResult:
    """Whether no strategy would lose more than scenarios.yaml allows, by its newest rows.

    A strategy with a leg that cannot be priced has no certain loss: the check is yellow then.

    What to do: Look at `position-sync what-if`, and close or hedge what loses; or correct the
    limit in scenarios.yaml.
    """
    rows = lake.risk_scenarios.latest().drop_nulls("largest_loss")
    broken = rows.filter(-pl.col.profit > pl.col.largest_loss)
    losses = [_described_loss(row) for row in broken.iter_rows(named=True)]
    text = "; ".join(losses)

    unknown = rows.filter(pl.col.left_out > 0)
    if not text and unknown.height:
        name, count = unknown.select("strategy_id", "left_out").row(0)
        text = f"{name} has {count} legs that are not priced"

    if not text:
        return passed("", limits=rows.height)
    return failed(f"{text}.", beyond=broken.height, not_certain=unknown.height)


def _described_loss(row: Mapping[str, Any]) -> str:
    loss = f"{-row['profit']:,.0f} {row['currency']}"
    allowed = f"{row['largest_loss']:,.0f}"
    loses = f"{row['strategy_id']} loses {loss} in {row['scenario']}"
    return f"{loses}, allowed are {allowed}"


@table_check(schema.RISK_SCENARIOS.name)
def early_assignment(lake: tables.Lake, settings: Settings) -> dg.AssetCheckResult:
    """Whether no short option may be assigned early, where scenarios.yaml makes that a limit.

    A holder exercises where selling gains nothing more: an option below its intrinsic value, a
    put whose time value is at most what its strike earns in a week, and a call in the week before
    an ex-date whose dividend exceeds its time value. A short option that cannot be judged, and is
    in the money or may be, fails the check too.

    What to do: Close or roll them before the ex-date, or accept the shares. `position-sync
    expiry` lists them.
    """
    _book, chosen, legs = risk.read_risk(lake, settings, datetime.now(UTC))
    judged = early_assignments(legs)
    likely = judged.likely
    doubtful = judged.doubtful
    may_be_assigned = f"{len(likely)} short options may be assigned early"
    not_judged = f"{len(judged.left_out)} could not be judged"
    summary = f"{may_be_assigned}; {not_judged}, {len(doubtful)} of them in the money or perhaps so"
    if chosen.early_assignment:
        named_rows = [*likely, *doubtful]
    else:
        # Without the limit what is likely is allowed; what nobody can judge is still not passed.
        named_rows = [row for row in doubtful if row["in_the_money"]]
    if not named_rows:
        return passed(f"{summary}.")

    texts = [_assignment_text(row) for row in named_rows[:MOST_NAMED]]
    named = "; ".join(texts)
    return failed(f"{summary}: {named}.", options=len(likely), not_judged=len(doubtful))


def _assignment_text(row: Mapping[str, Any]) -> str:
    """Return a short option that may be assigned early, or why that is not known."""
    name = f"{row['strategy_id']}: {row['leg']}"
    if "reason" in row:
        return f"{name} is not judged: {row['reason']}"
    gain = "an unknown amount" if row["gain"] is None else f"{row['gain']:,.2f}"
    return f"{name} gains {gain} by exercise, and is worth {row['extrinsic']:,.2f} above it"
