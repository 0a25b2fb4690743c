"""What the whole program costs while nothing happens, by process."""

import time
from collections import Counter
from contextlib import closing, suppress

import psutil

from benchmarks.bench import Bench
from benchmarks.outcome import Line, Target
from benchmarks.program.running import Running

LEGS = 200
SETTLED_S = 40.0
"""After the last of the first rows: the first drains and derivations are over then."""

NAMES = {
    "dagster_host.daemon": "daemon",
    "dagster_host.webserver": "webserver",
    "dagster_host.services": "supervisor",
    "code-server": "proxy of the code server",
    " api grpc ": "code server",
    "ib_gateway_simulator": "simulator",
    "position-sync demo": "terminal",
    "multiprocessing": "fork server, runs",
}
"""Part of a command line → what the process is."""


def rest(bench: Bench) -> None:
    """Run the demo without events; share the processor's time and the memory among processes."""
    with closing(Running(bench.new_folder("rest"))) as running:
        running.until(lambda: running.newest().height >= LEGS)
        time.sleep(bench.size(SETTLED_S, 5.0))
        before, began = _used(running), time.monotonic()
        time.sleep(bench.size(180.0, 15.0))
        after, took = _used(running), time.monotonic() - began
    shares, memory = Counter[str](), Counter[str]()
    for pid, (name, seconds, unshared) in after.items():
        shares[name] += (seconds - before.get(pid, ("", 0.0, 0))[1]) / took * 100
        memory[name] += unshared / 1e6
    state = f"{LEGS} legs, calm"
    lines = [_line("all", state, shares.total(), "% of a core", 12.0)]
    lines += [_line(name, state, share, "% of a core") for name, share in shares.most_common()]
    lines += [_line("all", state, memory.total(), "MB unshared", 600.0)]
    lines += [_line(name, state, size, "MB unshared") for name, size in memory.most_common()]
    bench.report.add("The program at rest", lines)


def _used(running: Running) -> dict[int, tuple[str, float, int]]:
    """Give name, seconds of processor with those of ended runs, and bytes of each process."""
    found = {}
    root = psutil.Process(running.process.pid)
    for process in (root, *root.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            command, times = " ".join(process.cmdline()), process.cpu_times()
            name = next((text for part, text in NAMES.items() if part in command), "other")
            seconds = times.user + times.system
            if name == "fork server, runs":
                seconds += times.children_user + times.children_system
            found[process.pid] = (name, seconds, process.memory_full_info().uss)
    return found


def _line(what: str, state: str, value: float, unit: str, bound: float | None = None) -> Line:
    target = None if bound is None else Target(value=bound)
    return Line(what=what, state=state, ours=value, unit=unit, target=target)
