"""The webserver: the guard stands before every route of it."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator

import httpx
import pytest
from dagster_webserver import cli
from dagster_webserver.webserver import DagsterWebserver
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from position_sync_dagster import webserver
from position_sync_dagster.processes.child_process import MARKER
from position_sync_dagster.web.loopback_guard import LoopbackGuard
from position_sync_dagster.web.money_page import money_routes
from position_sync_dagster.webserver import LARGEST_BODY, BodyLimit, GuardedWebserver


def test_the_guard_is_the_first_to_see_a_request():
    """The limit of bodies is the second, before Dagster."""
    first, second, *_others = object.__new__(GuardedWebserver).build_middleware()
    assert first.cls == LoopbackGuard
    assert second.cls == BodyLimit


async def _length(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


@pytest.mark.parametrize("is_announced", [True, False])
@pytest.mark.parametrize(("length", "status"), [(LARGEST_BODY, 200), (LARGEST_BODY + 1, 413)])
async def test_a_body_beyond_the_limit_is_refused_also_if_its_length_is_not_announced(
    length, status, is_announced
):
    body = b"x" * length

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, length, 2**20):
            yield body[at : at + 2**20]

    routes = [Route("/", _length, methods=["POST"])]
    app = Starlette(routes=routes, middleware=[Middleware(BodyLimit)])
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://127.0.0.1"
    ) as client:
        answer = await client.post("/", content=body if is_announced else pieces())
    assert answer.status_code == status
    assert answer.text == (str(length) if status == 200 else "The body is larger than 8 MB.")


def test_without_money_there_are_no_pages_of_ours(monkeypatch):
    monkeypatch.setattr(DagsterWebserver, "build_routes", lambda _self: ["of Dagster"])
    monkeypatch.setenv("POSITION_SYNC_MONEY", "false")
    assert object.__new__(GuardedWebserver).build_routes() == ["of Dagster"]


def _of_dagster(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("of Dagster")


async def test_our_pages_are_served_before_those_of_dagster(monkeypatch):
    everything = [Route("/{path:path}", _of_dagster, methods=["GET", "POST"])]
    monkeypatch.setattr(DagsterWebserver, "build_routes", lambda _self: everything)
    app = Starlette(routes=object.__new__(GuardedWebserver).build_routes())
    routes = [route for route in money_routes() if isinstance(route, Route)]
    pages = [route.path for route in routes if "{" not in route.path]
    reading = {"/money/data", "/metrics"}  # they have tests of their own
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://127.0.0.1"
    ) as client:
        first = await asyncio.gather(*[client.get("/money/risk") for _ in range(4)])
        assert {answer.status_code for answer in first} == {200}
        for path in sorted({*pages} - reading - {"/api/v1/{name}"}):
            answer = await client.get(path)
            assert answer.status_code == 200
            assert answer.text != "of Dagster", path
        for path in reading:
            assert (await client.post(path)).status_code == 405
        assert (await client.get("/api/v1/nothing")).status_code == 404
        for path in ("/", "/runs", "/moneys", "/api/v2/figures"):
            assert (await client.get(path)).text == "of Dagster"


def test_a_webserver_that_nobody_looks_at_has_no_library_of_tables():
    code = "import position_sync_dagster.webserver, sys"
    code += "; print({'deltalake', 'polars', 'numpy'} & sys.modules.keys())"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert printed.stdout.strip() == "set()", printed.stderr


def test_an_unknown_setting_is_said_once_at_the_start(monkeypatch, capsys):
    monkeypatch.setattr(cli, "main", lambda: None)
    monkeypatch.setattr(webserver.app, "DagsterWebserver", None)
    monkeypatch.setenv("POSITION_SYNC_MIN_HOLD_S", "3")
    webserver.main()
    assert capsys.readouterr().err.count("POSITION_SYNC_MIN_HOLD_S is not a setting") == 1
    monkeypatch.setenv(MARKER, "dev")  # which has said it
    webserver.main()
    assert capsys.readouterr().err == ""
