"""The programs around Dagster: the supervisor, its programs, the run launcher, the guarded port.

`services` starts the code server, the daemon and the webserver and keeps them running; `daemon` has
the first two of them. `standby_daemon` is the daemon for several hosts. `dagster.yaml` names
`launcher`. `dagster_internals` has every private symbol of Dagster; `defs` uses it too. The other
modules are separate programs, and nothing else in the package imports them. They import Dagster,
`processes`, `sync.alerts`, `sync.owner.memory_and_threads` and the settings.

On Linux the supervisor's programs and all runs are forked from one process, the fork server, which
has imported Dagster and the package (`preloaded`): each shares the memory that it does not change.
The supervisor, which does not import Dagster, starts it by the functions of this module.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

LACKING = 76
"""Exit code of these programs if Dagster lacks a private symbol that they need (EX_PROTOCOL)."""

PRELOADED = f"{__name__}.preloaded"
"""The only module that the fork server preloads."""


@cache
def process_context() -> Any:
    """Return the start method: a fork server on Linux, spawn elsewhere (forks are unsafe there)."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    forkserver.set_forkserver_preload([PRELOADED])
    return multiprocessing.get_context("forkserver")


def prepare_processes(blocked: Collection[signal.Signals] = (signal.SIGINT,)) -> None:
    """Start the fork server of this process, if none runs; its imports take two seconds.

    Signals are blocked in it from its first moment: it ends with the last process that uses it, and
    an interrupt during its imports would print a traceback. A signal to a forked process waits
    until that process calls `answer_signals`.
    """
    if process_context().get_start_method() == "forkserver":
        resource_tracker.ensure_running()  # else it starts below, and unblocks interrupts
        before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def output_to(out: int, err: int) -> list[Connection]:
    """Return copies of two open files, as standard output and error of a process to be forked."""
    return [Connection(os.dup(fd), readable=False) for fd in (out, err)]


def run_forked(
    name: str, output: Sequence[Connection], module: str, function: str, *arguments: Any
) -> None:
    """Call a function of a module; the target of each forked process.

    Args:
        name: The name by which `ps` and `top` show the process.
        output: Where its standard output and error go.
        module: A module of this package, imported anew if a file of the package has changed.
    """
    with suppress(KeyboardInterrupt):  # an interrupt before the function could answer it
        answer_signals()
        for to, (fd, stream) in zip(output, ((1, sys.stdout), (2, sys.stderr)), strict=True):
            os.dup2(to.fileno(), fd)
            to.close()
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        with suppress(OSError):
            Path("/proc/self/comm").write_text(name)
        share_fork_server()
        preloaded = sys.modules.get(PRELOADED)
        if preloaded is not None:
            preloaded.forget_changed(preloaded.imported)
        getattr(import_module(module), function)(*arguments)


def answer_signals() -> None:
    """Answer interrupts and terminations in a forked process; the fork server blocks them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})


def share_fork_server() -> None:
    """Fork processes for this one from the fork server that it came from.

    Python's documentation says that such processes share it, but Python starts another fork server.
    It also does so if the private symbol is missing: that takes the memory of another import.
    """
    server = getattr(forkserver, "_forkserver", None)
    if getattr(server, "_forkserver_address", None) and forkserver.get_inherited_fds() is not None:
        server.ensure_running = lambda: None  # type: ignore[union-attr]


def reload_request(socket: Path) -> Path:
    """Return the file that the code server at a socket makes when it is to load the code anew.

    The supervisor removes it when another code server has taken the place of this one, or writes
    into it why none could be started.
    """
    return socket.with_suffix(".reload")
