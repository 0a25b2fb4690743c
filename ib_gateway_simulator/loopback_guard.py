"""A guard for the control port, which serves programs: no page in a browser can use it.

A browser on this machine reaches 127.0.0.1 too, for any page that it shows. It names the page's own
host, where that resolves to 127.0.0.1 (DNS rebinding), its origin, or that another site asks. What
a person types into the browser has none of these.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK_HOST = ("127.0.0.1", "localhost", "[::1]")


def refusal(headers: Headers) -> tuple[int, str] | None:
    """Return the status and the reason with which a request is refused, None for a good one.

    >>> refusal(Headers({"Host": "127.0.0.1:8497"}))
    >>> refusal(Headers({"Host": "127.0.0.1:8497", "Origin": "http://127.0.0.1:3000"}))
    (403, 'The request comes from a page in a browser.')
    """
    hosts = headers.getlist("host")
    if len(hosts) != 1 or hosts[0].rpartition(":")[0] not in LOOPBACK_HOST:
        return 400, "The header Host names no loopback address."
    if "origin" in headers or headers.get("sec-fetch-site", "none") != "none":
        return 403, "The request comes from a page in a browser."
    return None


class LoopbackGuard:
    """ASGI middleware that refuses what `refusal` refuses."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a good request on, and answer any other."""
        refused = None
        if scope["type"] == "http":
            refused = refusal(Headers(scope=scope))

        if refused is None:
            await self.app(scope, receive, send)
        else:
            await PlainTextResponse(refused[1], refused[0])(scope, receive, send)
