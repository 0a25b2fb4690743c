"""The command `position-sync positions`: the newest row of each position."""

from dataclasses import asdict
from typing import Annotated

import typer

from position_sync_dagster.cli.options import HomeFolder, Json, existing, settings_for
from position_sync_dagster.terminal.output import print_json, print_table
from position_sync_dagster.terminal.text import age, number, quantity

COLUMNS = {
    "account": "left",
    "conid": "right",
    "symbol": "left",
    "right": "left",
    "strike": "right",
    "expiry": "left",
    "position": "right",
    "price": "right",
    "value": "right",
    "unrealised": "right",
    "currency": "left",
    "by": "left",
    "from": "left",
    "age": "right",
}


def positions(
    strategy: Annotated[str | None, typer.Option(help="Only the legs of this strategy.")] = None,
    closed: Annotated[bool, typer.Option("--closed", help="Show closed positions too.")] = False,
    json: Json = False,
    home: HomeFolder = None,
) -> None:
    """Show the newest row of each position: its values, its source and its age."""
    from position_sync_dagster.domain.clock import utc_now
    from position_sync_dagster.lake import Lake
    from position_sync_dagster.sync.reports.confirmations import confirmed_times

    settings = settings_for(home)
    lake = existing(Lake.of(settings))
    rows = lake.updates.sync.latest_updates()
    if strategy is not None:
        legs = [leg for leg in lake.registry.sync.get_all_active() if leg.strategy_id == strategy]
        rows = [
            row
            for row in rows
            if any(leg.conid == row.conid and leg.account in (None, row.account) for leg in legs)
        ]
    rows = [row for row in rows if closed or row.position]
    rows.sort(
        key=lambda row: (row.account, row.symbol, str(row.expiry), row.strike or 0, row.conid)
    )
    now = utc_now()
    confirmed = confirmed_times(rows, lake, settings, now)
    if json:
        print_json(
            [asdict(row) | {"confirmed_at": confirmed[row.account, row.conid]} for row in rows]
        )
        return
    if not rows:
        typer.echo("No position has a row yet.")
        return
    print_table(
        COLUMNS,
        (
            (
                row.account,
                str(row.conid),
                row.symbol,
                str(row.right or ""),
                "" if row.strike is None else f"{row.strike:g}",
                "" if row.expiry is None else row.expiry.isoformat(),
                quantity(row.position),
                number(row.market_price),
                number(row.market_value),
                number(row.unrealized_pnl),
                row.currency,
                str(row.source),
                str(row.value_source),
                age(confirmed[row.account, row.conid], now),
            )
            for row in rows
        ),
    )
