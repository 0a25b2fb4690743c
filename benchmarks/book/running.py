"""`position-sync dev` against `position-sync simulate`, as a person with a gateway runs them."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import psutil

from benchmarks.book.generated import ACCOUNT, GeneratedBook
from benchmarks.outside import SeenFromOutside
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.processes.home import Home, find_marked
from position_sync_dagster.processes.ports import first_free

PROGRAM = str(Path(sys.executable).with_name("position-sync"))
HANGS_S = 600.0
SETTLED_S = 5.0
LINES = 100


def simulate(book: GeneratedBook) -> tuple["subprocess.Popen[bytes]", dict[str, int]]:
    """Start a simulator of a book; return it with its ports `port` and `control_port`."""
    simulator = subprocess.Popen(
        [
            PROGRAM, "simulate", "--port", "0", "--control-port", "0",
            "--book", str(book.book), "--max-lines", str(LINES),
        ],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert simulator.stdout is not None
    ports: dict[str, int] = json.loads(simulator.stdout.readline())
    return simulator, ports


class RunningBook(SeenFromOutside):
    """The two programs over one generated book, from their start to `close`."""

    hangs_s, account = HANGS_S, ACCOUNT

    def __init__(self, folder: Path, book: GeneratedBook) -> None:
        self.book = book
        self.home = Home.at(folder)
        self.home.prepare()
        self.lake = MoneyLake(self.home.lake)
        self._simulator, ports = simulate(book)
        self.broker = httpx.Client(
            base_url=f"http://127.0.0.1:{ports['control_port']}", timeout=60, trust_env=False
        )
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("POSITION_SYNC_")} | {
            "DAGSTER_HOME": str(self.home.dagster_home),
            "POSITION_SYNC_LAKE": str(self.home.lake),
            "POSITION_SYNC_GATEWAY_PORT": str(ports["port"]),
            "POSITION_SYNC_TRADING_MODE": "SIMULATED",
            "POSITION_SYNC_STRATEGIES_FILE": str(book.strategies),
        }
        self.ui_port = first_free(22_000)
        self.began, self._began_at = time.monotonic(), datetime.now(UTC)
        self.output = (self.home.path / "output.log").open("w")
        self.process = subprocess.Popen(
            [PROGRAM, "dev", "--ui-port", str(self.ui_port)],
            cwd=self.home.path,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def close(self) -> None:
        """End both, whatever state they are in."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(30)
        for process in find_marked(self.home.dagster_home):
            process.kill()
        self._simulator.terminate()
        self._simulator.wait()
        self.broker.close()
        self.output.close()

    def until_settled(self) -> None:
        """Wait until the stream has all the lines and profit subscriptions that it wants."""
        counted = ("lines_in_use", "pnl_subscriptions")
        known, since = None, time.monotonic()
        while known is None or time.monotonic() - since < SETTLED_S:
            statistics = self.statistics()
            now = [statistics[name] for name in counted]
            if now != known:
                known, since = now, time.monotonic()
            time.sleep(1.0)

    def statistics(self) -> dict[str, Any]:
        """Give the simulator's counts."""
        counts: dict[str, Any] = self.broker.get("/stats").raise_for_status().json()
        return counts

    def current(self) -> int:
        """Count the conids that have a row."""
        path = self.home.lake / "position_updates"
        if not (path / "_delta_log").exists():
            return 0
        return self.lake.updates.sync.latest()["conid"].n_unique()

    def position(self, conid: int) -> float | None:
        """Give the newest position of a conid."""
        found = self.lake.updates.sync.newest_of([conid], self._began_at).rows
        return next((row.position for row in found.values()), None)

    def refreshes(self) -> pl.DataFrame:
        """Give each whole refresh: `requests`, `took_s` from enqueue to the last end."""
        queue = pl.scan_delta(str(self.home.lake / "position_queue")).filter(
            pl.col("reason") == "REFRESH"
        )
        return (
            queue.group_by("created_at")
            .agg(
                requests=pl.len(),
                ended=(pl.col("status") == "SUCCESS").sum(),
                took_s=(
                    pl.col("updated_at").max() - pl.col("created_at").first()
                ).dt.total_milliseconds()
                / 1000,
            )
            .filter(pl.col("ended") == pl.col("requests"), pl.col("requests") > 1)
            .sort("created_at")
            .collect()
        )

    def stream_process(self) -> psutil.Process:
        """Find the stream's process."""
        (session,) = self.lake.sessions.history(1)
        return psutil.Process(session.pid)

    def command(self, *words: str) -> float:
        """Run a `position-sync` command; give its seconds."""
        began = time.monotonic()
        subprocess.run(
            [PROGRAM, *words], env=self.env, check=True, stdout=subprocess.DEVNULL, timeout=HANGS_S
        )
        return time.monotonic() - began
