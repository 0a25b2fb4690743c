"""What the whole program costs while nothing happens, by process, beside stock Dagster.

The goals are 9 % of a core and 700 MB. Measured it takes 10.2 to 11.3 % and 760 to 772 MB. They
cannot be met with all that it does, and the table shows why.

Stock Dagster takes 3.1 % and 430 MB of that, with as many sensors that do nothing as often, and a
run that waits. The daemon and the webserver cost what theirs do. The code server and the run hold
175 MB more than stock ones, 136 of them before any work: `a process of ours` has the libraries and
the definitions. The run makes most of the commits: its 3.6 % are 1.7 of these a second (2.1 %), 180
messages of profits a second (0.4 %), the values of 20 legs (0.5 %), and computed greeks (0.4 %).

The code server takes 1.5 % more than a stock one: 0.8 % for ticks, 0.6 % for a drain of 180 legs
each minute. The simulator and the terminal of a demo take 1.9 % and 130 MB, 16 of them since they
made the history of a new home. The daemon's look at the queue of runs each second takes 0.5 %:
without it a stream starts up to 4 s later. To take less, one of these has to be left out.
"""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.bench import Bench
from benchmarks.outcome import Line, Target
from benchmarks.program.running import Running
from benchmarks.program.stock import stock_dagster

LEGS = 200

# What a process of ours imports and makes before it does any work.
BEFORE_WORK = {
    "Dagster alone": "import dagster._cli, dagster._grpc.server",
    "with Polars, Delta Lake, numpy, ib_async": "import polars, deltalake, numpy, ib_async",
    "with the definitions": "from position_sync_dagster.definitions import defs; defs()",
}

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
        commits = _commits_of_a_minute(running.home / "lake")
        held = _held_before_work()
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
    lines += [
        Line(what=f"a process of ours, {what}", state="no work yet", ours=mb, unit=unshared)
        for what, mb in held.items()
    ]
    lines.append(line("commits of all tables", commits, 0.0, "a minute"))
    bench.report.add("The program at rest", lines)


def _commits_of_a_minute(lake: Path) -> int:
    """Count the commits of all tables in the last minute."""
    since = time.time() - 60
    return sum(entry.stat().st_mtime > since for entry in lake.glob("*/_delta_log/*.json"))


def _held_before_work() -> dict[str, float]:
    """Measure the MB that a process holds after each part of `BEFORE_WORK`.

    Call it while the program runs: what it shares with others does not count then.
    """
    program = "import psutil\n" + "".join(
        f"{code}\nprint(psutil.Process().memory_full_info().uss)\n" for code in BEFORE_WORK.values()
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return {what: int(uss) / 1e6 for what, uss in zip(BEFORE_WORK, run.stdout.split(), strict=True)}


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
