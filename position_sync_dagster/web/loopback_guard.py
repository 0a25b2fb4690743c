"""A guard for servers on loopback: a page of another site in a browser cannot use them.

A browser on this machine reaches 127.0.0.1 too, for any page that it shows. A page whose own name
resolves to 127.0.0.1 (DNS rebinding) shows that name in the header Host; any other page shows its
own address in the header Origin. An image has none, but Sec-Fetch-Site, which says that the page is
of another site. A link of such a page may be followed: it opens a page of ours. Checks of these
headers do not keep programs out: those reach the port anyway.
"""

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})


# What Sec-Fetch-Site says of requests of our own pages, and of what a person typed.
OF_OUR_PAGES = ("same-origin", "none")


def refusal(
    host: str | None,
    origins: list[str],
    fetch_site: str | None = None,
    *,
    opens_page: bool = False,
) -> tuple[int, str] | None:
    """Return the status and the reason with which a request is refused, None for a good one.

    >>> refusal("127.0.0.1:3000", ["http://127.0.0.1:3000"])
    >>> refusal("pages.example:3000", [])
    (400, 'The header Host names no loopback address.')
    >>> refusal("127.0.0.1:3000", ["http://127.0.0.1:8888"])
    (403, 'The request comes from a page of another origin.')
    >>> refusal("127.0.0.1:3000", [], "cross-site")
    (403, 'The request comes from a page of another origin.')

    Args:
        host: The header Host; None if it is missing or there more than once.
        origins: Each header Origin. Requests of programs have none.
        fetch_site: The header Sec-Fetch-Site; None: a program, or a browser of before 2023.
        opens_page: Whether the browser opens the answer in a window or tab of its own.
    """
    host = (host or "").lower()
    name = host.rsplit(":", 1)
    is_port = len(name) == 2 and name[1].isdecimal()
    if (name[0] if is_port else ":".join(name)) not in LOOPBACK_NAMES:
        return 400, "The header Host names no loopback address."
    ours = {f"http://{host}", f"https://{host}"}
    is_of_page = fetch_site is None or fetch_site in OF_OUR_PAGES or opens_page
    if not is_of_page or not ours.issuperset(map(str.lower, origins)):
        return 403, "The request comes from a page of another origin."
    return None


class LoopbackGuard:
    """ASGI middleware that refuses what `refusal` refuses, for HTTP and for WebSockets."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a good request on, and answer any other."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        mode_and_target = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest"))
        hosts = headers.getlist("host")
        refused = refusal(
            hosts[0] if len(hosts) == 1 else None,
            headers.getlist("origin"),
            headers.get("sec-fetch-site"),
            opens_page=mode_and_target == ("navigate", "document"),
        )
        if refused is None:
            await self.app(scope, receive, send)
            return

        status, reason = refused
        if scope["type"] == "websocket":  # a close before the acceptance is answered with 403
            await send({"type": "websocket.close", "code": 1008, "reason": reason})
        else:
            await PlainTextResponse(reason, status)(scope, receive, send)
