"""Run the simulator from a shell: `python -m position_sync_dagster.simulator --book demo`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from position_sync_dagster.simulator.program import run


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(
        prog="python -m position_sync_dagster.simulator",
        description="Simulate an Interactive Brokers gateway with the book of a file.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=7497, help="0 takes any free port")
    parser.add_argument("--control-port", type=int, default=0, help="0 takes any free port")
    parser.add_argument("--book", default="demo", help="demo, small, or the path of a YAML file")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--max-lines", type=int, default=100)
    parser.add_argument("--tick-interval", type=float, default=0.5, help="seconds")
    parser.add_argument("--refresh-interval", type=float, default=180.0, help="seconds")
    parser.add_argument("--tick-ring", type=int, default=0, help="sent ticks to keep for /ticks")
    parser.add_argument("--scenario", help="a YAML list of {at_s, do, …}")
    given = parser.parse_args(arguments)
    return run(
        book=given.book,
        host=given.host,
        port=given.port,
        control_port=given.control_port,
        seed=given.seed,
        max_lines=given.max_lines,
        tick_interval_s=given.tick_interval,
        refresh_interval_s=given.refresh_interval,
        scenario=given.scenario,
        tick_ring=given.tick_ring,
    )


if __name__ == "__main__":
    sys.exit(main())
