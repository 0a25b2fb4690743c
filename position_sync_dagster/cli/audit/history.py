"""The command `position-sync history`: each value of a holding, and where it came from."""

from collections.abc import Iterator
from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from position_sync_dagster.cli.audit.trace import stamp
from position_sync_dagster.cli.options import HomeFolder, Json, existing, settings_for
from position_sync_dagster.terminal.output import print_json
from position_sync_dagster.terminal.text import number, printable, quantity

if TYPE_CHECKING:
    from position_sync_dagster.sync.audit.trace import History, PastValue


def history(
    holding: Annotated[
        str, typer.Argument(metavar="ACCOUNT:CONID", help="The holding, as DU1234567:728937835.")
    ],
    day: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Only the values of this date, in UTC."),
    ] = None,
    limit: Annotated[
        int,
        typer.Option(min=1, max=100_000, help="The highest number of values, the newest ones."),
    ] = 20,
    json: Json = False,
    home: HomeFolder = None,
) -> None:
    """Show each value of a holding with its source, batch, run, request, break and strategy."""
    from position_sync_dagster.lake import Lake
    from position_sync_dagster.sync.audit.trace import history as read

    account, conid = parse_holding(holding)
    on: date | None = None if day is None else day.date()
    found = read(existing(Lake.of(settings_for(home))), account, conid, day=on, limit=limit)
    if json:
        print_json(found)
        return
    for line in as_lines(found):
        typer.echo(printable(line))


def parse_holding(text: str) -> tuple[str, int]:
    """Return account and conid of a holding.

    >>> parse_holding("DU1234567:728937835")
    ('DU1234567', 728937835)
    """
    account, _, conid = text.rpartition(":")
    # No conid has more digits.
    if not account or not conid.isascii() or not conid.isdigit() or len(conid) > 10:
        raise typer.BadParameter(f"{text[:80]!r} is no holding; write DU1234567:728937835.")
    return account, int(conid)


def as_lines(found: "History") -> Iterator[str]:
    """Return a history as lines of at most 80 columns."""
    symbol = found.values[-1].row["symbol"]
    yield f"{found.account}:{found.conid} {symbol}"
    if found.more:
        yield f"the newest {len(found.values):,} values; --limit shows more"
    for one in found.values:
        yield from _value_lines(one)


def _value_lines(one: "PastValue") -> Iterator[str]:
    row = one.row
    at = row["timestamp"]
    kind = f" {row['price_kind']}" if row["price_kind"] else ""
    yield (
        f"{stamp(at if isinstance(at, datetime) else None)}  {quantity(_float(row, 'position'))} × "
        f"{number(_float(row, 'market_price'))}{kind} = {number(_float(row, 'market_value'))} "
        f"{row['currency']}  {row['source']}/{row['value_source']}"
    )
    links = {
        "row": row["update_id"],
        "batch": row["batch_id"],
        "run": row["run_id"],
        "request": row["request_id"],
        "strategy": ", ".join(one.strategies),
        "break": ", ".join(f"{b['type']} {b['state']} {b['break_id']}" for b in one.breaks),
        "note": row["note"],
    }
    for name, value in links.items():
        if value:
            yield f"    {name:<9} {value}"


def _float(row: dict[str, object], name: str) -> float | None:
    value = row[name]
    return value if isinstance(value, float) else None
