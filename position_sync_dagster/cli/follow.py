"""The command `follow`: each row of the ledger as it is committed, for programs in any language."""

import os
import sys
import time
from typing import Annotated

import polars as pl
import typer

from position_sync_dagster.cli import options
from position_sync_dagster.domain.instrument import contract_name
from position_sync_dagster.lake.lake import Lake, rows_of_logins
from position_sync_dagster.lake.schema.codec import updates_of
from position_sync_dagster.lake.updates.follow import POLL_S
from position_sync_dagster.sync.reports.position_list import is_leg_of
from position_sync_dagster.terminal.output import escaped
from position_sync_dagster.terminal.text import number, printable, quantity

TOKEN_EVERY_S = 5.0
"""How often a token is printed, in seconds; it also shows a closed pipe while there are no rows."""


def follow(
    strategy: options.Strategy = None,
    account: Annotated[str | None, typer.Option(help="Only rows of this account.")] = None,
    conid: Annotated[int | None, typer.Option(help="Only rows of this contract.")] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            help="Go on behind this token; `now` for what is committed from now on, `start` for "
            "every row. Without it, the newest row of each holding comes first.",
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json/--table", help="Print JSON lines, or short lines for people.")
    ] = True,
    poll: Annotated[
        float,
        typer.Option(min=0.05, max=3600, help="How often to look for a new commit, in seconds."),
    ] = POLL_S,
    home: options.HomeFolder = None,
) -> None:
    """Print each row of the ledger as it is committed, one a line, until Ctrl-C or a closed pipe.

    A line is a row of position_updates: an object with its columns, times in ISO 8601 and unknown
    values null. After the rows of a commit, and every 5 s, comes a line `{"token": "..."}`. A
    program stores the last token together with what it did, and passes it as --since to go on
    there: nothing is left out, and nothing comes twice.
    """
    settings = options.settings_for(home)
    lake = options.existing(Lake.of(settings))
    legs = lake.registry.sync.get_all_active()
    options.known_strategy(strategy, (leg.strategy_id for leg in legs))
    reader = lake.updates.sync.follow(since)

    def wanted(rows: pl.DataFrame) -> pl.DataFrame:
        rows = rows_of_logins(rows, settings)
        if strategy is not None:
            rows = rows.filter(is_leg_of(lake, strategy, lake.registry.sync.get_all_active()))
        for column, value in (("account", account), ("conid", conid)):
            if value is not None:
                rows = rows.filter(pl.col(column) == value)
        return rows

    token, printed_at = "", time.monotonic()
    try:
        while True:
            found = reader.read()
            if found is not None:
                token = found.token
                (_print_json if json else _print_lines)(wanted(found.rows))
            if json and (found is not None or time.monotonic() > printed_at + TOKEN_EVERY_S):
                _write(pl.DataFrame({"token": [token]}).write_ndjson())
                printed_at = time.monotonic()
            if found is None:
                time.sleep(min(poll, TOKEN_EVERY_S))
    except BrokenPipeError:
        # The interpreter flushes the output at its end, and would report the closed pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return


def _print_json(rows: pl.DataFrame) -> None:
    _write(escaped(rows.drop("date").write_ndjson()))


def _print_lines(rows: pl.DataFrame) -> None:
    for row in updates_of(rows):
        leg = contract_name(row)
        _write(
            f"{row.timestamp:%H:%M:%S}  {printable(row.account)}  {printable(leg):<24} "
            f"{quantity(row.position):>8} {number(row.market_value):>14} "
            f"{number(row.unrealized_pnl):>12}  {row.source}\n"
        )


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
