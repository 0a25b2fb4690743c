"""The console that output goes to, and how wide it is."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 200
"""A pipe has no width, and would cut rows to 80 columns."""


def console() -> "Console":
    """Return a console for the standard output; a pipe is wide enough for each column."""
    from rich.console import Console

    found = Console()
    return found if sys.stdout.isatty() else Console(width=PIPE_WIDTH)
