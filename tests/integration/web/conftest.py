"""A lake whose tables are there, for what a browser shows of it."""

from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest
from jsonschema import Draft202012Validator
from starlette.applications import Starlette
from starlette.middleware import Middleware

from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.settings import Settings
from position_sync_dagster.web.api import openapi
from position_sync_dagster.web.loopback_guard import LoopbackGuard
from position_sync_dagster.web.money_page import money_routes
from position_sync_dagster.web.served_figures import RISK_FRESH, PageFigures
from tests.support.empty_lakes import put_tables


@pytest.fixture
def settings(tmp_path, monkeypatch) -> Settings:
    """Return the settings of the server, whose lake the commands find too."""
    put_tables(tmp_path / "lake")
    monkeypatch.setenv("POSITION_SYNC_LAKE", str(tmp_path / "lake"))
    return Settings(lake=str(tmp_path / "lake"), gateway_id="gate")


@pytest.fixture
def lake(settings) -> MoneyLake:
    return MoneyLake.of(settings)


@pytest.fixture
def risk_fresh() -> timedelta:
    """Return how long answers share a priced book."""
    return RISK_FRESH


@pytest.fixture
async def client(settings: Settings, risk_fresh: timedelta) -> AsyncIterator[httpx.AsyncClient]:
    figures = PageFigures(settings, fresh=timedelta(), risk_fresh=risk_fresh)
    routes = money_routes(dagster=False, open_figures=lambda: figures)
    app = Starlette(routes=routes, middleware=[Middleware(LoopbackGuard)])
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(
        transport=transport,
        base_url="http://127.0.0.1:3001",
        event_hooks={"response": [check_described]},
    ) as client:
        yield client


async def check_described(answer: httpx.Response) -> None:
    """Hold each answer of the API to its description."""
    await answer.aread()
    path = answer.request.url.path
    name = path.removeprefix("/api/v1/")
    is_api = answer.request.method == "GET" and path.startswith("/api/v1/")
    if not is_api or name == "openapi.json" or answer.status_code in (304, 403):
        return

    kind = answer.headers["content-type"].partition(";")[0]
    responses = openapi()["paths"].get(f"/api/v1/{name}", UNKNOWN_PATH)["get"]["responses"]
    schema = responses[f"{answer.status_code}"]["content"][kind]["schema"]
    if kind != "text/csv":
        parts = openapi()["components"]
        validator = Draft202012Validator(schema | {"components": parts})
        validator.validate(answer.json())


PROBLEM = {"schema": {"$ref": "#/components/schemas/Problem"}}
UNKNOWN_PATH = {"get": {"responses": {"404": {"content": {"application/problem+json": PROBLEM}}}}}
