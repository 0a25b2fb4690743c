"""The definitions without money, in a process that cannot import it."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

CODE = """
import json, tests.support.core_alone
from position_sync_dagster.definitions import defs

repository = defs().get_repository_def()
graph = repository.asset_graph
parents = lambda key: sorted(parent.to_user_string() for parent in graph.get(key).parent_keys)
print(json.dumps({
    "assets": {key.to_user_string(): parents(key) for key in graph.get_all_asset_keys()},
    "sensors": sorted(sensor.name for sensor in repository.sensor_defs),
    "schedules": sorted(schedule.name for schedule in repository.schedule_defs),
}))
"""


def test_without_money_there_are_positions_their_checks_and_backfills_alone(tmp_path):
    alone = {"POSITION_SYNC_MONEY": "false", "POSITION_SYNC_LAKE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE],
        cwd=ROOT, env=os.environ | alone, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["sensors"] == ["drain_queue", "supervise_stream"]
    assert answer["schedules"] == [
        "maintain_every_four_hours",
        "record_day_after_close",
        "record_late_rows",
    ]
    assert answer["assets"].keys() == {
        "account_values", "active_strategies", "broker_positions", "contracts", "daily_positions",
        "gateway", "gateway_sessions", "latest_positions", "position_changes", "position_queue",
        "position_updates", "reconciliation_breaks",
    }  # fmt: skip
    assert answer["assets"]["account_values"] == ["gateway"]
    assert answer["assets"]["daily_positions"] == ["position_updates"]
