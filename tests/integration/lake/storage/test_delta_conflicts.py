"""Which commits of delta-rs conflict with each other: what our tables are built on.

Another version of deltalake that changes a line of this table fails here, and not in a lake.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

import position_sync_dagster

ROWS = 12
PART = "part = 'a'"
RANGE = "part = 'a' AND number >= 1 AND number <= 4"


def rows(*numbers: int) -> pl.DataFrame:
    """Return the rows of some numbers; the first eight are in part a."""
    return pl.DataFrame(
        {
            "number": numbers,
            "part": ["a" if number <= 8 or number > 50 else "b" for number in numbers],
        },
        schema={"number": pl.Int64, "part": pl.String},
    )


def read(handle: DeltaTable, predicate: str | None = None) -> pl.DataFrame:
    return pl.DataFrame(handle.scan(predicate=predicate)).select("number", "part")


def again(handle: DeltaTable, predicate: str) -> None:
    """Write the rows that match once more, in place of themselves: a merge of their files."""
    write_deltalake(handle, read(handle, predicate), mode="overwrite", predicate=predicate)


def named(handle: DeltaTable, number: int) -> None:
    transaction = CommitProperties(app_transactions=[Transaction("writer", handle.version() + 1)])
    write_deltalake(handle, rows(number), mode="append", commit_properties=transaction)


COMMITS: dict[str, Callable[[DeltaTable], object]] = {
    "append": lambda handle: write_deltalake(handle, rows(60), mode="append"),
    "append, named": lambda handle: named(handle, 61),
    "optimize": lambda handle: handle.optimize.compact(),
    "overwrite all": lambda handle: again(handle, "true"),
    "overwrite a part": lambda handle: again(handle, PART),
    "overwrite a range": lambda handle: again(handle, RANGE),
    "overwrite another range": lambda handle: again(
        handle, "part = 'a' AND number >= 5 AND number <= 8"
    ),
    "delete": lambda handle: handle.delete("number = 2"),
}

# What may be committed on a snapshot after each of these commits was made; all else is refused.
PASS: dict[str, set[str]] = {
    "append": {
        "append", "append, named", "optimize", "overwrite a range", "overwrite another range",
        "delete",
    },
    "append, named": {
        "append", "optimize", "overwrite a range", "overwrite another range", "delete",
    },
    "optimize": {"append", "append, named", "optimize"},
    "overwrite all": set(),
    "overwrite a part": set(),
    "overwrite a range": {"overwrite another range"},
    "overwrite another range": {"overwrite a range", "delete"},
    "delete": {"overwrite another range"},
}  # fmt: skip

# Appends without a name write the same row twice, as asked. OPTIMIZE beside OPTIMIZE adds each
# merged row twice, which nobody asked for: nothing of ours may use it.
DOUBLED = {("append", "append"), ("optimize", "optimize")}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a table with a file for each row, which tests copy: its commits cost most of all."""
    path = tmp_path_factory.mktemp("made") / "table"
    write_deltalake(path, rows(), mode="append", partition_by=["part"])
    for number in range(1, ROWS + 1):
        write_deltalake(path, rows(number), mode="append")
    return path


@pytest.mark.parametrize("second", COMMITS)
@pytest.mark.parametrize("first", COMMITS)
def test_a_commit_on_a_snapshot_that_another_commit_made_old(made, tmp_path, first, second):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    late = DeltaTable(tmp_path)
    COMMITS[first](DeltaTable(tmp_path))
    before = numbers(tmp_path)
    if second in PASS[first]:
        COMMITS[second](late)
    else:
        with pytest.raises(CommitFailedError):
            COMMITS[second](late)
        assert numbers(tmp_path) == before
    found = numbers(tmp_path)
    assert (len(set(found)) < len(found)) == ((first, second) in DOUBLED)


def numbers(path: Path) -> list[int]:
    return sorted(read(DeltaTable(path)).get_column("number"))


def test_nothing_of_ours_uses_optimize():
    package = Path(position_sync_dagster.__file__).parent
    found = [path for path in package.rglob("*.py") if ".optimize." in path.read_text()]
    assert found == []
