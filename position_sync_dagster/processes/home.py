"""A home: the folder of settings, tables and Dagster's state, its lock and its environment.

The lock is an advisory lock (`flock`) on an open file: only one Dagster runs in a home at a time.
Each process of a home carries its path in the environment, by which a start finds what a killed
one left.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from position_sync_dagster import dagster_files
from position_sync_dagster.errors import UserError
from position_sync_dagster.processes.child_process import MARKER, end, living
from position_sync_dagster.settings import PREFIX, read_env_file

# The processes of a home never inherit variables with these prefixes.
NOT_INHERITED = (PREFIX, "DAGSTER_")

LOCK_FILE = ".lock"
# Characters that no path of a home may have: Dagster does not quote the addresses of SQLite files.
UNUSABLE = frozenset("?%")
# Seconds that the processes of a killed start have to end: a stream gives its lease up.
LEFTOVER_S = 20.0


class HomeError(UserError):
    """A folder cannot be made a home, or it is not a home.

    Name another folder with --home.
    """


class HomeInUseError(UserError):
    """Another process uses the home.

    End it first, or choose another home.
    """


def instance_file() -> Path:
    """Return the `dagster.yaml` that a new home of Dagster gets."""
    folder = dagster_files.checkout()
    own = folder / "dagster_home" if folder else dagster_files.PACKAGE_FOLDER / "instance"
    return own / "dagster.yaml"


def demo_home() -> Path:
    """Return the home of the demo: `.demo` of the working directory for a checkout."""
    return Path(".demo") if dagster_files.checkout() else dagster_files.data_folder() / "demo"


def without(variables: Mapping[str, str], *prefixes: str) -> dict[str, str]:
    """Return the variables whose names begin with none of some prefixes."""
    return {name: text for name, text in variables.items() if not name.startswith(prefixes)}


def home_environment(values: Mapping[str, str], dagster_home: Path) -> dict[str, str]:
    """Return the environment for the processes of a home, with `values` and the home's marker.

    It is the user's environment without the user's own settings, which belong to other tables.
    """
    environment = without(os.environ, *NOT_INHERITED)
    environment.update(values)
    environment[MARKER] = os.path.realpath(dagster_home)
    return environment


def adopt_environment(values: Mapping[str, str], dagster_home: Path) -> None:
    """Replace the settings, and Dagster's home, in this process's environment."""
    for name in list(os.environ):
        if name.startswith(PREFIX):
            del os.environ[name]
    os.environ.update({k: v for k, v in values.items() if k.startswith(PREFIX)})
    os.environ["DAGSTER_HOME"] = str(dagster_home)


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

        A `~` with a name that no user has stays as it is.
        """
        return cls(Path(os.path.expanduser(path)).absolute())

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
            shutil.copyfile(instance_file(), self.dagster_home / "dagster.yaml")
        except OSError as error:
            raise HomeError(
                f"The home {self.path} cannot be written: {error.strerror}.",
                remedy="Choose a folder that you can write with --home.",
            ) from error

    def read_settings(self) -> dict[str, str]:
        """Read the settings file; a path of the home is relative to it, and returned absolute.

        Raises:
            HomeError: There is no home at the path.
            SettingsError: The file cannot be read.
        """
        if not os.path.isfile(self.settings_file):  # also of a path that is too long
            raise HomeError(
                f"{self.path} is no home: it has no settings file {self.settings_file.name}.",
                remedy="Name the folder of a demo that was started before (.demo by default).",
            )
        settings = read_env_file(self.settings_file)
        for name in OWN_PATHS.keys() & settings.keys():
            if "://" not in settings[name]:
                settings[name] = str(self.path / settings[name])
        return settings

    def update_settings(self, values: Mapping[str, str]) -> dict[str, str]:
        """Write `values` and the home's own paths; settings that a person added stay.

        The paths are written relative to the home: a copy of the folder is a home of its own.

        Returns:
            All settings of the home.
        """
        settings = {} if self.is_new else read_env_file(self.settings_file)
        settings.update({**values, **OWN_PATHS})
        text = "# The settings of this home. The user's own settings have no effect in it.\n"
        for name, value in settings.items():
            text += f"{name}={quote(value)}\n"

        draft = self.settings_file.with_suffix(".draft")
        draft.write_text(text, encoding="utf-8")
        draft.replace(self.settings_file)
        return self.read_settings()


# The settings of a home that are folders in it.
OWN_PATHS = {f"{PREFIX}LAKE": "lake", f"{PREFIX}FLEX_FOLDER": "flex"}


def quote(value: str) -> str:
    r"""Return a value in quotes, so that a settings file holds it literally.

    `dotenv.set_key` does not escape a backslash, and so changes some values.

    >>> print(quote("it's"))
    'it\'s'
    """
    escaped = value.replace("\\", "\\\\")
    escaped = escaped.replace("'", "\\'")
    return f"'{escaped}'"


@contextmanager
def exclusive_use(home: Path, *, purpose: str, leftover_s: float = LEFTOVER_S) -> Iterator[None]:
    """Hold the lock of a home of Dagster; end the processes that a killed start left there.

    Args:
        leftover_s: How long these processes have to end.

    Raises:
        HomeInUseError: Another process uses the home.
        HomeError: The folder cannot be written, or Dagster cannot use its path.
    """
    for character in UNUSABLE.intersection(str(home)):
        raise HomeError(
            f"Dagster cannot keep its state in {home}: SQLite takes the {character!r} of the "
            "path for a part of an address.",
            remedy="Choose or rename a folder without it.",
        )

    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(home / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HomeError(
            f"The home {home} cannot be written: {error.strerror}.",
            remedy="Choose a folder that you can write.",
        ) from error

    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HomeInUseError(
                f"The home {home} is in use by {holder_of(home) or 'another process'}.",
                remedy="End it first, or choose another home.",
            ) from None

        end(_carries(home), grace_s=leftover_s)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{purpose} (process {os.getpid()})".encode(), 0)
        yield
        os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def find_marked(home: Path) -> list[psutil.Process]:
    """List the living processes that carry the marker of `home`, without this one."""
    return living(_carries(home))


def _carries(home: Path) -> Callable[[psutil.Process], bool]:
    """Return whether a process carries a home, by whatever path each of them was named."""
    real = os.path.realpath(home)
    return lambda process: os.path.realpath(process.environ().get(MARKER, "/")) == real


def holder_of(home: Path) -> str | None:
    """Return who holds a home of Dagster, from its lock file; None if nobody does."""
    with suppress(FileNotFoundError, PermissionError), (home / LOCK_FILE).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read(4096)
    return None
