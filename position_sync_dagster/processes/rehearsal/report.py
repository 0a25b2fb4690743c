"""The page of a rehearsal for the person, and the file that may be sent."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from importlib import metadata
from pathlib import Path

from position_sync_dagster.errors import UserError
from position_sync_dagster.processes.rehearsal.measures import Line, Verdict

FORMAT = "ibheard"
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a rehearsal showed, without account data.

    Attributes:
        wire: What the gateway said, by kind, the new first.
        assumptions: What the design assumes, as it was measured.
        values: Our values beside the broker's own, as ratios.
    """

    day: date
    server_version: int | None
    heard_s: float
    lines: int
    wire: Sequence[Line]
    assumptions: Sequence[Line]
    values: Sequence[Line]

    @property
    def surprises(self) -> list[Line]:
        """Return what is new or different."""
        every = (*self.wire, *self.assumptions, *self.values)
        return [line for line in every if line.verdict in (Verdict.NEW, Verdict.DIFFERENT)]

    def as_json(self) -> str:
        """Return the file, whose lines can be read."""
        head = {"format": FORMAT, "version": VERSION, "program": metadata.version(DISTRIBUTION)}
        body = asdict(self) | {"day": self.day.isoformat(), "heard_s": round(self.heard_s, 1)}
        return json.dumps(head | body, indent=1, ensure_ascii=True) + "\n"

    def page(self) -> str:
        """Return the page, in Markdown."""
        return "\n".join(self._page()) + "\n"

    def _page(self) -> Iterator[str]:
        yield "# What your gateway showed"
        yield ""
        yield (
            f"Heard for {self.heard_s / 60:.1f} minutes on {self.day}, server version "
            f"{self.server_version or 'unknown'}, at most {self.lines} lines."
        )
        yield ""
        surprises = len(self.surprises)
        yield f"New or different: {surprises}." if surprises else "Nothing is new or different."
        yield ""
        yield "## What it said"
        yield ""
        known = [line for line in self.wire if line.verdict is Verdict.GOOD]
        messages = sum(line.count for line in self.wire if line.about == "message")
        yield f"- good: {len(known)} kinds are known, in {messages} messages"
        yield from _listed(line for line in self.wire if line.verdict is not Verdict.GOOD)
        yield from ("", "## What the design assumes", "", *_listed(self.assumptions))
        yield from ("", "## Our values beside the broker's", "")
        yield from _listed(self.values) if self.values else ["- not heard: nothing to compare"]


DISTRIBUTION = "position-sync-dagster"


def _listed(lines: Iterable[Line]) -> Iterator[str]:
    return (f"- {line.verdict}: {line.about}: {line.text} ({line.count})" for line in lines)


def write_new(path: Path, text: str) -> None:
    """Write a new file, which its owner alone may read.

    Raises:
        UserError: It exists, or cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror}.", remedy="Name another file by --out."
        ) from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
