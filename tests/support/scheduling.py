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


class Scheduling(LoadScopeScheduling):
    """Gives each worker one test at a time, but for the tests of whole programs.

    Those are four chains, each of one worker, which begin first because they take longest: the
    tests around the endings of a demo, those that look at a demo in the UI, those of several
    logins, and the others.
    """

    def _split_scope(self, nodeid: str) -> str:
        if not nodeid.startswith(ACCEPTANCE):
            return nodeid
        module = nodeid.removeprefix(ACCEPTANCE).partition("::")[0]
        return CHAINS.get(module, "running")
