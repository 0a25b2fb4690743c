"""Which tests pytest-xdist may run beside each other."""

from xdist.scheduler import LoadScopeScheduling

ACCEPTANCE = "tests/acceptance/"
ENDINGS = ("test_endings.py", "test_recovery.py")
"""These share a demo, so they run in one process, one after the other."""


class Scheduling(LoadScopeScheduling):
    """Gives each worker one test at a time, but for the tests of whole programs.

    Those are two groups, each of one worker, which come first because they take longest: the
    tests around the endings of a demo, and the others. A demo keeps more than one core busy while
    it starts, so more than two at once would only wait for each other.
    """

    def _split_scope(self, nodeid: str) -> str:
        if not nodeid.startswith(ACCEPTANCE):
            return nodeid
        return "endings" if nodeid.removeprefix(ACCEPTANCE).startswith(ENDINGS) else "running"
