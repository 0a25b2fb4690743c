"""Find the processes of a home, by their marker, their parent or their group, and end them."""

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import psutil

MARKER = "POSITION_SYNC_LAUNCHED_FROM"
"""The environment variable that each process of a home carries: the home's absolute path."""

AFTER_PATIENCE_S = 1.0
"""What waited for a patient process has this long to end after it."""

UNINTERRUPTED = "watch_orphans.py"
"""Of the command line of Dagster's helper that ends with its run: interrupted, it would write a
traceback."""


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
    poll_s: float = 0.05,
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
        time.sleep(poll_s)
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
