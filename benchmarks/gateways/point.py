"""One point of the curves: so many logins in one lake for a while, and who reads it meanwhile."""

import asyncio
import json
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.gateways.work import Work, account_of, name_of
from benchmarks.timing import median
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports.status import read_status
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.drain import drain
from tests.support.settings import make_settings
from tests.support.store_proxy import StoreProxy

# Processes that the logins share: as many as the machine has processors.
PROGRAMS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What was measured with so many logins; times in seconds.

    Attributes:
        place: "disk", or the latency of a request to the store.
        commits, renewals: Of the ledger and of leases, a second, of all logins.
        tries: How often a commit of the ledger was decided, on average.
        append, renewal: The median and the longest.
        gap: Between two commits of a login: the median, and that of the slowest twentieth.
        lost: Logins whose lease ended although its owner tried to renew it.
        answered: Requests of the queue that were answered, a second of the drain.
        requests, puts: To the store, a second.
        busy: The share of the machine's processors that was in use.
    """

    place: str
    logins: int
    flush_s: float
    heartbeat_s: float
    commits: float
    renewals: float
    tries: float
    append: float
    append_longest: float
    renewal: float
    renewal_longest: float
    gap: float
    gap_p95: float
    lost: int
    errors: int
    latest: float
    status: float
    answered: float
    requests: float
    puts: float
    busy: float


def measure(
    path: Path | str,
    folder: Path,
    logins: int,
    *,
    proxy: StoreProxy | None,
    latency_s: float,
    legs: int,
    streamed: int,
    seconds: float,
    flush_s: float = 1.0,
    heartbeat_s: float = 4.0,
    lease_s: float = 15.0,
) -> Point:
    """Let so many logins work in a new lake.

    Args:
        folder: For the gateways file.
        proxy: Of the store; the preparation is not delayed.
    """
    lake = MoneyLake(path)
    lake.initialize_sync()
    numbers = range(1, logins + 1)
    shares = [tuple(numbers[first::PROGRAMS]) for first in range(PROGRAMS)]
    with ExitStack() as stack:
        programs = [
            _start(
                stack,
                Work(
                    lake=str(path),
                    logins=share,
                    legs=legs,
                    streamed=streamed,
                    flush_s=flush_s,
                    heartbeat_s=heartbeat_s,
                    lease_s=lease_s,
                    seconds=seconds,
                ),
            )
            for share in shares
            if share
        ]
        for program in programs:
            assert _line(program) == "ready\n", "a program of logins ended"
        if proxy is not None:
            proxy.change(latency_s=latency_s)
        psutil.cpu_percent()
        for program in programs:
            _say(program, "")
        looks = _look(lake, _settings(path, folder, numbers, seconds), seconds)
        busy = psutil.cpu_percent() / 100
        kinds = proxy.counts() if proxy is not None else {}
        found = [one for program in programs for one in json.loads(_line(program))]
    together: dict[str, list[float]] = {
        name: [value for one in found for value in one[name]]
        for name in ("appends", "gaps", "renewals")
    }
    return Point(
        place="disk" if proxy is None else f"{latency_s * 1000:g} ms",
        logins=logins,
        flush_s=flush_s,
        heartbeat_s=heartbeat_s,
        commits=len(together["appends"]) / seconds,
        renewals=len(together["renewals"]) / seconds,
        tries=sum(one["tries"] for one in found) / max(len(together["appends"]), 1),
        append=median(together["appends"] or [seconds]),
        append_longest=max(together["appends"], default=seconds),
        renewal=median(together["renewals"] or [seconds]),
        renewal_longest=max(together["renewals"], default=seconds),
        gap=median(together["gaps"] or [seconds]),
        gap_p95=quantile(together["gaps"] or [seconds], 0.95),
        lost=sum(one["lost"] for one in found),
        errors=sum(len(one["errors"]) for one in found),
        requests=sum(kinds.values()) / seconds,
        puts=(kinds.get("PUT", 0) + kinds.get("LIST", 0) + kinds.get("POST", 0)) / seconds,
        busy=busy,
        **looks,
    )


def quantile(values: list[float], share: float) -> float:
    """Return the value below which a share of the values lies."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def _look(lake: MoneyLake, settings: Settings, seconds: float) -> dict[str, float]:
    """Drain the queue, then read the newest rows and the status until the time is over."""
    until = time.monotonic() + seconds
    began = time.monotonic()
    report = asyncio.run(drain(lake, settings))
    took = time.monotonic() - began
    answered = sum(batch.succeeded for batch in report.batches)
    times: dict[str, list[float]] = {"latest": [], "status": []}
    lake.updates.sync.latest()
    while True:
        for name, read in (
            ("latest", lake.updates.sync.latest),
            ("status", lambda: read_status(lake, settings, datetime.now(UTC))),
        ):
            began = time.monotonic()
            read()
            times[name].append(time.monotonic() - began)
        if time.monotonic() >= until:
            break
        time.sleep(1)
    return {
        "answered": answered / took,
        **{name: median(values) for name, values in times.items()},
    }


def _settings(path: Path | str, folder: Path, numbers: range, seconds: float) -> Settings:
    lines = ["gateways:"]
    lines += [
        f"  - {{name: {name_of(n)}, port: {10_000 + n}, client_id: 17, trading_mode: SIMULATED, "
        f"accounts: [{account_of(n)}]}}"
        for n in numbers
    ]
    file = folder / f"gateways-{len(numbers)}.yaml"
    file.write_text("\n".join(lines) + "\n")
    return make_settings(lake=str(path), gateways_file=file, drain_time_limit_s=seconds / 2)


Program = subprocess.Popen[str]


def _start(stack: ExitStack, work: Work) -> Program:
    program = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.gateways.logins"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    stack.callback(program.wait)
    stack.callback(program.kill)
    _say(program, json.dumps(asdict(work)))
    return program


def _say(program: Program, text: str) -> None:
    assert program.stdin is not None
    program.stdin.write(text + "\n")
    program.stdin.flush()


def _line(program: Program) -> Any:
    assert program.stdout is not None
    return program.stdout.readline()
