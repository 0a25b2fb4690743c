"""Definitions that all assets share, and the external assets: the gateway and its owner's tables.

No run materializes the external assets. The sensor `drain_queue` reports them when the state of a
stream changes, and each hour.
"""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Generic, NamedTuple

import dagster as dg
import polars as pl
from polars import DataFrame, when

from position_sync_dagster.defs.resources import (
    CLOSE_JOB,
    DRAIN_SENSOR,
    GATEWAY,
    STREAM_JOB,
    WRITTEN_BY,
    AssetKeys,
    PositionSyncResource,
    dagster_failures,
)
from position_sync_dagster.lake import derived
from position_sync_dagster.lake.lake import L, L_contra
from position_sync_dagster.lake.schema import (
    ACCOUNT_VALUES,
    BROKER_POSITIONS,
    CONTRACTS,
    GATEWAY_SESSIONS,
    POSITION_CHANGES,
    POSITION_UPDATES,
    RECONCILIATION_BREAKS,
    TableSpec,
)
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.settings import Settings

# The tag for the Delta version of an event that no asset function returned.
DATA_VERSION = "dagster/data_version"

# The data version of a table that the ledger follows all the time: a new version of the table must
# not mark the ledger as out of date.
UNCHANGING = "followed"

# The one that Dagster (1.13, `DEFAULT_DATA_VERSION`) takes for that of an asset without events.
NEVER_MATERIALIZED = "INITIAL"


class Writer(NamedTuple):
    """What writes a table: the name of a job or a sensor, and the same in words."""

    name: str
    words: str


TICKS = Writer(DRAIN_SENSOR, "the ticks of the sensor drain_queue")
STREAM = Writer(STREAM_JOB, "the job stream_positions, which supervise_stream keeps running")
CLOSE = Writer(CLOSE_JOB, "the job close_day, by record_day_after_close and record_late_rows")

# For assets that are materialized at least every 15 minutes.
QUARTER_HOURLY = dg.FreshnessPolicy.time_window(
    fail_window=timedelta(minutes=40), warn_window=timedelta(minutes=20)
)


def table_asset(
    spec: TableSpec,
    *,
    metadata: "Mapping[str, dg.RawMetadataValue] | None" = None,
    writer: Writer = TICKS,
    numbers_first: bool = False,
    **options: Any,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Return `dg.asset` with the name, kinds and columns of a table, and without a configuration.

    Its errors have cause and remedy.

    Args:
        spec: The table; the asset has its name.
        metadata: Further metadata, such as `column_lineage` of a derived table.
        writer: What writes the table.
        numbers_first: Whether the UI links the descriptions of the columns, instead of showing them
            above the numbers.
        options: Other arguments of `dg.asset`, such as `deps`.
    """
    described = table_metadata(spec, writer, columns=COLUMNS if numbers_first else COLUMN_SCHEMA)

    def decorate(function: Callable[..., Any]) -> dg.AssetsDefinition:
        """Return the asset that a function writes; its docstring is what Dagster shows."""
        define = dg.asset(
            name=spec.name,
            description=inspect.getdoc(function),
            kinds={"deltalake", "python"},
            config_schema={},  # without it, Launchpad would take any value
            code_version=str(spec.version),
            metadata={**described, **(metadata or {})},
            tags={WRITTEN_BY: writer.name},
            **options,
        )
        asset: dg.AssetsDefinition = define(dagster_failures()(function))
        return asset

    return decorate


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """What the event of a table says that was written, and what its checks found.

    Attributes:
        metadata: The metadata of the event.
        checks: The results of the checks that were evaluated with the same rows.
        version: The data version of the event: a new one marks the assets that are made of the
            table as out of date.
        mark: Any text that changes with what readers are told of at once, by an event that does not
            wait for its turn.
    """

    metadata: "Mapping[str, dg.RawMetadataValue]"
    checks: Mapping[dg.AssetCheckKey, dg.AssetCheckResult] = field(default_factory=dict)
    version: str = UNCHANGING
    mark: str = ""


# Writes a table of the lake; the last argument is the id of the run, or None in a tick.
Derive = Callable[[L, Settings, str | None], Derived]


@dataclass(frozen=True, slots=True, kw_only=True)
class TickTable(Generic[L_contra]):
    """A table that the ticks of `drain_queue` write, and a run of its asset in the same way.

    Not all of them are derived: a tick writes the registry, the queue and the ledger, too.

    Attributes:
        derive: Writes the table, and returns what its event says.
        deps: The assets from which it is made.
        options: The other arguments of `table_asset`.
    """

    spec: TableSpec
    derive: Derive[L_contra]
    deps: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def asset(self, kind: type[L_contra]) -> dg.AssetsDefinition:
        """Return the asset, whose runs open a lake of this class."""

        def materialize(
            context: dg.AssetExecutionContext, position_sync: PositionSyncResource
        ) -> dg.MaterializeResult[None]:
            lake = position_sync.lake_of(kind)
            written = self.derive(lake, position_sync.settings, context.run.run_id)
            # Dagster planned no check in this run: results of checks can only be events of it.
            for key, result in written.checks.items():
                event_key = dg.AssetCheckKey(context.asset_key, key.name)
                context.log_event(check_evaluation(event_key, result))
            return dg.MaterializeResult(
                metadata=written.metadata, data_version=dg.DataVersion(written.version)
            )

        materialize.__doc__ = inspect.getdoc(self.derive)  # which Dagster shows
        return table_asset(self.spec, deps=self.deps, **self.options)(materialize)


def derived_asset(
    spec: TableSpec, *, deps: Sequence[str] = (), **options: Any
) -> Callable[[Derive[L]], TickTable[L]]:
    """Return the decorator of a function that writes a table; `options` as in `table_asset`.

    Example:
        @derived_asset(LATEST_POSITIONS, deps=["position_updates"])
        def latest_positions(lake: Lake, settings: Settings, run_id: str | None) -> Derived: ...
    """

    def decorate(derive: Derive[L]) -> TickTable[L]:
        return TickTable(spec=spec, derive=derive, deps=deps, options=options)

    return decorate


def check_evaluation(key: dg.AssetCheckKey, result: dg.AssetCheckResult) -> dg.AssetCheckEvaluation:
    """Return a result as an event of a check that was not planned in a run."""
    return dg.AssetCheckEvaluation(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=result.passed,
        severity=result.severity,
        description=result.description,
        metadata=result.metadata,
    )


# The key under which the UI shows the columns of an asset above its metadata.
COLUMN_SCHEMA = "dagster/column_schema"

# The key under which the UI shows a link to them.
COLUMNS = "columns"


def table_metadata(
    spec: TableSpec, writer: Writer, *, columns: str = COLUMN_SCHEMA
) -> "dict[str, dg.RawMetadataValue]":
    """Return the metadata of a table's definition: name, columns, and what writes it.

    The URI is added when the definitions are loaded, since it depends on the settings. `columns` is
    the key of the columns: the UI shows them (COLUMN_SCHEMA), or a link to them (COLUMNS).
    """
    described = [
        dg.TableColumn(name, spec.columns[name], description=column.description)
        for name, column in spec.described.items()
    ]
    return {
        "dagster/table_name": spec.name,
        columns: dg.MetadataValue.table_schema(dg.TableSchema(described)),
        "written_by": writer.words,
    }


def column_lineage(
    spec: TableSpec, made_of: Mapping[str, str], every: str = ""
) -> "dict[str, dg.RawMetadataValue]":
    """Return the column lineage of a table that is derived from the ledger, as metadata.

    Args:
        spec: The table.
        made_of: The source columns of each column, as one text with spaces between: `column` of the
            ledger, or `table.column`. Without an entry it is the ledger's column of that name.
        every: Sources that all columns have besides, in the same form.
    """
    ledger = POSITION_UPDATES

    def deps(column: str) -> list[dg.TableColumnDep]:
        """Return the sources of a column; none if it is of no other column."""
        sources = made_of.get(column, column if column in ledger.columns else "")
        places = [source.rpartition(".") for source in f"{sources} {every}".split()]
        return [dg.TableColumnDep(table or ledger.name, name) for table, _dot, name in places]

    lineage = {column: deps(column) for column in spec.columns}
    return {"dagster/column_lineage": dg.TableColumnLineage(lineage)}


def known(**values: float | str | None) -> "dict[str, float | str]":
    """Return the values that are not None, as metadata."""
    return {name: value for name, value in values.items() if value is not None}


def replacement_metadata(result: derived.Replaced) -> "dict[str, dg.RawMetadataValue]":
    """Return the metadata of a derived table that was replaced.

    Counts are texts, since the UI plots each number beside the amounts.
    """
    return {
        "rows": str(result.rows),
        "delta_version": str(result.version),
        "changed": result.changed,
    }


def plotted(numbers: Mapping[str, float | None]) -> dict[str, dg.MetadataValue]:
    """Return the known numbers as metadata that the UI plots."""
    return {
        name: dg.MetadataValue.float(round(float(value), 4))
        for name, value in numbers.items()
        if value is not None
    }


def totals(rows: DataFrame, *columns: str) -> dict[str, dg.MetadataValue]:
    """Return the sum of each column in each currency, to be plotted; pure.

    There is none where a value is unknown.
    """
    by_currency = rows.drop_nulls("currency").group_by("currency", maintain_order=True)
    amounts = pl.col(columns)
    sums = by_currency.agg(when(amounts.is_not_null().all()).then(amounts.sum()))
    cells = sums.unpivot(columns, index="currency").iter_rows()
    return plotted({f"{column} {currency}": number for currency, column, number in cells})


def counted(**counts: Any) -> dict[str, str]:
    """Return counts as texts: the UI would plot numbers, beside the amounts."""
    return {name: f"{count:,}" for name, count in counts.items()}


def replaced_whole(result: derived.Replaced) -> "dict[str, dg.RawMetadataValue]":
    """Return the metadata of a table that was made of rows of the ledger, and replaced whole."""
    return {
        "dagster/row_count": result.rows,
        "ledger_version": str(result.ledger_version or "unknown"),
        **replacement_metadata(result),
    }


class Sources(NamedTuple):
    """What an asset is made of: its table, and the data version of each source."""

    spec: TableSpec
    versions: Mapping[str, str]


def event_without_run(
    asset: str,
    written: Derived,
    keys: AssetKeys,
    sources: Sources | None,
) -> dg.AssetMaterialization:
    """Return a materialization that belongs to no run.

    Its sources have the tags that Dagster gives an event of a run: without them, an asset counts as
    out of date after each event of a source, and with them only when a data version changes.

    Args:
        asset: The name of the asset.
        written: What the event says.
        keys: The keys of the assets.
        sources: What the asset is made of; None if no run writes it: it is never out of date.
    """
    tags = {DATA_VERSION: written.version}
    if sources and sources.versions:
        tags["dagster/code_version"] = str(sources.spec.version)
        for name, version in sources.versions.items():
            parent = keys.of(name).to_user_string()
            tags[f"dagster/input_data_version/{parent}"] = version
            tags[f"dagster/input_event_pointer/{parent}"] = "NULL"  # no event is named
    return dg.AssetMaterialization(keys.of(asset), metadata=written.metadata, tags=tags)


# Makes an asset of a function without a body, whose docstring describes it.
External = Callable[[Callable[[], None]], dg.AssetSpec]


def external(name: str, *deps: str, **attributes: Any) -> External:
    """Return the decorator that makes an external asset of a function without a body.

    As with other assets, its docstring is the description that Dagster shows.

    Args:
        name: The name of the asset.
        deps: The names of the assets that it is made of.
        attributes: Other arguments of `dg.AssetSpec`.
    """

    def decorate(documented: Callable[[], None]) -> dg.AssetSpec:
        return dg.AssetSpec(name, deps=deps, description=inspect.getdoc(documented), **attributes)

    return decorate


def external_table(
    spec: TableSpec, *deps: str, writer: Writer = STREAM, kinds: Collection[str] = ("deltalake",)
) -> External:
    """Return the decorator of a table that no asset function writes, such as the stream's."""
    return external(spec.name, *deps, **_of_table(spec, writer, kinds))


def table_of_extension(spec: TableSpec) -> dg.AssetSpec:
    """Return the external asset of a table of an extension that has no asset of its own."""
    return dg.AssetSpec(
        spec.name,
        deps=[GATEWAY],
        description=f"{spec.description}\n\nWritten by the stream.\n\n"
        f"How to read it: {spec.changes}",
        **_of_table(spec, STREAM, ("deltalake",)),
    )


def _of_table(spec: TableSpec, writer: Writer, kinds: Collection[str]) -> dict[str, Any]:
    """Return the arguments of `dg.AssetSpec` for an external table."""
    return {
        "kinds": set(kinds),
        "code_version": str(spec.version),
        "metadata": table_metadata(spec, writer),
        "tags": {WRITTEN_BY: writer.name},
    }


@external(GATEWAY, kinds={"source"}, metadata={"written_by": "Interactive Brokers"})
def gateway() -> None:
    """TWS or IB Gateway, or the simulator: where all positions and prices come from.

    Written by Interactive Brokers; this project only reads.

    How to read it: an event says whether the stream sees the gateway, and how many lines it uses.
    The check a_stream_watches of position_updates turns yellow while it does not.
    """


@external_table(BROKER_POSITIONS, GATEWAY)
def broker_positions() -> None:
    """Every holding as the broker last reported it, with the broker's own value.

    Written by the stream, the owner of the login, when the account feed changed.

    How to read it: of the rows of a gateway, an account and a contract the one with the greatest
    published_version counts. The later of its confirmed_at and the newest account_confirmed_at of
    its account is when the broker last confirmed the values; completeness says how much of the
    account the last download covered. A value of PNL_SINGLE is confirmed until its received_at, and
    while it is followed, until the newest account_followed_until of its account.
    """


@external_table(CONTRACTS, GATEWAY)
def contracts() -> None:
    """Contract details, stored when a contract is first seen.

    Written by the stream.

    How to read it: one row per contract id: exchange, multiplier, price magnifier, trading hours
    and expiry, as the broker names them.
    """


@external_table(GATEWAY_SESSIONS, GATEWAY)
def gateway_sessions() -> None:
    """The lease of each owner of a login: which process may write, and until when.

    Written by the stream with each heartbeat.

    How to read it: one row per session, from STARTING over LIVE or BLIND to ENDED or LOST. The
    fencing_token is on each row of position_updates that the session wrote.
    """


@external_table(ACCOUNT_VALUES, GATEWAY)
def account_values() -> None:
    """Net liquidation, cash, funds, margin and profit of each account, one row per change.

    Written by the stream (source GATEWAY).

    How to read it: rows are only appended; the newest row of an account is its value.
    Amounts that the broker did not report are null.
    """


@external_table(RECONCILIATION_BREAKS, "broker_positions", "position_updates", "active_strategies")
def reconciliation_breaks() -> None:
    """Differences between the broker and the tables, from their opening to their resolution.

    Written by the check agrees_with_the_broker; of closes without a cause (UNEXPLAINED) by the
    stream and the ticks of drain_queue, of statements (STATEMENT) by the record of a day.

    How to read it: one row per difference: OPENED when it is seen once, CONFIRMED when it is seen
    again, RESOLVED when it is gone, ACCEPTED by a person until its quantities change.
    position-sync breaks lists them, and accepts one as it is. An event has the open ones; the check
    breaks_are_decided turns yellow when one is open for an hour and nobody accepted it.
    """


@external_table(POSITION_CHANGES, GATEWAY)
def position_changes() -> None:
    """Each change of a quantity, stored before the owner of the login published the new quantity.

    Written by the stream.

    How to read it: one row per change, from `before` to `after`. `closures` says why, for each
    change that reduced a holding. What an account held when it was first seen is no change.
    """


def state_of(table: Table) -> "dict[str, dg.RawMetadataValue]":
    """Return the number of rows and the Delta version of a table as metadata."""
    return {"dagster/row_count": table.count(), "delta_version": str(table.version())}
