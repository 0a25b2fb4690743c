"""Which part of the values of a lake is known, by table, column and kind.

Run as `python -m tests.support.known_values LAKE [LAKE …]`: the shares of several lakes stand side
by side, in one line for each column that one of them does not know everywhere.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from position_sync_dagster.money.lake import MoneyLake, derived_rows

# What the rows of these tables are of.
KINDS = {
    "movements": "kind", "closed_campaigns": "kind", "profit_explained": "currency",
    "books": "currency", "closures": "cause", "daily_positions": "sec_type",
}  # fmt: skip

# Table, kind and column.
Name = tuple[str, str, str]
Shares = dict[Name, str]


def shares_of(lake: MoneyLake) -> Shares:
    """Return how many values of each column are known, of how many."""
    shares: Shares = {}
    for table in tables_of(lake):
        rows = derived_rows(table)
        kind = KINDS.get(table.spec.name, "")
        groups = rows.group_by(pl.col(kind) if kind in rows.columns else pl.lit("all"))
        for (of_kind,), of_group in groups:
            for column in of_group.columns:
                known = of_group.height - of_group[column].null_count()
                shares[table.spec.name, f"{of_kind}", column] = f"{known}/{of_group.height}"
    return shares


def tables_of(lake: MoneyLake) -> Iterable:
    return [lake.movements.table, lake.closures.table, *map(lake.derived_table, lake.derived_specs)]


def is_whole(share: str) -> bool:
    known, _, whole = share.partition("/")
    return known == whole


def lines_of(lakes: list[Shares]) -> list[str]:
    names = sorted({name for shares in lakes for name in shares})
    lines = []
    for name in names:
        of_lakes = [shares.get(name) for shares in lakes]
        if not all(share is None or is_whole(share) for share in of_lakes):
            lines.append(" ".join((*name, *(share or "-" for share in of_lakes))))

    return lines


if __name__ == "__main__":
    lakes = [MoneyLake(Path(path)) for path in sys.argv[1:]]
    print(*lines_of([shares_of(lake) for lake in lakes]), sep="\n")
