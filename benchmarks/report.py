"""Where results go: tables on the terminal, and one JSON file."""

import json
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.outcome import Line, Verdict

_COLOURS = {Verdict.MET: "green", Verdict.MISSED: "bold red", Verdict.NONE: "dim"}


class Report:
    """Collects the lines of a run and prints them as they come.

    Attributes:
        broken: Sections that raised.
    """

    def __init__(self, console: Console, *, quick: bool, machine: Mapping[str, str]) -> None:
        self.broken: list[str] = []
        self._console = console
        self._quick = quick
        self._machine = machine
        self._tables: list[tuple[str, Sequence[Line], str]] = []

    def show_machine(self) -> None:
        """Print what the numbers were measured on."""
        table = Table(show_header=False, box=None, pad_edge=False)
        for name, value in self._machine.items():
            table.add_row(f"[dim]{name}[/]", value)
        self._console.print(table)
        if self._quick:
            self._console.print("[yellow]Quick run: small sizes, its ratios mean nothing.[/]")

    def show_part(self, title: str) -> None:
        """Print the heading of a part."""
        self._console.rule(title)

    def add(self, title: str, lines: Sequence[Line], note: str = "") -> None:
        """Print a table and keep it for the JSON file."""
        self._tables.append((title, lines, note))
        table = Table(title=title, title_justify="left", caption=note or None)
        table.caption_justify = "left"
        for name in ("what", "state", "ours", "n", "against", "theirs", "ratio", "target", ""):
            right = name in ("ours", "n", "theirs", "ratio")
            table.add_column(name, justify="right" if right else "left", no_wrap=name != "what")
        for line in lines:
            table.add_row(
                line.what,
                line.state,
                quantity(line.ours, line.unit),
                str(line.samples),
                line.against,
                "" if line.theirs is None else quantity(line.theirs, line.unit),
                line.comparison,
                line.target.text(line.unit) if line.target else "",
                f"[{_COLOURS[line.verdict]}]{line.verdict}[/]",
            )
        self._console.print(table)

    def say(self, text: str) -> None:
        """Print a remark."""
        self._console.print(text)

    def show_broken(self, name: str) -> None:
        """Print and remember that a section raised; called where it is caught."""
        self.broken.append(name)
        self._console.print(f"[bold red]The section {name} broke.[/]")
        self._console.print(traceback.format_exc(), markup=False, highlight=False)

    def show_summary(self) -> None:
        """Print how many targets were met and which were not."""
        lines = [line for _, table, _ in self._tables for line in table if line.target]
        missed = [line for line in lines if line.verdict is Verdict.MISSED]
        self._console.rule(f"{len(lines) - len(missed)} of {len(lines)} targets met")
        for line in missed:
            compared = f"{line.comparison} {line.against}" if line.against else ""
            bound = line.target.text(line.unit) if line.target else ""
            value = quantity(line.ours, line.unit)
            self._console.print(f"missed: {line.what}, {line.state}: {value} {compared} ({bound})")

    def write_json(self, path: Path) -> None:
        """Write all that was measured so far."""
        tables = [
            {"title": title, "note": note, "lines": [_plain(line) for line in lines]}
            for title, lines, note in self._tables
        ]
        content = {
            "machine": dict(self._machine),
            "quick": self._quick,
            "broken": self.broken,
            "tables": tables,
        }
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def quantity(value: float, unit: str) -> str:
    """Write a number with its unit, to three digits or whole."""
    digits = 0 if abs(value) >= 100 or value == int(value) else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f} {unit}".rstrip()


def _plain(line: Line) -> dict[str, object]:
    return {
        "what": line.what,
        "state": line.state,
        "ours": line.ours,
        "unit": line.unit,
        "samples": line.samples,
        "against": line.against,
        "theirs": line.theirs,
        "ratio": line.ratio,
        "target": line.target.text(line.unit) if line.target else None,
        "verdict": line.verdict.value or None,
    }
