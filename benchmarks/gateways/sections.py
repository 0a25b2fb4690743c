"""The section: logins in one lake, more and more of them, on a disk and in a store."""

import os
from contextlib import ExitStack
from unittest.mock import patch

from benchmarks.bench import Bench
from benchmarks.gateways.documents import write_documents
from benchmarks.gateways.point import Point, measure
from benchmarks.outcome import Line
from tests.support.object_store import running_store

# Of each login.
LEGS, STREAMED = 200, 20

USUAL = {"flush_s": 1.0, "heartbeat_s": 4.0, "lease_s": 15.0}
# The defaults of the settings, and others with which a lake carries more logins.
SLOWER = {"flush_s": 5.0, "heartbeat_s": 10.0, "lease_s": 40.0}

# Latency of a request in ms (None: on the disk), intervals, and numbers of logins.
PLANS = (
    (None, USUAL, (1, 2, 4, 8, 16)),
    (0, USUAL, (1, 4, 8)),
    (5, USUAL, (1, 4, 8)),
    (50, USUAL, (1, 2, 4, 8)),
    (50, SLOWER, (4, 8, 16)),
)


def carried(bench: Bench) -> None:
    """Measure each number of logins at each place."""
    bench.folder.mkdir(parents=True, exist_ok=True)
    points: list[Point] = []
    load = os.getloadavg()[0]
    for latency_ms, intervals, numbers in bench.size(PLANS, ((None, USUAL, (2,)),)):
        for logins in numbers:
            points.append(_measured(bench, latency_ms, logins, intervals))
            _add(bench, points[-1])
    if bench.docs is not None:
        note = (
            f"{os.cpu_count()} cores; load {load:.1f} before the first point, "
            f"{os.getloadavg()[0]:.1f} after the last, the benchmark itself included."
        )
        write_documents(points, bench.docs, note)


def _measured(
    bench: Bench, latency_ms: int | None, logins: int, intervals: dict[str, float]
) -> Point:
    with ExitStack() as stack:
        path, proxy = bench.new_folder("disk"), None
        if latency_ms is not None:
            store = stack.enter_context(running_store())
            stack.enter_context(patch.dict(os.environ, store.environment))
            path, proxy = store.lake(), store.proxy
        return measure(
            path,
            bench.folder,
            logins,
            proxy=proxy,
            latency_s=(latency_ms or 0) / 1000,
            legs=LEGS,
            streamed=STREAMED,
            seconds=bench.size(16.0, 3.0),
            **intervals,
        )


def _add(bench: Bench, point: Point) -> None:
    state = f"{point.place}, {point.logins} logins, flush {point.flush_s:g} s"
    rows = (
        ("ledger's commits", point.commits, "/s", point.logins / point.flush_s),
        ("tries of a commit", point.tries, "", None),
        ("append", 1000 * point.append, "ms", None),
        ("longest append", 1000 * point.append_longest, "ms", None),
        ("renewal of a lease", 1000 * point.renewal, "ms", None),
        ("longest renewal", 1000 * point.renewal_longest, "ms", None),
        ("between two commits of a login, p95", 1000 * point.gap_p95, "ms", 1000 * point.flush_s),
        ("leases lost", point.lost, "", None),
        ("latest()", 1000 * point.latest, "ms", None),
        ("status", 1000 * point.status, "ms", None),
        ("requests answered by the drain", point.answered, "/s", None),
        ("requests to the store", point.requests, "/s", None),
        ("of the processors in use", 100 * point.busy, "%", None),
    )
    lines = [
        Line(
            what=what,
            state=state,
            ours=value,
            unit=unit,
            against="" if wanted is None else "as it shall be",
            theirs=wanted,
        )
        for what, value, unit, wanted in rows
    ]
    bench.report.add(state, lines)
