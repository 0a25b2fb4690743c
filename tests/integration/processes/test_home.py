"""A home: one user at a time, settings of its own, no process left over."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from position_sync_dagster.processes import home as home_module
from position_sync_dagster.processes.child_process import MARKER, ChildProcess
from tests.support.demo_program import wait_for

HOLDER = textwrap.dedent(
    """
    import pathlib, sys, time
    from position_sync_dagster.processes.home import exclusive_use
    with exclusive_use(pathlib.Path(sys.argv[1]), purpose="a holder"):
        print("held", flush=True)
        time.sleep(600)
    """
)
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def holder(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_home_in_use_is_refused_and_names_its_holder_until_that_is_killed(tmp_path, holder):
    named = f"a holder (process {holder.pid})"
    assert home_module.holder_of(tmp_path) == named
    with (
        pytest.raises(home_module.HomeInUseError) as refused,
        home_module.exclusive_use(tmp_path, purpose="another"),
    ):
        pass
    assert f"is in use by {named}." in refused.value.what
    holder.kill()
    holder.wait()
    assert home_module.holder_of(tmp_path) is None
    with home_module.exclusive_use(tmp_path, purpose="the next"):
        pass


def test_processes_that_a_crash_left_are_ended_before_the_next_use_and_no_others(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(home_module, "LEFTOVER_S", 0.2)
    mine, other = tmp_path / "mine", tmp_path / "other"
    other.mkdir()
    marked = home_module.home_environment({}, mine)
    with (
        ChildProcess("n", SLEEP, env={MARKER: str(other)}, cwd=other, grace_s=0.0) as neighbour,
        subprocess.Popen(SLEEP, env=marked, start_new_session=True) as stray,
    ):
        try:
            wait_for("it can be found", lambda: home_module.find_marked(mine), poll_s=0.02)
            with home_module.exclusive_use(mine, purpose="the next"):
                assert not home_module.find_marked(mine)
            assert [one.pid for one in home_module.find_marked(other)] == [neighbour.pid]
        finally:
            stray.kill()


def test_the_users_settings_do_not_reach_into_a_home(monkeypatch):
    monkeypatch.setenv("POSITION_SYNC_LAKE", "/real/lake")
    monkeypatch.setenv("POSITION_SYNC_MAX_LINES", "40")
    monkeypatch.setenv("DAGSTER_HOME", "/real/home")
    monkeypatch.setenv("TZ", "America/New_York")
    env = home_module.home_environment({"POSITION_SYNC_LAKE": "/demo/lake"}, Path("/demo/dagster"))
    assert {k: v for k, v in env.items() if k.startswith(("POSITION_SYNC_", "DAGSTER_"))} == {
        "POSITION_SYNC_LAKE": "/demo/lake",
        MARKER: "/demo/dagster",
    }
    assert env["TZ"] == "America/New_York"
    values = {"POSITION_SYNC_LAKE": "/demo/lake", "OTHER": "x"}
    home_module.adopt_environment(values, Path("/demo/dagster"))
    assert os.environ["DAGSTER_HOME"] == "/demo/dagster"
    assert os.environ["POSITION_SYNC_LAKE"] == "/demo/lake"
    assert "POSITION_SYNC_MAX_LINES" not in os.environ
    assert "OTHER" not in os.environ


def test_settings_that_a_person_adds_to_a_home_stay_and_a_copy_of_it_has_its_own_tables(tmp_path):
    home = home_module.Home.at(tmp_path / "it's a home")
    assert home.is_new
    home.prepare()
    with home.settings_file.open("a") as file:
        file.write(f"POSITION_SYNC_MAX_LINES=10\nPOSITION_SYNC_LAKE={home.path}/lake\n")
    odd = "/a b/$HOME/it's \\ b"
    written = home.update_settings({"POSITION_SYNC_STRATEGIES_FILE": odd})
    assert written == home.read_settings()
    assert not home.is_new
    copied = home_module.Home.at(shutil.copytree(home.path, tmp_path / "copy"))
    assert copied.read_settings() == {
        "POSITION_SYNC_MAX_LINES": "10",
        "POSITION_SYNC_LAKE": str(tmp_path / "copy" / "lake"),
        "POSITION_SYNC_STRATEGIES_FILE": odd,
        "POSITION_SYNC_FLEX_FOLDER": str(tmp_path / "copy" / "flex"),
    }


def test_a_folder_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(home_module.HomeError, match="file/home"),
        home_module.exclusive_use(tmp_path / "file" / "home", purpose="x"),
    ):
        pass
