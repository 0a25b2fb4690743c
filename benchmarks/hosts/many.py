"""Many logins with small books on one host: streams, drains and sensors, as real processes."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from unittest.mock import patch

import dagster as dg
import psutil
import yaml
from dagster._core.scheduler.instigation import TickStatus

from benchmarks.bench import Bench
from benchmarks.book.generated import GeneratedBook, generate
from benchmarks.hosts.processor import used_s
from benchmarks.outcome import Line
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.errors import LakeError
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports.figures import read_figures
from position_sync_dagster.settings import load_settings
from tests.support import postgres
from tests.support.hosts import Host
from tests.support.promises import (
    assert_nothing_is_double,
    assert_one_writer_each,
    current_by_login,
    waiting,
)

STEPS, QUICK_STEPS = (10, 40), (2,)
WATCHED_S = {2: 20.0, 10: 120.0, 40: 600.0}
LEGS, ACTIVE = 8, 3
# Those with which a log carries forty logins (`docs/scaling.md`).
INTERVALS = {
    "POSITION_SYNC_FLUSH_INTERVAL_S": "15",
    "POSITION_SYNC_SESSION_LEASE_S": "60",
}

HANGS_S = 1_800.0
SENSORS = ("supervise_stream", "drain_queue")

Figure = tuple[str, float, str]


def many(bench: Bench) -> None:
    """Let more and more logins stream, and watch each number for some minutes."""
    columns: dict[int, list[Figure]] = {}
    with ExitStack() as stack:
        steps = bench.size(STEPS, QUICK_STEPS)
        host = _ManyLogins(stack, bench.new_folder("many"), max(steps))
        for number in steps:
            columns[number] = list(host.watch(number, WATCHED_S[number]))
            bench.report.add(
                f"{number} logins of {LEGS} legs",
                [
                    Line(what=what, state=_load(), ours=value, unit=unit)
                    for what, value, unit in columns[number]
                ],
            )
        bench.report.say(host.end())


def _load() -> str:
    return f"load {os.getloadavg()[0]:.0f}"


class _ManyLogins:
    """A host, Postgres, a lake on the disk, and gateways in one process."""

    def __init__(self, stack: ExitStack, folder: Path, number: int) -> None:
        folder.mkdir(parents=True)
        self._file = folder / "gateways.yaml"
        self._database = database = stack.enter_context(postgres.running())
        self._books: list[GeneratedBook] = [
            generate(folder / f"book-{n}", LEGS, ACTIVE, f"DUSIM{n:04}")
            for n in range(1, number + 1)
        ]
        self._gateways = subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.hosts.many_gateways"),
                *(str(book.book) for book in self._books),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(self._gateways.wait)
        stack.callback(self._gateways.kill)
        assert self._gateways.stdout is not None
        self._ports: list[int] = json.loads(self._gateways.stdout.readline())
        strategies = folder / "strategies.yaml"
        lists = [b.strategies.read_text().removeprefix("strategies:\n") for b in self._books]
        strategies.write_text("strategies:\n" + "".join(lists))
        self._write(0)
        environment = (
            database.environment
            | INTERVALS
            | {
                "POSITION_SYNC_LAKE": str(folder / "lake"),
                "POSITION_SYNC_TRADING_MODE": "SIMULATED",
                "POSITION_SYNC_GATEWAYS_FILE": str(self._file),
                "POSITION_SYNC_STRATEGIES_FILE": str(strategies),
            }
        )
        self._host = Host(folder / "host", environment)
        stack.callback(self._host.kill)
        stack.enter_context(patch.dict(os.environ, self._host.environment))
        self._lake = MoneyLake(folder / "lake")
        self._lake.initialize_sync()

    def _write(self, number: int) -> None:
        entries = [
            {"name": f"login-{n}", "port": port, "accounts": [f"DUSIM{n:04}"]}
            for n, port in enumerate(self._ports[: max(number, 1)], 1)
        ]
        written = self._file.with_suffix(".new")
        written.write_text(yaml.safe_dump({"gateways": entries}, sort_keys=False))
        written.replace(self._file)

    def watch(self, number: int, seconds: float) -> Iterator[Figure]:
        """Add logins until there are so many; yield what it takes until they work, and then."""
        began, since = time.monotonic(), utc_now()
        self._write(number)
        if not self._host.processes():
            self._host.start("code", "daemon")
        names = [f"login-{n}" for n in range(1, number + 1)]
        self._until("all LIVE", lambda: len(self._live(names)) == number)
        yield "until all logins are LIVE", time.monotonic() - began, "s"
        settings = load_settings()

        def current() -> int:
            with suppress(LakeError):
                return sum(current_by_login(read_figures(self._lake, settings, utc_now())).values())
            return 0

        self._until("all legs current", lambda: current() == number * LEGS)
        yield "until all legs are current", time.monotonic() - began, "s"

        pids = self._live(names)
        before, connected = used_s(pids), self._connected()
        began, watched = time.monotonic(), utc_now()
        time.sleep(seconds)
        took, after = time.monotonic() - began, used_s(self._live(names))
        made = (self._connected() - connected) / took
        yield "connections to Postgres, new ones each second", made, ""
        yield "connections to Postgres, open", self._open(), ""
        for role in ("streams", "drains and other runs", "daemons", "code servers", "Postgres"):
            used = after.get(role, 0.0) - before.get(role, 0.0)
            yield f"share of one core: {role}", max(used, 0.0) / took * 100, "%"
        memory = [psutil.Process(pid).memory_full_info().pss / 1e6 for pid in pids]
        yield (
            "memory of a stream, its own and its part of what is shared",
            sum(memory) / number,
            "MB",
        )
        ticks = self._ticks(watched.timestamp())
        for sensor in SENSORS:
            found = ticks[sensor]
            yield f"tick of {sensor}, median", statistics.median(found) * 1000, "ms"
            p95 = statistics.quantiles(found, n=20, method="inclusive")[-1]
            yield f"tick of {sensor}, p95", p95 * 1000, "ms"
        yield "sessions that were lost", self._lost(since), ""
        yield "legs that are current at the end", current(), ""
        made = utc_now()
        self._until("drained", lambda: waiting(self._lake, made) == 0)
        yield "until each request was answered", (utc_now() - made).total_seconds(), "s"

    def end(self) -> str:
        """End everything, and count what the tables hold."""
        self._host.stop()
        assert_nothing_is_double(self._lake)
        assert_one_writer_each(self._lake)
        orders = self._gateways.communicate("")[0].strip()
        rows = self._lake.updates.sync.count()
        return f"{rows:,} rows, none twice, none of an older owner after a newer; {orders} orders"

    def _connected(self) -> int:
        """Return how many connections were made to Postgres until now."""
        ((found,),) = self._database.query("SELECT sum(sessions) FROM pg_stat_database")
        return int(found)

    def _open(self) -> int:
        """Return how many connections of programs Postgres has now, without that of this query."""
        ((found,),) = self._database.query(
            "SELECT count(*) - 1 FROM pg_stat_activity WHERE backend_type = 'client backend'"
        )
        return int(found)

    def _live(self, names: Iterable[str]) -> set[int]:
        """Return the process ids of the streams that are LIVE."""
        found, now = self._lake.sessions.current_of(names), utc_now()
        return {
            session.pid
            for session in found.values()
            if session.is_alive(now) and session.state is SessionState.LIVE
        }

    def _lost(self, since: datetime) -> int:
        past = self._lake.sessions.history(limit=1_000)
        return sum(one.state is SessionState.LOST and one.started_at >= since for one in past)

    def _ticks(self, since: float) -> dict[str, list[float]]:
        """Return the seconds of each tick since a time, by sensor."""
        found: dict[str, list[float]] = {}
        with dg.DagsterInstance.from_config(self._host.environment["DAGSTER_HOME"]) as instance:
            for state in instance.all_instigator_state():
                ticks = instance.get_ticks(
                    state.instigator_origin_id, state.selector_id, after=since, limit=1_000
                )
                found[state.instigator_name] = [
                    tick.end_timestamp - tick.timestamp
                    for tick in ticks
                    if tick.end_timestamp and tick.status is not TickStatus.STARTED
                ]
        return found

    def _until(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + HANGS_S
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError(f"It does not happen: {what}.")
            time.sleep(1.0)
