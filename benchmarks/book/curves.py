"""What a book costs as it grows: numbers, a picture, and the table of the documentation."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.documents import draw_plainly, markdown_table, replace_part
from benchmarks.report import quantity

PICTURE = (
    "![Each figure over the number of legs](scaling.png)\n\n"
    "The numbers are in [scaling.csv](scaling.csv)."
)


class Goal(NamedTuple):
    """A figure of a book.

    Attributes:
        unit: Its unit; "" for a count.
        most: The greatest value that is good, by the number of legs; 0 is for all others.
    """

    what: str
    unit: str
    most: Mapping[int, float]

    def bound(self, legs: int) -> float:
        """Return the greatest good value of a book."""
        return self.most.get(legs, self.most[0])


Figures = Mapping[str, float]
Books = Mapping[int, Figures]


def write_csv(goals: Sequence[Goal], books: Books, path: Path) -> None:
    """Write one line for each book."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["legs", *(f"{g.what} ({g.unit})" if g.unit else g.what for g in goals)])
        for legs, found in books.items():
            cells = [found.get(goal.what) for goal in goals]
            writer.writerow([legs, *("" if cell is None else round(cell, 3) for cell in cells)])


def write_table(goals: Sequence[Goal], books: Books, note: str, document: Path) -> None:
    """Replace the table of a document, with its picture."""
    rows = []
    for goal in goals:
        bounds = list(dict.fromkeys(goal.bound(legs) for legs in books))
        text = " / ".join(quantity(bound, "") for bound in bounds)
        cells = [
            quantity(found[goal.what], goal.unit) if goal.what in found else "–"
            for found in books.values()
        ]
        rows.append([goal.what, f"≤ {text} {goal.unit}".rstrip(), *cells])
    table = markdown_table(["what", "goal", *(f"{legs:,} legs" for legs in books)], rows)
    replace_part(document, "measured", f"{note}\n\n{table}\n\n{PICTURE}")


def draw(goals: Sequence[Goal], books: Books, path: Path) -> None:
    """Draw each figure over the number of legs, with its goal."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    drawn = [goal for goal in goals if any(found.get(goal.what) for found in books.values())]
    columns = 4
    figure, axes = plt.subplots(
        -(-len(drawn) // columns), columns, figsize=(13, 7.8), layout="constrained", squeeze=False
    )
    for axis in axes.flat[len(drawn) :]:
        axis.set_visible(False)
    for axis, goal in zip(axes.flat, drawn, strict=False):
        known = [(legs, found[goal.what]) for legs, found in books.items() if goal.what in found]
        axis.plot(*zip(*known, strict=True), marker="o", lw=1.4)
        axis.plot(
            list(books),
            [goal.bound(legs) for legs in books],
            color="tab:red",
            lw=1,
            ls="--",
            label="goal",
        )
        axis.set_xscale("log")
        axis.set_xticks(list(books), [f"{legs:,}" for legs in books], fontsize=8)
        axis.minorticks_off()
        axis.set_ylabel(goal.unit, fontsize=8)
        draw_plainly(axis, goal.what)
    axes.flat[0].legend(frameon=False, fontsize=8)
    figure.suptitle("The whole program over books of growing size (legs)", x=0.01, ha="left")
    figure.savefig(path, dpi=100)
    plt.close(figure)
