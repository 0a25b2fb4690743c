"""The Dagster code location of this project: its own component, as a host project has it."""

from functools import cache

import dagster as dg

from position_sync_dagster.component import PositionSyncComponent
from position_sync_dagster.settings import load_settings


@dg.definitions
@cache  # a run over a selection of assets loads its definitions twice in one process
def defs() -> dg.Definitions:
    """Return the definitions of the project, with all steps in the process of their run."""
    settings = load_settings()
    component = PositionSyncComponent(
        owners=["team:position-sync"], tags={"domain": "positions"}, pages_url=settings.ui_url
    )
    return dg.Definitions.merge(
        component.definitions(settings), dg.Definitions(executor=dg.in_process_executor)
    )
