"""Whether the programs work, by the files that they leave in Dagster's home."""

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from position_sync_dagster.dagster_files import (
    CHECKS,
    DOWN,
    DURATION,
    ENDED_FILE,
    FAILED_TICK,
    SUPERVISOR,
    SWITCHED_OFF,
    TICK_PARTS,
    WORKED_TICK,
    FailingCheck,
    PartOfTicks,
    file_of,
)

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
                "The clock was set back: no sensor ticks until "
                f"{self.ticked_at:{TIME_FORMAT}}. {MEND}",
            )
        if self.switched_off:
            return (f"The sensors are switched off: nothing is drained or checked. {SWITCH_ON}",)
        if not self.late:
            errors = f"The sensors tick, and find errors. {self.failing}"
            if self.failing:
                return (*self.down, errors)
            return self.down
        last = "no sensor has ticked since the start"
        if self.ticked_at is not None:
            last = f"the last sensor tick was at {self.ticked_at:{TIME_FORMAT}}"
        return (f"Programs have stopped or hang: {last}. {todo}",)


TIME_FORMAT = "%H:%M:%S UTC"

# What to do about a clock that was set back, and about sensors that are off.
MEND = (
    "`dev` and `demo` mend that within two minutes; beside another Dagster, run `python -m "
    "position_sync_dagster.processes.sensor_states`."
)
SWITCH_ON = "Switch them on in Dagster under Automation."

# No program runs.
NONE = Programs()


def changed_at(name: str, home: Path | None = None) -> float | None:
    """Return when a file was written, in seconds since 1970; None without a file."""
    try:
        return file_of(name, home).stat().st_mtime
    except OSError:
        return None


def down_files(home: Path | None = None) -> list[Path]:
    """Return the files of programs that ended and do not work again yet."""
    return sorted(file_of(WORKED_TICK, home).parent.glob(f"{DOWN}*"))


def text_of(name: str, home: Path | None) -> str | None:
    """Return the text of a file; None where it is empty or not there."""
    with suppress(OSError):
        return file_of(name, home).read_text(encoding="utf-8") or None
    return None


def read(home: Path | None = None) -> Programs:
    """Read the state of the programs from a home of Dagster, by default that of this process."""
    worked = changed_at(WORKED_TICK, home)
    failed = changed_at(FAILED_TICK, home)
    started = changed_at(SUPERVISOR, home)
    now = time.time()
    limit_s = FIRST_TICK_S
    is_set_back = False
    ticked_at = None
    ticked = max((at for at in (worked, failed) if at is not None), default=None)
    if ticked is not None:
        limit_s = LATE_S
        is_set_back = ticked > now + LATE_S
        ticked_at = datetime.fromtimestamp(ticked, UTC)
    is_late = started is not None and abs(now - (ticked or started)) > limit_s

    failing = None
    # Another sensor may tick without an error meanwhile.
    if failed is not None and (worked is None or failed > worked - FAILING_S):
        failing = text_of(FAILED_TICK, home)
    is_switched_off = changed_at(SWITCHED_OFF, home) is not None
    ended = text_of(ENDED_FILE, home)
    texts = [text_of(file.name, home) for file in down_files(home)]
    return Programs(
        ticked_at=ticked_at,
        late=is_late,
        set_back=is_set_back,
        switched_off=is_switched_off,
        ended=ended,
        failing=failing,
        down=tuple(filter(None, texts)),
    )


def failing_checks(home: Path) -> list[FailingCheck]:
    """Return the checks that did not pass at the last tick; none if that was long ago."""
    written = changed_at(CHECKS, home)
    text = text_of(CHECKS, home)
    if written is None or text is None or abs(time.time() - written) > LATE_S:
        return []
    try:
        return [FailingCheck(**check) for check in json.loads(text)]
    except (ValueError, TypeError):  # it is being written
        return []


def parts_of_ticks(home: Path | None = None) -> list[PartOfTicks]:
    """Return what each part of the ticks of `drain_queue` took; none before the first."""
    try:
        return [PartOfTicks(**part) for part in json.loads(text_of(TICK_PARTS, home) or "[]")]
    except (ValueError, TypeError):  # it is being written
        return []


def tick_duration_s(home: Path) -> float | None:
    """Return how long the last tick of `drain_queue` took; None before the first."""
    try:
        return float(text_of(DURATION, home) or "")
    except ValueError:
        return None
