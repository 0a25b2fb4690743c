"""Cells of CSV, and the commands in hints as the user can type them."""

import csv
import io
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from position_sync_dagster.money.reports.columns import foreign


def cell_text(value: object) -> str:
    """Return a value as a cell of CSV: a text that a spreadsheet would run has a ' before it.

    >>> cell_text("=1+1"), cell_text(-1.5), cell_text(None), cell_text(["a", "b"])
    ("'=1+1", '-1.5', '', 'a b')
    """
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, list):
        value = " ".join(map(str, value))
    text = foreign(str(value))
    if isinstance(value, str) and text.startswith(("=", "+", "-", "@")):
        return f"'{text}"
    return text


def csv_of(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    r"""Return rows as CSV with a heading; unknown cells are empty.

    >>> csv_of(["a", "b"], [[1.5, None]])
    'a,b\n1.5,\n'
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows(map(cell_text, row) for row in rows)
    return text.getvalue()


PROGRAM_NAME = "position-sync"
_MENTION = re.compile(r"`position-sync ([^`]*)`")

# The commands that take no home: they have one of their own.
HOMELESS = ("dev", "demo", "simulate")


def program_as_typed(started: str | None = None) -> str:
    """Return the program as a person can type it: its name if it is on the PATH.

    Args:
        started: The path that started the program; None: that of this process.
    """
    path = started or sys.argv[0]
    if Path(path).name != PROGRAM_NAME or shutil.which(PROGRAM_NAME) == path:
        return PROGRAM_NAME
    return path


def command_as_typed(*words: str) -> str:
    """Return a command of the program that a shell takes as it stands, also with spaces in paths.

    >>> command_as_typed("exposure", "--home", "/my home")
    "position-sync exposure --home '/my home'"
    """
    return shlex.join([program_as_typed(), *words])


def as_typed(text: str) -> str:
    """Return a text whose commands, in back quotes, can be typed as they stand.

    They work on the home of this command.
    """
    program = command_as_typed()
    home = _home_of(sys.argv)

    def typed(mention: re.Match[str]) -> str:
        words = mention[1]
        if words.startswith(HOMELESS) or "--home" in words:
            return f"`{program} {words}`"
        return f"`{program} {words}{home}`"

    return _MENTION.sub(typed, text)


def _home_of(words: Sequence[str]) -> str:
    """Return the option that names the home of a command line, with a space before it."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "--home" and following:
            return f" --home {shlex.quote(following)}"
        if word.startswith("--home="):
            return f" {shlex.quote(word)}"
    return ""
