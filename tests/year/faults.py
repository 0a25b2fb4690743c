"""Errors that are planted into the program, to prove that the year finds them.

Each replaces one function of the program, or damages one table, from its session on.
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from datetime import date
from typing import Any
from unittest import mock

import deltalake
import polars as pl

from position_sync_dagster.gateway import translate
from position_sync_dagster.money.past import explain_closes, movement_book
from position_sync_dagster.money.past.closes import Cause, Closure
from position_sync_dagster.money.reports import book
from tests.year.exchanges import session_after
from tests.year.programs import Program

# On which session, counted from the first one as 0, an error begins.
PLANTED_ON = 2

Plant = Callable[[Program, ExitStack], None]


def _replace(stack: ExitStack, module: Any, name: str, function: Callable[..., Any]) -> None:
    stack.enter_context(mock.patch.object(module, name, function))


def wrong_multiplier(_program: Program, stack: ExitStack) -> None:
    """Read the multiplier 10 as 100, as of an option on the ESTX50."""
    true = translate.multiplier_of

    def planted(sec_type: str, text: str) -> float | None:
        if text == "10":
            return 100.0

        return true(sec_type, text)

    _replace(stack, translate, "multiplier_of", planted)


def session_too_late(_program: Program, stack: ExitStack) -> None:
    """Book what happens on a day on the session after it."""
    true = movement_book.session_of

    def planted(calendar: str, day: date) -> date:
        return session_after(true(calendar, day))

    _replace(stack, movement_book, "session_of", planted)


def row_twice(program: Program, _stack: ExitStack) -> None:
    """Append the newest row of the ledger a second time."""
    path = program.settings.table("position_updates")
    rows = pl.read_delta(path).sort("timestamp").tail(1)
    deltalake.write_deltalake(path, rows.to_arrow(), mode="append")


def stale_called_fresh(_program: Program, stack: ExitStack) -> None:
    """Call each value current, whoever looked when."""
    _replace(stack, book, "is_current", lambda _since: pl.lit(value=True))


def cause_guessed(_program: Program, stack: ExitStack) -> None:
    """Call each close of an option a worthless end."""
    true = explain_closes.closures_of

    def planted(*arguments: Any, **options: Any) -> Iterable[Closure]:
        return [
            replace(closure, cause=Cause.EXPIRED_WORTHLESS) if closure.right else closure
            for closure in true(*arguments, **options)
        ]

    _replace(stack, explain_closes, "closures_of", planted)


PLANTS: dict[str, Plant] = {
    "wrong-multiplier": wrong_multiplier,
    "session-too-late": session_too_late,
    "row-twice": row_twice,
    "stale-called-fresh": stale_called_fresh,
    "cause-guessed": cause_guessed,
}
