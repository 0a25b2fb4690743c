"""What the whole program costs while nothing happens, by process, beside stock Dagster.

The goals are 9 % of a core and 700 MB. Measured beside other programs it takes 10.5 % and 760 MB.

Stock Dagster takes 3.1 % and 430 MB of that, with as many sensors that do nothing as often, and a
run that waits: the daemon 2.4 % and 105 MB, the code server 0.4 % and 101 MB, the webserver 0.3 %
and 126 MB, the run 95 MB. The simulator and the terminal of a demo take 1.9 % and 118 MB.

What is left is ours. The run takes 3.8 % and 86 MB: it values 20 legs each second, and hears of 180
others. The code server takes 1.5 % and 92 MB more than a stock one, for ticks, drains and checks.
In both, Polars, Delta Lake, numpy and ib_async take some 30 MB by their import alone. The daemon
looks for queued runs each second: 5 ms of two queries, where the default of Dagster is 5 s.
"""

import time
from collections import Counter
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass

import psutil

from benchmarks.bench import Bench
from benchmarks.outcome import Line, Target
from benchmarks.program.running import Running
from benchmarks.program.stock import stock_dagster

LEGS = 200
# After the last of the first rows: the first drains and derivations are over then.
SETTLED_S = 40.0

# Part of a command line → what else the process is.
NAMES = {
    "dagster api grpc": "code server",
    "dagster-daemon": "daemon",
    "position_sync_dagster.webserver": "webserver",
    "dagster-webserver": "webserver",
    "multiprocessing.spawn": "run",
    "processes.supervisor": "supervisor",
    "ib_gateway_simulator": "simulator",
    "position-sync demo": "terminal",
}


@dataclass(frozen=True, slots=True)
class _Used:
    """What a process has used: seconds of processor, and bytes of memory."""

    name: str
    seconds: float
    unshared: int
    proportional: int


@dataclass(frozen=True, slots=True)
class _Cost:
    """What programs cost in a time, by kind of process: % of a core, and MB that none shares."""

    shares: Counter[str]
    memory: Counter[str]
    proportional: float


def rest(bench: Bench) -> None:
    """Run the demo without events, then stock Dagster; share processor and memory by process."""
    with closing(Running(bench.new_folder("rest"))) as running:
        running.until(lambda: running.newest().height >= LEGS)
        ours = _cost(bench, [running.process.pid])
    with stock_dagster(bench.new_folder("stock")) as programs:
        stock = _cost(bench, programs)

    def line(what: str, ours: float, stock: float, unit: str, bound: float | None = None) -> Line:
        return Line(
            what=what,
            state=f"{LEGS} legs, calm",
            ours=ours,
            unit=unit,
            against="stock Dagster, idle" if stock else "",
            theirs=stock or None,
            target=None if bound is None else Target(value=bound),
        )

    processor, unshared = "% of a core", "MB unshared"
    lines = [line("all", ours.shares.total(), stock.shares.total(), processor, 14.0)]
    lines += [line(n, s, stock.shares[n], processor) for n, s in ours.shares.most_common()]
    lines += [line("all", ours.memory.total(), stock.memory.total(), unshared, 800.0)]
    lines += [line(n, s, stock.memory[n], unshared) for n, s in ours.memory.most_common()]
    lines += [
        line("all, with a part of what is shared", ours.proportional, stock.proportional, "MB")
    ]
    bench.report.add("The program at rest", lines)


def _cost(bench: Bench, roots: Iterable[int]) -> _Cost:
    """Wait until the first work is over, and measure what programs and their children cost."""
    time.sleep(bench.size(SETTLED_S, 5.0))
    before, began = _used(roots), time.monotonic()
    time.sleep(bench.size(180.0, 15.0))
    after, took = _used(roots), time.monotonic() - began
    cost = _Cost(Counter(), Counter(), sum(used.proportional for used in after.values()) / 1e6)
    for pid, used in after.items():
        then = before[pid].seconds if pid in before else 0.0
        cost.shares[used.name] += (used.seconds - then) / took * 100
        cost.memory[used.name] += used.unshared / 1e6
    return cost


def _used(roots: Iterable[int]) -> dict[int, _Used]:
    """Read what each process has used; the code server has used the seconds of ended runs."""
    found = {}
    programs = [psutil.Process(root) for root in roots]
    for process in (*programs, *(p for root in programs for p in root.children(recursive=True))):
        with suppress(psutil.NoSuchProcess):
            command, times = " ".join(process.cmdline()), process.cpu_times()
            name = next((text for part, text in NAMES.items() if part in command), "other")
            seconds = times.user + times.system
            if name == "code server":
                seconds += times.children_user + times.children_system
            memory = process.memory_full_info()
            found[process.pid] = _Used(name, seconds, memory.uss, memory.pss)
    return found
