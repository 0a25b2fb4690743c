"""Print what the component adds to a Dagster project, beside an asset of one's own.

`.venv/bin/python examples/library/in_dagster.py`. It needs no gateway.
"""

import dagster as dg

from position_sync_dagster import PositionSyncComponent, PositionSyncResource, load_settings


@dg.asset(deps=["strategy_exposure"])
def holdings(position_sync: PositionSyncResource) -> int:
    """How many holdings have a value."""
    return position_sync.lake.updates.sync.latest().height


def main() -> None:
    """Build the definitions, with a group of their own, and run the asset with their resource."""
    component = PositionSyncComponent(group="trading", automation=False)
    theirs = component.definitions(load_settings())
    graph = theirs.resolve_asset_graph()
    keys = graph.get_all_asset_keys()
    print(f"{len(keys)} assets, {len(graph.asset_check_keys)} checks")
    assert {graph.get(key).group_name for key in keys} == {"trading"}

    ran = dg.materialize([holdings], resources=theirs.resources)
    print(f"{ran.output_for_node('holdings')} holdings have a value")
    assert ran.success


if __name__ == "__main__":
    main()
