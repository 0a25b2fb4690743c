"""The processes of a home: found by their marker, their parent or their group, and ended."""

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

import psutil

MARKER = "POSITION_SYNC_LAUNCHED_FROM"
"""The environment variable that each process of a home carries: the home's absolute path."""


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


def find_marked(home: str) -> list[psutil.Process]:
    """List the living processes that were launched from `home`, without this one."""
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARKER) == home and is_running(process):
                found.append(process)
    return found


def is_running(process: psutil.Process) -> bool:
    """Tell whether the process still runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def send(processes: Iterable[psutil.Process], sig: signal.Signals) -> None:
    """Send a signal to each; one that has ended meanwhile is no error."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(sig)


def end_processes(
    find: Callable[[], list[psutil.Process]],
    *,
    grace_s: float,
    poll_s: float = 0.05,
    after_poll: Callable[[], object] = lambda: None,
) -> list[str]:
    """End all that `find` gives: an interrupt to each, once, and a kill after `grace_s`.

    Args:
        find: Gives the processes that still run; interrupted again until there is none, because a
            process that is interrupted to end may start others on its way.
        after_poll: Called after each look, for a caller that has children to reap.

    Returns:
        Those that had to be killed, each as its id and the start of its command line.
    """
    interrupted: set[psutil.Process] = set()
    killed: dict[psutil.Process, str] = {}
    deadline = time.monotonic() + grace_s
    while left := find():
        if time.monotonic() < deadline:
            send(set(left) - interrupted, signal.SIGINT)
            interrupted.update(left)
        else:
            killed = {process: describe(process) for process in left} | killed
            send(left, signal.SIGKILL)
        time.sleep(poll_s)
        after_poll()
    return list(killed.values())


def describe(process: psutil.Process) -> str:
    """Give a process's id and the start of its command line."""
    try:
        return f"{process.pid} ({' '.join(process.cmdline())[:80]})"
    except psutil.Error:
        return str(process.pid)
