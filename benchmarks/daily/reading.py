"""What a large ledger costs a reader: whole, by its partitions, and in its newest rows."""

import random
import subprocess
import sys
from datetime import datetime, timedelta

import polars as pl
from polars import DataFrame, Series, col

from benchmarks.bench import Bench
from benchmarks.outcome import Line
from position_sync_dagster.defs.assets.latest_positions import latest_positions
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.position_updates import append_rows
from position_sync_dagster.lake.schema import new_ids
from tests.support.large_lake import make_lake

LEGS = 200
# A session of 6.5 hours in which each leg has a row every 10 s: as many as a lively day has.
ROWS_OF_A_LEG = 2_340
EVERY = timedelta(seconds=10)

_DAY = 'pl.scan_delta("{lake}/position_updates").filter(pl.col("date") == pl.date({day}))'
READINGS = {
    "the whole ledger": 'pl.read_delta("{lake}/position_updates")',
    "one day of it": f"{_DAY}.collect()",
    "one day, four columns": (
        f'{_DAY}.select("conid", "timestamp", "market_value", "currency").collect()'
    ),
    "latest_positions": 'pl.read_delta("{lake}/latest_positions")',
}

_PROGRAM = """
import time
import polars as pl, deltalake

def peak_mb():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

before = peak_mb()
began = time.perf_counter()
rows = {reading}
print(len(rows), time.perf_counter() - began, peak_mb() - before)
"""


def reading(bench: Bench) -> None:
    """Build a ledger of some days, and read it in processes of their own."""
    days = bench.size(3, 1)
    rows_of_a_leg = bench.size(ROWS_OF_A_LEG, 20)
    folder = bench.new_folder("reading")
    settings = make_lake(folder, LEGS, 10, rounds=2)
    lake = Lake(settings.lake)
    last = _fill(lake, days, rows_of_a_leg)
    latest_positions.derive(lake, settings, None)

    data = [path.stat().st_size for path in (folder / "position_updates").rglob("*.parquet")]
    state = f"{days} days × {LEGS} legs, {sum(data) / 2**20:,.0f} MB"
    lines = []
    for name, code in READINGS.items():
        rows, seconds, grown = _read(code.format(lake=folder, day=f"{last:%Y, %-m, %-d}"))
        what = f"{name}: {rows:,.0f} rows"
        lines.append(Line(what=what, state=state, ours=seconds, unit="s"))
        lines.append(Line(what=f"{name}: memory", state=state, ours=grown, unit="MB"))
    bench.report.add("A large ledger, read by Polars in a process of its own", lines)


def _fill(lake: Lake, days: int, rows_of_a_leg: int) -> datetime:
    """Add rows of past days like the newest one of each leg; return the last of these days."""
    newest = lake.updates.sync.latest()
    today = utc_now().replace(hour=14, minute=30, second=0, microsecond=0)
    chance = random.Random(1)
    for back in range(days, 0, -1):
        opened = today - timedelta(days=back)
        for first in range(0, rows_of_a_leg, 60):
            rounds = range(first, min(first + 60, rows_of_a_leg))
            append_rows(lake.updates.table, _rows(newest, opened, rounds, chance), clock=utc_now)
    lake.maintain(clean_now=True)
    return today - timedelta(days=1)


def _rows(newest: DataFrame, opened: datetime, rounds: range, chance: random.Random) -> DataFrame:
    """Return a row of each leg in each round, with values that moved a little."""
    height = newest.height
    times = [opened + EVERY * number for number in rounds for _leg in range(height)]
    moved = Series([chance.gauss(1.0, 0.01) for _time in times])
    ids = new_ids(times[0], len(times))
    rows = pl.concat([newest] * len(rounds))
    return rows.with_columns(
        Series("timestamp", times, rows.schema["timestamp"]),
        Series("update_id", ids),
        batch_id=pl.lit(ids[0]),
        value_time=Series(times, dtype=rows.schema["timestamp"]),
        date=Series([at.date() for at in times]),
        market_price=col.market_price * moved,
        market_value=col.market_value * moved,
        unrealized_pnl=col.unrealized_pnl * moved,
        daily_pnl=col.daily_pnl * moved,
        delta=col.delta * moved,
        implied_vol=col.implied_vol * moved,
    )


def _read(code: str) -> tuple[float, float, float]:
    """Return the number of rows, the seconds, and by how many MB the process grew."""
    command = [sys.executable, "-c", _PROGRAM.format(reading=code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows, seconds, grown = map(float, done.stdout.split())
    return rows, seconds, grown
