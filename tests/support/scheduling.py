"""Which tests pytest-xdist may run beside each other."""

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

ACCEPTANCE = "tests/acceptance/"
# Modules of whole programs that run in one process, one after the other. Each has a home in
# which some of its tests share a demo. That of the first tier is `looks`.
CHAINS = {
    "test_dev.py": "hosts",
    "test_hosts.py": "hosts",
    "test_logins.py": "hosts",
    "test_running.py": "looks",
    "test_screens.py": "looks",
    "test_starting_again.py": "looks",
    "test_stopping.py": "looks",
}

# The longest tests, which take minutes: begun last, they would be what all wait for at the end.
LONGEST = (ACCEPTANCE, "tests/year/")
UNIT = ("tests/unit/", "ib_gateway_simulator/tests/unit/")
# Folders whose tests wait most of their time, in the order in which they begin: first those with
# tests of a minute.
WAITING = (
    *(f"tests/integration/{folder}/" for folder in ("sync", "processes", "gateway")),
    "ib_gateway_simulator/tests/integration/",
)


class Scheduling(LoadScopeScheduling):
    """Gives each worker one test at a time, but for chains and for modules with shared fixtures.

    A fixture of a module, and a process that forks workers, take seconds: in two processes they
    would be made twice. The chains of whole programs are two: such a program takes a good part of
    a core while a test waits for something, and more at once make each other slow. Tests begin in
    the order of `mixed`.
    """

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # a scope with many tests is no long one

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        if module.startswith(ACCEPTANCE):
            return CHAINS.get(module.removeprefix(ACCEPTANCE), module)
        return _shared_by(self.config.rootpath / module, module) or nodeid


def mixed(nodeids: Iterable[str]) -> list[str]:
    """Order tests: the longest, then those that wait among those that compute, then unit tests.

    In the order of their folders, all processes would wait at once, and compute at once. The last
    tests take milliseconds, so that all processes end together.
    """
    kinds: dict[tuple[int, bool], list[str]] = defaultdict(list)
    for nodeid in nodeids:
        tier = 0 if nodeid.startswith(LONGEST) else 2 if nodeid.startswith(UNIT) else 1
        kinds[tier, nodeid.startswith(WAITING)].append(nodeid)
    kinds[1, True].sort(key=lambda n: [n.startswith(folder) for folder in WAITING], reverse=True)
    placed = [
        (tier, place / len(kind), nodeid)
        for (tier, _), kind in kinds.items()
        for place, nodeid in enumerate(kind)
    ]
    return [nodeid for *_, nodeid in sorted(placed, key=lambda test: test[:2])]


# What a module imports whose tests fork workers (`forked_workers`).
FORKED = re.compile(r"tests\.support\.\w+_worker\b")


@cache
def _shared_by(path: Path, module: str) -> str | None:
    """Return what the tests of a module share: a forking process, its fixtures, or nothing."""
    text = path.read_text()
    forked = FORKED.search(text)
    return forked[0] if forked else module if 'scope="module"' in text else None
