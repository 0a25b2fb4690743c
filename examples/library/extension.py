"""Give the core a table, a part of the ticks and a follower of changes of your own.

`.venv/bin/python examples/library/extension.py`, beside a gateway or `position-sync simulate`. In
a project, name `OwnComponent` in `defs.yaml`. To keep money too, let `OwnLake` be a `MoneyLake`,
add to what `super().extension(settings)` returns, and let `with_printed_changes` begin with its
`stream_parts`.
"""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
import polars as pl

from position_sync_dagster import (
    Asked,
    Derived,
    Execution,
    Extension,
    Lake,
    Ownership,
    PositionSyncComponent,
    Settings,
    StreamTables,
    TableSpec,
    Work,
    columns_of,
    derive,
    derived_asset,
    judged,
    load_settings,
    replacement_metadata,
    stream,
    table_check,
)

WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class HeldSymbol:
    """A row of `held_symbols`.

    Attributes:
        symbol: Symbol of the underlying, as IB writes it.
        holdings: Number of its open holdings.
    """

    symbol: str
    holdings: int


HELD_SYMBOLS = TableSpec("held_symbols", columns_of(HeldSymbol), key=("symbol",))


class OwnLake(Lake):
    """The lake of the core, and the table in the same folder."""

    derived_specs = (*Lake.derived_specs, HELD_SYMBOLS)


@derived_asset(HELD_SYMBOLS, deps=["position_updates"])
def held_symbols(lake: OwnLake, _settings: Settings, run_id: str | None) -> Derived:
    """How many holdings each underlying has: the tick writes it, and so does a run."""

    def make() -> pl.DataFrame:
        held = lake.updates.sync.latest().filter(pl.col.position != 0)
        return held.group_by("symbol").agg(holdings=pl.len().cast(pl.Int64)).sort("symbol")

    _rows, result = derive(lake.derived_table(HELD_SYMBOLS), make, run_id=run_id)
    return Derived(metadata=replacement_metadata(result))


@table_check(HELD_SYMBOLS.name, driven=True)
def few_symbols_are_held(lake: OwnLake, _settings: Settings) -> dg.AssetCheckResult:
    """Whether at most fifty underlyings are held."""
    symbols = lake.derived_table(HELD_SYMBOLS).count()
    return judged(f"{symbols} underlyings.", holds=symbols <= 50)


def count_symbols(work: Work[OwnLake]) -> None:
    """Write the table, and report it, once rows of the ledger were reported."""
    if work.rows_reported:
        work.write(HELD_SYMBOLS.name)


class PrintedChanges:
    """Prints how many changes of quantities the stream has stored."""

    def __init__(self, lake: OwnLake) -> None:
        self._lake = lake

    def follow_changes(self, executions: Collection[Execution], _asked: Asked) -> None:
        """Look at the changes that are due; the executions are what the gateway named of today."""
        changes = self._lake.position_changes.table.count()
        print(f"{changes} changes are stored, {len(executions)} executions were named")


def with_printed_changes(
    parts: StreamTables, lake: OwnLake, _settings: Settings, _own: Ownership
) -> StreamTables:
    """Return the parts of a stream, with the follower after those that are there."""
    return replace(parts, followers=(*parts.followers, PrintedChanges(lake)))


OWN = Extension(
    lake=OwnLake,
    tables=(held_symbols,),
    checks=(few_symbols_are_held,),
    stream_parts=with_printed_changes,
    tick_parts=(count_symbols,),
    groups={HELD_SYMBOLS.name: "own_reports"},
)


class OwnComponent(PositionSyncComponent):
    """The core with the extension, and without money."""

    def extension(self, settings: Settings) -> Extension[Any]:
        """Return what stands above the core."""
        return OWN


async def main() -> None:
    """Tick beside a stream until the ledger has rows, and print what the table has."""
    with TemporaryDirectory() as folder, dg.DagsterInstance.ephemeral() as instance:
        settings = load_settings(lake=folder)
        definitions = OwnComponent().definitions(settings, {"lake": folder})
        drain_queue = definitions.get_repository_def().get_sensor_def("drain_queue")

        lake = OwnLake.of(settings)
        stop = asyncio.Event()
        streaming = asyncio.create_task(
            stream(lake, settings, stop=stop, complete=OWN.stream_parts)
        )
        held = lake.derived_table(HELD_SYMBOLS)
        async with asyncio.timeout(WITHIN_S):
            while not (held.exists() and held.count()) and not streaming.done():
                await asyncio.wait([streaming], timeout=0.5)
                with dg.build_sensor_context(instance=instance) as context:
                    await asyncio.to_thread(drain_queue.evaluate_tick, context)
            stop.set()
            await streaming

        print(held.rows())
        assert held.count()


if __name__ == "__main__":
    asyncio.run(main())
