"""Which tests pytest-xdist may run beside each other."""

from functools import cache
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

ACCEPTANCE = "tests/acceptance/"
CHAINS = {
    "test_endings.py": "endings",
    "test_hosts.py": "endings",
    "test_recovery.py": "recovery",
    "test_dev.py": "recovery",
    "test_running.py": "looks",
    "test_screens.py": "looks",
    "test_sigint.py": "looks",
    "test_logins.py": "endings",
}
"""Modules of whole programs that run in one process, one after the other. Each has a home in
which some of its tests share a demo. That of the UI (`looks`) takes longest."""


class Scheduling(LoadScopeScheduling):
    """Gives each worker one test at a time, but for chains and for modules with shared fixtures.

    A fixture of a module takes seconds: in two processes it would be made twice. The chains of
    whole programs are three: such a program takes a good part of a core while a test waits for
    something, and more at once make each other slow. Tests begin in the order of their folders: the
    chains first, and tests of milliseconds last.
    """

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # a scope with many tests is no long one

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        if module.startswith(ACCEPTANCE):
            return CHAINS.get(module.removeprefix(ACCEPTANCE), module)
        return module if _has_shared_fixtures(self.config.rootpath / module) else nodeid


@cache
def _has_shared_fixtures(module: Path) -> bool:
    return 'scope="module"' in module.read_text()
