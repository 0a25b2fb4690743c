"""What a benchmark writes into a document: what lies between two comments of its name."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def replace_part(document: Path, name: str, text: str) -> None:
    """Replace what lies between the comments of a name; a document without them gets them."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = document.read_text().partition(begin)
    _, _, after = rest.partition(end)
    document.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as a document has it."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw_plainly(axis: "Axes", title: str) -> None:
    """Give a panel its title, an axis that begins at 0, and a light grid."""
    axis.set_title(title, loc="left", fontsize=9)
    axis.set_ylim(bottom=0)
    axis.tick_params(axis="y", labelsize=8)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
