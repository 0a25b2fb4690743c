"""What a section is given: a folder, a size and a place for its results."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.report import Report

T = TypeVar("T")


@dataclass(kw_only=True)
class Bench:
    """One run of one part.

    Attributes:
        folder: Temporary, and deleted after the run.
        quick: Sizes that only show that everything works.
        docs: Where curves are written for the documentation; None to leave them alone.
        budget_s: How long a section that goes on as long as it is let may take.
        legs: The sizes of the books that were asked for; empty for the usual ones.
        recording: What the stream is measured with besides; None for the small one of the tests.
        against: Another checkout of this repository to compare with; None for none.
    """

    folder: Path
    report: Report
    quick: bool = False
    docs: Path | None = None
    budget_s: float | None = None
    legs: tuple[int, ...] = ()
    recording: Path | None = None
    against: Path | None = None
    _kept: dict[str, Any] = field(default_factory=dict)
    _folders: int = 0

    def new_folder(self, name: str) -> Path:
        """Give a folder that is not there yet; its parent is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._folders += 1
        return self.folder / f"{self._folders:03}-{name}"

    def kept(self, name: str, make: Callable[[], T]) -> T:
        """Make something costly once for all sections that name it."""
        if name not in self._kept:
            self._kept[name] = make()
        result: T = self._kept[name]
        return result

    def size(self, full: T, quick: T) -> T:
        """Choose a size."""
        return quick if self.quick else full
