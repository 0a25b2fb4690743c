"""A home: one user at a time, settings of its own, no process left over."""

import os
import signal
import subprocess
import sys
import textwrap

import psutil
import pytest

from position_sync_dagster.processes.child_process import ChildProcess
from position_sync_dagster.processes.home import (
    Home,
    HomeError,
    HomeInUseError,
    adopt_environment,
    exclusive_use,
    holder_record,
    home_environment,
    living_holder,
    take_lock,
)
from position_sync_dagster.processes.reaper import MARKER, find_marked, is_running
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


def sleeper(home, *inherited_fds):
    return ChildProcess(
        "sleeper",
        SLEEP,
        env=home_environment(home, {}),
        cwd=home,
        log=home / "sleeper.log",
        inherited_fds=inherited_fds,
    )


def test_a_home_in_use_is_refused_and_names_its_holder(tmp_path, holder):
    with (
        pytest.raises(HomeInUseError, match=rf"a holder \(process {holder.pid}\)"),
        exclusive_use(tmp_path, purpose="another"),
    ):
        pass


def test_a_killed_holder_leaves_the_home_free(tmp_path, holder):
    holder.kill()
    holder.wait()
    with exclusive_use(tmp_path, purpose="the next"):
        pass


def test_a_home_stays_locked_until_the_last_child_has_ended(tmp_path):
    first = take_lock(tmp_path, purpose="the first")
    with sleeper(tmp_path, first) as child:
        os.close(first)
        (tmp_path / ".lock").write_text("{}")  # a record without a living holder
        with pytest.raises(HomeInUseError, match="processes whose owner has ended"):
            take_lock(tmp_path, purpose="the second", wait_s=0.3)
        child.stop()
    os.close(take_lock(tmp_path, purpose="the second", wait_s=5.0))


def test_processes_that_a_crash_left_are_ended_before_the_next_use(tmp_path):
    with subprocess.Popen(
        SLEEP, env=home_environment(tmp_path, {}), start_new_session=True
    ) as stray:
        try:
            wait_for("it can be found", lambda: find_marked(tmp_path), poll_s=0.02)
            with exclusive_use(tmp_path, purpose="the next"):
                assert not find_marked(tmp_path)
        finally:
            stray.kill()
    assert stray.returncode in (-signal.SIGINT, -signal.SIGKILL, 1)


def test_another_home_is_left_alone(tmp_path):
    mine, other = tmp_path / "mine", tmp_path / "other"
    other.mkdir()
    with sleeper(other) as neighbour:
        with exclusive_use(mine, purpose="mine"):
            pass
        assert neighbour.running
        assert all(is_running(process) for process in find_marked(other))


def test_the_users_settings_do_not_reach_into_a_home(monkeypatch, tmp_path):
    monkeypatch.setenv("POSITION_SYNC_LAKE", "/real/lake")
    monkeypatch.setenv("POSITION_SYNC_MAX_LINES", "40")
    monkeypatch.setenv("DAGSTER_HOME", "/real/home")
    monkeypatch.setenv("TZ", "America/New_York")
    env = home_environment(tmp_path, {"POSITION_SYNC_LAKE": "/demo/lake"})
    assert {k: v for k, v in env.items() if k.startswith(("POSITION_SYNC_", "DAGSTER_"))} == {
        "POSITION_SYNC_LAKE": "/demo/lake",
        MARKER: str(tmp_path),
    }
    assert env["TZ"] == "America/New_York"
    adopt_environment({"POSITION_SYNC_LAKE": "/demo/lake", "OTHER": "x"})
    assert os.environ["POSITION_SYNC_LAKE"] == "/demo/lake"
    assert "POSITION_SYNC_MAX_LINES" not in os.environ
    assert "OTHER" not in os.environ


def test_the_holder_of_a_home_is_known_after_the_clock_was_set(monkeypatch):
    record = holder_record("dev")
    boot, created = psutil.boot_time(), psutil.Process().create_time()
    monkeypatch.setattr(psutil, "boot_time", lambda: boot + 60)
    monkeypatch.setattr(psutil.Process, "create_time", lambda _process: created + 60)
    assert living_holder(record) == f"dev (process {os.getpid()})"


def test_settings_that_a_person_adds_to_a_home_stay(tmp_path):
    home = Home.at(tmp_path / "it's a home")
    assert home.is_new
    home.prepare()
    home.update_settings({"POSITION_SYNC_LAKE": "/a b/$HOME/it's \\ b"})
    with home.settings_file.open("a") as file:
        file.write("POSITION_SYNC_MAX_LINES=10\n")
    home.update_settings({"POSITION_SYNC_GATEWAY_PORT": "17497"})
    assert home.read_settings() == {
        "POSITION_SYNC_LAKE": "/a b/$HOME/it's \\ b",
        "POSITION_SYNC_MAX_LINES": "10",
        "POSITION_SYNC_GATEWAY_PORT": "17497",
    }
    assert not home.is_new


def test_settings_of_a_home_that_are_no_text_are_named(tmp_path):
    home = Home.at(tmp_path)
    home.settings_file.write_bytes(b"POSITION_SYNC_LAKE=\xff\n")
    with pytest.raises(HomeError, match=r"\.env cannot be read: .*utf-8"):
        home.read_settings()


def test_a_folder_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(HomeError, match="file/home"),
        exclusive_use(tmp_path / "file" / "home", purpose="x"),
    ):
        pass
