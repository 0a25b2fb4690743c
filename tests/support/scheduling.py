"""Which tests pytest-xdist may run beside each other."""

from functools import cache
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling

ACCEPTANCE = "tests/acceptance/"
CHAINS = {
    "test_endings.py": "endings",
    "test_recovery.py": "endings",
    "test_browser.py": "looks",
    "test_running.py": "looks",
}
"""Modules of whole programs that run in one process, one after the other; some share a demo."""

OTHERS = "others"
"""The chain of the other modules of whole programs."""


class Scheduling(LoadScopeScheduling):
    """Gives each worker one test at a time, but for chains and for modules with shared fixtures.

    A fixture of a module takes seconds: in two processes it would be made twice. The scopes with
    the most tests begin first. The chains of whole programs are three: such a program takes a good
    part of a core while a test waits for something, and more at once make each other slow.
    """

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        if module.startswith(ACCEPTANCE):
            return CHAINS.get(module.removeprefix(ACCEPTANCE), OTHERS)
        return module if _has_shared_fixtures(self.config.rootpath / module) else nodeid


@cache
def _has_shared_fixtures(module: Path) -> bool:
    return 'scope="module"' in module.read_text()
