"""The figures over HTTP, by the command and for an assistant, over real tables."""

import csv
import io
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware

from ib_gateway_simulator.loopback_guard import LoopbackGuard
from position_sync_dagster.cli.reports import Tools
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import Owner
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports.figures import COLUMNS, read_figures
from position_sync_dagster.web import served_figures
from position_sync_dagster.web.money_page import money_routes
from position_sync_dagster.web.served_figures import PageFigures
from tests.integration.web.test_page_figures import row
from tests.support.legs import leg

TOP = {
    "version", "at", "ledger_version", "gateway", "accounts", "strategies", "underlyings",
    "expiries", "positions", "closed_today", "changes", "limits",
}  # fmt: skip


@pytest.fixture
async def client(settings: Settings, monkeypatch) -> AsyncIterator[httpx.AsyncClient]:
    monkeypatch.setattr(served_figures, "FRESH", served_figures.timedelta())
    routes = money_routes(dagster=False, open_figures=lambda: PageFigures(settings))
    app = Starlette(routes=routes, middleware=[Middleware(LoopbackGuard)])
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:3001") as client:
        yield client


async def test_the_figures_have_their_shape_and_unknown_is_null(client, lake):
    lake.registry.sync.add_many([leg(1, "a", quantity=-1.0), leg(1, "b", quantity=-1.0)])
    lake.updates.sync.append([row(1), row(2, daily_pnl=None, market_price=None)])
    found = (await client.get("/api/v1/figures")).json()
    assert found.keys() >= TOP
    assert found["version"] == 1
    shared, unknown = found["positions"]
    assert [*shared] == [*COLUMNS]
    assert (shared["strategies"], shared["shares"]) == (["a", "b"], [0.5, 0.5])
    assert (unknown["today"], unknown["market_price"], unknown["greeks"]["delta"]) == (None,) * 3
    total = found["totals"][0]
    assert (total["today"], total["unknown"]["today"]) == (-7.0, 1)
    assert {one["strategy"]: one["today"] for one in found["strategies"]} == {
        "a": -3.5, "b": -3.5, "UNATTRIBUTED": None,
    }  # fmt: skip


async def test_an_entity_tag_says_that_nothing_changed_until_ledger_or_gateway_do(
    client, lake, settings
):
    """A gateway that stops writes no row of a holding, and an old answer would look fresh."""
    lake.updates.sync.append([row(1)])
    first = await client.get("/api/v1/figures")
    assert first.headers["etag"].startswith(f'"{first.json()["ledger_version"]}-')
    known = {"If-None-Match": first.headers["etag"]}
    assert (await client.get("/api/v1/figures", headers=known)).status_code == 304
    lake.updates.sync.append([row(2)])
    changed = await client.get("/api/v1/figures", headers=known)
    assert changed.status_code == 200
    known = {"If-None-Match": changed.headers["etag"]}
    assert (await client.get("/api/v1/figures", headers=known)).status_code == 304
    lake.sessions.acquire(
        settings.gateway_id, Owner.STREAM, lease_s=60.0, run_id=None, host="here", pid=1
    )
    assert (await client.get("/api/v1/figures", headers=known)).status_code == 200


async def test_no_page_of_another_origin_reads_it_and_nobody_writes(client):
    other = {"Origin": "http://evil.example"}
    assert (await client.get("/api/v1/figures", headers=other)).status_code == 403
    assert "access-control-allow-origin" not in (await client.get("/api/v1/figures")).headers
    assert (await client.post("/api/v1/figures")).status_code == 405
    assert (await client.get("/api/v1/nothing")).status_code == 404


async def test_the_csv_has_the_strategies_and_no_cell_that_a_spreadsheet_runs(client, lake):
    lake.registry.sync.add_many([leg(1, '=HYPERLINK("http://x")')])
    lake.updates.sync.append([row(1, symbol="@SUM\nforged", market_value=-300.123456789012)])
    answer = await client.get("/api/v1/positions.csv")
    assert f"{utc_now():%Y}" in answer.headers["content-disposition"]
    (one,) = csv.DictReader(io.StringIO(answer.text))
    assert one["strategies"].startswith("'=HYPERLINK")
    assert one["symbol"] == "'@SUM\\nforged"
    assert (one["market_value"], one["delta"], one["position"]) == ("-300.1234568", "", "-2")


async def test_the_description_names_every_column(client):
    description = (await client.get("/api/v1/openapi.json")).json()
    assert [*description["paths"]] == [f"/api/v1/{name}" for name in served_figures.BODIES]
    positions = description["components"]["schemas"]["Position"]["properties"]
    assert [*positions] == [*COLUMNS]


def test_an_assistant_gets_the_same_figures(lake, settings):
    lake.registry.sync.add_many([leg(1, "a")])
    lake.updates.sync.append([row(1), row(2, symbol="QQQ")])
    tools, page = Tools(settings, lake), read_figures(lake, settings, utc_now()).to_dict()
    assert tools.figures()["totals"][0]["today"] == page["totals"][0]["today"] == -14.0
    assert [one["conid"] for one in tools.positions(strategy="a")] == [1]
    assert [one["conid"] for one in tools.positions(symbol="qqq")] == [2]
    assert tools.changes() == page["changes"]
    past = tools.as_of(utc_now().isoformat())
    assert [one["market_value"] for one in past["positions"]] == [-300.0, -300.0]
    assert json.dumps(past, allow_nan=False)
