"""The definitions without money, of an installed package from which it is removed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

CODE = """
import json
from position_sync_dagster import definitions

repository = definitions.defs().get_repository_def()
graph = repository.asset_graph
parents = lambda key: sorted(parent.to_user_string() for parent in graph.get(key).parent_keys)
print(json.dumps({
    "loaded": definitions.__file__,
    "assets": {key.to_user_string(): parents(key) for key in graph.get_all_asset_keys()},
    "sensors": sorted(sensor.name for sensor in repository.sensor_defs),
    "schedules": sorted(schedule.name for schedule in repository.schedule_defs),
}))
"""


def test_without_money_there_are_positions_their_checks_and_backfills_alone(tmp_path):
    """As in the image, and after `pip install`: there is no pyproject.toml above the package."""
    package = tmp_path / "position_sync_dagster"
    without_money = shutil.ignore_patterns("money")
    shutil.copytree(ROOT / package.name, package, ignore=without_money)
    alone = {"POSITION_SYNC_MONEY": "false"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CODE],
        cwd=tmp_path, env=os.environ | alone, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert Path(answer["loaded"]).is_relative_to(tmp_path)
    assert answer["sensors"] == ["drain_queue", "supervise_stream"]
    assert answer["schedules"] == [
        "maintain_every_four_hours",
        "record_day_after_close",
        "record_late_rows",
    ]
    assert answer["assets"].keys() == {
        "account_values", "active_strategies", "broker_positions", "contracts", "daily_positions",
        "gateway", "gateway_sessions", "heard_messages", "latest_positions", "position_changes",
        "position_queue", "position_updates", "reconciliation_breaks",
    }  # fmt: skip
    assert answer["assets"]["account_values"] == ["gateway"]
    assert answer["assets"]["daily_positions"] == ["position_updates"]
