"""When each of Dagster's programs last did its work: the modification time of its file.

The files are in the folder `alive` of Dagster's home. `dagster_host.services` removes them at a
regular end, so that an old file belongs to a program that stopped by itself, or hangs.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from position_sync_dagster.places import dagster_home

SUPERVISOR = "supervisor"
CODE_SERVER = "code server"
DAEMON = "daemon"
WEBSERVER = "webserver"
SENSORS = "sensors"

SAYS: Mapping[str, str] = {
    SENSORS: "sensor tick",
    SUPERVISOR: "look of the supervisor",
    CODE_SERVER: "answer of the code server",
    DAEMON: "sign of the daemon",
    WEBSERVER: "answer of the webserver",
}
"""The work of each program, in words for messages. The first late one says most about the cause."""

EVERY = timedelta(seconds=10)
"""Each program works more often than this: sensors tick every 5 s, and a sensor that sends messages
blocks the others for some seconds."""

MISSED = 3
"""A program is late after this many times `EVERY`."""

FAILED_TICK = "failed tick"
"""The file of the last tick that found an error, as while the store is away: nothing is drained,
but the daemon does its work."""

ENDED = "ended"
"""The file with the reason of an end that was not requested."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastWork:
    """When a program last did its work.

    Attributes:
        program: A name in `SAYS`.
        at: The time of its last work.
        late: Whether this was more than `MISSED` times `EVERY` ago, or lies as far ahead: the clock
            was set back since.
    """

    program: str
    at: datetime
    late: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """The state of the programs, from their files.

    Attributes:
        works: The last work of each program with a file, in the order of `SAYS`.
        supervised: Whether a supervisor has not ended regularly: only then is a late program a
            problem.
        ended: Why everything ended, if the end was not requested.
    """

    works: tuple[LastWork, ...] = ()
    supervised: bool = False
    ended: str | None = None

    @property
    def late(self) -> tuple[LastWork, ...]:
        """The programs that should work and do not."""
        return tuple(one for one in self.works if one.late) if self.supervised else ()

    @property
    def problems(self) -> tuple[str, ...]:
        """The problems with their remedy, in sentences."""
        todo = "Read Dagster's log, and start the program again if it has ended."
        if self.ended:
            return (f"Everything ended by itself. {self.ended} {todo}",)
        if not self.late:
            return ()
        texts = ", ".join(f"the last {SAYS[one.program]} at {one.at:%H:%M:%S}" for one in self.late)
        return (f"Programs have stopped or hang: {texts} UTC. {todo}",)


NONE = Programs()
"""No program runs."""


def file_of(program: str, home: Path | None = None) -> Path:
    """Return the file of a program, in Dagster's home."""
    return (home or dagster_home()) / "alive" / program


def note(program: str, text: str = "") -> None:
    """Record that a program did its work now; ignore a disk that cannot be written."""
    with suppress(OSError):
        file = file_of(program)
        file.parent.mkdir(mode=0o700, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def clear() -> None:
    """Remove the files at a regular end."""
    for program in (*SAYS, FAILED_TICK, ENDED):
        with suppress(OSError):
            file_of(program).unlink()


def changed_at(program: str, home: Path | None = None) -> float | None:
    """Return when a program's file was written, in seconds since 1970; None without a file."""
    try:
        return file_of(program, home).stat().st_mtime
    except OSError:
        return None


def read(home: Path | None = None) -> Programs:
    """Read the state of the programs from a home of Dagster, by default that of this process."""
    now = time.time()
    found = [(program, at) for program in SAYS if (at := changed_at(program, home)) is not None]
    limit_s = MISSED * EVERY.total_seconds()
    ended = None
    with suppress(OSError):
        ended = file_of(ENDED, home).read_text(encoding="utf-8") or None
    return Programs(
        works=tuple(
            LastWork(
                program=program, at=datetime.fromtimestamp(at, UTC), late=abs(now - at) > limit_s
            )
            for program, at in found
        ),
        supervised=any(program == SUPERVISOR for program, _at in found),
        ended=ended,
    )
