"""Four processes that claim and mark at once in a store: how long does each wait?"""

import os
from unittest.mock import patch

from benchmarks.bench import Bench
from benchmarks.outcome import Line
from benchmarks.queue.contention import CLAIMERS, drain_together
from benchmarks.timing import median
from tests.support.object_store import running_store

LATENCIES_MS = (0, 50)


def claimers(bench: Bench) -> None:
    """Drain one queue by four processes, in a store and on the local disk."""
    requests = bench.size(2_000, 400)
    local = drain_together(bench.new_folder("claimers"), requests)
    lines = []
    with running_store() as store, patch.dict(os.environ, store.environment):
        for delay_ms in LATENCIES_MS:
            store.proxy.change(latency_s=delay_ms / 1000)
            found = drain_together(store.lake(), requests)
            for what in ("claim", "mark"):
                waits = [wait for worker in found for wait in worker[what]]
                lines.append(
                    Line(
                        what=f"{what} 50 of {CLAIMERS} at once",
                        state=f"{delay_ms} ms, {requests:,} requests, longest {max(waits):,.0f} ms",
                        ours=median(waits),
                        samples=len(waits),
                        against="local disk",
                        theirs=median([wait for worker in local for wait in worker[what]]),
                    )
                )
    bench.report.add("Four claimers at once in a store", lines)
