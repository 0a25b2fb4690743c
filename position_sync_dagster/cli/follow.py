"""The command `follow`: each row of the ledger as it is committed."""

import os
import sys
import time
from typing import Annotated

import polars as pl
import typer

from position_sync_dagster.cli import options
from position_sync_dagster.domain.instrument import contract_name
from position_sync_dagster.lake.followed_rows import POLL_S
from position_sync_dagster.lake.lake import rows_of_logins
from position_sync_dagster.lake.schema import updates_of
from position_sync_dagster.sync.reports.book import is_leg_of, known_strategy
from position_sync_dagster.terminal import output
from position_sync_dagster.terminal.text import number, printable, quantity

# How often a token is printed, in seconds; it also shows a closed pipe while there are no rows.
TOKEN_EVERY_S = 5.0


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
        typer.Option(min=0.05, max=5, help="How often to look for a new commit, in seconds."),
    ] = POLL_S,
    home: options.HomeFolder = None,
) -> None:
    """Print each row of the ledger as it is committed, one a line, until Ctrl-C or a closed pipe.

    A line is a row of position_updates: an object with its columns, times in ISO 8601 and unknown
    values null. After the rows of a commit, and every 5 s, comes a line `{"token": "..."}`. A
    program stores the last token together with what it did, and passes it as --since to go on
    there: nothing is left out, and nothing comes twice.
    """
    settings, lake = options.opened(home)
    active = (leg.strategy_id for leg in lake.registry.sync.get_all_active())
    waiting_for_contract = (leg.strategy_id for leg in lake.registry.unresolved)
    known_strategy(strategy, active, waiting_for_contract)
    reader = lake.updates.sync.follow(since)

    def chosen(rows: pl.DataFrame) -> pl.DataFrame:
        rows = rows_of_logins(rows, settings)
        if strategy is not None:
            rows = rows.filter(is_leg_of(lake, strategy, lake.registry.sync.get_all_active()))
        if account is not None:
            rows = rows.filter(pl.col("account") == account)
        if conid is not None:
            rows = rows.filter(pl.col("conid") == conid)
        return rows

    print_rows = _print_json if json else _print_lines
    token = since or ""  # the first read may find nothing
    token_printed_at = time.monotonic()
    try:
        while True:
            commit = reader.read()
            if commit is not None:
                token = commit.token
                print_rows(chosen(commit.rows))

            is_token_due = time.monotonic() > token_printed_at + TOKEN_EVERY_S
            if json and (commit is not None or is_token_due):
                _write(pl.DataFrame({"token": [token]}).write_ndjson())
                token_printed_at = time.monotonic()

            if commit is None:  # otherwise there may be more
                time.sleep(poll)
    except BrokenPipeError:
        # The interpreter flushes the output at its end, and would report the closed pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return


def _print_json(rows: pl.DataFrame) -> None:
    _write(output.escaped(rows.drop("date").write_ndjson()))


def _print_lines(rows: pl.DataFrame) -> None:
    for row in updates_of(rows):
        contract = printable(contract_name(row))
        _write(
            f"{row.timestamp:%H:%M:%S}  {printable(row.account)}  {contract:<24} "
            f"{quantity(row.position):>8} {number(row.market_value):>14} "
            f"{number(row.unrealized_pnl):>12}  {row.source}\n"
        )


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
