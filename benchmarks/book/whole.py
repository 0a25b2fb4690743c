"""The whole program over generated books: start, refresh, fills, looks, and what it costs."""

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import psutil

from benchmarks.bench import Bench
from benchmarks.book.curves import Books, Figures, Goal, draw, write_csv, write_table
from benchmarks.book.generated import generate
from benchmarks.book.running import LINES, RunningBook
from benchmarks.outcome import Line, Target
from benchmarks.program.latency import idle_ticks
from benchmarks.report import quantity
from position_sync_dagster.money.lake import MoneyLake

SIZES = (200, 1_000, 5_000, 20_000)
ACTIVE_SHARE = 0.05
# As many lines as a stream takes: it leaves five to other programs of the login.
STREAMED = LINES - 5

# As long as the time between two times that the gateway sends the account again, all of it: so one
# of them is in it, and one refresh.
WATCHED_S = 180.0

SHARE, TO_SMALL = "stream's share of one core", "share, to 200 legs with as many lines"

TICKS = 8

GOALS = (
    Goal("start to every leg current", "s", {5_000: 25, 20_000: 45, 0: 15}),
    Goal(SHARE, "%", {0: 10}),
    Goal(TO_SMALL, "", {0: 1.3}),
    Goal("stream's memory", "MB", {0: 350}),
    Goal("fill of a streamed leg to row", "s", {0: 1.5}),
    Goal("fill of a monitored leg to row", "s", {0: 10}),
    Goal("refresh, enqueue to last end", "s", {0: 15}),
    Goal("idle tick of drain_queue, p95", "ms", {0: 150}),
    Goal("idle tick of supervise_stream, p95", "ms", {0: 150}),
    Goal("position-sync status", "s", {0: 1}),
    Goal("position-sync positions --limit 20", "s", {0: 1}),
    Goal("latest()", "ms", {0: 300}),
    Goal("peak lines", "", {0: LINES}),
    Goal("order messages", "", {0: 0}),
)
UNITS = {goal.what: goal.unit for goal in GOALS}


def whole(bench: Bench) -> None:
    """Run `dev` over books of growing size, one after the other; print each figure as it comes.

    A book that fails does not keep the others from being measured.
    """
    books: dict[int, Figures] = {}
    began = _load()
    for legs in bench.legs or bench.size(SIZES, (200, 1_000)):
        found: dict[str, float] = {}
        bench.report.say(f"[dim]A book of {legs:,} legs; load {_load()}[/]")
        try:
            active = round(legs * ACTIVE_SHARE)
            # Just before: the same work takes a third more or less from one hour to the next.
            on_as_many_lines = _small_share(bench) if active >= STREAMED else None
            book = generate(bench.new_folder(f"book-{legs}"), legs, active)
            with closing(RunningBook(bench.new_folder(f"home-{legs}"), book)) as running:
                for what, value in _figures(running, bench.size(5, 1)):
                    found[what] = value
                    bench.report.say(f"  {what}: {quantity(value, UNITS[what])}")
                    if what == SHARE and on_as_many_lines is not None:
                        found[TO_SMALL] = value / on_as_many_lines
        except Exception:
            bench.report.show_broken(f"whole, a book of {legs:,}")
        if found:
            books[legs] = found
            smallest = books.get(SIZES[0], {}) if legs != SIZES[0] else {}
            bench.report.add(f"A book of {legs:,} legs", _lines(legs, found, smallest))
    if bench.docs and books:
        _document(books, began, bench.docs)


def _small_share(bench: Bench) -> float:
    """Return the share of a stream that has all lines in the smallest book."""
    book = generate(bench.new_folder("book-lines"), SIZES[0], STREAMED)
    with closing(RunningBook(bench.new_folder("home-lines"), book)) as running:
        figures = dict(islice(_figures(running, 1), 2))
    bench.report.say(
        f"  {SHARE}, {SIZES[0]} legs, {STREAMED} lines: {quantity(figures[SHARE], '%')}"
    )
    return figures[SHARE]


def _figures(running: RunningBook, rounds: int) -> Iterator[tuple[str, float]]:
    legs = running.book.legs
    running.until(lambda: running.current() >= legs, every_s=0.2)
    yield "start to every leg current", running.age_s()
    active = list(running.book.active)
    wanted = min(len(active), STREAMED)
    running.until(lambda: running.statistics()["lines_in_use"] >= wanted, every_s=0.5)
    running.until_settled()
    refreshes = running.refreshes().height
    process = running.stream_process()
    before, began = _processor_s(process), time.monotonic()
    memory = []
    while time.monotonic() - began < WATCHED_S:
        memory.append(process.memory_info().rss / 1e6)
        time.sleep(1.0)
    yield SHARE, 100 * (_processor_s(process) - before) / (time.monotonic() - began)
    yield "stream's memory", statistics.median(memory)
    fills = [_fill(running, conid) for conid in active[:rounds]]
    yield "fill of a streamed leg to row", statistics.median(fills)
    fills = [_fill(running, conid) for conid in running.book.monitored[:rounds]]
    yield "fill of a monitored leg to row", statistics.median(fills)
    running.until(lambda: running.refreshes().height > refreshes, every_s=1.0)
    took = running.refreshes()["took_s"].to_list()[refreshes:]
    yield "refresh, enqueue to last end", statistics.median(took)
    for sensor in ("drain_queue", "supervise_stream"):
        running.until(lambda sensor=sensor: len(idle_ticks(running, sensor)) >= TICKS, every_s=2.0)
        ticks = idle_ticks(running, sensor)
        yield (
            f"idle tick of {sensor}, p95",
            statistics.quantiles(ticks, n=20, method="inclusive")[-1],
        )
    for words in (["status"], ["positions", "--limit", "20"]):
        took = [running.command(*words) for _ in range(rounds)]
        yield " ".join(["position-sync", *words]), statistics.median(took)
    yield "latest()", statistics.median(_latest_ms(running) for _ in range(rounds))
    counts = running.statistics()
    yield "peak lines", counts["peak_lines"]
    yield "order messages", len(counts["orders_received"])


def _latest_ms(running: RunningBook) -> float:
    """Time `latest()` of a program that has read nothing before."""
    lake = MoneyLake(running.home.lake)
    began = time.perf_counter()
    lake.updates.sync.latest()
    return (time.perf_counter() - began) * 1e3


def _processor_s(process: psutil.Process) -> float:
    """Return the processor time that a process has taken; `cpu_percent` is rounded to a tenth."""
    times = process.cpu_times()
    return times.user + times.system


def _fill(running: RunningBook, conid: int) -> float:
    before = running.position(conid) or 0.0
    quantity = 1 if before > 0 else -1
    running.happens("fill", conid, quantity=quantity)
    return running.until(lambda: running.position(conid) == before + quantity, every_s=0.05)


def _lines(legs: int, found: Figures, smallest: Figures) -> list[Line]:
    return [
        Line(
            what=goal.what,
            state=f"{legs:,} legs",
            ours=found[goal.what],
            unit=goal.unit,
            against="the book of 200" if goal.what in smallest else "",
            theirs=smallest.get(goal.what),
            target=Target(value=goal.bound(legs)),
        )
        for goal in GOALS
        if goal.what in found
    ]


def _document(books: Books, began: str, docs: Path) -> None:
    note = (
        f"{os.cpu_count()} cores; load {began} before the first book, {_load()} after the last, "
        "the program itself included."
    )
    write_csv(GOALS, books, docs / "scaling.csv")
    draw(GOALS, books, docs / "scaling.png")
    write_table(GOALS, books, note, docs / "scaling.md")


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}"
