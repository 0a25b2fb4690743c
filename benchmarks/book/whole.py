"""The whole program over generated books: start, refresh, fills, looks, and what it costs."""

import statistics
import time
from contextlib import closing

from benchmarks.bench import Bench
from benchmarks.book.generated import generate
from benchmarks.book.running import LINES, RunningBook
from benchmarks.outcome import Line, Target
from benchmarks.program.latency import idle_ticks

SIZES = (200, 1_000, 5_000, 20_000)
STARTS_S = {1_000: 15.0, 5_000: 25.0, 20_000: 45.0}
ACTIVE_SHARE = 0.05
WATCHED_S = 20.0


def whole(bench: Bench) -> None:
    """Run `dev` over books of growing size, one after the other."""
    smallest: dict[str, float] = {}
    for legs in bench.size(SIZES, (200, 1_000)):
        book = generate(bench.new_folder(f"book-{legs}"), legs, round(legs * ACTIVE_SHARE))
        with closing(RunningBook(bench.new_folder(f"home-{legs}"), book)) as running:
            found = _figures(running, bench.size(5, 1))
        smallest = smallest or found
        bench.report.add(f"A book of {legs:,} legs", _lines(legs, found, smallest))


def _figures(running: RunningBook, rounds: int) -> dict[str, float]:
    legs = running.book.legs
    running.until(lambda: running.current() >= legs)
    found = {"start to every leg current, s": running.age_s()}
    active = list(running.book.active)
    running.until(lambda: running.statistics()["lines_in_use"] >= min(len(active), LINES - 5))
    refreshes = running.refreshes().height
    process = running.stream_process()
    process.cpu_percent()
    time.sleep(WATCHED_S)
    found["stream's share of one core, %"] = process.cpu_percent()
    found["stream's memory, MB"] = process.memory_info().rss / 1e6
    fills = [_fill(running, conid) for conid in active[:rounds]]
    found["fill of a streamed leg to row, s"] = statistics.median(fills)
    fills = [_fill(running, conid) for conid in running.book.monitored[:rounds]]
    found["fill of a monitored leg to row, s"] = statistics.median(fills)
    running.until(lambda: running.refreshes().height > refreshes, every_s=1.0)
    took = running.refreshes()["took_s"].to_list()[refreshes:]
    found["refresh, enqueue to last end, s"] = statistics.median(took)
    for sensor in ("drain_queue", "supervise_stream"):
        running.until(lambda sensor=sensor: len(idle_ticks(running, sensor)) >= 3, every_s=2.0)
        ticks = idle_ticks(running, sensor)
        found[f"idle tick of {sensor}, p95, ms"] = statistics.quantiles(ticks, n=20)[-1]
    found["position-sync status, s"] = running.command("status")
    found["position-sync positions --limit 20, s"] = running.command("positions")
    began = time.perf_counter()
    running.lake.updates.sync.latest()
    found["latest(), ms"] = (time.perf_counter() - began) * 1e3
    counts = running.statistics()
    found["peak lines"] = counts["peak_lines"]
    found["order messages"] = len(counts["orders_received"])
    return found


def _fill(running: RunningBook, conid: int) -> float:
    before = running.position(conid) or 0.0
    quantity = 1 if before > 0 else -1
    running.happens("fill", conid, quantity=quantity)
    return running.until(lambda: running.position(conid) == before + quantity, every_s=0.05)


TARGETS = {
    "refresh, enqueue to last end, s": 15.0,
    "fill of a streamed leg to row, s": 1.5,
    "fill of a monitored leg to row, s": 10.0,
    "stream's share of one core, %": 10.0,
    "stream's memory, MB": 400.0,
    "idle tick of drain_queue, p95, ms": 150.0,
    "idle tick of supervise_stream, p95, ms": 150.0,
    "position-sync status, s": 1.0,
    "position-sync positions --limit 20, s": 1.0,
    "latest(), ms": 300.0,
    "peak lines": LINES,
    "order messages": 0,
}


def _lines(legs: int, found: dict[str, float], smallest: dict[str, float]) -> list[Line]:
    targets = TARGETS | {"start to every leg current, s": STARTS_S.get(legs, 15.0)}
    lines = []
    for name, value in found.items():
        what, _, unit = name.rpartition(", ")
        lines.append(
            Line(
                what=what or name,
                state=f"{legs:,} legs",
                ours=value,
                unit=unit if what else "",
                against="the book of 200" if found is not smallest else "",
                theirs=smallest[name] if found is not smallest else None,
                target=Target(value=targets[name]),
            )
        )
    return lines
