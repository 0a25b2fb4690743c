"""The routes of the money page: who may read them, what a viewer gets, and what nobody can do."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from polars import DataFrame
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from position_sync_dagster.errors import LakeError
from position_sync_dagster.web.loopback_guard import LoopbackGuard
from position_sync_dagster.web.money_page import Feed, FeedPace, money_routes, next_state
from tests.support.ports import NO_CERTIFICATES
from tests.support.receiver import serving_app

LEG = "SPY 575P"


class FewFigures:
    """Figures of a few parts, of which one moves with each read."""

    def __init__(self) -> None:
        self.lake = Mock()
        self.reads = 0
        self.error: Exception | None = None

    def read(self, now: datetime) -> tuple[DataFrame, dict[str, Any]]:
        self.reads += 1
        if self.error is not None:
            raise self.error
        rows = [("still", LEG, 1.0), ("moving", "b", float(self.reads))]
        if self.reads == 1:
            rows.append(("closed", "c", 3.0))
        return DataFrame(rows, ("key", "name", "price"), orient="row"), {
            "at": self.reads,
            "attention": [],
        }

    def figures(self, now: datetime) -> Any:
        raise LakeError("There are no tables.", remedy="Start the demo.")


@pytest.fixture
def figures() -> FewFigures:
    return FewFigures()


PACE = FeedPace(period_s=0.01, wait_s=0.2)


@pytest.fixture
def app(figures) -> Starlette:
    routes = money_routes(dagster=False, open_figures=lambda: figures, pace=PACE)
    return Starlette(routes=routes, middleware=[Middleware(LoopbackGuard)])


PATHS = sorted(route.path for route in money_routes() if isinstance(route, Route))


@pytest.fixture
def client(app) -> Iterator[httpx.Client]:
    with serving_app(app) as port:
        base = f"http://127.0.0.1:{port}"
        with httpx.Client(
            base_url=base, trust_env=False, timeout=60, verify=NO_CERTIFICATES
        ) as client:
            yield client


def test_the_page_and_its_files_are_served_compressed_and_need_nothing_else(client):
    page = client.get("/money")
    assert page.status_code == 200
    assert page.headers["content-encoding"] == "gzip"
    assert "wasm" not in page.headers["content-security-policy"]
    plain = client.get("/money/app/money_page.js", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.text == client.get("/money/app/money_page.js").text


def test_no_other_site_can_be_loaded_from_or_frame_the_page(client):
    for path in PATHS:
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy, path
        assert "frame-ancestors 'none'" in policy, path
        assert "http" not in policy, path
        assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0], path
        assert "'unsafe-eval'" not in policy, path
        assert headers["cross-origin-resource-policy"] == "same-origin", path
        assert "access-control-allow-origin" not in headers, path


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"host": "pages.example:3000"}, 400), ({"origin": "http://pages.example"}, 403)],
)
def test_a_foreign_page_reads_no_byte(client, figures, headers, status):
    for path in PATHS:
        answer = client.get(path, headers=headers)
        assert answer.status_code == status, path
        assert LEG not in answer.text, path
        assert len(answer.content) < 100, path
    assert figures.reads == 0


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_nobody_can_write(client, figures, method):
    for path in PATHS:
        answer = client.request(method, path, content=b'{"table": "legs", "clear": true}')
        assert answer.status_code == 405, path
    assert figures.reads == 0


@pytest.mark.parametrize("path", ["/money", "/money/data", "/money/ws"])
def test_there_is_no_connection_to_send_messages_over(client, path):
    upgrade = {"connection": "Upgrade", "upgrade": "websocket"}
    key = {"sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==", "sec-websocket-version": "13"}
    assert client.get(path, headers=upgrade | key).status_code in (403, 404)


def test_a_viewer_who_stops_reading_delays_nobody(client, figures):
    port = client.base_url.port or 0
    with ExitStack() as stack:
        for _ in range(20):
            silent = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            request = "GET /money/vendor/uplot/uPlot.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
            silent.sendall(request.encode() * 50)
        sequence = 0
        reads = figures.reads
        while figures.reads < reads + 5:
            answer = client.get("/money/data", params={"after": sequence})
            sequence = answer.json()["sequence"] if answer.content else sequence


def test_a_state_has_what_a_viewer_of_the_state_before_does_not_know():
    parts = DataFrame({"key": ["a", "b", "c"], "price": [1, None, 1], "symbol": [None] * 3})
    moved = DataFrame({"key": ["a", "b"], "price": [1, 2], "symbol": [None] * 2})
    before = next_state(None, 7, parts, {"x": 1, "y": 1})
    state = next_state(before, 8, moved, {"x": 1, "y": 2})
    assert unpacked(state.changed) == {
        "sequence": 8, "rows": [["b", 2, None]], "figures": {"y": 2}, "gone": ["c"],
    }  # fmt: skip
    assert unpacked(state.whole) == {
        "sequence": 8, "rows": [["a", 1, None], ["b", 2, None]], "figures": {"x": 1, "y": 2},
        "all": True,
    }  # fmt: skip
    failed = next_state(None, 6, DataFrame(), {})
    for rows in (parts, DataFrame()):
        assert next_state(failed, 7, rows, {}).changed is None


def test_a_number_that_is_not_finite_reaches_the_page_as_unknown():
    figures = {"x": float("nan"), "y": [float("inf")], "name": "Öl"}
    state = next_state(None, 7, DataFrame({"key": ["a"], "price": [float("inf")]}), figures)
    assert unpacked(state.whole) == {
        "sequence": 7, "rows": [["a", None]],
        "figures": {"x": None, "y": [None], "name": "Öl"}, "all": True,
    }  # fmt: skip


def test_the_name_of_a_file_that_is_no_text_reaches_the_page():
    figures = {"attention": "cannot read /tmp/\udcfc.yaml"}
    assert unpacked(next_state(None, 7, DataFrame(), figures).whole)["figures"] == figures


def unpacked(content: bytes) -> Any:
    return httpx.Response(200, headers={"content-encoding": "gzip"}, content=content).json()


async def test_all_viewers_of_a_state_get_the_same_bytes_and_an_old_one_gets_everything(figures):
    feed = Feed(lambda: figures, {}, PACE)
    first = unpacked(await feed.after(0) or b"")
    assert first["all"]
    newer = await asyncio.gather(*(feed.after(first["sequence"]) for _ in range(20)))
    assert len({id(one) for one in newer}) == 1
    assert unpacked(newer[0] or b"")["gone"] == ["closed"]
    assert unpacked(await feed.after(first["sequence"] - 50) or b"")["all"]


async def test_the_reading_ends_when_nobody_asks_any_more(figures, eventually):
    feed = Feed(lambda: figures, {}, PACE)
    assert await feed.after(0)
    await eventually(lambda: feed._task is not None and feed._task.done())
    reads = figures.reads
    assert unpacked(await feed.after(0) or b"")["all"]
    assert figures.reads > reads


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            LakeError("The store does not answer.", remedy="Look at it."),
            "The store does not answer. Look at it.",
        ),
        (OSError("no disk"), "The tables cannot be read: OSError, no disk."),
    ],
)
async def test_an_error_of_the_tables_is_shown_with_the_values_from_before(figures, error, text):
    feed = Feed(lambda: figures, {}, PACE)
    first = unpacked(await feed.after(0) or b"")
    figures.error = error
    sequence = first["sequence"]
    found = first
    while not found["figures"].get("trouble"):
        found = unpacked(await feed.after(sequence) or b"")
        sequence = found["sequence"]
    assert found["figures"] == {"trouble": text}
    whole = unpacked(await feed.after(0) or b"")
    assert [row[0] for row in whole["rows"]][:2] == ["still", "moving"]
    assert whole["figures"]["at"] <= figures.reads  # the time of the values, not of the error


@pytest.mark.parametrize("after", ["x", "-1", "1" * 17, ""])
def test_a_state_that_is_no_number_is_refused(client, after):
    assert client.get("/money/data", params={"after": after}).status_code == 422
