"""Everything that knows ib_async: connections, the account feed, market data lines, translation.

`sync` may import any module of it but `ib_async_internals`; it imports `domain`, `settings`,
`errors` and `outage_log`, never `lake`, `sync` or Dagster.
"""

import sys
from importlib import import_module
from types import ModuleType


def _import_eventkit() -> None:
    """Import the events of ib_async without NumPy.

    eventkit imports NumPy for operators on arrays, which ib_async does not use. It takes 12 MB of
    each process with a gateway, threads of its own, and two thirds of the processor time of
    importing ib_async.
    """
    if "numpy" in sys.modules or "eventkit" in sys.modules:
        return
    sys.modules["numpy"] = ModuleType("numpy")
    try:
        import_module("eventkit")
    finally:
        del sys.modules["numpy"]


_import_eventkit()
