"""What each kind of process uses of the processor."""

from collections import defaultdict
from collections.abc import Collection
from contextlib import suppress

import psutil

ROLES = {
    "store_proxy": "S3 store",
    "ib_gateway_simulator": "gateways (simulators)",
    "dagster-daemon": "daemons",
    "webserver": "webservers",
    "api grpc": "code servers",
    "api": "code servers",
    "postgres": "Postgres",
}
STREAMS, RUNS, OTHER = "streams", "drains and other runs", "other"


def used_s(streams: Collection[int]) -> dict[str, float]:
    """Return the seconds of processor time of all child processes, by what they are.

    Args:
        streams: The process ids of the streams.
    """
    found: dict[str, float] = defaultdict(float)
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            words, times = " ".join(process.cmdline()), process.cpu_times()
            role = _role(process.pid, words, streams)
            found[role] += times.user + times.system
            # What has ended and was waited for: runs of a code server, sessions of Postgres.
            ended = RUNS if role == "code servers" else role
            found[ended] += times.children_user + times.children_system
    return found


def _role(pid: int, words: str, streams: Collection[int]) -> str:
    if pid in streams:
        return STREAMS
    if "/bin/sh" in words:
        return OTHER
    if "multiprocessing" in words:
        return RUNS
    return next((role for part, role in ROLES.items() if part in words), OTHER)
