"""The data dictionary: every table and column of the lake, as a page of the documentation.

Run as `python -m tests.support.data_dictionary > docs/tables.md`.
"""

from pathlib import Path

import polars as pl
from deltalake import DeltaTable

from position_sync_dagster.lake.schema import StoredColumn, TableSpec
from position_sync_dagster.money.lake import MoneyLake

SPECS = (*MoneyLake.specs, *MoneyLake.derived_specs)

HEAD = """# Tables

Made from the code by `make tables`; do not edit it. Every table is a Delta table in the folder of
its name. Its description and the texts of its columns are in the table too, as Delta stores them
(`DeltaTable(path).schema()`, `comment`), and its key and when it changes are its properties
`positionSync.key` and `positionSync.changes`. Times are UTC. Null is unknown, 0 is zero; "yes" says
that a row may leave the column out.

**Key**: no two rows share it. Delta refuses null in it, in tables that this release made and
whose rows have no life cycle; in other columns null is not refused: what another program wrote
without a value that each row needs is left out. **Order**: none is promised; sort by the column
that is named. **Money** is float64, as the broker's own values: exact to a billionth of a cent up
to 131,072 of the unit, to a hundred-thousandth up to a billion. Commands, pages and `/api/v1`
round sums once, to cents; tables keep the digits.

**Readers**, each tested, with a filter of texts too: deltalake from 0.25 on, polars
(`pl.read_delta`, `pl.scan_delta`) from 1.20 on, pyarrow (`DeltaTable(path).to_pyarrow_dataset()`)
from 17 on, DuckDB from 1.1 on over that dataset, or over `file_uris()` with `union_by_name = true`.
Texts are plain strings. Files that a release before this one wrote have them as views, in which
pyarrow from 21 on finds no text (`no kernel matching input types`): filter what was read, or read
with polars, or with DuckDB over `file_uris()`. A file becomes plain when it is merged or replaced.

**What changed**: the ledger is [followed](follow.md) by tokens. Other tables are committed when a
row differs: `Lake(path).changed_rows("closed_campaigns", token)` returns the new rows, those that
are gone, and the next token. Versions are kept for half an hour, of daily tables and results for a
week. A token of an older version is refused, and one of another table, of rows that a restored
backup took back, or without a table (the numbers of earlier releases): the table is read whole.

**Files**: one commit a second is 23,400 files in a session of New York. They are merged every 200
commits: a snapshot has some 230 at most, 11 after 2,000 commits of 20 rows. Replaced files stay
on disk until `maintain_lake` runs, every four hours; then a day that is over has one.
"""


def data_dictionary() -> str:
    """Return the page."""
    sections = [_section(spec) for spec in SPECS]
    return HEAD + "".join(sections)


def null_where_never(lake: str | Path) -> dict[str, list[str]]:
    """Return the columns of each table that are null in a row though the page says never."""
    wrong = {}
    for spec in SPECS:
        if DeltaTable.is_deltatable(f"{lake}/{spec.name}"):
            rows = pl.read_delta(f"{lake}/{spec.name}")
            never = [name for name, column in spec.described.items() if not column.nullable]
            wrong[spec.name] = [name for name in never if rows[name].has_nulls()]
    return {name: columns for name, columns in wrong.items() if columns}


def _section(spec: TableSpec) -> str:
    lines = ["", f"## {spec.name}", "", f"{spec.description} {spec.changes}", ""]
    facts = {"Key": spec.key, "Partitions": spec.partition_by, "Order": filter(None, [spec.order])}
    named = [f"{what}: {', '.join(names)}." for what, names in facts.items() if names]
    lines += [" ".join(text for text in named if not text.endswith(": .")), ""]

    lines += ["| column | type | unit | null | what it is |", "|---|---|---|---|---|"]
    for name, column in spec.described.items():
        text, unit = _without_unit(column)
        null = "yes" if column.nullable else ""
        lines.append(f"| `{name}` | {spec.columns[name]} | {unit} | {null} | {text} |")
    return "\n".join(lines) + "\n"


def _without_unit(column: StoredColumn) -> tuple[str, str]:
    """Return the text of a column, and the unit that its last sentence names."""
    text, _unit, unit = column.description.partition(" Unit: ")
    return text.replace("|", "\\|"), unit.rstrip(".")


if __name__ == "__main__":
    print(data_dictionary(), end="")
