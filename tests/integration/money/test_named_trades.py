"""Trades of the day by the names of their contracts: through the real client, on the first look."""

from datetime import UTC, datetime, timedelta

from ib_gateway_simulator import load_book
from position_sync_dagster.money.campaigns.lots import read_lots
from position_sync_dagster.money.past.explain_closes import CloseExplainer
from position_sync_dagster.money.reports.changes import changes_of, read_day
from position_sync_dagster.money.reports.fill_costs import read_fill_costs
from tests.support.booked_legs import CALL, UNHELD, A
from tests.support.short_owner import refresh
from tests.support.streams import settings_for, simulate

# Calls of the small book: one that A has no longer, and one of a later month.
NEW_CALL = 921000008


def told(lake) -> list[str]:
    """Return what *What changed* says of trades."""
    day = read_day(lake, datetime.now(UTC) - timedelta(hours=1))
    return [change.text for change in changes_of(day) if change.kind == "TRADE"]


async def test_a_leg_that_came_and_went_between_two_looks_has_its_name_everywhere(lake) -> None:
    async with simulate(load_book("small")) as sim:
        settings = settings_for(sim)
        await refresh(lake, settings, [CloseExplainer(lake)])
        sim.fill(A, NEW_CALL, 2, price=3.77)
        sim.fill(A, NEW_CALL, -2, price=3.5)
        await refresh(lake, settings, [CloseExplainer(lake)])

    assert lake.contracts.get([NEW_CALL]) == {}
    name = "AAPL 230C 15Dec28"
    assert {*told(lake)} == {f"bought 2 {name} at 3.77", f"sold 2 {name} at 3.50, -54 USD"}
    assert [fill.contract for fill in read_fill_costs(lake, settings)] == [name, name]
    assert [lot.contract for lot in read_lots(lake) if lot.conid == NEW_CALL] == [name]


async def test_a_roll_is_one_line_with_what_it_brought_and_so_are_the_legs_of_an_order(
    lake,
) -> None:
    async with simulate(load_book("small")) as sim:
        settings = settings_for(sim)
        await refresh(lake, settings, [CloseExplainer(lake)])
        sim.roll(A, CALL, UNHELD)
        await refresh(lake, settings, [CloseExplainer(lake)])

    prices = dict(lake.movements.table.rows().select("conid", "price").iter_rows())
    brought = f"{prices[CALL] - prices[UNHELD]:+.2f}"
    [line] = told(lake)
    assert line.startswith(f"rolled 5 AAPL 240C 15Dec28 → 250C 19Jan29, {brought}")
