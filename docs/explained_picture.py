"""Take the picture of the explained profit from a demo: `python -m docs.explained_picture`."""

import sys
import tempfile
import time
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl

from docs.screenshots import save
from ib_gateway_simulator.books.loader import BOOKS
from ib_gateway_simulator.control.scenario import load_scenario
from position_sync_dagster.cli import options
from position_sync_dagster.lake.derived import derive
from position_sync_dagster.lake.schema import DAILY_POSITIONS
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.movement_book import MovementBook
from position_sync_dagster.money.profit.moved_between import TradingDay
from position_sync_dagster.money.profit.profit import explain_days, is_explained
from position_sync_dagster.money.tables import PROFIT_EXPLAINED
from position_sync_dagster.sync.past_days import values_at_close
from tests.support.browser import open_page
from tests.support.demo_program import LEGS, Demo, wait_for

# Seconds from the fall of the market to the end of the explained time.
SETTLED_S = 60.0

# By how many percent the market of the picture of the explained profit falls.
FALL = 3.0


def explained(folder: Path) -> None:
    """Save where the profit of some minutes came from that have what a trading day has.

    The day of the demo is played: fills, an assignment, a roll, an expiry; then the market falls.
    It begins once all options have greeks, as they have at a close.
    """
    demo = Demo(folder / ".calm")
    try:
        wait_for("all options have greeks", lambda: _have_greeks(demo), within_s=900, poll_s=2)
        since = datetime.now(UTC)
        time.sleep(2.0)  # the gateway names executions to the second
        began = time.monotonic()
        day = [one for one in load_scenario(BOOKS / "demo_day.yaml") if 70 <= one.at_s < 200]
        for one in day:
            if one.do != "connectivity":
                time.sleep(max(0.0, began + one.at_s - 70 - time.monotonic()))
                demo.post(one.do, **one.arguments.model_dump(mode="json", exclude_unset=True))
        for symbol in demo.table("broker_positions").get_column("symbol").unique():
            demo.post("move", symbol=symbol, percent=-FALL)
        time.sleep(SETTLED_S)
        settings, lake = options.opened(demo.home)
        now = datetime.now(UTC)
        yesterday = now.date() - timedelta(days=1)
        record_close(lake, yesterday, since)
        record_close(lake, now.date(), now)
        MovementBook(lake).update()
        trading_day = TradingDay(now.date(), before=yesterday, since=since, closed=now)
        explained_days = explain_days(lake, settings, [trading_day])
        sys.stdout.write(
            "".join(
                f"explained: {is_explained(row)}, {row}\n"
                for row in explained_days[trading_day.day].to_dicts()
            )
        )
        derive(lake.derived_table(PROFIT_EXPLAINED), lambda: explained_days)
        with open_page(demo.ui_port) as page:
            page.open("/money/risk", size=(1280, 560))
            page.wait_for_text("Where the profit of")
            heading = page.driver.find_element("xpath", "//h2[contains(., 'Where the profit')]")
            page.driver.execute_script("arguments[0].scrollIntoView()", heading)
            save(page, "explained.png")
    finally:
        demo.close()


def record_close(lake: MoneyLake, day: date, closed: datetime) -> None:
    """Store the holdings at a time as if it were the close of a day."""
    opened = closed - timedelta(days=1)
    rows = values_at_close(lake, day, opened=opened, closed=closed)
    derive(lake.derived_table(DAILY_POSITIONS), lambda: {day: rows})


def _have_greeks(demo: Demo) -> bool:
    with suppress(Exception):  # there are no tables yet
        rows = demo.updates().filter(pl.col("right").is_not_null()).sort("timestamp")
        last = rows.group_by("conid").last()
        return last.height >= LEGS - 10 and not last.get_column("delta").null_count()
    return False


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="explained-") as made:
        explained(Path(made))
