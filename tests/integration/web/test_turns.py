"""Whose turn it is: large questions wait, are refused, and starve nobody."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from threading import Event
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.web import api, money_page, served_figures, turns
from position_sync_dagster.web.api import refusal
from position_sync_dagster.web.money_page import LARGE_AT_ONCE
from position_sync_dagster.web.served_figures import PageFigures
from position_sync_dagster.web.turns import BusyError, Turns
from tests.integration.web.conftest import check_described
from tests.integration.web.test_figures import activate, row, write
from tests.support.legs import leg
from tests.support.ports import NO_CERTIFICATES
from tests.support.receiver import serving_app, serving_pages

# How many large questions wait here: each that has waited is computed at the end.
MOST_LARGE_WAITING = 3
SERVED = LARGE_AT_ONCE + MOST_LARGE_WAITING

HANGS_S = 60


@asynccontextmanager
async def asking(port: int) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}",
        timeout=HANGS_S,
        trust_env=False,
        verify=NO_CERTIFICATES,
        limits=httpx.Limits(max_connections=None),
    ) as client:
        yield client


def waiting_for(may_answer: Event, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that waits for an event before it does what it did."""

    def wait(*args: Any) -> Any:
        assert may_answer.wait(HANGS_S)
        return function(*args)

    return wait


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the large questions that asked for a turn, and those of them that were refused."""
    counts: Counter[str] = Counter()
    take = Turns.take

    async def counted(self: Turns, request: Request, work: Callable[[], Any]) -> Any:
        if self._most_waiting != MOST_LARGE_WAITING:
            return await take(self, request, work)

        counts["asked"] += 1
        try:
            return await take(self, request, work)
        except BusyError:
            counts["refused"] += 1
            raise

    monkeypatch.setattr(Turns, "take", counted)
    return counts


QUESTIONS = {
    "curves": "/api/v1/curve",
    "feeds of the past": "/money/data?at={at}",
    "figures of the past": "/api/v1/figures?at={at}",
}

# Starlette has 40 threads.
CROWD = 60


@pytest.mark.parametrize("crowd", QUESTIONS)
async def test_large_questions_starve_neither_the_header_nor_the_feed_nor_small_ones(
    lake, settings, monkeypatch, eventually, large, crowd
):
    monkeypatch.setattr(turns, "LONGEST_WAIT_S", HANGS_S)
    monkeypatch.setattr(money_page, "MOST_LARGE_WAITING", MOST_LARGE_WAITING)
    activate(lake, leg(1, "condor"))
    write(lake, *[row(conid) for conid in range(1, api.MANY_LEGS + 1)])
    now = utc_now()
    moments = [now + number * timedelta(microseconds=1) for number in range(CROWD)]
    paths = [QUESTIONS[crowd].format(at=f"{at:%Y-%m-%dT%H:%M:%S.%fZ}") for at in moments]

    may_answer = Event()
    curve = api.ROUTES["curve"]
    waiting_curve = replace(curve, read=waiting_for(may_answer, curve.read))
    monkeypatch.setitem(api.ROUTES, "curve", waiting_curve)
    read_past = waiting_for(may_answer, served_figures.read_figures_at)
    monkeypatch.setattr(served_figures, "read_figures_at", read_past)
    with serving_pages(PageFigures(settings)) as port:
        try:
            async with asyncio.timeout(HANGS_S), asking(port) as client:
                asked = [asyncio.create_task(client.get(path)) for path in paths]
                await eventually(lambda: large["asked"] == CROWD)
                for small in ("header", "accounts", "search?text=SPY", "payoff?strategy=condor"):
                    assert (await client.get(f"/api/v1/{small}")).status_code == 200, small
                assert (await client.get("/money/data")).json()["all"]
                assert large["refused"] == CROWD - SERVED
                assert (await client.get("/api/v1/scenarios")).status_code == 503, "large too"

                may_answer.set()
                answers = await asyncio.gather(*asked)
        finally:
            may_answer.set()

    statuses = Counter(answer.status_code for answer in answers)
    assert statuses == {200: SERVED, 503: CROWD - SERVED}
    for answer in answers:
        if answer.status_code == 200:
            continue
        assert answer.headers["retry-after"] == f"{turns.RETRY_AFTER_S}"
        assert answer.headers["content-type"] == "application/problem+json"
        assert "busy" in answer.json()["detail"]
        await check_described(answer)


class Computing:
    """An app that answers one question at a time, each when the test lets it."""

    def __init__(self) -> None:
        self.may_answer = Event()
        self.arrived: list[str] = []
        self.computed: list[str] = []
        self.turns = Turns(1)
        self.app = Starlette(routes=[Route("/{name}", self.answer)])

    async def answer(self, request: Request) -> Response:
        name = request.path_params["name"]
        self.arrived.append(name)

        def compute() -> Response:
            self.computed.append(name)
            assert self.may_answer.wait(HANGS_S)
            return PlainTextResponse(name)

        try:
            return await self.turns.take(request, compute)
        except BusyError as error:
            return refusal(error)


@pytest.fixture
async def computing() -> AsyncIterator[tuple[Computing, httpx.AsyncClient]]:
    """Return an app, and who asks it."""
    computing = Computing()
    with serving_app(computing.app) as port:
        async with asyncio.timeout(HANGS_S), asking(port) as client:
            yield computing, client
        computing.may_answer.set()


async def test_a_question_whose_turn_does_not_come_in_time_is_refused(
    computing, monkeypatch, eventually
):
    app, client = computing
    first = asyncio.create_task(client.get("/first"))
    await eventually(lambda: app.computed == ["first"])

    # Its time is over as it begins to wait, and before the first one lets it have its turn.
    monkeypatch.setattr(turns, "LONGEST_WAIT_S", 0.0)
    second = asyncio.create_task(client.get("/second"))
    await eventually(lambda: "second" in app.arrived)
    app.may_answer.set()
    assert (await second).status_code == 503
    assert (await first).text == "first"

    monkeypatch.setattr(turns, "LONGEST_WAIT_S", HANGS_S)
    assert (await client.get("/third")).text == "third", "a turn was lost"
    assert app.computed == ["first", "third"]


async def test_nothing_is_computed_for_somebody_who_has_gone(computing, eventually):
    app, client = computing
    first = asyncio.create_task(client.get("/first"))
    await eventually(lambda: app.computed == ["first"])
    gone = asyncio.create_task(client.get("/gone"))
    await eventually(lambda: "gone" in app.arrived)
    last = asyncio.create_task(client.get("/last"))
    await eventually(lambda: "last" in app.arrived)
    gone.cancel()
    await asyncio.wait([gone])
    assert (await client.get("/favicon.ico/none")).status_code == 404, "the server looked"
    app.may_answer.set()
    assert (await last).text == "last"
    assert (await first).text == "first"
    assert app.computed == ["first", "last"]
