"""Commands of `position-sync` in this process; as a program each takes seconds to begin."""

from typer.testing import CliRunner

from position_sync_dagster.cli.app import app


def run(*arguments: str) -> str:
    """Run a command that succeeds, and return what it prints."""
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, f"{done.output}{done.exception}"
    return done.stdout
