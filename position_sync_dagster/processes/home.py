"""A home: the folder in which a session keeps its settings, its tables and Dagster's state."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.processes.home_lock import HomeLock
from position_sync_dagster.processes.process_tree import MARKER, end_processes, find_marked
from position_sync_dagster.settings import PREFIX

PROJECT = Path(__file__).resolve().parents[2]
"""The folder of the checkout, which holds `workspace.yaml` and `dagster_home`."""

NOT_INHERITED = (PREFIX, "DAGSTER_")
"""Prefixes of variables that a home's processes never inherit."""

LEFTOVER_GRACE_S = 1.0


class HomeError(PositionSyncError):
    """A home cannot be made or is none."""


@dataclass(frozen=True, slots=True)
class Home:
    """The demo's home; `path` is absolute."""

    path: Path

    @classmethod
    def at(cls, path: str | Path) -> "Home":
        """Name the home at `path`, which need not exist yet."""
        return cls(Path(path).expanduser().absolute())

    @property
    def lake(self) -> Path:
        """The tables."""
        return self.path / "lake"

    @property
    def dagster_home(self) -> Path:
        """Dagster's state."""
        return self.path / "dagster_home"

    @property
    def settings_file(self) -> Path:
        """The settings of everything that runs in the home, one `NAME=value` a line."""
        return self.path / ".env"

    def log_file(self, name: str) -> Path:
        """The log file of a child."""
        return self.path / f"{name}.log"

    @property
    def is_new(self) -> bool:
        """Tell whether no session has run here yet."""
        return not self.settings_file.exists()

    def prepare(self) -> None:
        """Make the folders and put the project's instance file into Dagster's.

        Raises:
            HomeError: A folder cannot be made or written, or this is no checkout.
        """
        if not (instance_file().is_file() and workspace_file().is_file()):
            raise HomeError(
                f"{PROJECT} has no workspace.yaml and dagster_home/dagster.yaml.",
                remedy="Start it from a checkout of the project, with `make demo`.",
            )
        try:
            self.dagster_home.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(instance_file(), self.dagster_home / "dagster.yaml")
        except OSError as error:
            raise HomeError(
                f"The home {self.path} cannot be written: {error.strerror}.",
                remedy="Choose a folder that you can write with --home.",
            ) from error

    def read_settings(self) -> dict[str, str]:
        """Read the settings that the home keeps.

        Raises:
            HomeError: There is no home at the path.
        """
        if not self.settings_file.is_file():
            raise HomeError(
                f"{self.path} is no home: it has no settings file {self.settings_file.name}.",
                remedy="Name the folder of a demo that was started before (.demo by default).",
            )
        values = dotenv_values(self.settings_file, interpolate=False)
        return {name: value for name, value in values.items() if value is not None}

    def update_settings(self, values: Mapping[str, str]) -> dict[str, str]:
        """Write `values` over the settings that the home keeps; what a person added stays."""
        settings = {} if self.is_new else self.read_settings()
        settings.update(values)
        lines = ["# The settings of this home; those of the user do not reach into it."]
        lines += [f"{name}={quote(value)}" for name, value in settings.items()]
        draft = self.settings_file.with_suffix(".draft")
        draft.write_text("\n".join(lines) + "\n", encoding="utf-8")
        draft.replace(self.settings_file)
        return settings


def quote(value: str) -> str:
    r"""Give a value as a settings file holds it, literally.

    >>> print(quote("it's"))
    'it\'s'
    """
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def instance_file() -> Path:
    """Give the project's `dagster.yaml`."""
    return PROJECT / "dagster_home" / "dagster.yaml"


def workspace_file() -> Path:
    """Give the project's `workspace.yaml`."""
    return PROJECT / "workspace.yaml"


def environment_of(marker: Path, values: Mapping[str, str]) -> dict[str, str]:
    """Give the environment of a home's processes: the user's, without what would mix homes."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(NOT_INHERITED)}
    return kept | dict(values) | {MARKER: str(marker)}


def adopt_environment(values: Mapping[str, str]) -> None:
    """Make `values` this process's own settings; none of the user's others stay."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]
    os.environ.update({k: v for k, v in values.items() if k.startswith(PREFIX)})


@contextmanager
def exclusive_use(path: Path, *, purpose: str) -> Iterator[HomeLock]:
    """Hold the lock of the folder `path`; end what is left of it before and after.

    Raises:
        HomeInUseError: Another living process holds it.
        HomeError: The folder cannot be made or written.
    """
    lock = HomeLock(path, purpose=purpose)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise HomeError(
            f"The home {path} cannot be written: {error.strerror}.",
            remedy="Choose a folder that you can write.",
        ) from error
    try:
        end_processes(lambda: find_marked(str(path)), grace_s=LEFTOVER_GRACE_S)
        yield lock
    finally:
        end_processes(lambda: find_marked(str(path)), grace_s=LEFTOVER_GRACE_S)
        lock.release()
