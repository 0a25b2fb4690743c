"""Trades of the day by the names of their contracts: through the real client, on the first look."""

import asyncio
import csv
from datetime import UTC, datetime, timedelta
from io import StringIO
from operator import itemgetter

import httpx
import pytest
from starlette.applications import Starlette

from ib_gateway_simulator import load_book
from position_sync_dagster.cli.mcp import told as told_assistant
from position_sync_dagster.money.campaigns.closes_of_strategies import read_closes
from position_sync_dagster.money.campaigns.lots import read_lots
from position_sync_dagster.money.past.explain_closes import CloseExplainer
from position_sync_dagster.money.reports.changes import changes_of, read_day
from position_sync_dagster.money.reports.fill_costs import read_fill_costs
from position_sync_dagster.web.money_page import money_routes
from position_sync_dagster.web.served_figures import PageFigures
from tests.integration.web.conftest import check_described
from tests.integration.web.test_figures import row
from tests.support import command_line
from tests.support.booked_legs import CALL, UNHELD, A
from tests.support.legs import leg
from tests.support.short_owner import refresh
from tests.support.streams import settings_for, simulate

# Calls of the small book: one that A has no longer, and one of a later month.
NEW_CALL = 921000008


def told(lake) -> list[str]:
    """Return what *What changed* says of trades."""
    day = read_day(lake, "XNYS", datetime.now(UTC) - timedelta(hours=1))
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
    # 4 × 0.65 of fees are in it.
    assert {*told(lake)} == {f"bought 2 {name} at 3.77", f"sold 2 {name} at 3.50, -57 USD"}
    assert [fill.contract for fill in read_fill_costs(lake, settings)] == [name, name]
    assert [lot.contract for lot in read_lots(lake) if lot.conid == NEW_CALL] == [name]


async def test_what_a_strategy_realised_is_what_the_gateway_states_of_its_closes(lake) -> None:
    """5 calls were there, at 2,150.65; 3 more came at 20, and 4 went at 25, each for 0.65."""
    lake.registry.sync.add_many([leg(CALL, "calls", account=A)])
    async with simulate(load_book("small")) as sim:
        settings = settings_for(sim)
        explainers = [CloseExplainer(lake)]
        await refresh(lake, settings, explainers)
        for quantity, price in ((3, 20.0), (-4, 25.0)):
            sim.fill(A, CALL, quantity, price=price)
            await refresh(lake, settings, explainers)

    cost = (5 * 2150.65 + 3 * 2000.65) / 8
    closes = read_closes(lake)
    for name in ("calls", None):
        stated = closes.realized(name, None, "USD")
        assert stated["realized_pnl"] == pytest.approx(4 * (2500 - 0.65 - cost)), name


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


async def test_every_surface_names_the_terms_of_each_leg_that_was_traded(lake, monkeypatch) -> None:
    async with simulate(load_book("small")) as sim:
        settings = settings_for(sim, lake=f"{lake.path}")
        await refresh(lake, settings, [CloseExplainer(lake)])
        sim.fill(A, NEW_CALL, 2, price=3.77)
        sim.fill(A, NEW_CALL, -2, price=3.5)
        sim.roll(A, CALL, UNHELD)
        await refresh(lake, settings, [CloseExplainer(lake)])

    lake.updates.sync.append([row(CALL, account=A)])
    monkeypatch.setenv("POSITION_SYNC_LAKE", settings.lake)
    routes = money_routes(dagster=False, open_figures=lambda: PageFigures(settings))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(Starlette(routes=routes)),
        base_url="http://127.0.0.1:3001",
        event_hooks={"response": [check_described]},
    ) as client:
        served = (await client.get("/api/v1/changes")).json()["changes"]
        query = {"account": A, "conid": CALL}
        of_leg = (await client.get("/api/v1/leg", params=query)).json()["changes"]
    command = await asyncio.to_thread(command_line.json_of, "changes")
    assert command == served == told_assistant(settings, "changes")["changes"]

    traded = [leg for change in served if change["kind"] == "TRADE" for leg in change["legs"]]
    assert of_leg == [change for change in served if CALL in change["conids"]]
    kinds = {(leg["symbol"], leg["sec_type"], leg["right"]) for leg in traded}
    assert kinds == {("AAPL", "OPT", "CALL")}
    terms = ("conid", "strike", "expiry", "quantity")
    assert {tuple(leg[name] for name in terms) for leg in traded} == {
        (NEW_CALL, 230.0, "2028-12-15", 2.0),
        (NEW_CALL, 230.0, "2028-12-15", -2.0),
        (CALL, 240.0, "2028-12-15", -5.0),
        (UNHELD, 250.0, "2029-01-19", 5.0),
    }
    assert {leg["price"] for leg in traded if leg["conid"] == NEW_CALL} == {3.77, 3.5}

    fills = await asyncio.to_thread(command_line.json_of, "fills", "--list")
    lots = csv.DictReader(StringIO(await asyncio.to_thread(command_line.run, "export", "lots")))
    terms_of = itemgetter("conid", "right", "strike", "expiry")
    of_lots = set()
    for lot in lots:
        conid, right, strike, expiry = terms_of(lot)
        of_lots.add((int(conid), right, float(strike), expiry))
    assert {*map(terms_of, fills)} == of_lots == {*map(terms_of, traded)}
