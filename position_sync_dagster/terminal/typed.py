"""How this program can be typed again, for the commands in its hints."""

import re
import shutil
import sys
from pathlib import Path

NAME = "position-sync"
_MENTION = re.compile(r"(?<=`)position-sync(?= )")


def program_as_typed(argv0: str | None = None, cwd: Path | None = None) -> str:
    """Return the shortest way to type the program from the working directory.

    Args:
        argv0: The path that started it; None: that of this process.
        cwd: None: the working directory.
    """
    started = Path(argv0 if argv0 is not None else sys.argv[0])
    if started.name != NAME:
        return NAME
    path, folder = started.absolute(), (cwd or Path.cwd())
    found = shutil.which(NAME)
    if found is not None and Path(found).absolute() == path:
        return NAME
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def as_typed(text: str) -> str:
    """Return a text whose commands, in back quotes, can be typed as they stand."""
    program = program_as_typed()
    return _MENTION.sub(lambda _: program, text)
