"""The reaper: a small process that starts one program and ends every process that comes from it.

It leads a process session of its own, so that a Ctrl-C in the terminal or its closing does not
reach only a part of the program. It reads a pipe of which only its owner holds the other end. When
the owner ends in any way, also by `kill -9`, the pipe closes. Then, or when the program ends by
itself, the reaper interrupts each process that came from the program, and kills it after a grace
time. On Linux the reaper is the subreaper of them all, so that no process escapes by leading a
process session of its own or by losing its parent.

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
from collections.abc import Sequence

import psutil

from position_sync_dagster.processes.process_tree import descendants, end_processes, in_group
from position_sync_dagster.processes.stop_request import STOP_SIGNALS

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
