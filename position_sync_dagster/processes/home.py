"""A home: the folder of settings, tables and Dagster's state, its lock and its environment.

The lock is an advisory lock (`flock`) on an open file: only one Dagster runs in a home at a time.
Each reaper that was started under it holds the same open file, so that the home stays locked until
the last of its processes has ended, also when the owner was killed.
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from dotenv import dotenv_values

from position_sync_dagster import places
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.processes import reaper
from position_sync_dagster.settings import PREFIX

NOT_INHERITED = (PREFIX, "DAGSTER_")
"""The processes of a home never inherit variables with these prefixes."""


DAGSTER_HOME = "DAGSTER_HOME"


def home_environment(home: Path, values: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for the processes of a home.

    It is the user's environment without the user's own settings, which belong to other tables,
    with `values` and the marker of the home.
    """
    inherited = {
        name: text for name, text in os.environ.items() if not name.startswith(NOT_INHERITED)
    }
    return inherited | dict(values) | {reaper.MARKER: str(home)}


def adopt_environment(values: Mapping[str, str]) -> None:
    """Replace the settings, and Dagster's home, in this process's environment by `values`."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]
    os.environ.update(
        {k: v for k, v in values.items() if k.startswith(PREFIX) or k == DAGSTER_HOME}
    )


class HomeError(PositionSyncError):
    """A folder cannot be made a home, or it is not a home."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Home:
    """The paths and the settings file of a home.

    Attributes:
        path: The folder, as an absolute path.
    """

    path: Path

    @classmethod
    def at(cls, path: str | Path) -> "Home":
        """Return the home at `path`, which need not exist yet.

        Raises:
            HomeError: It begins with `~` and a name that no user has.
        """
        try:
            return cls(Path(path).expanduser().absolute())
        except RuntimeError as error:
            raise HomeError(
                f"The home {path} cannot be found: {error}.", remedy="Write its whole path."
            ) from None

    @property
    def lake(self) -> Path:
        """The folder of the tables."""
        return self.path / "lake"

    @property
    def dagster_home(self) -> Path:
        """The folder of Dagster's state."""
        return self.path / "dagster_home"

    @property
    def settings_file(self) -> Path:
        """The file with the settings of all processes of the home, one `NAME=value` per line."""
        return self.path / ".env"

    def log_file(self, name: str) -> Path:
        """Return the path of a child process's log."""
        return self.path / f"{name}.log"

    @property
    def is_new(self) -> bool:
        """Whether no demo has run here yet."""
        return not self.settings_file.exists()

    def prepare(self) -> None:
        """Create the folders and copy the project's `dagster.yaml` into Dagster's folder.

        Raises:
            HomeError: A folder cannot be created or written.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)  # a folder that was there may be open to others
            self.dagster_home.mkdir(mode=0o700, exist_ok=True)
            shutil.copyfile(places.instance_file(), self.dagster_home / "dagster.yaml")
        except OSError as error:
            raise HomeError(
                f"The home {self.path} cannot be written: {error.strerror}.",
                remedy="Choose a folder that you can write with --home.",
            ) from error

    def read_settings(self) -> dict[str, str]:
        """Read the settings file.

        Raises:
            HomeError: There is no home at the path, or the file cannot be read.
        """
        if not os.path.isfile(self.settings_file):  # also of a path that is too long
            raise HomeError(
                f"{self.path} is no home: it has no settings file {self.settings_file.name}.",
                remedy="Name the folder of a demo that was started before (.demo by default).",
            )
        try:
            values = dotenv_values(self.settings_file, interpolate=False)
        except (OSError, UnicodeDecodeError) as error:
            raise HomeError(
                f"The settings file {self.settings_file} cannot be read: {error}.",
                remedy="It is a text in UTF-8, one NAME=value a line: correct it, or its rights.",
            ) from error
        return {name: value for name, value in values.items() if value is not None}

    def update_settings(self, values: Mapping[str, str]) -> dict[str, str]:
        """Write `values` into the settings file; settings that a person added stay.

        Returns:
            All settings of the home.
        """
        settings = {} if self.is_new else self.read_settings()
        settings.update(values)
        lines = ["# The settings of this home. The user's own settings have no effect in it."]
        lines += [f"{name}={quote(value)}" for name, value in settings.items()]
        draft = self.settings_file.with_suffix(".draft")
        draft.write_text("\n".join(lines) + "\n", encoding="utf-8")
        draft.replace(self.settings_file)
        return settings


def quote(value: str) -> str:
    r"""Return a value in quotes, so that a settings file holds it literally.

    `dotenv.set_key` does not escape a backslash, and so changes some values.

    >>> print(quote("it's"))
    'it\'s'
    """
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


LOCK_FILE = ".lock"
POLL_S = 0.1
LEFTOVER_GRACE_S = 1.0
"""Seconds between the interrupt and the kill of processes that an earlier owner left."""


class HomeInUseError(PositionSyncError):
    """Another process uses the home."""

    exit_code = 2


@contextmanager
def exclusive_use(home: Path, *, purpose: str) -> Iterator[int]:
    """Hold the lock of the folder `home`; end its leftover processes before and after.

    The lock is held while any process has a copy of the yielded file descriptor. Each process of
    the home inherits a copy: a new owner waits until the processes of a killed owner have ended.

    Raises:
        HomeInUseError: Another process uses the home.
        HomeError: The folder cannot be written.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = take_lock(home, purpose=purpose)
    except OSError as error:
        raise HomeError(
            f"The home {home} cannot be written: {error.strerror}.",
            remedy="Choose a folder that you can write.",
        ) from error
    try:
        reaper.end_processes(lambda: reaper.find_marked(home), grace_s=LEFTOVER_GRACE_S)
        yield fd
    finally:
        reaper.end_processes(lambda: reaper.find_marked(home), grace_s=LEFTOVER_GRACE_S)
        os.close(fd)


def take_lock(home: Path, *, purpose: str, wait_s: float = 10.0) -> int:
    """Take the lock, and return its file descriptor.

    If its owner has ended, wait until the owner's processes have ended too.

    Raises:
        HomeInUseError: A living process holds it, or leftover processes do after `wait_s`.
    """
    fd = os.open(home / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            holder = living_holder(os.pread(fd, 4096, 0))
            if holder is None and time.monotonic() < deadline:
                time.sleep(POLL_S)
                continue
            os.close(fd)
            user = holder or "processes whose owner has ended"
            raise HomeInUseError(
                f"The home {home} is in use by {user}.",
                remedy="End it first, or choose another home.",
            ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, holder_record(purpose), 0)
    return fd


def holder_record(purpose: str) -> bytes:
    """Return the content of the lock file: the holder's purpose and process, as JSON."""
    return json.dumps({"purpose": purpose, **reaper.identity_of(psutil.Process())}).encode()


def living_holder(content: bytes) -> str | None:
    """Return a description of the holder in a lock file's content, None if it has ended."""
    try:
        record = json.loads(content)
        process = reaper.identified(record)
    except (ValueError, KeyError, TypeError, psutil.Error):
        return None
    if process is None or not reaper.is_running(process):
        return None
    return f"{record.get('purpose', 'a process')} (process {record['pid']})"
