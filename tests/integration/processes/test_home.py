"""A home: one user at a time, settings and ports of its own, and how its processes end."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import psutil
import pytest

from position_sync_dagster import demo
from position_sync_dagster.processes import child_process, ports
from position_sync_dagster.processes import home as home_module
from position_sync_dagster.processes.child_process import (
    MARKER,
    StopRequest,
    StopRequested,
    end_group,
)
from tests.support.demo_program import LIMIT_S, wait_for
from tests.support.ports import free_port

HOLDER = """
import pathlib, sys, time
from position_sync_dagster.processes.home import exclusive_use
with exclusive_use(pathlib.Path(sys.argv[1]), purpose="a holder"):
    print("held", flush=True)
    time.sleep(600)
"""
SLEEP = "import time; time.sleep(600)"


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start Python programs, which end with the test."""
    with ExitStack() as running:

        def run(code: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
            words = [sys.executable, "-c", code, *arguments]
            pipe = subprocess.PIPE
            alone: dict[str, Any] = {"text": True, "start_new_session": True}
            process = subprocess.Popen(words, stdout=pipe, stderr=pipe, **alone, **options)
            running.enter_context(process)
            running.callback(process.kill)
            return process

        yield run


@pytest.mark.parametrize(
    ("name", "why"),
    [("what?", "part of an address"), ("100%", "part of an address"), ("file/home", "")],
)
def test_a_home_that_dagster_cannot_use_or_nobody_create_is_refused_by_name(tmp_path, name, why):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(home_module.HomeError, match=f"{re.escape(name)}.*{why}"),
        home_module.exclusive_use(tmp_path / name, purpose="x"),
    ):
        pass
    assert not (tmp_path / name).exists()


def test_what_a_kill_left_is_ended_by_the_next_use_however_it_names_the_home_and_nothing_else(
    tmp_path, start
):
    real = tmp_path / "home"
    other = tmp_path / "other"
    for folder in (real, other):
        folder.mkdir()
    link = tmp_path / "link"
    link.symlink_to(real)
    left = start(SLEEP, env=home_module.home_environment({}, link))
    neighbour = start(SLEEP, env=home_module.home_environment({}, other))

    def pids(home: Path) -> list[int]:
        return [process.pid for process in home_module.find_marked(home)]

    otherwise = tmp_path / "home" / ".." / "home"
    homes = {real: left, otherwise: left, other: neighbour}
    for home, process in homes.items():
        wait_for("it can be found", lambda h=home, pid=process.pid: pids(h) == [pid], poll_s=0.02)

    with home_module.exclusive_use(otherwise, purpose="the next", leftover_s=0.2):
        assert pids(real) == []
        assert left.wait(LIMIT_S) != 0
        assert pids(other) == [neighbour.pid]


def test_a_home_in_use_is_refused_and_names_its_holder_until_that_is_killed(tmp_path, start):
    holder = start(HOLDER, str(tmp_path))
    assert holder.stdout.readline() == "held\n"
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


def test_the_users_settings_do_not_reach_into_a_home(monkeypatch):
    monkeypatch.setenv("POSITION_SYNC_LAKE", "/real/lake")
    monkeypatch.setenv("POSITION_SYNC_MAX_LINES", "40")
    monkeypatch.setenv("DAGSTER_HOME", "/real/home")
    monkeypatch.setenv("TZ", "America/New_York")
    env = home_module.home_environment({"POSITION_SYNC_LAKE": "/demo/lake"}, Path("/demo/dagster"))
    prefixes = ("POSITION_SYNC_", "DAGSTER_")
    of_program = {name: value for name, value in env.items() if name.startswith(prefixes)}
    assert of_program == {"POSITION_SYNC_LAKE": "/demo/lake", MARKER: "/demo/dagster"}
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
    copy = tmp_path / "copy"
    copied = home_module.Home.at(shutil.copytree(home.path, copy))
    assert copied.read_settings() == {
        "POSITION_SYNC_MAX_LINES": "10",
        "POSITION_SYNC_LAKE": str(copy / "lake"),
        "POSITION_SYNC_STRATEGIES_FILE": odd,
        "POSITION_SYNC_FLEX_FOLDER": str(copy / "flex"),
    }


# Signals are blocked before the threads of polars begin, which would take them else.
ASKED = """
import os, signal, sys
from position_sync_dagster.processes import child_process
child_process.block_stop_signals()
stop = child_process.StopRequest()
import polars as pl
rows = pl.LazyFrame({"a": range(200_000)}).sort("a", descending=True)
work = {"computes": lambda: (rows.collect(), stop.check()), "waits": lambda: stop.pause(0.02)}
try:
    while True:
        work[sys.argv[1]]()
        print("goes on", flush=True)
except child_process.StopRequested:
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(os.getpid(), sig)  # nothing interrupts the end
    try:
        stop.check()
    except child_process.StopRequested as again:
        print(again.reason)
        sys.exit(again.exit_code)
"""


@pytest.mark.parametrize(
    ("work", "sig", "reason"),
    [
        ("computes", signal.SIGINT, "interrupted"),
        ("computes", signal.SIGHUP, "the terminal was closed"),
        ("waits", signal.SIGTERM, "asked to end"),
    ],
)
def test_a_signal_is_read_where_the_work_asks_for_it_and_a_pause_is_none(start, work, sig, reason):
    """A process that was stopped goes on: its own pause has passed meanwhile, as by Ctrl-Z."""
    process = start(ASKED, work)
    for _ in range(5):
        assert process.stdout.readline() == "goes on\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.1)  # the pause passes
        process.send_signal(signal.SIGCONT)
    process.send_signal(sig)
    output, errors = process.communicate(timeout=LIMIT_S)
    *before, last = output.splitlines()
    assert set(before) <= {"goes on"}
    assert last == reason
    assert errors == ""
    assert process.returncode == 128 + sig


def test_the_end_of_the_parent_is_a_request():
    StopRequest(end_with=os.getppid()).pause(0.0)
    with pytest.raises(StopRequested, match="is gone") as raised:
        StopRequest(end_with=os.getpid()).pause(LIMIT_S)
    assert raised.value.exit_code == 1


STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
print(child.pid, flush=True)
time.sleep(600)
"""


def test_a_group_ends_whole_also_what_ignores_an_interrupt(start):
    leader = start(STUBBORN)
    child = psutil.Process(int(leader.stdout.readline()))
    assert os.getpgid(child.pid) == leader.pid
    end_group(leader.pid, grace_s=0.3)
    assert leader.wait() == -signal.SIGKILL
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_large_log_is_begun_anew_and_the_part_before_is_kept(tmp_path):
    log = tmp_path / "program.log"
    command = [sys.executable, "-c", f"print('many words', flush=True); {SLEEP}"]
    settings = dict(env=os.environ, cwd=tmp_path, log=log, grace_s=1.0)
    with child_process.ChildProcess("The program", command, **settings) as program:
        wait_for("its output", program.tail)
        program.check()
        assert log.read_text() == "many words\n"
        os.truncate(log, child_process.MOST_LOG_BYTES + 1)
        program.check()
        assert log.read_text() == ""
    assert (tmp_path / "program.previous.log").read_text().startswith("many words\n")


@pytest.fixture
def taken():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_taken_port_is_named_with_the_option_that_changes_it(taken):
    with pytest.raises(ports.PortTakenError, match=rf"{taken}.*Dagster UI.*--ui-port"):
        ports.require_free(taken, purpose="Dagster UI", option="--ui-port")


def test_the_next_free_port_is_found(taken):
    assert ports.first_free(taken) > taken


def test_a_port_in_use_moments_ago_is_free():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = server.accept()
            accepted.close()
            client.recv(1)
    assert ports.is_free(port)


def test_a_simulator_that_does_not_answer_is_named():
    port = free_port()
    with pytest.raises(ports.NoAnswerError, match=str(port)):
        demo.DemoRun.ask(Mock(control_port=port), "/stats")


def test_the_ports_are_read_from_the_output_of_the_simulator_however_long_it_takes():
    printed = 'warming up\n{"half": \n{"port": 4010, "control_port": 4011, "host": "127.0.0.1"}\n'
    looks = iter([""] * 6000 + ["nothing yet", printed])
    child = Mock(tail=lambda lines: next(looks))
    assert demo.wait_until_ready(child, Mock(spec=StopRequest)) == (4010, 4011)
