"""The resource of every run: the settings, and the tables of their lake."""

import os
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import dagster as dg
from pydantic import Field

from position_sync_dagster.lake import lake as tables
from position_sync_dagster.settings import PREFIX, Settings, load_settings


class PositionSyncResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The settings and the tables of a run; fields without a value are read from POSITION_SYNC_*.

    Dagster makes one object per run, so the settings are read once and the tables are initialized
    once per run. Both happen at the first use and not in `setup_for_execution`: an error there
    fails the run as "resource initialization", while an error in a step is shown with its cause and
    remedy (`dagster_failures`).
    """

    path: str | None = Field(
        default=None, description="Folder or s3:// URI of the tables (POSITION_SYNC_LAKE)."
    )
    host: str | None = Field(
        default=None, description="Address of TWS or IB Gateway (POSITION_SYNC_GATEWAY_HOST)."
    )
    port: int | None = Field(default=None, description="Its API port (POSITION_SYNC_GATEWAY_PORT).")
    client_id: int | None = Field(
        default=None,
        description="First of the pool of client ids (POSITION_SYNC_GATEWAY_CLIENT_ID).",
    )

    @cached_property
    def settings(self) -> Settings:
        """Return the settings as they were at the first use in the run.

        Raises:
            SettingsError: A value is malformed.
        """
        return self.read_settings()

    @cached_property
    def lake(self) -> tables.Lake:
        """Return the tables, created or migrated at the first use in the run.

        Raises:
            SettingsError: A value is malformed.
            LakeError: A table cannot be used.
        """
        lake = tables.Lake.of(self.settings)
        lake.initialize_sync()
        return lake

    def read_settings(self) -> Settings:
        """Read the current settings; values of this resource override the environment.

        Raises:
            SettingsError: A value is malformed.
        """
        given = {name: getattr(self, field) for field, name in _SETTING_OF.items()}
        own = {name: value for name, value in given.items() if value is not None}
        return load_settings(**{**_of_component, **own})


# Field of the resource → name of its setting.
_SETTING_OF = {
    "path": "lake",
    "host": "gateway_host",
    "port": "gateway_port",
    "client_id": "gateway_client_id",
}

POSITION_SYNC = PositionSyncResource()

_of_component: dict[str, object] = {}


def set_component_settings(given: Mapping[str, object]) -> None:
    """Set the settings that a component gives to all definitions of this process.

    For sensors and steps they take precedence over the environment. They belong to the process:
    each process of Dagster loads the definitions of one code location, which has one such
    component.
    """
    _of_component.clear()
    _of_component.update(given)


def shown_resource() -> PositionSyncResource:
    """Return the resource with all its values, as the UI shows it.

    A variable of the environment is shown by its name, and each run reads it. Other values are
    those of a component or of `.env`, or the defaults.
    """
    settings = POSITION_SYNC.read_settings()

    def shown(name: str) -> Any:
        variable, value = f"{PREFIX}{name.upper()}", getattr(settings, name)
        if name in _of_component or not os.environ.get(variable):
            return value
        return dg.EnvVar.int(variable) if isinstance(value, int) else dg.EnvVar(variable)

    return PositionSyncResource(**{field: shown(name) for field, name in _SETTING_OF.items()})


@dg.definitions
def resources() -> dg.Definitions:
    """Define the resource of every run."""
    return dg.Definitions(resources={"position_sync": shown_resource()})
