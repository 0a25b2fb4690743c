"""Variables with the prefix of the settings that are no setting: a mistyped name has no effect."""

import os
from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

from position_sync_dagster.dagster_files import document
from position_sync_dagster.errors import SettingsError
from position_sync_dagster.processes.child_process import MARKER
from position_sync_dagster.settings import PREFIX, Settings, read_env_file


def warnings_of(environ: Iterable[str], *, env_file: str | None = ".env") -> list[str]:
    """Return one line for each unknown setting of an environment and a `.env` file.

    >>> warnings_of(["POSITION_SYNC_MAX_LINE", "POSITION_SYNC_LAKE", "HOME"], env_file=None)
    ['POSITION_SYNC_MAX_LINE is not a setting and has no effect; is POSITION_SYNC_MAX_LINES meant?']
    """
    names = set(environ)
    if env_file is not None and os.path.isfile(env_file):
        with suppress(SettingsError):  # reading the settings themselves reports it
            names.update(read_env_file(Path(env_file)))

    warnings = []
    for name in sorted(names):
        if not name.upper().startswith(PREFIX) or name == MARKER:
            continue

        field = name.upper().removeprefix(PREFIX).lower()
        if field not in Settings.model_fields:
            warnings.append(f"{name} is not a setting and has no effect; {_hint(field)}")
    return warnings


def _hint(field: str) -> str:
    """Return what a person may have meant by the name of a field that is no setting."""
    nearest = get_close_matches(field, Settings.model_fields, n=1)
    if nearest:
        return f"is {PREFIX}{nearest[0].upper()} meant?"
    return f"{document('.env.example')} lists each one."
