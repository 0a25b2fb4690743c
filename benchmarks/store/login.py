"""One login in a store at 50 ms: the whole program, and what is late."""

import os
import re
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import pairwise
from unittest.mock import patch
from urllib.parse import unquote

from deltalake import DeltaTable

from benchmarks.bench import Bench
from benchmarks.hosts.deployment import SERVICES, Deployment, Size
from benchmarks.outcome import Line, Target
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.lake.schema import LATEST_POSITIONS, POSITION_UPDATES
from position_sync_dagster.lake.storage.object_store import delta_options
from tests.support.store_proxy import Request

SIZE = Size(logins=1, legs=200, active=20, latency_s=0.05)
QUICK = Size(logins=1, legs=60, active=10, latency_s=0.05)
WATCHED_S, QUICK_WATCHED_S = 120.0, 20.0
SETTLED_S = 30.0
FILLS = 5


def login(bench: Bench) -> None:
    """Start one host, watch it while nothing happens, then trade."""
    size, lines = bench.size(SIZE, QUICK), list[Line]()
    bench.report.say(f"Load {os.getloadavg()[0]:.0f}")
    with Deployment(bench.new_folder("login"), size) as deployment:
        for line in _figures(deployment, bench.size(WATCHED_S, QUICK_WATCHED_S)):
            bench.report.say(f"  {line.what}: {line.ours:.2f} {line.unit}")
            lines.append(line)
    latency_ms = size.latency_s * 1e3
    bench.report.add(f"One login of {size.legs} legs at {latency_ms:.0f} ms", lines)


def _figures(this: Deployment, watched_s: float) -> Iterator[Line]:
    host, login = this.hosts["a"], this.logins[0]
    this.began = time.monotonic()
    host.start(*SERVICES)
    this.until("the ledger", this.exists, every_s=0.5)
    this.until("rows", lambda: this.has_rows(this.legs), every_s=1)
    yield _line("start to a row of each leg", time.monotonic() - this.began)
    this.until("all current", lambda: sum(this.current().values()) >= this.legs, every_s=1)
    yield _line("start to all legs current", time.monotonic() - this.began, 25)
    time.sleep(SETTLED_S)
    this.store.proxy.change(latency_s=this.size.latency_s)
    since, began = utc_now(), time.monotonic()
    time.sleep(watched_s)
    requests = this.store.proxy.change(latency_s=this.size.latency_s)
    took_s = time.monotonic() - began
    yield _line("requests to the store", len(requests) / took_s, 12, "/s")
    for name, count in _by_table(requests).most_common(12):
        yield _line(f"requests: {name}", count / took_s, unit="/s")
    for kind in ("streamed", "monitored"):
        conids = login.book.active if kind == "streamed" else login.book.monitored
        fills = [_fill_s(this, conid) for conid in conids[:FILLS]]
        yield _line(f"fill of a {kind} leg to its row, median of {FILLS}", statistics.median(fills))
        yield _line(
            f"fill of a {kind} leg to its row, longest",
            max(fills),
            15 if kind == "monitored" else None,
        )
    for spec, what, target in (
        (LATEST_POSITIONS, "age of latest_positions", 40),
        (POSITION_UPDATES, "commit to commit of the ledger", 5),
    ):
        gaps = _gaps_s(this, spec.name, since.timestamp() * 1e3)
        yield _line(f"{what}, longest", max(gaps), target)


def _fill_s(this: Deployment, conid: int) -> float:
    login, since = this.logins[0], utc_now() - timedelta(days=1)
    key = (login.account, conid)
    before = this.position(key, since) or 0.0
    quantity = 1.0 if before > 0 else -1.0
    login.fill(conid, quantity)
    return this.until("its row", lambda: this.position(key, since) == before + quantity)


def _gaps_s(this: Deployment, table: str, since_ms: float) -> list[float]:
    """Return the seconds between the commits of a table, up to now."""
    path = this.settings.table(table)
    with patch.dict(os.environ, this.store.environment):
        history = DeltaTable(path, storage_options=delta_options(None)).history()
    times = sorted(entry["timestamp"] for entry in history if entry["timestamp"] >= since_ms)
    ends = [since_ms, *times, utc_now().timestamp() * 1e3]
    return [(later - earlier) / 1e3 for earlier, later in pairwise(ends)]


def _by_table(requests: Sequence[Request]) -> Counter[str]:
    """Count requests by table, kind and what they ask for."""
    found = Counter[str]()
    for request in requests:
        text = unquote(request.path)
        match = re.search(r"lake/([a-z_]+)(/.*)?", text)
        table, rest = (match[1], match[2] or "") if match else (text.split("?")[0], "")
        part = "log" if "_delta_log" in rest else "data"
        part = "checkpoint" if "checkpoint" in rest else part
        found[f"{table} {request.kind} {part}"] += 1
    return found


def _line(what: str, value: float, target: float | None = None, unit: str = "s") -> Line:
    bound = None if target is None else Target(value=target)
    return Line(what=what, state="", ours=value, unit=unit, target=bound)
