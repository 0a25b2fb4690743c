"""Run the benchmarks: `python -m benchmarks [--part NAME] [--only SECTION] [--quick]`."""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from rich.console import Console

import benchmarks
from benchmarks.bench import Bench
from benchmarks.machine import describe_machine
from benchmarks.report import Report

Section = Callable[[Bench], None]


def parts() -> dict[str, tuple[str, dict[str, Section]]]:
    """Find the parts: title and sections by name."""
    found = {}
    for module in iter_modules(benchmarks.__path__):
        if module.ispkg:
            part = import_module(f"benchmarks.{module.name}")
            found[module.name.replace("_", "-")] = (part.TITLE, dict(part.SECTIONS))
    return found


def options(argv: Sequence[str] | None, names: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--part", choices=sorted(names), help="this part only")
    parser.add_argument("--only", action="append", default=[], help="this section only; repeatable")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run at all?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to a file")
    parser.add_argument("--docs", action="store_true", help="write the curves into docs/")
    parser.add_argument("--folder", type=Path, help="where the temporary tables lie")
    parser.add_argument(
        "--legs",
        type=int,
        action="append",
        default=[],
        metavar="N",
        help="size of the book, in the part book; repeatable",
    )
    parser.add_argument("--recording", type=Path, help="what the section `recorded` plays")
    parser.add_argument(
        "--against",
        type=Path,
        metavar="CHECKOUT",
        help="another checkout, whose small operation is timed in turn with that of this one",
    )
    parser.add_argument("--budget-s", type=float, help="how long the growth section may take")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for; give 1 when a section broke."""
    found = parts()
    chosen = options(argv, list(found))
    console = Console(width=None if sys.stdout.isatty() else 150)
    folder = Path(tempfile.mkdtemp(prefix="position-sync-bench-", dir=chosen.folder))
    report = Report(console, quick=chosen.quick, machine=describe_machine(folder))
    report.show_machine()
    try:
        for name in [chosen.part] if chosen.part else sorted(found):
            _run_part(found[name], chosen, report, folder / name)
            if chosen.json:
                report.write_json(chosen.json)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report.show_summary()
    return 1 if report.broken else 0


def _run_part(
    part: tuple[str, dict[str, Section]],
    chosen: argparse.Namespace,
    report: Report,
    folder: Path,
) -> None:
    title, sections = part
    report.show_part(title)
    bench = Bench(
        folder=folder,
        report=report,
        quick=chosen.quick,
        docs=Path("docs") if chosen.docs else None,
        budget_s=chosen.budget_s,
        legs=tuple(chosen.legs),
        recording=chosen.recording,
        against=chosen.against and chosen.against.absolute(),
    )
    for name, section in sections.items():
        if chosen.only and name not in chosen.only:
            continue
        began = time.perf_counter()
        try:
            section(bench)
        except Exception:
            report.show_broken(name)
        report.say(f"[dim]{name}: {time.perf_counter() - began:.0f} s[/]")


if __name__ == "__main__":
    sys.exit(main())
