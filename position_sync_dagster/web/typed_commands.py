"""How a shell of this machine takes the commands that a page shows."""

import os
import shlex
import sys
from pathlib import Path

from position_sync_dagster.processes.home import Home
from position_sync_dagster.terminal.text import NAME, program_as_typed


def typed_program() -> str:
    """Return the program as a shell takes it in any folder: its path if it is not on the PATH."""
    beside = Path(sys.executable).with_name(NAME)
    program = program_as_typed(str(beside), cwd=Path("/nowhere")) if beside.exists() else NAME
    return shlex.quote(program)


def typed_home() -> str:
    """Return the option that names the home of this process; empty if it has none."""
    named = os.environ.get("DAGSTER_HOME")
    if named is None:
        return ""
    home = Home.at(Path(named).parent)
    is_home = home.dagster_home == Path(named).absolute() and not home.is_new
    return f" --home {shlex.quote(str(home.path))}" if is_home else ""
