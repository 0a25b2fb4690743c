"""A process with the lake loaded that forks workers: each starts in milliseconds.

Run as `python -m tests.support.forked_workers <descriptor of a socket> <module of the workers>`.
The module has a function `main(work, lake, arguments)`; a message is the arguments as JSON, with
the descriptors of the worker's input and output. All workers end with the forking process, and
that one ends with its parent.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import import_module
from tempfile import gettempdir
from typing import Any, Self


@cache
def _forker(module: str, _store: tuple[tuple[str, str], ...]) -> socket.socket:
    """Return our end of the one process that forks workers of a module, for an object store."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", __name__, str(theirs.fileno()), module],
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            cwd=gettempdir(),  # the folder of a test is removed after it
        ).returncode = 0  # it ends when this process does
    return ours


class ForkedWorker:
    """A worker process; it waits until `begin`, and its output ends when it ends."""

    def __init__(self, module: str, *arguments: Any) -> None:
        their_in, our_in = os.pipe()
        our_out, their_out = os.pipe()
        forker = _forker(module, tuple(v for v in os.environ.items() if v[0].startswith("AWS_")))
        socket.send_fds(forker, [json.dumps(arguments).encode()], [their_in, their_out])
        os.close(their_in)
        os.close(their_out)
        self.pid = int(forker.recv(100))
        self._in = os.fdopen(our_in, "w")
        self._out = os.fdopen(our_out)

    def begin(self) -> Self:
        self._in.write("\n")
        self._in.flush()
        return self

    def output(self) -> str:
        """Wait for the end of the process and return its whole output."""
        with self._in, self._out:
            return self._out.read()

    def kill(self) -> str:
        """Kill the process, wait until it is gone, and return its output."""
        if self._out.closed:
            return ""
        with suppress(ProcessLookupError):  # it ended by itself
            os.kill(self.pid, signal.SIGKILL)
        return self.output()


def serve(ours: socket.socket, main: Callable[..., None]) -> None:
    """Fork a worker for each message, until the parent is gone."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(ours, 65536, 2)
        if not message:
            os.killpg(0, signal.SIGKILL)
        pid = os.fork()
        if pid == 0:
            _run_worker(ours, descriptors, main, json.loads(message))
        for descriptor in descriptors:
            os.close(descriptor)
        ours.send(str(pid).encode())


def _run_worker(
    ours: socket.socket, descriptors: list[int], main: Callable[..., None], arguments: list[Any]
) -> None:
    code = 1
    try:
        ours.close()
        for target, descriptor in enumerate(descriptors):
            os.dup2(descriptor, target)
            os.close(descriptor)

        sys.stdin = os.fdopen(0, closefd=False)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stdin.readline()
        main(*arguments)
        code = 0
    except BaseException:  # noqa: BLE001 - a worker never goes on as the forking process
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    # This process has no other thread when it forks. Ended workers leave no zombies.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    workers = import_module(sys.argv[2])
    serve(socket.socket(fileno=int(sys.argv[1])), workers.main)
