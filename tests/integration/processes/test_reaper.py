"""All processes that come from a program end with its owner: real processes, real kills."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from position_sync_dagster.processes import child_process, dagster_dev
from position_sync_dagster.processes.child_process import (
    KILL_MARGIN_S,
    ChildEndedError,
    ChildProcess,
)
from position_sync_dagster.processes.reaper import MARKER, end_processes, find_marked
from position_sync_dagster.processes.stop_request import block_stop_signals
from tests.support.demo_program import GONE_S, wait_for

FAMILY = textwrap.dedent(
    """
    import os, signal, subprocess, sys, time
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    subprocess.Popen(sleep)
    subprocess.Popen(sleep, start_new_session=True)
    if os.fork() == 0:
        subprocess.Popen(sleep, start_new_session=True)  # an orphan in a session of its own
        os._exit(0)
    if "stubborn" in sys.argv:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # which a child inherits
        subprocess.Popen(sleep, start_new_session=True)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    print("ready", flush=True)
    if "ends" in sys.argv:
        sys.exit(7)
    time.sleep(600)
    """
)
OWNER = textwrap.dedent(
    """
    import os, pathlib, signal, sys, time
    from position_sync_dagster.processes.child_process import ChildProcess
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sig, signal.SIG_DFL)  # the tests may run under nohup or in the background
    home = pathlib.Path(sys.argv[1])
    child = ChildProcess("family", [sys.executable, "-c", sys.argv[2], *sys.argv[3:]],
                  env=dict(os.environ), cwd=home, log=home / "family.log", grace_s=1.0)
    time.sleep(600)
    """
)


@pytest.fixture
def home(tmp_path):
    yield tmp_path
    end_processes(lambda: find_marked(tmp_path), grace_s=0.0)


def environment(home):
    return {**os.environ, MARKER: str(home)}


def family(home, *arguments, grace_s=1.0):
    return ChildProcess(
        "The family",
        [sys.executable, "-c", FAMILY, *arguments],
        env=environment(home),
        cwd=home,
        log=home / "family.log",
        grace_s=grace_s,
    )


def test_dagsters_helper_that_ends_with_its_run_is_not_interrupted(home):
    (home / "watch_orphans.py").write_text("import time; time.sleep(600)")
    with subprocess.Popen(
        [sys.executable, str(home / "watch_orphans.py")],
        env=environment(home),
        stderr=subprocess.PIPE,
        text=True,
    ) as helper:
        wait_for("it runs", lambda: find_marked(home))
        end_processes(lambda: find_marked(home) if helper.poll() is None else [], grace_s=0.5)
        assert (helper.communicate()[1], helper.returncode) == ("", -signal.SIGKILL)


def ready(home):
    log = home / "family.log"
    return log.exists() and "ready" in log.read_text()


@pytest.fixture
def start_owner(home) -> Iterator[Callable[..., subprocess.Popen]]:
    """Start processes that own a family; they end with the test."""
    owners: list[subprocess.Popen] = []

    def start(member: str) -> subprocess.Popen:
        owners.append(
            subprocess.Popen(
                [sys.executable, "-c", OWNER, str(home), FAMILY, member],
                env=environment(home),
                start_new_session=True,
                stderr=subprocess.DEVNULL,
            )
        )
        wait_for("the family is ready", lambda: ready(home))
        # The orphan may start its child after the family is ready.
        wait_for("all have started", lambda: len(find_marked(home)) >= 6)
        return owners[-1]

    yield start
    for owner in owners:
        owner.kill()
        owner.wait()


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("member", ["willing", "stubborn"])
def test_nothing_survives_its_owner(home, start_owner, sig, member):
    owner = start_owner(member)
    owner.send_signal(sig)
    owner.wait(GONE_S)
    wait_for("nothing is left", lambda: not find_marked(home))


def test_a_program_does_not_inherit_ignored_and_blocked_signals(home):
    ignored = [signal.SIGINT, signal.SIGHUP]
    before = {sig: signal.signal(sig, signal.SIG_IGN) for sig in ignored}
    unblocked = block_stop_signals()
    try:
        child = family(home)
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, unblocked)
    with child:
        wait_for("it has checked its signals", lambda: ready(home) or not child.running)
        child.check()


def test_stop_ends_orphans_in_sessions_of_their_own(home):
    with family(home, grace_s=GONE_S) as child:
        wait_for("the family is ready", lambda: ready(home))
        assert child.stop() < GONE_S, "nobody had to be killed"
    assert not find_marked(home)


def test_a_process_that_ignores_the_interrupt_is_killed_after_the_grace_time(home):
    with family(home, "stubborn", grace_s=0.5) as child:
        wait_for("the family is ready", lambda: ready(home))
        assert child.stop() >= 0.5
    assert not find_marked(home)


def test_when_a_program_ends_its_family_ends(home):
    with family(home, "ends") as child:
        wait_for("the child has ended", lambda: not child.running)
        assert not find_marked(home)
        with pytest.raises(ChildEndedError, match="ended with code 7") as raised:
            child.check()
    assert "Its last output" in raised.value.what
    assert "family.log" in raised.value.remedy


def test_a_program_that_does_not_exist_is_named(home):
    with ChildProcess(
        "It", ["/no/such/program"], env=environment(home), cwd=home, log=home / "it.log"
    ) as child:
        wait_for("the child has ended", lambda: not child.running)
        with pytest.raises(ChildEndedError, match="/no/such/program cannot be started"):
            child.check()


def test_a_killed_reaper_leaves_marked_processes_that_can_be_found(home):
    with family(home) as child:
        wait_for("the family is ready", lambda: ready(home))
        psutil.Process(child.pid).kill()
        wait_for("the child has ended", lambda: not child.running)
        assert find_marked(home)
        end_processes(lambda: find_marked(home), grace_s=1.0)
    assert not find_marked(home)


def test_one_child_can_outlive_another_by_holding_its_pipe(home):
    def sleeper(name, *inherited_fds):
        return ChildProcess(
            name,
            [sys.executable, "-c", "import time; time.sleep(600)"],
            env=environment(home),
            cwd=home,
            log=home / f"{name}.log",
            inherited_fds=inherited_fds,
        )

    with sleeper("first") as first, sleeper("second", first.pipe_fd) as second:
        first.request_end()
        time.sleep(0.3)  # nothing to wait for: the first must not end
        assert first.running
        second.stop()
        wait_for("the first has ended", lambda: not first.running)


def test_the_log_of_the_start_before_is_kept(home):
    for expected in (False, True):
        with family(home, "ends") as child:
            wait_for("the child has ended", lambda: not child.running)
        assert (home / "family.previous.log").exists() is expected


def test_a_log_that_has_become_large_is_begun_anew_and_the_part_before_is_kept(home, monkeypatch):
    monkeypatch.setattr(child_process, "MOST_LOG_BYTES", 100)
    log, before = home / "family.log", home / "family.previous.log"
    counts = "import itertools, time\nfor n in itertools.count(): time.sleep(0.001); "
    command = [sys.executable, "-c", counts + "print(n, flush=True)"]
    with ChildProcess("It", command, env=environment(home), cwd=home, log=log) as child:

        def parts() -> list[list[str]] | None:
            child.check()
            found = [path.read_text().split() for path in (before, log) if path.exists()]
            return found if len(found) == 2 and all(found) else None

        kept, later = wait_for("the log was begun anew", parts)
    assert int(later[0]) > int(kept[-1]) > int(kept[0])  # it does not begin with zero bytes


SLOW_END = textwrap.dedent(
    f"""
    import pathlib, sys, time
    print("ready", flush=True)
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        time.sleep({KILL_MARGIN_S + 1})  # the reaper is given longer, too
        pathlib.Path(sys.argv[1]).write_text("ended by itself")
    """
)


@pytest.mark.parametrize(("patient_with", "ends"), [("slow end", True), ("another", False)])
def test_a_program_that_is_waited_for_ends_by_itself(home, patient_with, ends):
    done = home / "done"
    slow = ChildProcess(
        "The slow one",
        [sys.executable, "-c", SLOW_END, str(done), "slow end"],
        env=environment(home),
        cwd=home,
        log=home / "family.log",
        grace_s=0.2,
        patience=(patient_with, 60.0),
    )
    with slow:
        wait_for("it is ready", lambda: ready(home))
        slow.stop()
    assert done.exists() is ends


DAGSTER = textwrap.dedent(
    f"""
    import subprocess, sys, time
    subprocess.Popen([sys.executable, "-c", {SLOW_END!r}, "done", {dagster_dev.PATIENCE[0]!r}])
    time.sleep(600)
    """
)


def test_dagster_has_longer_to_end_while_a_run_ends(home, monkeypatch):
    python = home / "python"
    python.write_text(
        f"""#!/bin/sh
        case "$*" in *processes.reaper*) exec {sys.executable} "$@" ;; esac
        exec {sys.executable} {home / "dagster.py"}
        """
    )
    python.chmod(0o700)
    (home / "dagster.py").write_text(DAGSTER)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(dagster_dev, "GRACE_S", 0.2)
    with dagster_dev.start(
        env=environment(home),
        dagster_home=home,
        ui_port=3000,
        cwd=home,
        log=home / "family.log",
        inherited_fds=[],
    ):
        wait_for("the run is ready", lambda: ready(home))
    assert (home / "done").exists()
