"""The course of a table's growth, as numbers and as a picture."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Queue and ledger at one moment; times are medians of the drains since the point before."""

    drains: int
    commits: int
    queue_files: int
    ledger_files: int
    log_entries: int
    log_kb: int
    disk_mb: float
    open_ms: float
    counts_ms: float
    claim_ms: float
    mark_ms: float
    append_ms: float


def write_csv(points: Sequence[Point], path: Path) -> None:
    """Write one line a point."""
    rows = [{name: _short(value) for name, value in asdict(point).items()} for point in points]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def draw(points: Sequence[Point], path: Path) -> None:
    """Draw files, log, open time and the times of each step over the drains."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    panels = (
        ("Files on disk", "", {"queue_files": "queue", "ledger_files": "ledger"}),
        ("Entries in both logs", "", {"log_entries": "entries"}),
        ("Opening the queue, counting", "ms", {"open_ms": "open", "counts_ms": "counts"}),
        (
            "Steps of a drain",
            "ms",
            {"claim_ms": "claim 50", "mark_ms": "mark 50", "append_ms": "append 50"},
        ),
    )
    drains = [point.drains / 1000 for point in points]
    figure, axes = plt.subplots(2, 2, figsize=(10, 6.2), sharex=True, layout="constrained")
    for axis, (title, unit, series) in zip(axes.flat, panels, strict=True):
        for name, label in series.items():
            axis.plot(drains, [getattr(point, name) for point in points], label=label, lw=1.4)
        axis.set_title(title, loc="left", fontsize=11)
        axis.set_ylim(bottom=0)
        axis.set_ylabel(unit)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        if len(series) > 1:
            axis.legend(frameon=False, fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel("thousand drains")
    figure.suptitle("Queue and ledger, measured just before each upkeep", x=0.01, ha="left")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _short(value: float) -> float:
    return round(value, 2) if isinstance(value, float) else value
