"""Run the simulator from a shell: `python -m position_sync_dagster.simulator --book demo`."""

from __future__ import annotations

import sys

from position_sync_dagster.simulator.command_line import main

if __name__ == "__main__":
    sys.exit(main())
