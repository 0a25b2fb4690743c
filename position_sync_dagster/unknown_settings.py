"""Variables that look like settings and are none: a mistyped name would have no effect, unseen."""

import os
from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches

from dotenv import dotenv_values

from position_sync_dagster.settings import PREFIX, Settings

OWN_VARIABLES = frozenset({PREFIX + "LAUNCHED_FROM"})
"""Variables that the package itself sets in its processes, and that are no settings."""


def unknown_settings(names: Iterable[str]) -> dict[str, str | None]:
    """Return the names with the prefix that are no settings, each with the nearest setting.

    >>> unknown_settings(["POSITION_SYNC_MAX_LINE", "POSITION_SYNC_LAKE", "HOME"])
    {'POSITION_SYNC_MAX_LINE': 'POSITION_SYNC_MAX_LINES'}
    """
    known = [field.upper() for field in Settings.model_fields]
    found: dict[str, str | None] = {}
    for name in sorted(names):
        prefix, rest = name.upper()[: len(PREFIX)], name.upper()[len(PREFIX) :]
        if prefix == PREFIX and rest not in known and name not in OWN_VARIABLES:
            nearest = get_close_matches(rest, known, n=1)
            found[name] = PREFIX + nearest[0] if nearest else None
    return found


def warnings_of(environ: Iterable[str], *, env_file: str | None = ".env") -> list[str]:
    """Return one line for each unknown setting of an environment and of a `.env` file."""
    names = set(environ)
    if env_file is not None and os.path.isfile(env_file):
        with suppress(OSError, UnicodeDecodeError):  # reading the settings themselves reports it
            names.update(dotenv_values(env_file, interpolate=False))
    return [
        f"{name} is no setting and has no effect"
        + (f"; is {nearest} meant?" if nearest else "; .env.example lists each setting.")
        for name, nearest in unknown_settings(names).items()
    ]
