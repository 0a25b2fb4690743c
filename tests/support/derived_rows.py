"""Rows that a test puts into a derived table, whatever they would be made of."""

from position_sync_dagster.lake.derived import Replaced, Rows, derive
from position_sync_dagster.lake.storage.table import Table


def put_rows(table: Table, rows: Rows) -> Replaced:
    """Make a table, or its partitions of some days, equal to these rows."""
    return derive(table, lambda: rows)[1]
