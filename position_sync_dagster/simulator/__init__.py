"""A simulated Interactive Brokers gateway that unmodified clients connect to.

    from position_sync_dagster.simulator import Simulator, load_book

    async with Simulator(load_book("demo"), seed=7, port=0, control_port=0) as sim:
        await ib.connectAsync("127.0.0.1", sim.port, clientId=1)
        sim.fill("DUSIM0001", 911000000, -1)     # a position changes
        sim.disconnect()                         # every client is cut
        assert sim.stats()["lines_in_use"] == 0
        assert not sim.orders_received

`Simulator(book, *, seed, host, port, control_port, max_lines, tick_interval_s,
refresh_interval_s, pnl_interval_s, snapshot_s, …)` gives `port`, `control_port`, `stats()`,
`positions()`, `ticks(conid)`, `orders_received`, `step(n)` and the faults `fill`,
`close_position`, `assign`, `disconnect`, `send_error`, `connectivity`, `farm`,
`set_line_limit`, `pause`, `resume`, `set_permission`, `pin_quote`, `freeze`, `send_raw`,
`move_port`, `restart`, `reset_day`. The control port offers the same over HTTP: `GET /` lists it.

`load_book("demo")`, `load_book("small")` or a path to a YAML file. `run(...)` serves until a
signal, as `python -m position_sync_dagster.simulator` does.

It speaks server versions 176 to 178 and uses nothing else of this package.
"""

from __future__ import annotations

from position_sync_dagster.simulator.books.book import Book
from position_sync_dagster.simulator.books.loader import load_book
from position_sync_dagster.simulator.errors import (
    ActionError,
    BookError,
    PortInUseError,
    SimulatorError,
)
from position_sync_dagster.simulator.options import Options
from position_sync_dagster.simulator.program import run
from position_sync_dagster.simulator.server import Simulator

__all__ = [
    "ActionError",
    "Book",
    "BookError",
    "Options",
    "PortInUseError",
    "Simulator",
    "SimulatorError",
    "load_book",
    "run",
]
