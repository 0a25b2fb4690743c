"""The measured curves for `docs/scaling.md`: a picture, the numbers, two tables."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import astuple, fields
from pathlib import Path

from benchmarks.documents import draw_plainly, markdown_table, replace_part
from benchmarks.gateways.arithmetic import Layout, lay_out, rate_of, usd_a_month
from benchmarks.gateways.point import Point

# Flush interval and interval of heartbeats, of what is laid out: no setting changes the second.
LAYOUTS = ((1.0, 4.0), (4.0, 4.0))

GATEWAYS, LEGS = 1_000, 1_000_000

PICTURE = (
    "![Each figure over the number of logins in a lake](gateways.png)\n\n"
    "The numbers are in [gateways.csv](gateways.csv)."
)


def write_documents(points: Sequence[Point], docs: Path, note: str = "") -> None:
    """Write the picture, the CSV and the tables.

    Args:
        note: What the figures were measured on.
    """
    with (docs / "gateways.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(Point))
        for point in points:
            writer.writerow(round(v, 4) if isinstance(v, float) else v for v in astuple(point))
    points = read_points(docs / "gateways.csv")  # the table says what the file says
    draw(points, docs / "gateways.png")
    parts = (note, table_of(points), PICTURE, table_of_layouts(layouts(points)))
    replace_part(docs / "scaling.md", "gateways", "\n\n".join(part for part in parts if part))


def read_points(path: Path) -> list[Point]:
    """Read the points of a CSV that `write_documents` wrote."""
    kinds = {field.name: field.type for field in fields(Point)}
    with path.open(newline="") as file:
        return [
            Point(**{name: _value(kinds[name], text) for name, text in row.items()})
            for row in csv.DictReader(file)
        ]


def _value(kind: object, text: str) -> object:
    return text if kind is str else int(text) if kind is int else float(text)


def layouts(points: Sequence[Point]) -> list[tuple[str, float, Layout]]:
    """Lay out a thousand gateways at each place and interval."""
    found = []
    for place in dict.fromkeys(point.place for point in points):
        rate = rate_of(points, place)
        found += [
            (place, rate, lay_out(GATEWAYS, LEGS, rate, flush_s, heartbeat_s))
            for flush_s, heartbeat_s in LAYOUTS
        ]
    return found


def table_of(points: Iterable[Point]) -> str:
    """Return the table of what was measured with the default settings; the CSV has the rest."""
    head = ["place", "logins", "commits/s", "longest append", "status", "USD a month a login"]
    rows = []
    for point in points:
        if (point.flush_s, point.heartbeat_s) != LAYOUTS[0]:
            continue

        price = f"{usd_a_month(point):,.0f}" if point.requests else ""
        commits = f"{point.commits:.1f} of {point.logins / point.flush_s:.1f}"
        longest = _s(point.append_longest)
        rows.append([point.place, str(point.logins), commits, longest, _s(point.status), price])
    return markdown_table(head, rows)


def table_of_layouts(found: Iterable[tuple[str, float, Layout]]) -> str:
    """Return the table of the arithmetic."""
    head = [
        "place",
        "commits/s of a table",
        "flush / heartbeat",
        "logins a lake",
        f"lakes for {GATEWAYS:,}",
    ]
    rows = [
        [
            place,
            f"{rate:.1f}",
            f"{layout.flush_s:g} / {layout.heartbeat_s:g} s",
            str(layout.a_lake),
            f"{layout.lakes:,}",
        ]
        for place, rate, layout in found
    ]
    return markdown_table(head, rows)


def _s(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def draw(points: Sequence[Point], path: Path) -> None:
    """Draw each figure over the number of logins, a line for each place and interval."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    panels = (
        ("commits", "commits of the ledger, a second"),
        ("tries", "tries of a commit"),
        ("gap_p95", "between two commits of a login, p95 (s)"),
        ("renewal_longest", "longest renewal of a lease (s)"),
        ("latest", "latest() (s)"),
        ("status", "status (s)"),
        ("answered", "requests answered by a drain, a second"),
        ("requests", "requests to the store, a second"),
    )
    kinds = list(dict.fromkeys((p.place, p.flush_s) for p in points))
    figure, axes = plt.subplots(2, 4, figsize=(13, 6), layout="constrained")
    for axis, (name, title) in zip(axes.flat, panels, strict=True):
        for place, flush_s in kinds:
            some = [p for p in points if (p.place, p.flush_s) == (place, flush_s)]
            axis.plot(
                [p.logins for p in some],
                [getattr(p, name) for p in some],
                marker="o",
                lw=1.3,
                label=f"{place}, flush {flush_s:g} s",
            )
        axis.set_xscale("log", base=2)
        numbers = sorted({p.logins for p in points})
        axis.set_xticks(numbers, [str(n) for n in numbers], fontsize=8)
        draw_plainly(axis, title)
    axes.flat[0].legend(frameon=False, fontsize=7)
    figure.suptitle("Logins in one lake, on a disk and in a store", x=0.01, ha="left")
    figure.savefig(path, dpi=90)
    plt.close(figure)
