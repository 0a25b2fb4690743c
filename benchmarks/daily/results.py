"""Results of 5,000 campaigns: the table is made, and the command answers."""

import os
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.outcome import Line, Target
from benchmarks.timing import elapsed_ms, median
from position_sync_dagster.lake.derived import derive
from position_sync_dagster.lake.schema import frame_of
from position_sync_dagster.money.campaigns.closed_campaigns import CampaignBook
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.movements import (
    Movement,
    MovementKind,
    MovementSource,
    Section,
)
from position_sync_dagster.money.tables import CLOSED_CAMPAIGNS
from position_sync_dagster.settings import load_settings

CAMPAIGNS = 5000
TIMES = 7

FIRST = date(2022, 1, 3)


def results(bench: Bench) -> None:
    """Measure how long the table takes, and the command as a process of its own."""
    count = bench.size(CAMPAIGNS, 50)
    folder = bench.new_folder("results")
    settings = load_settings(lake=str(folder))
    lake = MoneyLake.of(settings)
    lake.initialize_sync()
    trades = [trade for number in range(count) for trade in vertical(number)]
    lake.movements.derive(lambda: trades)

    def make_table() -> None:
        table = lake.derived_table(CLOSED_CAMPAIGNS)
        derive(table, lambda: frame_of(table.spec, CampaignBook(lake).rows()))

    made_ms = elapsed_ms(make_table)
    answered_ms = [elapsed_ms(lambda: ask(folder)) for _time in range(bench.size(TIMES, 1))]
    state = f"{count:,} campaigns of two legs"
    bench.report.add(
        "Results of campaigns",
        [
            Line(what="closed_campaigns is made", state=state, ours=made_ms / 1000, unit="s"),
            Line(
                what="position-sync results --by kind --json, as a program",
                state=state,
                ours=median(answered_ms) / 1000,
                unit="s",
                samples=len(answered_ms),
                target=Target(value=1.0),
            ),
        ],
    )


def vertical(number: int) -> list[Movement]:
    """Return the four trades of a put spread that was held for a week."""
    opened = FIRST + timedelta(days=7 * (number % 200))
    closed = opened + timedelta(days=7)
    conids = (2 * number + 1, 2 * number + 2)
    trades: list[Movement] = []
    for day, prices, side in ((opened, (3.0, 2.0), -1.0), (closed, (2.0, 1.5), 1.0)):
        for conid, price, sign in zip(conids, prices, (side, -side), strict=True):
            trades.append(trade(number, conid, sign, price, day))
    return trades


def trade(number: int, conid: int, quantity: float, price: float, day: date) -> Movement:
    """Return a trade of a put, the strike by its contract id."""
    return Movement(
        movement_id=f"{conid}:{day}",
        kind=MovementKind.TRADE,
        section=Section.TRADES,
        account="DUSIM0001",
        day=day,
        session_date=day,
        at=datetime.combine(day, time(16), UTC) + timedelta(seconds=number % 3600),
        conid=conid,
        symbol=f"U{number}",
        sec_type="OPT",
        right="PUT",
        strike=100.0 - 5 * (conid % 2 == 0),
        expiry=day + timedelta(days=30),
        quantity=quantity,
        price=price,
        multiplier=100.0,
        currency="USD",
        cash=-100.0 * quantity * price,
        fee=-1.05,
        fee_currency="USD",
        source=MovementSource.STATEMENT,
        order_id=f"{number}:{day}",
    )


def ask(folder: Path) -> None:
    """Run the command, and check that it answered."""
    environment = os.environ | {"POSITION_SYNC_LAKE": str(folder)}
    command = [Path(sys.executable).with_name("position-sync"), "results", "--by", "kind", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    if b'"vertical"' not in done.stdout:
        raise RuntimeError(done.stdout.decode())
