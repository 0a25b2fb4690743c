"""A year of days × 200 legs of statements, filled by one real Dagster run in its own process."""

import os
import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.outcome import Line, Target
from ib_gateway_simulator.books.loader import load_book
from ib_gateway_simulator.past_sessions import closing_market, play_sessions
from position_sync_dagster.sync.exchange_days import closing_times, exchange_of

YEAR = 252


def backfill(bench: Bench) -> None:
    """Measure one run over all days, and the same run again, from process start to exit."""
    count = bench.size(YEAR, 5)
    today = datetime.now(UTC).date()
    first = today - timedelta(days=2 * count + 20)
    exchange = exchange_of("XNYS")
    span = (first + timedelta(days=n) for n in range((today - first).days))
    days = [day for day in span if exchange.is_trading_day(day)][-count:]
    folder = bench.new_folder("year")
    (folder / "home").mkdir()
    (folder / "flex").mkdir()
    book = load_book("demo")
    closing = closing_market(book, closing_times("XNYS", days)[days[-1]])
    for name, content in play_sessions(book, days, closing).statements():
        (folder / "flex" / name).write_bytes(content)
    state = f"{count} days × 200 legs of statements"
    bench.report.add(
        "One run over all days, from the start of its process to its end",
        [
            Line(
                what="first fill",
                state=state,
                ours=run(folder, days),
                unit="s",
                target=Target(value=60.0),
            ),
            Line(
                what="the same again, which changes nothing",
                state=state,
                ours=run(folder, days),
                unit="s",
            ),
        ],
    )


def run(folder: Path, days: list[date]) -> float:
    """Return the seconds that a run of the job takes as a process of its own."""
    env = os.environ | {
        "POSITION_SYNC_LAKE": f"{folder}/lake",
        "POSITION_SYNC_FLEX_FOLDER": f"{folder}/flex",
        "DAGSTER_HOME": f"{folder}/home",
    }
    command = [sys.executable, "-m", "dagster", "job", "execute", "-j", "close_day"]
    command += ["-m", "position_sync_dagster.definitions", "-a", "defs", "--tags"]
    command += [
        f'{{"dagster/asset_partition_range_start": "{days[0]}", '
        f'"dagster/asset_partition_range_end": "{days[-1]}"}}'
    ]
    started = time.monotonic()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return time.monotonic() - started
