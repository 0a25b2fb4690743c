"""The lake and the gateway as Dagster resources."""

from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

if TYPE_CHECKING:
    from position_sync_dagster.lake.lake import Lake
    from position_sync_dagster.settings import Settings


class LakeResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The tables; what is left out is read from POSITION_SYNC_* when a run begins."""

    path: str | None = Field(
        default=None, description="Folder or s3:// URI of the tables (POSITION_SYNC_LAKE)."
    )

    def open(self, settings: "Settings") -> "Lake":
        """Give the tables, made at first use."""
        from position_sync_dagster.lake.lake import Lake

        lake = Lake.of(settings)
        lake.initialize_sync()
        return lake


class GatewayResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The login's gateway; what is left out is read from POSITION_SYNC_GATEWAY_*."""

    host: str | None = Field(default=None, description="Address of TWS or IB Gateway.")
    port: int | None = Field(default=None, description="Its API port.")
    client_id: int | None = Field(default=None, description="First of the pool of client ids.")

    def settings(self, lake: LakeResource) -> "Settings":
        """Read all settings; what the resources say wins over the environment.

        Raises:
            SettingsError: A value is malformed.
        """
        from position_sync_dagster.settings import load_settings

        said = {
            "lake": lake.path,
            "gateway_host": self.host,
            "gateway_port": self.port,
            "gateway_client_id": self.client_id,
        }
        return load_settings(**{name: value for name, value in said.items() if value is not None})


LAKE = LakeResource()
GATEWAY = GatewayResource()


@dg.definitions
def resources() -> dg.Definitions:
    """Give each run the lake and the gateway, and run its steps in the run's own process."""
    return dg.Definitions(
        resources={"lake": LAKE, "gateway": GATEWAY},
        executor=dg.in_process_executor,
    )
