"""The open breaks of one gateway."""

from position_sync_dagster.domain.reconciliation import Break
from position_sync_dagster.lake.breaks import ReconciliationBreaks


def open_breaks_of(breaks: ReconciliationBreaks, gateway_id: str) -> list[Break]:
    return [opened for opened in breaks.open_breaks() if opened.gateway_id == gateway_id]
