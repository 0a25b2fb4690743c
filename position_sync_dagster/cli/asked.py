"""What commands show that `/api/v1` answers too."""

from pathlib import Path
from typing import Any

import typer
from pydantic import ValidationError

from position_sync_dagster.cli import options
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.money.as_of import Past
from position_sync_dagster.terminal import output
from position_sync_dagster.web.api import ask, invalid
from position_sync_dagster.web.served_figures import PageFigures


def asked_of_book(home: Path | None, route: str, *, json: bool, **parameters: Any) -> Any:
    """Return what `asked` does of what is held, and print first why its values are not of now."""
    answer = asked(home, route, **parameters)
    output.print_above(answer["not_current"], json=json)
    return answer


def asked(home: Path | None, route: str, **parameters: Any) -> Any:
    """Return what `/api/v1` answers, from the tables of a home.

    Args:
        home: As for `settings_for`.
        route: The name of what is asked for.
        parameters: The query.
    """
    settings, _lake = options.opened(home)
    if parameters.get("at") is not None:
        typer.echo(Past(at=parameters["at"]), err=True)
    try:
        return ask(PageFigures(settings), route, utc_now(), **parameters)
    except ValidationError as error:
        raise typer.BadParameter(invalid(error)) from None
