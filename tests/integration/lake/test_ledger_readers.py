"""The lines that the documents show to read a table with other libraries run as they stand."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from position_sync_dagster.domain.holding import PositionUpdate
from position_sync_dagster.lake.lake import Lake

ROOT = Path(__file__).parents[3]
NOW = datetime.now(UTC)
ROW = PositionUpdate(7, "SPY", None, 1.0, 1.5, 150.0, 100.0, 50.0, NOW, account="DUSIM0001")


def shown(name: str, table: str = "data/lake/position_updates") -> list[str]:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)
    return [block for block in blocks if table in block]


@pytest.mark.parametrize("library", ["polars", "duckdb", "pandas"])
def test_each_shown_reader_reads_the_rows_of_the_newest_version(library, capsys):
    lake = Lake("data/lake", fsync=False)
    lake.initialize_sync()
    for number in range(3):
        lake.updates.sync.append(
            [replace(ROW, timestamp=NOW - timedelta(days=number), run_id=f"run-{number}")]
        )
    (block,) = (one for one in shown("docs/audit.md") if library in one)
    assert sum(bool(line) for line in block.splitlines()) == 3
    exec(block, {})  # noqa: S102
    printed = capsys.readouterr().out
    assert all(f"run-{number}" in printed for number in range(3))


def test_the_readme_shows_lines_that_run_too(capsys):
    lake = Lake(".demo/lake", fsync=False)
    lake.initialize_sync()
    lake.updates.sync.append([replace(ROW, run_id="run-1")])
    (block,) = shown("README.md", ".demo/lake/position_updates")
    exec(block, {})  # noqa: S102
    assert capsys.readouterr().out == "[('STREAM', None, 1, 150.0)]\n"
