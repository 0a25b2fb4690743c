"""Options and settings that several commands share."""

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, time
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.errors import LakeError, MissingExtraError
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports.columns import printable
from position_sync_dagster.processes.home import Home, adopt_environment
from position_sync_dagster.processes.unknown_settings import warnings_of
from position_sync_dagster.settings import Settings, load_settings
from position_sync_dagster.terminal import output


def port(text: str, *, least: int = 1, default: str | bool = True) -> Any:
    """Return the option of a port.

    Args:
        text: Its help.
        least: The smallest number; 0 if the program may choose any free port.
        default: The default as the help shows it.
    """
    return typer.Option(min=least, max=65535, help=text, show_default=default)


def require_extra(module: str, extra: str) -> None:
    """Raise if a module of an extra is not installed.

    Raises:
        MissingExtraError: It names the extra.
    """
    if find_spec(module) is None:
        raise MissingExtraError(module, extra)


Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]
HomeFolder = Annotated[
    Path | None,
    typer.Option(
        "--home",
        metavar="FOLDER",
        help="Use the settings and the tables of a demo's home, for example .demo.",
    ),
]
Strategy = Annotated[str | None, typer.Option(help="Only the legs of this strategy.")]
Underlying = Annotated[str | None, typer.Option(help="Only contracts on this symbol.")]
Account = Annotated[str | None, typer.Option(help="Only what is of this account.")]
Since = Annotated[
    str | None,
    typer.Option(metavar="DAY", help="Only what was or closed on this day or later: 2026-01-02."),
]
Limit = Annotated[
    int, typer.Option(min=1, max=1_000_000, help="Show at most this many; of rows the last ones.")
]


def _moment(text: str) -> datetime:
    """Read a time of ISO 8601; one without a zone is local time."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        refused = f"{text[:40]!r} is no time. Write it as 2026-03-09T15:30:00Z."

    with suppress(ValueError):
        time.fromisoformat(text if ":" in text else "")
        today = utc_now().astimezone().date()
        refused = f"{text!r} has no day. Write it as {today}T{text}."
    raise typer.BadParameter(refused)


Watch = Annotated[
    bool, typer.Option("--watch", help="Show it again every 2 s, until Ctrl-C; not as JSON.")
]
AsOf = Annotated[
    datetime | None,
    typer.Option(
        parser=_moment,
        metavar="TIME",
        help="Show what had been committed by this time, such as 2026-03-09T15:30:00Z.",
    ),
]
EndWith = Annotated[
    int | None,
    typer.Option("--end-with", hidden=True, help="End when this process is no longer the parent."),
]


class ListByDefault(TyperGroup):
    """A group that runs its command `list` if no command is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `list` before options that do not belong to the group."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


def watched(show: Callable[[], None], *, watch: bool, json: bool) -> None:
    """Print once, or with --watch again and again until Ctrl-C."""
    if not watch:
        show()
    elif json:
        raise typer.BadParameter("--watch is for a terminal: `follow` prints JSON as it comes.")
    else:
        output.show_again(show)


def opened(home: Path | None, *, create: bool = False) -> tuple[Settings, MoneyLake]:
    """Return the settings of `settings_for`, and their lake, which must have tables.

    Args:
        home: As for `settings_for`.
        create: Whether to create the tables that do not exist. A command that only reads must not
            leave empty tables where there were none.

    Raises:
        SettingsError: A setting is unusable.
        LakeError: There are no tables.
    """
    settings = settings_for(home)
    lake = MoneyLake.of(settings)
    if create:
        lake.initialize_sync()
    elif not lake.exists:
        raise LakeError(
            f"There are no tables at {lake.path} yet.",
            remedy="Start `position-sync dev` or `position-sync demo`, which make them, or set "
            "POSITION_SYNC_LAKE (--home .demo for the demo's).",
        )
    return settings, lake


def settings_for(home: Path | None, *, warn: bool = True) -> Settings:
    """Read the settings of a home, or without a home those of the environment and `.env`.

    Args:
        home: The folder of a home.
        warn: Whether unknown settings are written to stderr.

    Raises:
        HomeError: There is no home at the path.
        SettingsError: A value is malformed.
    """
    env_file: str | None = ".env"
    if home is not None:
        opened_home = Home.at(home)
        adopt_environment(opened_home.read_settings(), opened_home.dagster_home)
        env_file = None
    if warn:
        warn_of_unknown_settings(env_file=env_file)
    return load_settings(_env_file=env_file)


def warn_of_unknown_settings(*, env_file: str | None = ".env") -> None:
    """Write one line to stderr for each variable with the prefix that is not a setting."""
    for line in warnings_of(os.environ, env_file=env_file):
        typer.echo(printable(f"position-sync: {line}"), err=True)
