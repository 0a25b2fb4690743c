"""The Dagster component: Position Sync as a part of a Dagster project that exists.

The code location of this package is such a project too (`definitions`).
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import dagster as dg
from dagster_shared import record

from position_sync_dagster import defs as package
from position_sync_dagster.defs.resources import GATEWAY, key_of, set_component_settings
from position_sync_dagster.errors import GatewaysFileError, SettingsError
from position_sync_dagster.lake.storage.object_store import absolute_path
from position_sync_dagster.settings import Settings, load_settings

# The attributes, and the one of `settings`, that are paths.
PATHS = ("lake", "strategies_file", "gateways_file", "flex_folder")

# The groups of assets: what the broker reports, the way of a value to its row, what is derived from
# the rows. The lineage page shows each group as a box that opens with a click, since all assets do
# not fit on a screen.
BROKER_GROUP = "broker_account"
GROUPS = {
    "position_values": ("active_strategies", "position_queue", "position_updates"),
    "position_reports": (
        "latest_positions",
        "strategy_exposure",
        "daily_positions",
        "profit_explained",
        "books",
        "closed_campaigns",
        "risk_scenarios",
        "reconciliation_breaks",
    ),
}

# The pages that show what an asset holds.
PAGES = {
    "position_updates": "/money",
    "latest_positions": "/money",
    "strategy_exposure": "/money",
    "risk_scenarios": "/money/risk",
    "profit_explained": "/money/results",
    "closed_campaigns": "/money/results",
}

LINEAGE = "dagster/column_lineage"

_SETTINGS = Settings.model_fields


def _attribute(name: str, example: object) -> Any:
    """Return the description of an attribute that is a setting."""
    path = " A relative path begins at the root of the project." if name in PATHS else ""
    return dg.Resolver.default(
        description=f"{_SETTINGS[name].description}{path}", examples=[example]
    )


class PositionSyncScaffolder(dg.Scaffolder):
    """Write a `defs.yaml` for a paper account of TWS on this machine."""

    def scaffold(self, request: dg.ScaffoldRequest[Any]) -> None:
        attributes = {
            "gateway_host": "127.0.0.1",
            "gateway_port": 7497,
            "gateway_client_id": 17,
            "lake": "data/lake",
            "automation": True,
        }
        dg.scaffold_component(request, attributes)


@dg.scaffold_with(PositionSyncScaffolder)
class PositionSyncComponent(dg.Component, dg.Model, dg.Resolvable):
    """Value every option leg of an Interactive Brokers account into Delta tables.

    An attribute that is left out has the value of its variable POSITION_SYNC_… in the environment
    or in `.env`, or else its default. A project has one such component.
    """

    gateway_host: Annotated[str | None, _attribute("gateway_host", "127.0.0.1")] = None
    gateway_port: Annotated[int | None, _attribute("gateway_port", 7497)] = None
    gateway_client_id: Annotated[int | None, _attribute("gateway_client_id", 17)] = None
    gateways_file: Annotated[str | None, _attribute("gateways_file", "gateways.yaml")] = None
    lake: Annotated[str | None, _attribute("lake", "data/lake")] = None
    strategies_file: Annotated[str | None, _attribute("strategies_file", "strategies.yaml")] = None
    alert_urls: Annotated[str | None, _attribute("alert_urls", "{{ env.ALERT_URLS }}")] = None
    settings: Annotated[
        Mapping[str, Any],
        dg.Resolver.default(
            description="Other settings, by their names in small letters without POSITION_SYNC_.",
            examples=[{"max_lines": 100, "refresh_interval_s": 180}],
        ),
    ] = {}
    automation: Annotated[
        bool,
        dg.Resolver.default(
            description="Whether sensors and schedules run from the start; else a person starts "
            "each of them in Dagster."
        ),
    ] = True
    key_prefix: Annotated[
        str | None,
        dg.Resolver.default(
            description="What stands before the keys of the assets; a slash separates parts.",
            examples=["ibkr"],
        ),
    ] = None
    group: Annotated[
        str | None,
        dg.Resolver.default(
            description=f"The group of all assets; by default {BROKER_GROUP}, {', '.join(GROUPS)}.",
            examples=["trading"],
        ),
    ] = None
    owners: Annotated[
        Sequence[str],
        dg.Resolver.default(description="The owners of the assets.", examples=[["team:trading"]]),
    ] = ()
    tags: Annotated[
        Mapping[str, str],
        dg.Resolver.default(description="Tags of the assets.", examples=[{"domain": "trading"}]),
    ] = {}
    pages_url: Annotated[
        str | None,
        dg.Resolver.default(
            description="Where `position-sync money` serves the pages that assets link to.",
            examples=["http://127.0.0.1:3001"],
        ),
    ] = None

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the definitions, with the settings of this component.

        Raises:
            SettingsError: An attribute is malformed, or the project has a second such component.
        """
        others = len(context.component_tree.get_all_components(PositionSyncComponent)) - 1
        if others > 0:
            raise SettingsError(
                f"This project has {others + 1} components of the type PositionSyncComponent, and "
                "their assets, jobs and sensors have the same names.",
                remedy="Keep one: its attribute gateways_file names several logins. Give a second "
                "lake a project and a Dagster instance of its own.",
            )
        given = self._given(context.project_root)
        try:
            settings = load_settings(**given)
        except SettingsError as error:
            raise SettingsError(
                error.what,
                remedy=f"Correct it in {context.path}, in the environment or in .env; "
                "docs/component.md says which of them counts.",
            ) from None
        set_component_settings(given, self._prefix)
        return self.definitions(settings)

    def definitions(self, settings: Settings) -> dg.Definitions:
        """Return the definitions of the package `defs`, with the attributes of this component.

        Args:
            settings: The settings, for the addresses that the assets show.
        """
        # `dg.load_from_defs_folder` needs a pyproject.toml, which a container image lacks. It also
        # describes all component types for the UI: a third of the time to load our definitions.
        tree = dg.ComponentTree.from_module(package, Path(__file__).parents[1])
        with warnings.catch_warnings():
            for kind in (dg.BetaWarning, dg.PreviewWarning):
                warnings.simplefilter("ignore", kind)
            loaded = tree.build_defs(Path())
            completed = loaded.map_asset_specs(func=partial(self._completed, settings=settings))

        if self._prefix:
            completed = with_key_prefix(completed)
        return completed if self.automation else with_stopped_automation(completed)

    @property
    def _prefix(self) -> list[str]:
        return self.key_prefix.split("/") if self.key_prefix else []

    def _completed(self, spec: dg.AssetSpec, settings: Settings) -> dg.AssetSpec:
        """Return an asset with what all assets have: owners, tags, group, addresses."""
        name = spec.key.to_user_string()
        metadata: dict[str, Any] = {"dagster/uri": _address(spec, settings)}
        if self.pages_url and name in PAGES:
            page = f"{self.pages_url.rstrip('/')}{PAGES[name]}"
            metadata["page"] = dg.MetadataValue.url(page)

        default = next((group for group, names in GROUPS.items() if name in names), BROKER_GROUP)
        return spec.merge_attributes(
            metadata=metadata, owners=self.owners, tags=self.tags
        ).replace_attributes(group_name=self.group or default)

    def _given(self, root: Path) -> dict[str, object]:
        """Return the settings that the attributes give.

        Raises:
            SettingsError: The attribute `settings` names no setting, or one that is an attribute.
        """
        own = {name: getattr(self, name) for name in type(self).model_fields if name in _SETTINGS}
        wrong = [name for name in self.settings if name in own or name not in _SETTINGS]
        if wrong:
            raise SettingsError(
                f"settings.{wrong[0]} of the component is not a setting, or it is an attribute.",
                remedy="Write attributes beside `settings`; .env.example lists the settings.",
            )
        given = {name: value for name, value in own.items() if value is not None}
        given |= self.settings
        for name in PATHS:
            if name in given and "://" not in str(given[name]):
                given[name] = str(root / str(given[name]))
        return given


def _address(spec: dg.AssetSpec, settings: Settings) -> str:
    """Return where a table is, the gateways are, or the statements."""
    name = spec.key.to_user_string()
    if "dagster/table_name" in spec.metadata:
        return absolute_path(settings.table(name))
    if name != GATEWAY:
        return str(settings.flex_folder.absolute())

    # The jobs must load also without it. The sensors, the runs and the checks report the error.
    try:
        return ", ".join(f"tcp://{login.gateway_address}" for login in settings.logins)
    except GatewaysFileError:
        return str(settings.gateways_file)


def with_key_prefix(definitions: dg.Definitions) -> dg.Definitions:
    """Return definitions whose assets and checks have the prefix of the project in their keys."""
    assets: list[Any] = [*(definitions.assets or ())]
    specs = [
        spec
        for asset in assets
        for spec in (asset.specs if isinstance(asset, dg.AssetsDefinition) else (asset,))
    ]
    keys = {spec.key: key_of(spec.key.to_user_string()) for spec in specs}

    def with_prefix(asset: Any) -> Any:
        if isinstance(asset, dg.AssetsDefinition):
            return asset.with_attributes(asset_key_replacements=keys)
        deps = [dg.AssetDep(keys[dep.asset_key]) for dep in asset.deps]
        return asset.replace_attributes(key=keys[asset.key], deps=deps)

    linked = definitions.map_asset_specs(func=_with_prefixed_lineage)
    return record.copy(
        linked,
        assets=[with_prefix(asset) for asset in linked.assets or ()],
        asset_checks=[with_prefix(check) for check in linked.asset_checks or ()],
    )


def _with_prefixed_lineage(spec: dg.AssetSpec) -> dg.AssetSpec:
    lineage = spec.metadata.get(LINEAGE)
    if lineage is None:
        return spec

    columns = {
        column: [
            dg.TableColumnDep(key_of(dep.asset_key.to_user_string()), dep.column_name)
            for dep in deps
        ]
        for column, deps in lineage.deps_by_column.items()
    }
    return spec.merge_attributes(metadata={LINEAGE: dg.TableColumnLineage(columns)})


def with_stopped_automation(definitions: dg.Definitions) -> dg.Definitions:
    """Return definitions whose sensors and schedules are stopped until a person starts them.

    Dagster has no way to copy them with another status.
    """

    def stopped(found: Iterable[Any] | None, status: Any) -> list[Any]:
        ones = [copy(one) for one in found or ()]
        for one in ones:
            one._default_status = status
        return ones

    return record.copy(
        definitions,
        sensors=stopped(definitions.sensors, dg.DefaultSensorStatus.STOPPED),
        schedules=stopped(definitions.schedules, dg.DefaultScheduleStatus.STOPPED),
    )
