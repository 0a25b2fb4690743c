"""A home: the folder in which a demo keeps its settings, its tables and Dagster's state."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.processes.checkout import INSTANCE_FILE, PROJECT, WORKSPACE_FILE


class HomeError(PositionSyncError):
    """A folder cannot be made a home, or it is not a home."""


@dataclass(frozen=True, slots=True)
class Home:
    """The paths and the settings file of a home.

    Attributes:
        path: The folder, as an absolute path.
    """

    path: Path

    @classmethod
    def at(cls, path: str | Path) -> "Home":
        """Return the home at `path`, which need not exist yet."""
        return cls(Path(path).expanduser().absolute())

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
            HomeError: A folder cannot be created or written, or the package does not run from a
                checkout.
        """
        if not (INSTANCE_FILE.is_file() and WORKSPACE_FILE.is_file()):
            raise HomeError(
                f"{PROJECT} has no workspace.yaml and dagster_home/dagster.yaml.",
                remedy="Start it from a checkout of the project, with `make demo`.",
            )
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)  # an earlier version left it open to everybody
            self.dagster_home.mkdir(mode=0o700, exist_ok=True)
            shutil.copyfile(INSTANCE_FILE, self.dagster_home / "dagster.yaml")
        except OSError as error:
            raise HomeError(
                f"The home {self.path} cannot be written: {error.strerror}.",
                remedy="Choose a folder that you can write with --home.",
            ) from error

    def read_settings(self) -> dict[str, str]:
        """Read the settings file.

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
        """Write `values` into the settings file; settings that a person added stay.

        Returns:
            All settings of the home.
        """
        settings = {} if self.is_new else self.read_settings()
        settings.update(values)
        lines = ["# The settings of this home; those of the user do not reach into it."]
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
