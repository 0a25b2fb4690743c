"""Which tests pytest-xdist may run beside each other."""

from xdist.scheduler import LoadScopeScheduling

ACCEPTANCE = "tests/acceptance/"
CHAINS = {
    "test_endings.py": "endings",
    "test_recovery.py": "endings",
    "test_browser.py": "looks",
    "test_colours.py": "looks",
    "test_logins.py": "logins",
}
"""Modules that share a demo run in one process, one after the other."""

FIRST = ("endings", "logins")
"""The chains of one worker, one after the other; another worker runs the other whole programs."""


class Scheduling(LoadScopeScheduling):
    """Gives each worker one test at a time, but for the tests of whole programs.

    Two workers run those, and begin with them, because they take longest. They are no more than
    two: a whole program takes a good part of a core for itself while a test waits for something,
    and four at once make each other slow.
    """

    def _split_scope(self, nodeid: str) -> str:
        if not nodeid.startswith(ACCEPTANCE):
            return nodeid
        module = nodeid.removeprefix(ACCEPTANCE).partition("::")[0]
        return "first" if CHAINS.get(module) in FIRST else "second"
