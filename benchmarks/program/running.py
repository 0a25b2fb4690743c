"""`position-sync demo` as a process of its own, and what can be seen of it from outside."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import polars as pl

from benchmarks.outside import SeenFromOutside
from position_sync_dagster.processes.home import find_marked
from position_sync_dagster.processes.ports import first_free

PROGRAM = str(Path(sys.executable).with_name("position-sync"))
ACCOUNT = "DUSIM0001"
HANGS_S = 180.0


class Running(SeenFromOutside):
    """One demo in `home`, from its start to its `close`."""

    hangs_s, account = HANGS_S, ACCOUNT

    def __init__(self, home: Path) -> None:
        self.home = home
        self.ui_port = first_free(21_000)
        control_port = first_free(self.ui_port + 1)
        self.broker = httpx.Client(
            base_url=f"http://127.0.0.1:{control_port}", timeout=30, trust_env=False
        )
        self.began = time.monotonic()
        self.output = home.with_suffix(".log").open("w")
        self.process = subprocess.Popen(
            [
                PROGRAM, "demo", "--calm", "--json", "--home", str(home),
                "--ui-port", str(self.ui_port), "--control-port", str(control_port),
            ],
            env={k: v for k, v in os.environ.items() if not k.startswith("POSITION_SYNC_")},
            stdout=self.output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip

    def close(self) -> None:
        """End it, whatever state it is in."""
        self.end()
        self.broker.close()
        self.output.close()

    def end(self) -> float:
        """Interrupt it; give the seconds until no process of it is left."""
        began = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        while self.process.poll() is None or find_marked(self.home / "dagster_home"):
            if time.monotonic() - began > HANGS_S:
                for process in find_marked(self.home / "dagster_home"):
                    process.kill()
                raise RuntimeError(f"It does not end: see {self.output.name}.")
            time.sleep(0.05)
        return time.monotonic() - began

    def lines(self) -> int:
        """Give the lines in use, 0 while there is no simulator."""
        with suppress(httpx.TransportError):
            lines: int = self.broker.get("/stats").raise_for_status().json()["lines_in_use"]
            return lines
        return 0

    def ledger(self) -> pl.LazyFrame:
        """Read the ledger, as any program could."""
        return pl.scan_delta(str(self.home / "lake" / "position_updates"))

    def newest(self) -> pl.DataFrame:
        """Give the newest row of each conid; none before the first commit."""
        if not (self.home / "lake" / "position_updates" / "_delta_log").exists():
            return pl.DataFrame(schema={"conid": pl.Int64, "source": pl.String})
        return self.ledger().sort("timestamp").unique("conid", keep="last").collect()

    def row(self, conid: int) -> dict[str, Any]:
        """Give the newest row of one conid."""
        rows = self.ledger().filter(pl.col("conid") == conid).sort("timestamp").tail(1).collect()
        return rows.row(0, named=True)

    def request(self, request_id: str) -> str:
        """Give the status of a request."""
        queue = pl.scan_delta(str(self.home / "lake" / "position_queue"))
        found = queue.filter(pl.col("request_id") == request_id).select("status").collect()
        return str(found.item())


def at_any_moment() -> None:
    """Wait for a moment that has nothing to do with the program's own rhythm."""
    time.sleep(random.uniform(0.0, 1.5))
