"""Which requests a server on loopback refuses."""

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from position_sync_dagster.web.loopback_guard import LoopbackGuard, refusal


@pytest.mark.parametrize("host", ["127.0.0.1:3000", "localhost:3000", "LOCALHOST", "[::1]:3000"])
def test_a_request_to_a_loopback_name_is_taken(host):
    assert refusal(host, []) is None
    assert refusal(host, [f"http://{host}"]) is None


@pytest.mark.parametrize(
    "host",
    [None, "", ":3000", "pages.example", "pages.example:3000", "127.0.0.1.pages.example:3000",
     "localhost.pages.example", "192.168.1.5:3000", "127.0.0.1:3000@pages.example", "localhost:x"],
)  # fmt: skip
def test_any_other_host_is_refused_as_a_bad_request(host):
    refused = refusal(host, [])
    assert refused[0] == 400


@pytest.mark.parametrize(
    "origin",
    ["http://pages.example", "null", "", "http://127.0.0.1:8888", "http://localhost:3000",
     "http://127.0.0.1:3000.pages.example", "file://"],
)  # fmt: skip
def test_a_page_of_another_origin_is_forbidden(origin):
    refused = refusal("127.0.0.1:3000", [origin])
    assert refused[0] == 403
    refused = refusal("127.0.0.1:3000", ["http://127.0.0.1:3000", origin])
    assert refused[0] == 403


IMAGE = {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
FRAME = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
WINDOW = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.mark.parametrize(
    ("site", "what", "status"),
    [
        ("cross-site", IMAGE, 403),
        ("same-site", IMAGE, 403),  # a page of another port
        ("cross-site", FRAME, 403),
        ("cross-site", {}, 403),
        ("cross-site", WINDOW, 200),  # a link that somebody follows
        ("none", WINDOW, 200),  # an address that somebody typed
        ("same-origin", IMAGE, 200),
    ],
)
async def test_a_browser_gets_nothing_for_a_foreign_page_but_a_window_of_its_own(
    site, what, status
):
    async def page(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("It is served.")

    app = Starlette(routes=[Route("/", page)], middleware=[Middleware(LoopbackGuard)])
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:3000"
    ) as client:
        answer = await client.get("/", headers={"Sec-Fetch-Site": site, **what})
    assert answer.status_code == status
