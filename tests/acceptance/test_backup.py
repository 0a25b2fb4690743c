"""Backup and restore by the commands of docs/deploy.md, as printed, against a Postgres."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from position_sync_dagster.money.lake import MoneyLake
from tests.support import postgres
from tests.support.legs import leg

DOCUMENT = Path(__file__).parents[2] / "docs/deploy.md"

# Docker Compose stops and starts our programs, and AWS has a bucket: neither is here.
ELSEWHERE = ("docker",)


def printed(heading: str) -> list[list[str]]:
    """Return the commands that run here of each shell block below a heading, where there are."""
    section = DOCUMENT.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    shown = [
        [line for line in block.splitlines() if line and not line.startswith(ELSEWHERE)]
        for block in blocks
    ]
    return list(filter(None, shown))


@pytest.mark.skipif(postgres.programs() is None, reason=postgres.MISSING)
@pytest.mark.parametrize("server_has_it", [True, False])
def test_a_restore_brings_back_what_the_backup_has(tmp_path, server_has_it):
    (tmp_path / ".venv").symlink_to(sys.prefix)
    lake = MoneyLake(tmp_path / "lake")
    lake.initialize_sync()
    lake.registry.sync.add_many([leg(1, "condor")])

    with postgres.running() as server:
        path = f"{postgres.programs()}:{os.environ['PATH']}"

        def run(commands: list[str]) -> str:
            script = "\n".join(commands)
            done = subprocess.run(
                ["sh", "-ec", script],
                cwd=tmp_path, capture_output=True, text=True, check=False,
                env=os.environ | server.environment | {"PATH": path, "POSITION_SYNC_LAKE": "lake"},
            )  # fmt: skip
            assert done.returncode == 0, (script, done.stderr)
            return done.stdout

        backup, restore = printed("Backup and restore")
        server.query("CREATE TABLE runs AS SELECT 7 AS id")
        run(backup)
        lake.registry.sync.add_many([leg(2, "later")])
        server.query("DELETE FROM runs")
        if not server_has_it:
            server.query(f"DROP DATABASE {postgres.DATABASE}", dbname="postgres")

        (copied,) = (tmp_path / "backup").iterdir()
        proved = run([f"backup=backup/{copied.name}", *restore[1:]])
        assert f"{copied.name}/lake" in proved
        assert "data files were read" in proved
        assert server.query("SELECT id FROM runs") == [(7,)]
    restored = MoneyLake(tmp_path / "lake").registry.sync.get_all_active()
    assert [active_leg.strategy_id for active_leg in restored] == ["condor"]
