"""The Dagster code location: all definitions of the package `defs`."""

import warnings
from functools import cache, partial
from pathlib import Path

import dagster as dg

from position_sync_dagster.defs.assets.external_tables import GATEWAY
from position_sync_dagster.lake.object_store.place import absolute_path
from position_sync_dagster.settings import Settings, load_settings


@dg.definitions
def defs() -> dg.Definitions:
    """Return the definitions of the project."""
    return _loaded()


@cache
def _loaded() -> dg.Definitions:
    # A run over a selection of assets loads its definitions twice in one process.
    # `dg.load_from_defs_folder` would also describe all types of components for the UI, which takes
    # as long as a third of our own definitions. They are made of none.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)
        warnings.simplefilter("ignore", dg.BetaWarning)
        found = dg.ComponentTree.for_project(Path(__file__)).build_defs(Path())
        return found.map_asset_specs(func=partial(_with_uri, settings=load_settings()))


def _with_uri(spec: dg.AssetSpec, settings: Settings) -> dg.AssetSpec:
    name = spec.key.to_user_string()
    if "dagster/table_name" in spec.metadata:
        uri = absolute_path(settings.table(name))
    elif name == GATEWAY:
        uri = ", ".join(f"tcp://{login.gateway_address}" for login in settings.logins)
    else:
        uri = str(settings.flex_folder.absolute())
    return spec.merge_attributes(metadata={"dagster/uri": uri})
