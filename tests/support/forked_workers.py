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
from typing import Any


class WorkerForker:
    """The parent's end of a process that forks workers."""

    def __init__(self, module: str) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-W", "ignore", "-m", __name__, str(theirs.fileno()), module]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
            subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env=environment,
                cwd=gettempdir(),  # the folder of a test is removed after it
            ).returncode = 0  # it ends when this process does

    def start(self, *arguments: Any) -> "ForkedWorker":
        """Fork a worker; it waits until `begin`."""
        their_in, our_in = os.pipe()
        our_out, their_out = os.pipe()
        socket.send_fds(self._ours, [json.dumps(arguments).encode()], [their_in, their_out])
        os.close(their_in)
        os.close(their_out)
        return ForkedWorker(int(self._ours.recv(100)), our_in, our_out)


class ForkedWorker:
    """A worker process; its output ends when it ends."""

    def __init__(self, pid: int, stdin: int, stdout: int) -> None:
        self.pid = pid
        self._in = os.fdopen(stdin, "w")
        self._out = os.fdopen(stdout)

    def begin(self) -> None:
        self._in.write("\n")
        self._in.flush()

    def output(self) -> str:
        """Wait for the end of the process and return its whole output."""
        text = self._out.read()
        self.close()
        return text

    def kill(self) -> str:
        """Kill the process, wait until it is gone, and return its output."""
        if self._out.closed:
            return ""
        with suppress(ProcessLookupError):  # it ended by itself
            os.kill(self.pid, signal.SIGKILL)
        return self.output()

    def close(self) -> None:
        for end in (self._in, self._out):
            end.close()


def worker_forker(module: str) -> WorkerForker:
    """Return the one forking process of a module of workers and an object store."""
    return _forker(module, tuple((n, v) for n, v in os.environ.items() if n.startswith("AWS_")))


@cache
def _forker(module: str, _store: tuple[tuple[str, str], ...]) -> WorkerForker:
    return WorkerForker(module)


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
