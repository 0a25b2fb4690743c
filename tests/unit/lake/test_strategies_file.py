"""What the core reads of a strategies file: strategies and their legs, and nothing else."""

import pytest

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.errors import StrategiesFileError
from position_sync_dagster.lake.strategies_file import StrategiesFile

FILE = """strategies:
  - strategy_id: ic-1
    limits: {whatever: 1}
    legs:
      - {conid: 7, symbol: SPY}
  - rule: hedges
    match: {phase: full}
accounts:
  - {account: U1, limits: {whatever: 1}}
"""


def test_fields_and_entries_that_others_read_are_passed_over(tmp_path):
    path = tmp_path / "strategies.yaml"
    path.write_text(FILE)
    assert [leg.conid for leg in StrategiesFile(path).legs(utc_now())] == [7]


def test_legs_without_a_strategy_are_a_mistake(tmp_path):
    path = tmp_path / "strategies.yaml"
    path.write_text(FILE.replace("strategy_id", "strategy-id"))
    with pytest.raises(StrategiesFileError, match="the field 'strategy_id' is missing"):
        StrategiesFile(path)


def test_a_field_that_nothing_reads_is_named_with_its_line_and_what_it_may_mean(tmp_path):
    path = tmp_path / "strategies.yaml"
    path.write_text(FILE.replace("    limits: {w", "    prioritty: 1\n    limits: {w"))
    unread = StrategiesFile(path).unread()
    assert [(field.name, field.nearest) for field in unread] == [
        ("accounts", None),
        ("prioritty", "priority"),
        ("limits", None),
        ("rule", None),
        ("match", None),
    ]
    assert str(unread[1]) == (
        f"{path}, line 3: nothing that runs here reads the field 'prioritty'; "
        "did you mean 'priority'?"
    )
    assert str(unread[2]) == f"{path}, line 4: nothing that runs here reads the field 'limits'."


def test_names_of_an_entry_that_are_both_mistyped_are_named(tmp_path):
    path = tmp_path / "strategies.yaml"
    path.write_text("strategies:\n  - strategyid: ic-1\n    leggs: []\n")
    unread = StrategiesFile(path).unread()
    assert [(field.name, field.nearest) for field in unread] == [
        ("strategyid", "strategy_id"),
        ("leggs", "legs"),
    ]
