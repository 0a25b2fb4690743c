"""Commands of `position-sync` in this process; as a program each takes seconds to begin."""

import json
import os
import sys
from functools import cache
from typing import IO, Any
from unittest.mock import patch

import pytest
from typer import main, testing
from typer.testing import CliRunner, Result

from position_sync_dagster import cli


def keep_commands() -> None:
    """Make Typer build the commands of an application once per process, not for each call."""
    main.get_command = testing._get_command = cache(main.get_command)  # type: ignore[attr-defined]


def call(*arguments: str, typed: str | None = None) -> Result:
    """Run a command, and raise its error."""
    with patch.dict(os.environ):
        return CliRunner().invoke(cli.commands(), arguments, typed, catch_exceptions=False)


def run(*arguments: str) -> str:
    """Run a command that succeeds, and return what it prints."""
    done = call(*arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def json_of(*arguments: str) -> Any:
    """Return what a command prints as JSON."""
    return json.loads(run(*arguments, "--json"))


def attention() -> list[str]:
    """Return what `status` says needs attention."""
    found: list[str] = json_of("status")["attention"]
    return found


def ended(*arguments: str, output: IO[str] | None = None) -> Any:
    """Run a command line as a program does, also with another output, and return its exit code."""
    with (
        patch("sys.argv", ["position-sync", *arguments]),
        patch("sys.stdout", output or sys.stdout),
        pytest.raises(SystemExit) as end,
    ):
        cli.main()
    return end.value.code
