"""What grows over a year: sizes, files, versions, memory, and the processor time of what is done.

It is the time of the whole process, with the stream and the simulator beside it.
"""

import csv
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path

import polars as pl
import psutil

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.queue_request import QueueRequest
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports.status import read_status
from position_sync_dagster.web.served_figures import PageFigures
from tests.year.programs import Program

MB = 1_000_000
# Each time is the median of so many calls; they do not depend on what else the machine does.
CALLS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """The measures at the end of a month, or at the end of the year.

    Attributes:
        holdings: How many the accounts have.
        versions: Of the ledger, the queue and the published holdings together.
        tick_s: A tick of all sensors; the median of the month.
    """

    day: date
    sessions: int
    holdings: int
    rows: int
    lake_mb: float
    lake_files: int
    versions: int
    dagster_mb: float
    dagster_files: int
    runs: int
    memory_mb: float
    tick_s: float
    claim_s: float
    latest_s: float
    status_s: float
    page_s: float


def measured(program: Program, day: date, sessions: int, holdings: int) -> Growth:
    """Measure what there is now, and how long it takes."""
    lake = program.lake
    settings = program.settings
    lake_mb, lake_files = _size(program.home / "lake")
    dagster_mb, dagster_files = _size(program.home / "dagster")
    ticks = list(program.tick_s)
    program.tick_s.clear()
    page = PageFigures(settings)
    versioned = (lake.updates.table, lake.queue.table, lake.broker_positions.table)
    memory = psutil.Process().memory_info().rss
    return Growth(
        day=day,
        sessions=sessions,
        holdings=holdings,
        rows=lake.updates.table.count(),
        lake_mb=lake_mb,
        lake_files=lake_files,
        versions=sum(table.version() for table in versioned),
        dagster_mb=dagster_mb,
        dagster_files=dagster_files,
        runs=program.instance.get_runs_count(),
        memory_mb=round(memory / MB, 1),
        tick_s=round(statistics.median(ticks), 4) if ticks else 0.0,
        claim_s=_claim_s(lake),
        latest_s=_median_s(lambda: MoneyLake(settings.lake).updates.sync.latest()),
        status_s=_median_s(lambda: read_status(lake, settings, utc_now())),
        page_s=_median_s(lambda: page.read(utc_now())),
    )


def _size(folder: Path) -> tuple[float, int]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return round(sum(path.stat().st_size for path in files) / MB, 2), len(files)


def _median_s(action: Callable[[], object]) -> float:
    took: list[float] = []
    for _call in range(CALLS):
        began = time.process_time()
        action()
        took.append(time.process_time() - began)
    return round(statistics.median(took), 4)


def _claim_s(lake: MoneyLake) -> float:
    """Return how long a claim takes; the request is given back, and a later tick answers it."""
    queue = lake.queue.sync
    newest = lake.updates.sync.latest().filter(pl.col("position") != 0).head(1).to_dicts()
    if not newest:
        return 0.0
    row = newest[0]
    queue.insert_many([QueueRequest(row["conid"], row["symbol"], 2, row["account"])])

    took: list[float] = []
    for _call in range(CALLS):
        began = time.process_time()
        claimed = queue.claim_batch(1)
        took.append(time.process_time() - began)
        queue.release([request.request_id for request in claimed])
    return round(statistics.median(took), 4)


def write(rows: list[Growth], path: Path) -> None:
    """Write the table."""
    names = [field.name for field in fields(Growth)]
    with path.open("w", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(names)
        lines.writerows([[getattr(row, name) for name in names] for row in rows])


def draw(table: Path, picture: Path) -> None:
    """Draw a table as small diagrams, one for each measure."""
    # Here alone: each process of the tests imports this module, and none draws.
    import matplotlib
    from matplotlib import pyplot

    matplotlib.use("agg")
    with table.open() as file:
        rows = list(csv.DictReader(file))
    days = [date.fromisoformat(row["day"]) for row in rows]
    names = [name for name in rows[0] if name not in ("day", "sessions")]
    figure, axes = pyplot.subplots(2, 7, figsize=(16, 5), sharex=True)
    for axis, name in zip(axes.flat, names, strict=False):
        axis.plot(days, [float(row[name]) for row in rows], marker="o", markersize=3)
        axis.set_title(name, fontsize=9)
        axis.set_ylim(bottom=0)
        axis.tick_params(axis="x", rotation=45, labelsize=7)
        axis.tick_params(axis="y", labelsize=7)
    figure.tight_layout()
    figure.savefig(picture, dpi=90)
