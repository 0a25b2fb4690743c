"""Which tests pytest-xdist may run beside each other."""

from xdist.scheduler import LoadScopeScheduling

ACCEPTANCE = "tests/acceptance/"
CHAINS = {
    "test_endings.py": "endings",
    "test_recovery.py": "endings",
    "test_browser.py": "looks",
    "test_colours.py": "looks",
    "test_dev.py": "looks",
    "test_hosts.py": "looks",
}
"""Modules of whole programs that run in one process, one after the other; some share a demo."""

OTHERS = "others"
"""The chain of the other modules of whole programs."""

WHOLE = {
    "tests/integration/dagster_host/test_bad_postgres.py",
    "tests/integration/dagster_host/test_daemon.py",
    "tests/integration/dagster_host/test_forked_run_launcher.py",
    "tests/integration/defs/test_definitions.py",
}
"""Modules whose tests share what takes seconds to start: in two processes it would start twice."""


class Scheduling(LoadScopeScheduling):
    """Gives each worker one test at a time, but for the modules and chains above.

    Those with the most tests begin first. The chains of whole programs are three: a whole program
    takes a good part of a core while a test waits for something, and more at once make each other
    slow.
    """

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        if module.startswith(ACCEPTANCE):
            return CHAINS.get(module.removeprefix(ACCEPTANCE), OTHERS)
        return module if module in WHOLE else nodeid
