"""The keeper: a small process that starts one program and sees all of it end.

It leads a session of its own, so that a Ctrl-C in the terminal or its closing does not reach the
program half-way. It reads a pipe of which only its owner holds the other end. When the owner
ends in whatever way, be it `kill -9`, the pipe closes; then, or when the program ends by itself,
each process that came from the program is interrupted, and killed after a grace time. On Linux
the keeper is the subreaper of them all, so that none escapes by leading a session of its own or
by losing its parent.

Run as `python -m position_sync_dagster.processes.reaper --owner-fd N --grace-s S -- PROGRAM ...`.
"""

import argparse
import ctypes
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Sequence

import psutil

from position_sync_dagster.processes.process_tree import descendants, end_processes, in_group

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOOK_INTERVAL_S = 1.0


def adopt_orphans() -> None:
    """Make this process the parent of each descendant that loses its own (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap(codes: dict[int, int]) -> None:
    """Collect each child that has ended into `codes`, by pid, a signal as a negative number."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        codes[pid] = os.waitstatus_to_exitcode(status)


def exit_code(code: int) -> int:
    """Give the exit code of a process as a shell tells it: 128 + n for signal n."""
    return 128 - code if code < 0 else code


def wait_for_end(owner_fd: int, wakeup_fd: int, pid: int, codes: dict[int, int]) -> bool:
    """Wait until the program ends or the owner lets go; tell whether the owner did.

    A stop signal to the keeper counts as the owner letting go.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(owner_fd, selectors.EVENT_READ)
        selector.register(wakeup_fd, selectors.EVENT_READ)
        while True:
            ready = {key.fd for key, _ in selector.select(LOOK_INTERVAL_S)}
            if wakeup_fd in ready and set(os.read(wakeup_fd, 4096)) & set(STOP_SIGNALS):
                return True
            if owner_fd in ready and not os.read(owner_fd, 4096):
                return True
            reap(codes)
            if pid in codes:
                return False


def remaining_processes(pid: int) -> list[psutil.Process]:
    """List what still runs of all that came from the keeper `pid`.

    Without a subreaper an orphan is found by its process group.
    """
    found = descendants(pid)
    if sys.platform != "linux":
        found += [process for process in in_group(os.getpgid(pid)) if process not in found]
    return found


def supervise(command: Sequence[str], *, owner_fd: int, grace_s: float) -> int:
    """Run `command` until it ends or the owner lets go, then end all that came from it.

    Returns:
        The command's exit code if it ended by itself, else 0; 127 if it cannot be started.
    """
    adopt_orphans()
    wakeup_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    for sig in (*STOP_SIGNALS, signal.SIGCHLD):
        signal.signal(sig, lambda *_: None)
    signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)

    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - the owner's own
    except OSError as error:
        print(f"{command[0]} cannot be started: {error}", file=sys.stderr)  # noqa: T201
        return 127
    codes: dict[int, int] = {}
    released = wait_for_end(owner_fd, wakeup_fd, child.pid, codes)
    killed = end_processes(
        lambda: remaining_processes(os.getpid()), grace_s=grace_s, after_poll=lambda: reap(codes)
    )
    if killed:
        print(f"killed after {grace_s:g} s: {', '.join(killed)}", flush=True)  # noqa: T201
    child.returncode = codes.get(child.pid, 0)
    return 0 if released else exit_code(child.returncode)


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line and keep the program."""
    parser = argparse.ArgumentParser(prog="keeper", description="Start a program, see it end.")
    parser.add_argument("--owner-fd", type=int, required=True)
    parser.add_argument("--grace-s", type=float, required=True)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(argv)
    return supervise(options.command, owner_fd=options.owner_fd, grace_s=options.grace_s)


if __name__ == "__main__":
    sys.exit(main())
