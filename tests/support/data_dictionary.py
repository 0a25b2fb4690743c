"""The data dictionary: every table and column of the lake, as a page of the documentation.

Run as `python -m tests.support.data_dictionary > docs/tables.md`.
"""

from position_sync_dagster.lake.schema import StoredColumn, TableSpec
from position_sync_dagster.money.lake import MoneyLake

SPECS = (*MoneyLake.specs, *MoneyLake.derived_specs)

HEAD = """# Tables

Made from the code by `make tables`; do not edit it. Every table is a Delta table in the folder of
its name. Its description and the texts of its columns are in the table too, as Delta stores them
(`DeltaTable(path).schema()`, `comment`). Times are UTC. Null is unknown, 0 is zero; "yes" says that
a row may leave the column out.
"""


def data_dictionary() -> str:
    """Return the page."""
    sections = [_section(spec) for spec in SPECS]
    return HEAD + "".join(sections)


def _section(spec: TableSpec) -> str:
    lines = ["", f"## {spec.name}", "", spec.description, ""]
    if spec.partition_by:
        lines += [f"Partitions: {', '.join(spec.partition_by)}.", ""]

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
