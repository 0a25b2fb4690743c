"""A plugin of pytest: a test that imports money fails, so that what passes needs the core alone."""

import sys

MONEY = "position_sync_dagster.money"


def pytest_runtest_teardown() -> None:
    """Fail the test that imported money, and those after it in the same process."""
    assert MONEY not in sys.modules, "The core is tested alone, and something imported money."
