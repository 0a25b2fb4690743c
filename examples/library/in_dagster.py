"""Print what the component adds to a Dagster project. It needs no gateway.

`.venv/bin/python examples/library/in_dagster.py`
"""

from position_sync_dagster import PositionSyncComponent, load_settings


def main() -> None:
    """Build the definitions, with a group of their own."""
    component = PositionSyncComponent(group="trading", automation=False)
    graph = component.definitions(load_settings()).resolve_asset_graph()
    keys = graph.get_all_asset_keys()
    print(f"{len(keys)} assets, {len(graph.asset_check_keys)} checks")
    assert {graph.get(key).group_name for key in keys} == {"trading"}


if __name__ == "__main__":
    main()
