"""What the definitions of one project are made of: its settings, and what stands above the core.

Stated positions are those that a statement of the broker has: an extension adds them to past days.

A `Composition` reaches the modules of this package by the context that Dagster gives to a function
with `dg.definitions`: `composition_of`. Sensors keep it, and runs get its resource.

A tick every 5 s must be cheap. Opening Dagster's instance takes 65 ms (its storages check their
Alembic revision each time), and a resource parameter or `context.instance` would open it at every
tick. Opening the tables takes another 30 ms. A composition keeps both open, for all threads.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Generic, NamedTuple, cast

import dagster as dg

from position_sync_dagster.dagster_files import PartOfTicks
from position_sync_dagster.defs.assets.latest_positions import latest_positions
from position_sync_dagster.defs.assets.past_days import days_check
from position_sync_dagster.defs.assets.queue_and_ledger import WRITTEN_BY_TICKS
from position_sync_dagster.defs.assets.table_asset import Sources, TickTable
from position_sync_dagster.defs.checks.evaluation import CheckDriver, TableCheck
from position_sync_dagster.defs.checks.tables import TABLE_CHECKS
from position_sync_dagster.defs.resources import (
    GATEWAY,
    IN_RESOURCE,
    AssetKeys,
    Automation,
    PositionSyncResource,
)
from position_sync_dagster.defs.tick import TickPart
from position_sync_dagster.errors import LakeError, PositionSyncError
from position_sync_dagster.lake.lake import L, Lake
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.lake.storage.threads import together
from position_sync_dagster.settings import Settings, load_settings, state_of_sources
from position_sync_dagster.sync.past_days import ClosingService
from position_sync_dagster.sync.stream.streamer import Complete


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension(Generic[L]):
    """What stands above the core, and is given to it.

    Attributes:
        lake: The class of the lake, with the tables of the extension.
        packages: Packages whose modules define further assets, jobs and sensors.
        tables: Further tables that runs and ticks write.
        checks: Further checks of tables.
        stream_parts: Returns the parts of a stream with further ones.
        tick_parts: What each tick does after the work of the core.
        stated: The class that collects past days; one of an extension reads stated positions, too.
        groups: The part (`component.PART`) that each asset has as a tag; without an entry it is
            that of the broker's account. The group of Dagster is one for all assets.
        pages: The page that shows what an asset holds.
        addresses: Where an asset without a table is.
        short_jobs: Jobs whose old runs are deleted, as those of the stream and of maintenance are.
        imported: What tables are made of that runs alone write, by name: ticks report them too.
    """

    lake: type[L]
    packages: tuple[ModuleType, ...] = ()
    tables: tuple[TickTable[L], ...] = ()
    checks: tuple[TableCheck[L], ...] = ()
    stream_parts: Complete[L] | None = None
    tick_parts: tuple[TickPart[L], ...] = ()
    stated: type[ClosingService[L]] = ClosingService
    groups: Mapping[str, str] = field(default_factory=dict)
    pages: Mapping[str, str] = field(default_factory=dict)
    addresses: Mapping[str, str] = field(default_factory=dict)
    short_jobs: tuple[str, ...] = ()
    imported: Mapping[str, Sources] = field(default_factory=dict)


# The core alone.
CORE = Extension(lake=Lake)


class OpenLake(NamedTuple, Generic[L]):
    """A lake that is open between ticks, when its checks were evaluated, and what ticks took."""

    lake: L
    driver: CheckDriver[L]
    parts: dict[str, PartOfTicks]


@dataclass(frozen=True, eq=False, kw_only=True)
class Composition(Generic[L]):
    """What the definitions of one project are made of.

    Attributes:
        overrides: The settings that count before the environment: those of the component.
        keys: The keys of the assets.
        automation: How the sensors and schedules are made; who defines one passes it on.
    """

    extension: Extension[L]
    overrides: Mapping[str, object] = field(default_factory=dict)
    keys: AssetKeys = field(default_factory=AssetKeys)
    automation: Automation = field(default_factory=Automation)

    def read_settings(self) -> Settings:
        """Read the settings as they are now.

        Raises:
            SettingsError: A value is malformed.
        """
        return self._settings(state_of_sources())

    @cached_property
    def _settings(self) -> Callable[[object], Settings]:
        """Return the settings of a state of their sources, which is only compared with the last."""
        return lru_cache(maxsize=1)(lambda _state: load_settings(**self.overrides))

    @cached_property
    def written_by_ticks(self) -> Mapping[str, TickTable[L]]:
        """The tables that runs and ticks write, by name."""
        tables: tuple[TickTable[L], ...] = (
            *WRITTEN_BY_TICKS,
            latest_positions,
            *self.extension.tables,
        )
        return {table.spec.name: table for table in tables}

    @cached_property
    def checks(self) -> tuple[TableCheck[L], ...]:
        """All checks of tables."""
        return (*TABLE_CHECKS, days_check(self.extension.stated), *self.extension.checks)

    def own_assets(self) -> list[dg.AssetKey]:
        """Return the assets whose old events are deleted: those that this composition defines."""
        lake = self.extension.lake
        names = [spec.name for spec in (*lake.specs, *lake.derived_specs)]
        return list(map(self.keys.of, (*names, GATEWAY, *self.extension.stated.assets)))

    @cached_property
    def opened(self) -> Callable[[Settings], OpenLake[L]]:
        """Return the tables of some settings, created or migrated at the first tick.

        A table that cannot be is left out: its first use raises why, and the ticks use the others.
        """
        return lru_cache(maxsize=2)(self._open)

    def _open(self, settings: Settings) -> OpenLake[L]:
        """Open the lake of some settings, and create or migrate its tables; `opened` keeps it."""
        lake = self.extension.lake.of(settings)
        together(_initialize, lake.all_tables)
        return OpenLake(lake, CheckDriver(self.checks), {})

    def instance_of(self, context: dg.SensorEvaluationContext) -> dg.DagsterInstance:
        """Return the instance of a tick, opened at the first tick."""
        ref = context.instance_ref
        if ref is None:  # a context with an instance of its own, as tests make it
            return context.instance

        return self._instance(dg.serialize_value(ref))

    @cached_property
    def _instance(self) -> Callable[[str], dg.DagsterInstance]:
        return lru_cache(maxsize=1)(_instance_of)

    def resource(self) -> PositionSyncResource:
        """Return the resource of every run, with the values that its page shows."""

        # Dagster makes it again from its fields, and shows all of them: the rest is of the class.
        class Resource(PositionSyncResource):
            lake_class: ClassVar[type[Lake]] = self.extension.lake
            overrides: ClassVar[Mapping[str, object]] = self.overrides

        Resource.__doc__ = PositionSyncResource.__doc__
        shown = {}
        with suppress(PositionSyncError):  # runs and ticks say what is wrong with a setting
            settings = self.read_settings()
            shown = {name: kind(getattr(settings, name)) for name, kind in IN_RESOURCE.items()}
        return Resource(**shown)

    def definitions_in(self, package: ModuleType) -> dg.Definitions:
        """Return what the modules of a package define, made of this composition."""
        scope = {COMPOSITION: self}  # where `composition_of` finds it

        class ComposedTree(dg.ComponentTree):
            @property
            def decl_load_context(self) -> Any:
                return super().decl_load_context.with_rendering_scope(scope)

        # `dg.load_from_defs_folder` needs a pyproject.toml, which a container image lacks. It also
        # describes all component types for the UI: a third of the time to load our definitions.
        tree = ComposedTree(defs_module=package, project_root=Path(__file__).parents[2])
        return tree.build_defs(Path())


# The name of the composition in the scope of a context.
COMPOSITION = "position_sync_composition"


def _instance_of(ref: str) -> dg.DagsterInstance:
    """Open the instance of a reference, which is a text, so that a cache can compare it."""
    instance: Any = dg.deserialize_value(ref)
    return dg.DagsterInstance.from_ref(instance)


def _initialize(table: Table) -> None:
    with suppress(LakeError):
        table.initialize()


def composition_of(context: dg.ComponentLoadContext, kind: type[L]) -> Composition[L]:
    """Return the composition of a context; without one, the core alone with its settings.

    Args:
        context: What Dagster gives to a function with `dg.definitions`.
        kind: The class of the lake that the definitions need, or one above it.

    Raises:
        TypeError: The composition has another class of lake.
    """
    composition = context.resolution_context.scope.get(COMPOSITION, Composition(extension=CORE))
    if not issubclass(composition.extension.lake, kind):
        raise TypeError(f"These definitions need {kind.__name__}: name it in the Extension.")
    return cast("Composition[L]", composition)


@dg.definitions
def tables_and_checks(context: dg.ComponentLoadContext) -> dg.Definitions:
    """Define the resource, the tables that runs and ticks write, and all checks of tables."""
    composition = composition_of(context, Lake)
    lake = composition.extension.lake
    return dg.Definitions(
        assets=[table.asset(lake) for table in composition.written_by_ticks.values()],
        asset_checks=[check.definition(lake) for check in composition.checks],
        resources={"position_sync": composition.resource()},
    )
