"""What the whole program costs while nothing happens, by process."""

import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass

import psutil

from benchmarks.bench import Bench
from benchmarks.outcome import Line, Target
from benchmarks.program.running import Running

LEGS = 200
# After the last of the first rows: the first drains and derivations are over then.
SETTLED_S = 40.0

# Part of a command line → what else the process is.
NAMES = {
    "dagster api grpc": "code server",
    "dagster-daemon": "daemon",
    "position_sync_dagster.webserver": "webserver",
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


def rest(bench: Bench) -> None:
    """Run the demo without events; share the processor's time and the memory among processes."""
    with closing(Running(bench.new_folder("rest"))) as running:
        running.until(lambda: running.newest().height >= LEGS)
        time.sleep(bench.size(SETTLED_S, 5.0))
        before, began = _used(running), time.monotonic()
        time.sleep(bench.size(180.0, 15.0))
        after, took = _used(running), time.monotonic() - began
    shares, memory, proportional = Counter[str](), Counter[str](), 0
    for pid, used in after.items():
        then = before[pid].seconds if pid in before else 0.0
        shares[used.name] += (used.seconds - then) / took * 100
        memory[used.name] += used.unshared / 1e6
        proportional += used.proportional
    state = f"{LEGS} legs, calm"
    lines = [_line("all", state, shares.total(), "% of a core", 14.0)]
    lines += [_line(name, state, share, "% of a core") for name, share in shares.most_common()]
    lines += [_line("all", state, memory.total(), "MB unshared", 800.0)]
    lines += [_line(name, state, size, "MB unshared") for name, size in memory.most_common()]
    lines += [_line("all, with a part of what is shared", state, proportional / 1e6, "MB")]
    bench.report.add("The program at rest", lines)


def _used(running: Running) -> dict[int, _Used]:
    """Read what each process has used; the code server has used the seconds of ended runs."""
    found = {}
    root = psutil.Process(running.process.pid)
    for process in (root, *root.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            command, times = " ".join(process.cmdline()), process.cpu_times()
            name = next((text for part, text in NAMES.items() if part in command), "other")
            seconds = times.user + times.system
            if name == "code server":
                seconds += times.children_user + times.children_system
            memory = process.memory_full_info()
            found[process.pid] = _Used(name, seconds, memory.uss, memory.pss)
    return found


def _line(what: str, state: str, value: float, unit: str, bound: float | None = None) -> Line:
    target = None if bound is None else Target(value=bound)
    return Line(what=what, state=state, ours=value, unit=unit, target=target)
