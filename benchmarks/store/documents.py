"""The tables of a document that lie between comments."""

import os
from collections.abc import Sequence
from pathlib import Path


def write_table(
    name: str, head: Sequence[str], rows: Sequence[Sequence[str]], document: Path
) -> None:
    """Replace what lies between the comments of a name by a table, and say how busy it was."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = document.read_text().partition(begin)
    _, _, after = rest.partition(end)
    table = "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])
    note = f"{os.cpu_count()} cores; load {os.getloadavg()[0]:.1f} afterwards."
    document.write_text(f"{before}{begin}\n{note}\n\n{table}\n{end}{after}")
