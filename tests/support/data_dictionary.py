"""The data dictionary: every table and column of the lake, as a page of the documentation.

Run as `python -m tests.support.data_dictionary > docs/tables.md`.
"""

from position_sync_dagster.lake.schema import StoredColumn, TableSpec
from position_sync_dagster.money.lake import MoneyLake

SPECS = (*MoneyLake.specs, *MoneyLake.derived_specs)

# What people ask: the question, the table that answers it, and its columns.
QUESTIONS = """
What is today's profit of an account? | account_values | daily_pnl, realized_pnl
What is today's profit of a strategy, in what it holds? | strategy_exposure | daily_pnl
What are the greeks of a strategy now? | strategy_exposure | delta, dollar_delta
What were IB's greeks of a leg at a close? | daily_positions | delta, closed_at
What is today's profit of a holding? | latest_positions | daily_pnl
What is a holding worth now? | latest_positions | market_value, confirmed_at
What was it worth before? | position_updates | market_value, timestamp
What was held at a close? | daily_positions | session_date, position
Where did the profit of a past day come from? | profit_explained | profit
What did a campaign bring? | closed_campaigns | profit
Why did net liquidation move? | books | change, difference
What is the account worth, and its margin? | account_values | net_liquidation
What was traded, paid and booked? | movements | quantity, cash
Why did a holding close? | closures | cause
What if prices fall? | risk_scenarios | profit
What does the broker say of a holding? | broker_positions | position, market_value
Which legs are in strategies? | active_strategies | strategy_id, conid
What waits to be valued, and what failed? | position_queue | status, error_message
What differs from the broker? | reconciliation_breaks | type, state
Does the stream see the gateway? | gateway_sessions | state, detail
"""

HEAD = """# Tables

Every table and column, with type, unit and when it is null. The code makes this page (`make
tables`); do not edit it. For first steps see [read it with DuckDB](do/duckdb.md).

**What stays.** How a column may change, and how you are told: [stability](stability.md).

**Where.** Each table is a Delta table in the folder of its name. Its description and the texts of
its columns are in the table too (`DeltaTable(path).schema()`, `comment`). Its key and when it
changes are its properties `positionSync.key` and `positionSync.changes`.

**Null** is unknown, 0 is zero. "yes" in the column *null* says that a row may leave the value
out. In other columns null is not refused, but the program leaves out a row of another program
that lacks a value it needs.

**Times** are UTC. **Order**: none is promised; sort by the column that is named.
"""

NOTES = """
## What a program that reads them should know

**Lists**: a column of the type `array` is a list of texts.

**Key**: no two rows share it. Delta refuses null in it, in tables that this release made and
whose rows have no life cycle.

**Money** is float64, as the broker's own values. It is exact to a billionth of a cent up to
131,072 of the unit, and to a hundred-thousandth up to a billion. Commands, pages and `/api/v1`
round sums once, to cents. Tables keep the digits.

**Readers** that are tested, with a filter of texts too:

| reader | from |
|---|---|
| deltalake | 0.25 |
| polars (`pl.read_delta`, `pl.scan_delta`) | 1.20 |
| pyarrow (`DeltaTable(path).to_pyarrow_dataset()`) | 17 |
| DuckDB, over that dataset, or over `file_uris()` with `union_by_name = true` | 1.1 |

If pyarrow says `no kernel matching input types` (from 21 on, in files that release 0.1 wrote),
filter after reading, or read with polars, or with DuckDB over `file_uris()`. A file is without the
problem once it was merged or replaced.

**What changed.** The ledger is [followed](follow.md) by tokens. Other tables are committed when a
row differs. `Lake(path).changed_rows("closed_campaigns", token)` returns the new rows, those that
are gone, and the next token. Versions are kept for half an hour, of daily tables and results for
a week. A token is refused if its version is older, if it is of another table, of rows that a
restored backup took back, or names no table (the numbers of earlier releases). Then read the
table whole.

**Files.** One commit a second is 23,400 files in a session of New York. They are merged every 200
commits: a snapshot has some 230 at most, and 11 after 2,000 commits of 20 rows. Replaced files
are on disk until `maintain_lake` runs, every four hours; then a day that is over has one.
"""


def data_dictionary() -> str:
    """Return the page."""
    sections = [_section(spec) for spec in SPECS]
    return HEAD + _index() + NOTES + "".join(sections)


def _index() -> str:
    """Return the questions with the tables and columns that answer them."""
    described = {spec.name: spec.described for spec in SPECS}
    lines = ["", "## Which table has …", "", "| question | table | columns |", "|---|---|---|"]
    for line in QUESTIONS.strip().splitlines():
        question, table, answer = line.split(" | ")
        columns = answer.split(", ")
        absent = [name for name in columns if name not in described[table]]
        if absent:
            raise ValueError(f"{table} has no column {', '.join(absent)}")
        names = ", ".join(f"`{name}`" for name in columns)
        lines.append(f"| {question} | [{table}](#{table}) | {names} |")
    return "\n".join(lines) + "\n"


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
