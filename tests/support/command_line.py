"""Commands of `position-sync` in this process; as a program each takes seconds to begin."""

import json

from typer.testing import CliRunner, Result

from position_sync_dagster.cli.app import app


def call(*arguments: str) -> Result:
    """Run a command, and raise its error."""
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def run(*arguments: str) -> str:
    """Run a command that succeeds, and return what it prints."""
    done = call(*arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def attention() -> list[str]:
    """Return what `status` says needs attention."""
    found: list[str] = json.loads(run("status", "--json"))["attention"]
    return found
