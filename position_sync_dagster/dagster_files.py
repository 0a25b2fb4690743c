"""Where Dagster's home and our documents are, and the files that say whether programs work.

A checkout has `workspace.yaml` and `dagster_home/dagster.yaml`, and keeps its homes beside them. An
installed package has copies of both files, and keeps its homes where the platform keeps data of
programs.

In Dagster's home (folder `alive`) each sensor tick writes a file: the sign of life of the code
server and the daemon together. The supervisor removes the files at a regular end: an old file
belongs to programs that stopped by themselves, or hang.
"""

import json
import os
from bisect import bisect_left
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

# The tag of a run that says which sensor or schedule launched it, or that the demo did; a run of a
# person has none.
LAUNCHED_BY = "position-sync/launched_by"

PACKAGE_FOLDER = Path(__file__).resolve().parent
PROJECT_NAME = "position-sync-dagster"


def checkout() -> Path | None:
    """Return the folder of the checkout that the package is in; None for an installed one."""
    folder = PACKAGE_FOLDER.parent
    if not (folder / "workspace.yaml").is_file():
        return None
    return folder if (folder / "dagster_home" / "dagster.yaml").is_file() else None


def document(name: str) -> Path:
    """Return the path of a document that texts of errors point to.

    It is in the checkout, else its copy is in this package (folder `instance`).

    >>> document("docs/operations.md").is_file()
    True
    """
    return (checkout() or PACKAGE_FOLDER / "instance") / name


def dagster_home() -> Path:
    """Return the folder of Dagster's state: `DAGSTER_HOME`, or the one of this package."""
    named = os.environ.get("DAGSTER_HOME")
    return Path(named).absolute() if named else own_dagster_home()


def own_dagster_home() -> Path:
    """Return the folder of Dagster's state where `DAGSTER_HOME` names none."""
    return (checkout() or data_folder()) / "dagster_home"


def data_folder() -> Path:
    """Return where the platform keeps the data of an installed program."""
    # Here, since a checkout never needs it.
    from platformdirs import user_data_path

    return user_data_path(PROJECT_NAME, appauthor=False)


# The file of the last tick that did its work.
WORKED_TICK = "sensors"

# The file of the last tick that found errors, with their text: the programs work, and a table
# cannot be read, or the store is away.
FAILED_TICK = "failed tick"

# The file that is there while a supervisor has not ended regularly.
SUPERVISOR = "supervisor"

# The file with the reason of an end that was not requested.
ENDED_FILE = "ended"

# The file that is there while a person has switched the sensors off.
SWITCHED_OFF = "switched off"

# The file with the checks that did not pass, as JSON.
CHECKS = "checks"

# The file that says how many seconds the last tick of `drain_queue` took.
DURATION = "duration"

# The beginning of the name of the file of a program that ended, with how, until it works again.
DOWN = "down "


def file_of(name: str, home: Path | None = None) -> Path:
    """Return a file of this module, in Dagster's home."""
    return (home or dagster_home()) / "alive" / name


def note(name: str, text: str = "") -> None:
    """Write a file now; ignore a disk that cannot be written."""
    with suppress(OSError):
        file = file_of(name)
        file.parent.mkdir(mode=0o700, exist_ok=True)
        file.write_text(text, encoding="utf-8")


# The file that says what each part of the ticks of `drain_queue` took, as JSON.
TICK_PARTS = "tick parts"

# The bounds of the histogram of a part, in seconds; what takes longer than the last one is beyond.
BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartOfTicks:
    """What one part of the ticks took since the process of the ticks started.

    Attributes:
        last_s: What it took at the last tick, in seconds; `total_s` is the sum of all.
        counts: How many times it took at most each of BOUNDS_S and more than the bound before, then
            how many times longer than all.
    """

    name: str
    last_s: float = 0.0
    total_s: float = 0.0
    counts: tuple[int, ...] = (0,) * (len(BOUNDS_S) + 1)

    def after(self, seconds: float) -> "PartOfTicks":
        """Return it with one more tick."""
        counts = list(self.counts)
        counts[bisect_left(BOUNDS_S, seconds)] += 1
        return replace(self, last_s=seconds, total_s=self.total_s + seconds, counts=tuple(counts))


@dataclass(frozen=True, slots=True, kw_only=True)
class FailingCheck:
    """A check whose newest result is not passed.

    Attributes:
        name: "asset: check".
        is_of_values: Whether values cannot be relied on while it fails.
        text: What was found.
        is_unknown: Whether there was nothing to compare, such as without a gateway.
    """

    name: str
    is_of_values: bool
    text: str
    is_unknown: bool = False


def note_all(name: str, entries: Iterable[PartOfTicks | FailingCheck]) -> None:
    """Write the file of the parts of ticks (TICK_PARTS), or of the failing checks (CHECKS)."""
    note(name, json.dumps([asdict(entry) for entry in entries]))
