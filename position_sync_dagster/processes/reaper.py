"""The reaper: a small process that starts one program and ends every process that comes from it.

It leads a process session of its own, so that neither a Ctrl-C in the terminal nor its closing
reaches only a part of the program. It reads a pipe of which only its owner holds the other end.
When the owner ends in any way, also by `kill -9`, the pipe closes. Then, or when the program ends
by itself, the reaper interrupts each process that came from the program, and kills it after a grace
time. It finds them by their parent or their group. On Linux the reaper is the subreaper of them
all, so that no process escapes by leading a process session of its own or by losing its parent.

Run as `python -m position_sync_dagster.processes.reaper --owner-fd N --grace-s S -- PROGRAM ...`.
With `--patient-with TEXT --patience-s S` it kills nothing for S seconds while a process runs that
has TEXT in its command line.
"""

import argparse
import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from position_sync_dagster.processes.stop_request import STOP_SIGNALS

MARKER = "POSITION_SYNC_LAUNCHED_FROM"
"""The environment variable that each process of a home carries: the home's absolute path."""

POLL_S = 0.05
AFTER_PATIENCE_S = 1.0
"""Seconds that the other processes have to end after the one of `patience` has ended."""

UNINTERRUPTED = "watch_orphans.py"
"""A part of the command line of Dagster's helper that ends with its run. It is not interrupted: it
would write a traceback."""


def descendants(pid: int) -> list[psutil.Process]:
    """List the living processes below `pid`, without itself and without zombies."""
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [child for child in children if is_running(child)]


def in_group(group: int) -> list[psutil.Process]:
    """List the living processes of a process group, without this one."""
    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, PermissionError):
            if process.pid != os.getpid() and os.getpgid(process.pid) == group:
                found.append(process)
    return [process for process in found if is_running(process)]


def find_marked(home: Path) -> list[psutil.Process]:
    """List the living processes that carry the marker of `home`, without this one."""
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARKER) == str(home) and is_running(process):
                found.append(process)
    return found


def is_running(process: psutil.Process) -> bool:
    """Return whether the process still runs. A zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


SAME_S = 1.5
"""Maximum difference of start times, in seconds, for the same process; with a greater one, another
process has got the same id. The boot time is in whole seconds."""


def identity_of(process: psutil.Process) -> dict[str, float]:
    """Return what tells a process from a later one with the same id.

    Its start is counted from the boot, so that changes of the clock do not matter.
    """
    return {"pid": process.pid, "since_boot_s": process.create_time() - psutil.boot_time()}


def identified(identity: Mapping[str, Any]) -> psutil.Process | None:
    """Return the process with an identity; None if it has ended."""
    try:
        process = psutil.Process(identity["pid"])
        began_s = identity_of(process)["since_boot_s"]
    except psutil.NoSuchProcess:
        return None
    return process if abs(began_s - identity["since_boot_s"]) < SAME_S else None


def send(processes: Iterable[psutil.Process], sig: signal.Signals) -> None:
    """Send a signal to each process that still exists."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(sig)


def end_processes(
    find: Callable[[], list[psutil.Process]],
    *,
    grace_s: float,
    patience: tuple[str, float] | None = None,
    after_poll: Callable[[], object] = lambda: None,
) -> list[str]:
    """End all processes that `find` returns: interrupt each once, and kill it after `grace_s`.

    Args:
        find: Returns the processes that still run. It is called until it returns none, because a
            process that is ending may start others.
        patience: A part of a command line, and seconds: nothing is killed within these while such
            a process runs.
        after_poll: Called after each call of `find`, for a caller that must reap its children.

    Returns:
        The processes that had to be killed, each as its id and the start of its command line.
    """
    interrupted: set[psutil.Process] = set()
    killed: dict[psutil.Process, str] = {}
    began = time.monotonic()
    part, patience_s = patience or ("", 0.0)
    while remaining := find():
        age_s = time.monotonic() - began
        if part and age_s < patience_s and any(part in line(p) for p in remaining):
            grace_s = max(grace_s, age_s + AFTER_PATIENCE_S)
        if age_s < grace_s:
            new = set(remaining) - interrupted
            send((one for one in new if UNINTERRUPTED not in line(one)), signal.SIGINT)
            interrupted.update(remaining)
        else:
            killed = {process: describe(process) for process in remaining} | killed
            send(remaining, signal.SIGKILL)
        time.sleep(POLL_S)
        after_poll()
    return list(killed.values())


def line(process: psutil.Process) -> str:
    """Return a process's command line; an empty text for one that has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def describe(process: psutil.Process) -> str:
    """Return a process's id and the start of its command line."""
    return f"{process.pid} ({line(process)[:80]})"


PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
POLL_INTERVAL_S = 1.0
CANNOT_START = 127
"""The exit code for a program that cannot be started, as in a shell."""


def adopt_orphans() -> None:
    """Make this process the parent of each descendant that loses its own parent (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def receive_signals() -> int:
    """Receive stop signals and SIGCHLD, whatever was inherited, and return the fd to read them.

    A process may inherit ignored and blocked signals: `nohup` ignores SIGHUP, a shell ignores
    SIGINT for a background job, and an owner blocks the stop signals to read them. The program
    must not inherit that. It gets the default actions, because `exec` resets handled signals, and
    no blocked signals.
    """
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    for sig in (*STOP_SIGNALS, signal.SIGCHLD):
        signal.signal(sig, lambda *_: None)
    signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return read_fd


def reap(exit_codes: dict[int, int]) -> None:
    """Store the exit code of each child that has ended, by process id; -n for signal n."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        exit_codes[pid] = os.waitstatus_to_exitcode(status)


def shell_exit_code(code: int) -> int:
    """Return an exit code as a shell shows it: 128 + n for signal n."""
    return 128 - code if code < 0 else code


def wait_for_end(owner_fd: int, signal_fd: int, pid: int, exit_codes: dict[int, int]) -> bool:
    """Wait until the program ends, the owner closes its pipe or a stop signal arrives.

    Returns:
        Whether an end was requested, by the pipe or by a signal.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(owner_fd, selectors.EVENT_READ)
        selector.register(signal_fd, selectors.EVENT_READ)
        while True:
            ready = {key.fd for key, _ in selector.select(POLL_INTERVAL_S)}
            if signal_fd in ready and set(os.read(signal_fd, 4096)) & set(STOP_SIGNALS):
                return True
            if owner_fd in ready and not os.read(owner_fd, 4096):
                return True
            reap(exit_codes)
            if pid in exit_codes:
                return False


def remaining_processes(pid: int) -> list[psutil.Process]:
    """List the processes that still run of all that came from the reaper `pid`.

    Without a subreaper an orphan is found by its process group.
    """
    found = descendants(pid)
    if sys.platform != "linux":
        found += [process for process in in_group(os.getpgid(pid)) if process not in found]
    return found


def supervise(
    command: Sequence[str],
    *,
    owner_fd: int,
    grace_s: float,
    patience: tuple[str, float] | None = None,
) -> int:
    """Run `command` until it ends or an end is requested, then end all that came from it.

    Returns:
        The command's exit code if it ended by itself, else 0; 127 if it cannot be started.
    """
    adopt_orphans()
    signal_fd = receive_signals()
    try:
        program = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - the owner's own
    except OSError as error:
        print(f"{command[0]} cannot be started: {error}", file=sys.stderr)  # noqa: T201
        return CANNOT_START
    exit_codes: dict[int, int] = {}
    end_requested = wait_for_end(owner_fd, signal_fd, program.pid, exit_codes)
    killed = end_processes(
        lambda: remaining_processes(os.getpid()),
        grace_s=grace_s,
        patience=patience,
        after_poll=lambda: reap(exit_codes),
    )
    if killed:
        print(f"killed at the end: {', '.join(killed)}", flush=True)  # noqa: T201
    program.returncode = exit_codes.get(program.pid, 0)
    return 0 if end_requested else shell_exit_code(program.returncode)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and supervise the program."""
    parser = argparse.ArgumentParser(
        prog="reaper", description="Start a program, and end all processes that come from it."
    )
    parser.add_argument("--owner-fd", type=int, required=True)
    parser.add_argument("--grace-s", type=float, required=True)
    parser.add_argument("--patient-with")
    parser.add_argument("--patience-s", type=float, default=0.0)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)
    patience = (options.patient_with, options.patience_s) if options.patient_with else None
    return supervise(
        options.command, owner_fd=options.owner_fd, grace_s=options.grace_s, patience=patience
    )


if __name__ == "__main__":
    sys.exit(main())
