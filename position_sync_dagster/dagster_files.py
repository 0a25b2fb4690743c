"""The files of Dagster: where they and the homes are, and those that say whether programs work.

A checkout has `workspace.yaml` and `dagster_home/dagster.yaml`, and keeps its homes beside them. An
installed package has copies of both files, and keeps its homes where the platform keeps data of
programs.

In Dagster's home each sensor tick writes a file: the sign of life of the code server and the daemon
together. The supervisor removes the files at a regular end: an old file belongs to programs that
stopped by themselves, or hang.
"""

import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
NAME = "position-sync-dagster"


def checkout() -> Path | None:
    """Return the folder of the checkout that the package is in; None for an installed one."""
    folder = PACKAGE.parent
    parts = (folder / "workspace.yaml", folder / "dagster_home" / "dagster.yaml")
    return folder if all(part.is_file() for part in parts) else None


def instance_file() -> Path:
    """Return the `dagster.yaml` that a new home of Dagster gets."""
    folder = checkout()
    return (folder / "dagster_home" if folder else PACKAGE / "instance") / "dagster.yaml"


def dagster_home() -> Path:
    """Return the folder of Dagster's state: `DAGSTER_HOME`, or the one of this package."""
    named = os.environ.get("DAGSTER_HOME")
    return Path(named).absolute() if named else own_dagster_home()


def own_dagster_home() -> Path:
    """Return the folder of Dagster's state where `DAGSTER_HOME` names none."""
    return (checkout() or _data()) / "dagster_home"


def demo_home() -> Path:
    """Return the home of the demo: `.demo` of the working directory for a checkout."""
    return Path(".demo") if checkout() else _data() / "demo"


def _data() -> Path:
    from platformdirs import user_data_path

    return user_data_path(NAME, appauthor=False)


# The file of the last tick that did its work.
SENSORS = "sensors"

# The file of the last tick that found errors, with their text: the programs work, and a table
# cannot be read, or the store is away.
FAILED_TICK = "failed tick"

# The file that is there while a supervisor has not ended regularly.
SUPERVISOR = "supervisor"

# The file with the reason of an end that was not requested.
ENDED = "ended"

# The file that is there while a person has switched the sensors off.
SWITCHED_OFF = "switched off"

# The file with the checks that did not pass, as JSON.
CHECKS = "checks"

# The file that says how many seconds the last tick of `drain_queue` took.
DURATION = "duration"

# The beginning of the name of the file of a program that ended, with how, until it works again.
DOWN = "down "

# Seconds without a tick after which it is late. Sensors tick every 5 s, and one that sends
# messages blocks the others for some seconds.
LATE_S = 30.0

# Seconds for which an error of a tick counts after a tick without one: sensors that look seldom
# share the files with those that look often.
FAILING_S = 15.0

# The same from the start to the first tick.
FIRST_TICK_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """The state of the programs, from their files.

    Attributes:
        ticked_at: The last tick, also one that found errors; None if there was none.
        late: Whether a supervisor runs, and the tick was too long ago, or lies as far ahead.
        set_back: Whether the tick lies ahead of the clock, which was set back since.
        switched_off: Whether a person switched the sensors off.
        ended: Why everything ended, if the end was not requested.
        failing: What the last ticks could not do, and why.
        down: How programs ended that do not work again yet.
    """

    ticked_at: datetime | None = None
    late: bool = False
    set_back: bool = False
    switched_off: bool = False
    ended: str | None = None
    failing: str | None = None
    down: tuple[str, ...] = ()

    @property
    def problems(self) -> tuple[str, ...]:
        """The problems with their remedy, in sentences."""
        todo = "Read Dagster's log, and start the program again if it has ended."
        if self.ended:
            return (f"Everything ended by itself. {self.ended} {todo}",)
        if self.set_back:
            return (
                f"The clock was set back: no sensor ticks until {self.ticked_at:{TIME}}. {MEND}",
            )
        if self.switched_off:
            return (f"The sensors are switched off: nothing is drained or checked. {SWITCH_ON}",)
        if not self.late:
            errors = f"The sensors tick, and find errors. {self.failing}"
            return (*self.down, errors) if self.failing else self.down
        last = "no sensor has ticked since the start"
        if self.ticked_at is not None:
            last = f"the last sensor tick was at {self.ticked_at:{TIME}}"
        return (f"Programs have stopped or hang: {last}. {todo}",)


TIME = "%H:%M:%S UTC"

# What to do about a clock that was set back, and about sensors that are off.
MEND = (
    "`dev` and `demo` mend that within two minutes; beside another Dagster, run `python -m "
    "position_sync_dagster.defs.sensor_states`."
)
SWITCH_ON = "Switch them on in Dagster under Automation."

# No program runs.
NONE = Programs()


def file_of(name: str, home: Path | None = None) -> Path:
    """Return a file of this module, in Dagster's home."""
    return (home or dagster_home()) / "alive" / name


def note(name: str, text: str = "") -> None:
    """Write a file now; ignore a disk that cannot be written."""
    with suppress(OSError):
        file = file_of(name)
        file.parent.mkdir(mode=0o700, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def clear() -> None:
    """Remove the files at a regular end."""
    for name in (SENSORS, FAILED_TICK, SUPERVISOR, ENDED, SWITCHED_OFF, CHECKS, DURATION):
        remove(name)
    for file in _down_files():
        remove(file.name)


def remove(name: str) -> None:
    """Remove a file, if it is there."""
    with suppress(OSError):
        file_of(name).unlink()


def changed_at(name: str, home: Path | None = None) -> float | None:
    """Return when a file was written, in seconds since 1970; None without a file."""
    try:
        return file_of(name, home).stat().st_mtime
    except OSError:
        return None


def newest_tick() -> tuple[float | None, float | None]:
    """Return what changes with each tick, whether or not it did its work."""
    return changed_at(SENSORS), changed_at(FAILED_TICK)


def read(home: Path | None = None) -> Programs:
    """Read the state of the programs from a home of Dagster, by default that of this process."""
    worked, failed = changed_at(SENSORS, home), changed_at(FAILED_TICK, home)
    ticks = [at for at in (worked, failed) if at is not None]
    ticked = max(ticks, default=None)
    started = changed_at(SUPERVISOR, home)
    limit_s = FIRST_TICK_S if ticked is None else LATE_S
    # Another sensor may tick without an error meanwhile.
    is_failing = failed is not None and (worked is None or failed > worked - FAILING_S)
    return Programs(
        ticked_at=None if ticked is None else datetime.fromtimestamp(ticked, UTC),
        late=started is not None and abs(time.time() - (ticked or started)) > limit_s,
        set_back=ticked is not None and ticked > time.time() + LATE_S,
        switched_off=changed_at(SWITCHED_OFF, home) is not None,
        ended=_text_of(ENDED, home),
        failing=_text_of(FAILED_TICK, home) if is_failing else None,
        down=tuple(filter(None, (_text_of(file.name, home) for file in _down_files(home)))),
    )


def _down_files(home: Path | None = None) -> list[Path]:
    return sorted(file_of(SENSORS, home).parent.glob(f"{DOWN}*"))


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


def note_checks(failing: Iterable[FailingCheck]) -> None:
    """Write which checks did not pass."""
    note(CHECKS, json.dumps([asdict(check) for check in failing]))


def failing_checks(home: Path) -> list[FailingCheck]:
    """Return the checks that did not pass at the last tick; none if that was long ago."""
    written = changed_at(CHECKS, home)
    text = _text_of(CHECKS, home)
    if written is None or text is None or abs(time.time() - written) > LATE_S:
        return []
    try:
        return [FailingCheck(**check) for check in json.loads(text)]
    except (ValueError, TypeError):  # it is being written
        return []


def tick_duration_s(home: Path) -> float | None:
    """Return how long the last tick of `drain_queue` took; None before the first."""
    try:
        return float(_text_of(DURATION, home) or "")
    except ValueError:
        return None


def _text_of(name: str, home: Path | None) -> str | None:
    with suppress(OSError):
        return file_of(name, home).read_text(encoding="utf-8") or None
    return None
