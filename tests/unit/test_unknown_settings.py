"""A mistyped setting is warned of, with the setting that it resembles."""

import contextlib

from position_sync_dagster import cli
from position_sync_dagster.processes.child_process import MARKER
from position_sync_dagster.settings import OWN_VARIABLES, PREFIX, Settings, warnings_of


def test_a_mistyped_name_is_found_with_the_nearest_setting():
    names = ["POSITION_SYNC_REFRESH_INTERVAL", "POSITION_SYNC_QQQ", "PATH"]
    without, near = warnings_of(names, env_file=None)
    assert without.startswith("POSITION_SYNC_QQQ is not a setting and has no effect; .env.example")
    assert near.endswith("is POSITION_SYNC_REFRESH_INTERVAL_S meant?")


def test_no_setting_is_unknown_and_neither_is_the_mark_of_our_own_processes():
    own = {PREFIX + name.upper() for name in Settings.model_fields}
    assert {MARKER} == OWN_VARIABLES
    assert warnings_of(own | OWN_VARIABLES, env_file=None) == []


def test_what_is_a_constant_is_said_with_its_value():
    (line,) = warnings_of([f"{PREFIX}MIN_HOLD_S"], env_file=None)
    assert line.endswith("is not a setting and has no effect; it is always 5.")


def test_a_name_in_both_the_environment_and_the_file_is_warned_of_once(tmp_path):
    file = tmp_path / "settings"
    file.write_text("POSITION_SYNC_MAX_LINE=3\nPOSITION_SYNC_LAKES=x\n")
    lines = warnings_of(["POSITION_SYNC_MAX_LINE"], env_file=str(file))
    assert len(lines) == 2
    assert "POSITION_SYNC_LAKES" in lines[0]
    assert "POSITION_SYNC_LAKE meant" in lines[0]
    assert "POSITION_SYNC_MAX_LINES meant" in lines[1]


def test_a_command_warns_of_it_on_the_command_line(monkeypatch, capsys):
    monkeypatch.setenv("POSITION_SYNC_MAX_LINE", "3")
    monkeypatch.setattr("sys.argv", ["position-sync", "breaks"])
    with contextlib.suppress(SystemExit):
        cli.main()
    printed = capsys.readouterr().err
    assert printed.count("POSITION_SYNC_MAX_LINE ") == 1
    assert "POSITION_SYNC_MAX_LINES meant" in printed
