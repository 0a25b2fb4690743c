"""The Dagster component: Position Sync as a part of a Dagster project that exists."""

from collections.abc import Iterable, Mapping
from copy import copy
from pathlib import Path
from typing import Annotated, Any

import dagster as dg
from dagster_shared import record

from position_sync_dagster.definitions import load
from position_sync_dagster.defs.resources import set_component_settings
from position_sync_dagster.errors import SettingsError
from position_sync_dagster.settings import Settings, load_settings

# The attributes, and the one of `settings`, that are paths.
PATHS = ("lake", "strategies_file", "gateways_file", "flex_folder")

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
        set_component_settings(given)
        found = load(settings)
        return found if self.automation else with_stopped_automation(found)

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
