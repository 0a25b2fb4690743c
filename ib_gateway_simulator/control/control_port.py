"""The control port: HTTP on 127.0.0.1 to read counts and to cause faults.

It takes requests of programs on this machine, not those of web pages in a browser.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from ib_gateway_simulator.control.actions import ACTIONS, check, perform
from ib_gateway_simulator.control.faults import Faults
from ib_gateway_simulator.errors import ActionError, PortInUseError
from ib_gateway_simulator.loopback_guard import LoopbackGuard

# The control port is never open to other machines, even if the gateway is.
LOCALHOST = "127.0.0.1"


READS = ("/stats", "/positions", "/ticks?conid=&recent=", "/greeks?conid=", "/statements")


class _Server(uvicorn.Server):
    """A server that reports when it listens, and leaves signals to the program around it."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets=sockets)
        finally:
            self.listening.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class ControlPort:
    """Serves the controls of one simulator over HTTP, in the running event loop."""

    def __init__(self, simulator: Faults, port: int) -> None:
        self._simulator = simulator
        self.port = port
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            PortInUseError: The port cannot be listened on.
        """
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOCALHOST, self.port))
        except (OSError, OverflowError) as error:
            listener.close()
            raise PortInUseError(LOCALHOST, self.port, error) from error
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            self._app(),
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]))
        await self._server.listening.wait()

    async def stop(self) -> None:
        """Close the server; open requests have a second to finish."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task

    def _app(self) -> Starlette:
        reads = {
            "/": self._index,
            "/stats": self._stats,
            "/positions": self._positions,
            "/ticks": self._ticks,
            "/greeks": self._greeks,
            "/statements": self._statements,
        }
        routes = [Route(path, read, methods=["GET"]) for path, read in reads.items()]
        routes += [Route(f"/{name}", self._act, methods=["POST"]) for name in ACTIONS]
        return Starlette(routes=routes, middleware=[Middleware(LoopbackGuard)])

    async def _index(self, request: Request) -> JSONResponse:
        posts = {
            f"POST /{name}": sorted(
                field.alias or key for key, field in action.arguments.model_fields.items()
            )
            for name, action in ACTIONS.items()
        }
        return JSONResponse({"GET": READS, **posts})

    async def _stats(self, request: Request) -> JSONResponse:
        return JSONResponse(self._simulator.stats())

    async def _positions(self, request: Request) -> JSONResponse:
        return JSONResponse(self._simulator.positions())

    async def _statements(self, request: Request) -> JSONResponse:
        return JSONResponse(self._simulator.statements())

    async def _greeks(self, request: Request) -> JSONResponse:
        conid = _conid(request)
        if isinstance(conid, JSONResponse):
            return conid
        return JSONResponse(self._simulator.greeks(conid))

    async def _ticks(self, request: Request) -> JSONResponse:
        conid = _conid(request)
        if isinstance(conid, JSONResponse):
            return conid
        if request.query_params.get("recent") in ("1", "true"):
            return JSONResponse(self._simulator.recent_ticks(conid))
        if conid is None:
            return _problem(400, "conid", "this query parameter is required")
        return JSONResponse(self._simulator.ticks(conid))

    async def _act(self, request: Request) -> JSONResponse:
        name = request.url.path.strip("/")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # what a form of a web page cannot send
            return _problem(415, "body", "send JSON, with Content-Type: application/json")
        body = await request.body()
        try:
            given: Any = json.loads(body) if body else {}
        except (ValueError, RecursionError) as error:
            return _problem(400, "body", f"not JSON: {error}")

        if not isinstance(given, dict):
            return _problem(400, "body", "a JSON object is expected")
        try:
            result = await perform(self._simulator, name, check(name, given))
        except ActionError as error:
            return _problem(422, error.field, error.cause)
        except PortInUseError as error:
            return _problem(422, "port", str(error))
        return JSONResponse({"ok": True, "result": result})


def _conid(request: Request) -> int | JSONResponse | None:
    """Return the conid of a request, None where it names none, or the answer to a bad one."""
    given_conid = request.query_params.get("conid")
    if given_conid is None:
        return None

    try:
        return int(given_conid)
    except ValueError:
        return _problem(400, "conid", f"{str(given_conid)[:60]!r} is not a whole number")


def _problem(status: int, field: str, cause: str) -> JSONResponse:
    return JSONResponse({"ok": False, "field": field, "error": cause}, status_code=status)
