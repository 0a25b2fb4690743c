"""The Dagster component: Position Sync as a part of a Dagster project that exists.

The code location of this package is such a project too (`definitions`).
"""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import dagster as dg
from dagster_shared import record

from position_sync_dagster import defs as core
from position_sync_dagster.dagster_files import document
from position_sync_dagster.defs.assets.table_asset import table_of_extension
from position_sync_dagster.defs.composition import Composition, Extension
from position_sync_dagster.defs.resources import GATEWAY, AssetKeys, Automation
from position_sync_dagster.errors import GatewaysFileError, SettingsError, shown
from position_sync_dagster.lake.storage.object_store import absolute_path
from position_sync_dagster.processes.heard.daily import with_counts
from position_sync_dagster.processes.heard.heard_lake import HeardLake
from position_sync_dagster.settings import Settings, load_settings

# The attributes, and the one of `settings`, that are paths.
PATHS = ("lake", "strategies_file", "gateways_file", "flex_folder")

# The group of all assets. The lineage page shows each of several groups as a closed box, and the
# assets themselves where there is one group (Dagster 1.13, `groupRendering: "if-varied"`).
GROUP = "position_sync"

# The tag of an asset that says its part: what the broker reports, the way of a value to its row,
# what is derived from the rows.
PART = "position-sync/part"
BROKER_PART = "broker_account"
VALUES_PART = "position_values"
REPORTS_PART = "position_reports"

# The part of each asset of the core that is not in the first one.
PART_OF = {
    "active_strategies": VALUES_PART,
    "position_queue": VALUES_PART,
    "position_updates": VALUES_PART,
    "latest_positions": REPORTS_PART,
    "daily_positions": REPORTS_PART,
    "reconciliation_breaks": REPORTS_PART,
}

LINEAGE = "dagster/column_lineage"

SETTINGS = Settings.model_fields

# What Dagster makes the names of steps of.
KEY_PART = re.compile(r"[A-Za-z0-9_.-]+")


def _described(text: str, *examples: object) -> Any:
    """Return the description of an attribute, as `dg utils inspect-component` shows it."""
    return dg.Resolver.default(description=text, examples=list(examples) or None)


def _setting(name: str, example: object) -> Any:
    """Return the description of an attribute that is a setting; of a path, where it begins, too."""
    text = SETTINGS[name].description or ""
    if name in PATHS:
        text += " A relative path begins at the root of the project."
    return _described(text, example)


class PositionSyncScaffolder(dg.Scaffolder):
    """Write a `defs.yaml` for a paper account of TWS on this machine."""

    def scaffold(self, request: dg.ScaffoldRequest[Any]) -> None:
        dg.scaffold_component(
            request,
            {
                "gateway_host": "127.0.0.1",
                "gateway_port": 7497,
                "gateway_client_id": 17,
                "lake": "data/lake",
                "automation": True,
            },
        )


@dg.scaffold_with(PositionSyncScaffolder)
class PositionSyncComponent(dg.Component, dg.Model, dg.Resolvable):
    """Value every option leg of an Interactive Brokers account into Delta tables.

    An attribute that is left out has the value of its variable POSITION_SYNC_… in the environment
    or in `.env`, or else its default. A project has one such component.
    """

    gateway_host: Annotated[str | None, _setting("gateway_host", "127.0.0.1")] = None
    gateway_port: Annotated[int | None, _setting("gateway_port", 7497)] = None
    gateway_client_id: Annotated[int | None, _setting("gateway_client_id", 17)] = None
    gateways_file: Annotated[str | None, _setting("gateways_file", "gateways.yaml")] = None
    lake: Annotated[str | None, _setting("lake", "data/lake")] = None
    batch_size: Annotated[int | str | None, _setting("batch_size", "auto")] = None
    drain_interval_s: Annotated[float | None, _setting("drain_interval_s", 5)] = None
    history_days: Annotated[int | None, _setting("history_days", 90)] = None
    strategies_file: Annotated[str | None, _setting("strategies_file", "strategies.yaml")] = None
    money: Annotated[bool | None, _setting("money", False)] = None
    alert_urls: Annotated[str | None, _setting("alert_urls", "{{ env.ALERT_URLS }}")] = None
    settings: Annotated[
        Mapping[str, Any],
        _described(
            "Other settings, by their names in small letters without POSITION_SYNC_.",
            {"max_lines": 100, "refresh_interval_s": 180},
        ),
    ] = {}
    automation: Annotated[
        bool,
        _described(
            "Whether sensors and schedules run from the start; else a person starts each of them "
            "in Dagster."
        ),
    ] = True
    key_prefix: Annotated[
        str | None,
        _described("What stands before the keys of the assets; a slash separates parts.", "ibkr"),
    ] = None
    group: Annotated[
        str | None,
        _described(
            f"The group of all assets; by default {GROUP}. Their tag {PART} is {BROKER_PART}, "
            f"{VALUES_PART} or {REPORTS_PART}.",
            "trading",
        ),
    ] = None
    owners: Annotated[
        Sequence[str],
        _described("The owners of assets, sensors and schedules.", ["team:trading"]),
    ] = ()
    tags: Annotated[
        Mapping[str, str], _described("Tags of the assets.", {"domain": "trading"})
    ] = {}
    pages_url: Annotated[
        str | None,
        _described(
            "Where `position-sync money` serves the pages that assets link to.",
            "http://127.0.0.1:3001",
        ),
    ] = None

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the definitions, with the settings of this component.

        Raises:
            SettingsError: An attribute is malformed, or the project has another such component.
        """
        tree = context.component_tree
        # Without a project, as for `dg.build_defs_for_component`, there is no folder to look at.
        is_project = isinstance(tree.defs_module, ModuleType)
        number = len(tree.get_all_components(PositionSyncComponent)) if is_project else 1
        if number > 1:
            raise SettingsError(
                f"This project has {number} components of Position Sync: their assets, jobs and "
                "sensors would have the same names.",
                remedy=f"Keep one, and delete {context.path} or another; several logins are one "
                "component with gateways_file.",
            )

        overrides = self._overrides(context.project_root)
        try:
            settings = load_settings(**overrides)
        except SettingsError as error:
            raise SettingsError(
                error.what,
                remedy=f"Correct it in {context.path}, in the environment or in .env; "
                f"{document('docs/component.md')} says which of them counts.",
            ) from None

        return self.definitions(settings, overrides)

    def extension(self, settings: Settings) -> Extension[Any]:
        """Return what stands above the core: money, unless the settings leave it out.

        The messages that a gateway sends are counted by the day with it and without.

        Its lake is Any, since each extension has a class of its own, and a component of yours may
        return another one than this; its tables, checks and parts are checked against it.

        A component of your own adds to it: `docs/component.md` has an example.
        """
        if not settings.money:
            return Extension(lake=HeardLake, stream_parts=with_counts)

        from position_sync_dagster.money.defs.extension import money_extension

        return money_extension(settings)

    def definitions(
        self, settings: Settings, overrides: Mapping[str, object] | None = None
    ) -> dg.Definitions:
        """Return the definitions of core and extension, with the attributes of this component.

        Args:
            settings: The settings as they are now.
            overrides: Those that the attributes give. Runs, sensors and checks get them, since each
                process reads the settings again.
        """
        composition = Composition(
            extension=self.extension(settings),
            overrides=overrides or {},
            keys=AssetKeys(_parts_of(self.key_prefix)),
            automation=Automation(
                list(self.owners), status="RUNNING" if self.automation else "STOPPED"
            ),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.BetaWarning)
            warnings.simplefilter("ignore", dg.PreviewWarning)
            packages = (core, *composition.extension.packages)
            loaded = dg.Definitions.merge(*map(composition.definitions_in, packages))
            loaded = _with_all_tables(loaded, composition)
            defined = {spec.key for spec in _specs_of(loaded)}
            complete = partial(
                self._completed, composition=composition, settings=settings, defined=defined
            )
            definitions = loaded.map_asset_specs(func=complete)

        if not self.automation:
            _require_stopped(definitions)
        if composition.keys.prefix:
            return with_keys(definitions, composition.keys)

        return definitions

    def _completed(
        self,
        spec: dg.AssetSpec,
        composition: Composition[Any],
        settings: Settings,
        defined: Set[dg.AssetKey],
    ) -> dg.AssetSpec:
        """Return an asset with what all assets have: owners, tags, group, addresses.

        What an asset is made of and is not defined here, as money is where it is left out, is no
        dependency. The lineage of columns names the tables by the keys of the project.

        Args:
            spec: The asset, before its key has the prefix.
            composition: The extension, and the keys.
            settings: The settings, with the addresses of lake and gateways.
            defined: The keys of all assets of these definitions.
        """
        name = spec.key.to_user_string()
        extension = composition.extension
        address = extension.addresses.get(name) or _address(spec, settings)
        metadata: dict[str, Any] = {"dagster/uri": address} if address else {}
        if self.pages_url and name in extension.pages:
            page = self.pages_url.rstrip("/") + extension.pages[name]
            metadata["page"] = dg.MetadataValue.url(page)
        if LINEAGE in spec.metadata:
            metadata[LINEAGE] = _prefixed(spec.metadata[LINEAGE], composition.keys)

        # The `groups` of an extension are parts; the group is one for all assets.
        part = PART_OF.get(name, extension.groups.get(name, BROKER_PART))
        spec = spec.merge_attributes(
            metadata=metadata, owners=self.owners, tags={PART: part, **self.tags}
        )
        deps = [dep for dep in spec.deps if dep.asset_key in defined]
        return spec.replace_attributes(deps=deps, group_name=self.group or GROUP)

    def _overrides(self, root: Path) -> dict[str, object]:
        """Return the settings that the attributes give, by name.

        Args:
            root: The root of the project, at which relative paths begin.

        Raises:
            SettingsError: The attribute `settings` names no setting, or one that is an attribute.
        """
        attributes = SETTINGS.keys() & type(self).model_fields.keys()  # those that are settings
        for name in self.settings:
            if name in attributes or name not in SETTINGS:
                raise SettingsError(
                    f"settings.{name} of the component is not a setting, or it is an attribute.",
                    remedy="Write attributes beside `settings`; "
                    f"{document('.env.example')} lists the settings.",
                )

        overrides = dict(self.settings)
        for name in attributes:
            if getattr(self, name) is not None:
                overrides[name] = getattr(self, name)

        for name in PATHS:  # a URI, as of a bucket, is whole
            if name in overrides and "://" not in str(overrides[name]):
                overrides[name] = str(root / str(overrides[name]))
        return overrides


def _parts_of(prefix: str | None) -> tuple[str, ...]:
    """Return the parts of a prefix of keys.

    Raises:
        SettingsError: A part is empty, or has a character that no name in Dagster may have.
    """
    parts = tuple(prefix.split("/")) if prefix else ()
    if all(map(KEY_PART.fullmatch, parts)):
        return parts

    raise SettingsError(
        f"The key_prefix {shown(prefix)} is no beginning of the keys of assets.",
        remedy="Write parts of ASCII letters, digits, _, - and dots, with one slash between two of "
        "them: ibkr/options.",
    )


def _address(spec: dg.AssetSpec, settings: Settings) -> str | None:
    """Return where a table is, or the gateways are; None of any other asset."""
    name = spec.key.to_user_string()
    if "dagster/table_name" in spec.metadata:
        return absolute_path(settings.table(name))
    if name != GATEWAY:
        return None

    # The jobs must load also without it. The sensors, the runs and the checks report the error.
    try:
        return ", ".join(f"tcp://{login.gateway_address}" for login in settings.logins)
    except GatewaysFileError:
        return str(settings.gateways_file)


def with_keys(definitions: dg.Definitions, of_project: AssetKeys) -> dg.Definitions:
    """Return definitions whose assets and checks have the prefix of the project in their keys.

    This comes last: until then each key is the name of its asset.
    """
    keys = {spec.key: of_project.of(spec.key.to_user_string()) for spec in _specs_of(definitions)}

    def renamed(definition: Any) -> Any:
        """Return an asset, with or without code, or a check, with the new keys."""
        if not isinstance(definition, dg.AssetSpec):
            return definition.with_attributes(asset_key_replacements=keys)
        deps = [keys[dep.asset_key] for dep in definition.deps]
        return definition.replace_attributes(key=keys[definition.key], deps=deps)

    return record.copy(
        definitions,
        assets=list(map(renamed, definitions.assets or ())),
        asset_checks=list(map(renamed, definitions.asset_checks or ())),
    )


def _specs_of(definitions: dg.Definitions) -> Iterator[dg.AssetSpec]:
    """Yield the description of each asset, also of those that have no code of ours."""
    for asset in definitions.assets or ():
        if isinstance(asset, dg.AssetsDefinition):
            yield from asset.specs
        elif isinstance(asset, dg.AssetSpec):
            yield asset


def _with_all_tables(definitions: dg.Definitions, composition: Composition[Any]) -> dg.Definitions:
    """Return definitions in which each table of the lake that ticks report is an asset."""
    defined = {spec.key for spec in _specs_of(definitions)}
    others = [
        table_of_extension(table)
        for table in composition.extension.lake.specs
        if dg.AssetKey(table.name) not in defined
    ]
    return dg.Definitions.merge(definitions, dg.Definitions(assets=others))


def _require_stopped(definitions: dg.Definitions) -> None:
    """Raise SettingsError if a sensor or a schedule, as one of an extension, is not stopped."""
    for made in (*(definitions.sensors or ()), *(definitions.schedules or ())):
        if getattr(made, "default_status", dg.DefaultSensorStatus.STOPPED).value != "STOPPED":
            raise SettingsError(
                f"{made.name} would run from the start, though automation is false.",
                remedy="Define it with the status and the owners of composition.automation.",
            )


def _prefixed(lineage: dg.TableColumnLineage, keys: AssetKeys) -> dg.TableColumnLineage:
    """Return a lineage of columns that names the tables by the keys of the project."""

    def prefixed(source: dg.TableColumnDep) -> dg.TableColumnDep:
        return dg.TableColumnDep(keys.of(source.asset_key.to_user_string()), source.column_name)

    return dg.TableColumnLineage(
        {column: list(map(prefixed, deps)) for column, deps in lineage.deps_by_column.items()}
    )
