"""A simulated Interactive Brokers gateway that unmodified clients connect to.

It imports nothing of the package `position_sync_dagster`. It serves server versions 157 to 178 and
never carries out an order. `pytest_plugin` has the fixture `ib_gateway` for tests.

A test runs it in its own event loop:

    from ib_gateway_simulator import SimulatedGateway

    async with SimulatedGateway(book="demo", seed=7) as gateway:
        await ib.connectAsync("127.0.0.1", gateway.port, clientId=1)
        gateway.fill("DUSIM0001", 911000000, -1)     # a position changes
        gateway.disconnect()                         # every client is cut
        assert gateway.stats()["lines_in_use"] == 0
        assert not gateway.orders_received

`Options` lists the options of `SimulatedGateway(book, **options)`. A simulator has

- `port` and `control_port`;
- readings (`control/readings.py`): `stats()`, `positions()`, `ticks(conid)`,
  `recent_ticks(conid)`, `said`, `orders_received`;
- trades and market time (`control/faults.py`): `fill`, `close_position`, `assign`, `reset_day`,
  `step(n)`;
- faults of connections (`control/faults.py`): `disconnect`, `log_in_as`, `send_error`, `send_raw`,
  `say`, `answer`, `pause`, `resume`, `connectivity`, `farm`, `restart`;
- faults of market data (`control/market_data_faults.py`): `set_line_limit`, `set_permission`,
  `pin_quote`, `freeze`, `contract_details`, `silence_line`, `after_restore`, `ticking`;
- faults of accounts (`control/account_faults.py`): `silence_account`,
  `download_end`, `positions_end`, `empty_lists`, `holding`.

The control port offers the same over HTTP; `GET /` lists it. `load_book` reads `"demo"`,
`"small"` or the path of a YAML file. `run(...)` serves until a signal, as
`python -m ib_gateway_simulator` does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ib_gateway_simulator.books.book import Book
    from ib_gateway_simulator.books.loader import load_book
    from ib_gateway_simulator.errors import (
        ActionError,
        BookError,
        PortInUseError,
        SimulatorError,
    )
    from ib_gateway_simulator.options import Options
    from ib_gateway_simulator.program import run
    from ib_gateway_simulator.server import SimulatedGateway

_MODULES = {
    "ActionError": "errors",
    "Book": "books.book",
    "BookError": "errors",
    "Options": "options",
    "PortInUseError": "errors",
    "SimulatedGateway": "server",
    "SimulatorError": "errors",
    "load_book": "books.loader",
    "run": "program",
}

__all__ = [
    "ActionError",
    "Book",
    "BookError",
    "Options",
    "PortInUseError",
    "SimulatedGateway",
    "SimulatorError",
    "load_book",
    "run",
]


def __getattr__(name: str) -> object:
    """Import a public name at its first use, so that the command line starts quickly."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
