"""The sensors over many logins of one lake in a store: each tick, beside logins one by one."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from unittest.mock import patch

import dagster as dg

from benchmarks.bench import Bench
from benchmarks.machine import load_afterwards
from benchmarks.outcome import Line, Target
from benchmarks.timing import Samples, median
from position_sync_dagster.defs.composition import Composition
from position_sync_dagster.defs.drain import drain_queue
from position_sync_dagster.defs.resources import LOGINS, PARTITION, STREAM_JOB, sensor
from position_sync_dagster.defs.stream import recent_runs, supervise_stream
from position_sync_dagster.domain.gateway_session import GatewaySession, Owner, SessionState
from position_sync_dagster.domain.queue_request import QueueRequest
from position_sync_dagster.money.defs.extension import money_extension
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.settings import Settings, load_settings
from tests.support import postgres
from tests.support.hosts import DEPLOY
from tests.support.object_store import running_store

NUMBERS, QUICK_NUMBERS = (1, 4, 40), (2,)
LATENCY_S = 0.02
TARGET = Target(value=1_000.0)
LEASE_S = 3_600.0
WRITERS = 4


def sensors(bench: Bench) -> None:
    """Measure ticks while all leases are renewed between them, as each 4 s."""
    rounds = bench.size(20, 2)
    for number in bench.size(NUMBERS, QUICK_NUMBERS):
        with ExitStack() as stack:
            logins = _Logins(stack, bench.new_folder("sensors"), number)
            samples, requests = logins.measure(rounds)
        of_one = "logins one after the other"
        bench.report.add(
            f"Ticks over {number} logins, {LATENCY_S * 1e3:.0f} ms a request, {load_afterwards()}",
            [
                Line(
                    what=f"{what}, {kind}",
                    state=f"{requests[what]} requests to the store",
                    ours=value(samples.of(what)),
                    samples=rounds,
                    against=of_one,
                    theirs=value(samples.of(of_one)),
                    target=TARGET,
                )
                for what in ("supervise_stream", "drain_queue")
                for kind, value in (("median", median), ("p95", _p95))
            ],
        )


def _p95(values: list[float]) -> float:
    return sorted(values)[min(int(len(values) * 0.95), len(values) - 1)]


class _Logins:
    """Logins whose streams are runs in Postgres and leases in a store."""

    def __init__(self, stack: ExitStack, folder: Path, number: int) -> None:
        folder.mkdir(parents=True)
        self._store = stack.enter_context(running_store())
        database = stack.enter_context(postgres.running())
        names = [f"login-{n}" for n in range(1, number + 1)]
        file = folder / "gateways.yaml"
        file.write_text(
            "gateways:\n"
            + "".join(
                f"  - {{name: {name}, port: {port}, accounts: [DUSIM{port:04}]}}\n"
                for port, name in enumerate(names, 1)
            )
        )
        environment = {
            "DAGSTER_HOME": str(folder),
            "DAGSTER_CODE_HOST": "127.0.0.1",
            "DAGSTER_CODE_PORT": "1",
            "POSITION_SYNC_LAKE": self._store.lake(),
            "POSITION_SYNC_GATEWAYS_FILE": str(file),
        }
        stack.enter_context(
            patch.dict(os.environ, database.environment | self._store.environment | environment)
        )
        (folder / "dagster.yaml").write_text((DEPLOY / "dagster.yaml").read_text())
        self._instance = stack.enter_context(dg.DagsterInstance.from_config(str(folder)))
        self._settings: Settings = load_settings()
        self._writers = [MoneyLake.of(self._settings) for _ in range(WRITERS)]
        self._writers[0].initialize_sync()
        self._one_by_one = MoneyLake.of(self._settings)
        self._instance.add_dynamic_partitions(str(LOGINS.name), names)
        self._sessions = [self._own(name) for name in names]
        self._requests = 0

    def _own(self, name: str) -> GatewaySession:
        run = dg.DagsterRun(
            job_name=STREAM_JOB, status=dg.DagsterRunStatus.STARTED, tags={PARTITION: name}
        )
        self._instance.add_run(run)
        sessions = self._writers[0].sessions
        session = sessions.acquire(
            name, Owner.STREAM, lease_s=LEASE_S, run_id=run.run_id, host="here", pid=os.getpid()
        )
        return sessions.renew(session, lease_s=LEASE_S, state=SessionState.LIVE)

    def measure(self, rounds: int) -> tuple[Samples, dict[str, int]]:
        """Return the times of each tick, and the most requests of one to the store."""
        samples, most = Samples(), dict[str, int]()
        composition = Composition(extension=money_extension(self._settings))
        work: dict[str, Callable[[], object]] = {
            "supervise_stream": partial(self._tick, sensor(supervise_stream, composition)),
            "drain_queue": partial(self._tick, sensor(drain_queue, composition)),
            "logins one after the other": self._in_turn,
        }
        for do in work.values():
            do()  # tables and connections are opened once
        for turn in range(rounds):
            self._store.proxy.change(latency_s=0.0)
            self._renew()
            login = self._settings.logins[turn % len(self._sessions)]
            requests = [QueueRequest(turn + 1, "SPY", account=(login.accounts or ("",))[0])]
            self._writers[0].queue.sync.insert_many(requests)
            self._store.proxy.change(latency_s=LATENCY_S)
            for name, do in work.items():
                samples.time(name, do)
                most[name] = max(most.get(name, 0), len(self._store.proxy.change()))
        return samples, most

    def _renew(self) -> None:
        def renew(share: int) -> list[GatewaySession]:
            sessions = self._writers[share].sessions
            return [sessions.renew(s, lease_s=LEASE_S) for s in self._sessions[share::WRITERS]]

        with ThreadPoolExecutor(WRITERS) as pool:
            self._sessions = [
                session for some in pool.map(renew, range(WRITERS)) for session in some
            ]
        self._sessions.sort(key=lambda session: session.started_at)

    def _tick(self, sensor: Callable[[dg.SensorEvaluationContext], object]) -> None:
        with dg.build_sensor_context(instance=self._instance) as context:
            sensor(context)

    def _in_turn(self) -> None:
        """Read what the sensors decide by, each login by itself."""
        for login in self._settings.logins:
            name = login.gateway_id
            recent_runs(self._instance, login=name)
            self._one_by_one.sessions.current(name)
