"""The resource of every run: the settings, and the tables of their lake."""

from collections.abc import Mapping
from functools import cached_property

import dagster as dg
from pydantic import Field

from position_sync_dagster.lake import lake as tables
from position_sync_dagster.settings import Settings, load_settings


class PositionSyncResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The settings and the tables of a run.

    Dagster makes one object per run, so the settings are read once and the tables are initialized
    once per run. Both happen at the first use and not in `setup_for_execution`: an error there
    fails the run as "resource initialization", while an error in a step is shown with its cause and
    remedy (`dagster_failures`).
    """

    path: str | None = Field(
        default=None, description="Folder or s3:// URI of the tables (POSITION_SYNC_LAKE)."
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
        """Read the current settings; a component and `path` take precedence over the environment.

        Raises:
            SettingsError: A value is malformed.
        """
        own = {} if self.path is None else {"lake": self.path}
        return load_settings(**{**_of_component, **own})


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


@dg.definitions
def resources() -> dg.Definitions:
    """Define the resource of every run."""
    return dg.Definitions(resources={"position_sync": POSITION_SYNC})
