"""The Dagster code location: all definitions of the package `defs`."""

import warnings
from functools import cache, partial
from pathlib import Path

import dagster as dg

from position_sync_dagster import defs as package
from position_sync_dagster.defs.resources import GATEWAY, POSITION_SYNC
from position_sync_dagster.errors import GatewaysFileError
from position_sync_dagster.lake.storage.object_store import absolute_path
from position_sync_dagster.settings import Settings

# The groups of assets: what the broker reports, the way of a value to its row, what is derived from
# the rows. The lineage page shows each group as a box that opens with a click, since all assets do
# not fit on a screen. All others are of "account".
GROUPS = {
    "path": ("active_strategies", "position_queue", "position_updates"),
    "reports": (
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


@dg.definitions
@cache  # a run over a selection of assets loads its definitions twice in one process
def defs() -> dg.Definitions:
    """Return the definitions of the project, with all steps in the process of their run."""
    own = load(POSITION_SYNC.read_settings())
    return dg.Definitions.merge(own, dg.Definitions(executor=dg.in_process_executor))


def load(settings: Settings) -> dg.Definitions:
    """Load the definitions of the package `defs`.

    Args:
        settings: The settings, for the addresses that the assets show.
    """
    # `dg.load_from_defs_folder` needs a pyproject.toml, which a container image lacks. It also
    # describes all component types for the UI: a third of the time to load our own definitions.
    tree = dg.ComponentTree.from_module(package, Path(__file__).parents[1])
    with warnings.catch_warnings():
        for kind in (dg.BetaWarning, dg.PreviewWarning):
            warnings.simplefilter("ignore", kind)
        found = tree.build_defs(Path())
        return found.map_asset_specs(func=partial(_completed, settings=settings))


def _completed(spec: dg.AssetSpec, settings: Settings) -> dg.AssetSpec:
    """Return an asset with what all assets have: owner, domain, group and address."""
    name = spec.key.to_user_string()
    if "dagster/table_name" in spec.metadata:
        uri = absolute_path(settings.table(name))
    elif name == GATEWAY:
        uri = _gateways(settings)
    else:
        uri = str(settings.flex_folder.absolute())
    return spec.merge_attributes(
        metadata={"dagster/uri": uri}, owners=["team:position-sync"], tags={"domain": "positions"}
    ).replace_attributes(
        group_name=next((group for group, names in GROUPS.items() if name in names), "account")
    )


def _gateways(settings: Settings) -> str:
    """Return the addresses of all gateways; does not raise if the file cannot be read.

    The jobs must load all the same. The sensors, the runs and the checks report the error.
    """
    try:
        return ", ".join(f"tcp://{login.gateway_address}" for login in settings.logins)
    except GatewaysFileError:
        return str(settings.gateways_file)
