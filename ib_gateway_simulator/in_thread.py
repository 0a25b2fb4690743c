"""A gateway in a thread of its own, for tests and programs that have no event loop to spare."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from ib_gateway_simulator.clients.stats import OrderMessage
from ib_gateway_simulator.control.actions import ACTIONS, check, perform
from ib_gateway_simulator.errors import ActionError
from ib_gateway_simulator.protocol.codes import FARM_NOTICES, Code
from ib_gateway_simulator.replay.server import Replay
from ib_gateway_simulator.server import SimulatedGateway

T = TypeVar("T")
Server = TypeVar("Server", bound=SimulatedGateway | Replay)

# How long an action may take; only a hang reaches it.
DEADLINE_S = 60.0

# The states of the connection between gateway and IB, by the code that tells clients.
CONNECTIVITY = {
    Code.CONNECTIVITY_LOST: "lost",
    Code.CONNECTIVITY_RESTORED_DATA_LOST: "restored_data_lost",
    Code.CONNECTIVITY_RESTORED_DATA_KEPT: "restored_data_kept",
}


class ServedInThread(ABC, Generic[Server]):
    """Serves a gateway or a replay in a thread with an event loop of its own.

    Use it as a context manager. Its methods may be called from any thread: from a plain test and
    from a coroutine alike.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready: Future[None] = Future()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="ib-gateway", daemon=True)

    @property
    def host(self) -> str:
        """The address on which it listens."""
        return self._server.host

    @property
    def port(self) -> int:
        """The port on which it listens."""
        return self._server.port

    @property
    @abstractmethod
    def orders_received(self) -> list[OrderMessage]:
        """Every order message of every client, oldest first; none is ever carried out."""

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.result(DEADLINE_S)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.call(self._stopping.set)
        self._thread.join(DEADLINE_S)

    def call(self, action: Callable[[], T]) -> T:
        """Run a function in the gateway's event loop, and return its result."""

        async def run() -> T:
            return action()

        result: T = self._wait_for(run())
        return result

    def wait_for_sent(self) -> None:
        """Wait until the gateway has read what clients sent before this call."""
        for _turn_of_the_loop in range(2):
            self._wait_for(asyncio.sleep(0))

    def _wait_for(self, coroutine: Any) -> Any:
        if self._loop is None:
            raise RuntimeError("the gateway does not run: use it in a with statement")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(DEADLINE_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with self._server:
            self._ready.set_result(None)
            await self._stopping.wait()


class RunningGateway(ServedInThread[SimulatedGateway]):
    """A simulated gateway in a thread; every action of the simulator is a method by its name.

    `ACTIONS` lists them with their arguments, as `GET /` of a control port does.

    Raises:
        ActionError: From an action: an argument is wrong, or it makes no sense now.

    Example:
        with RunningGateway(SimulatedGateway(book="small")) as gateway:
            ib.connect("127.0.0.1", gateway.port, clientId=1)
            gateway.fill("DUSIM0001", 921000001, -5)
            gateway.exchange_rate(currency="EUR", rate=1.1)
    """

    @property
    def orders_received(self) -> list[OrderMessage]:
        """Every order message of every client, oldest first; none is ever carried out."""
        return self.call(lambda: self._server.orders_received)

    def stats(self) -> dict[str, Any]:
        """Return all counts: lines in use, requests by client, messages sent and more."""
        return self.call(self._server.stats)

    def positions(self) -> list[dict[str, Any]]:
        """Return all positions, also those that were closed today."""
        return self.call(self._server.positions)

    def ticks(self, conid: int) -> dict[str, dict[str, Any]]:
        """Return the newest price that was sent of each field of a contract."""
        return self.call(lambda: self._server.ticks(conid))

    def do(self, action: str, /, **arguments: Any) -> Any:
        """Do an action by its name, and return its result.

        Raises:
            ActionError: There is no such action, an argument is wrong, or it makes no sense now.
        """
        return self._wait_for(perform(self._server, action, check(action, arguments)))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return an action by its name; its arguments are given by name."""
        if name not in ACTIONS:
            raise AttributeError(f"there is no action {name!r}; use one of {', '.join(ACTIONS)}")
        return partial(self.do, name)

    def set_price(self, conid: int, price: float) -> None:
        """Hold bid, ask, last trade and mark of a contract at a price, as it is quoted."""
        self.do("quote", conid=conid, bid=price, ask=price, last=price, mark=price)

    def fill(
        self, account: str, conid: int, quantity: float, price: float | None = None
    ) -> dict[str, Any]:
        """Trade a signed quantity: opens, changes or closes a position; return its row."""
        row: dict[str, Any] = self.do(
            "fill", account=account, conid=conid, quantity=quantity, price=price
        )
        return row

    def assign(self, account: str, conid: int) -> list[dict[str, Any]]:
        """Assign a short option: it goes to 0, and its underlying is traded at the strike."""
        rows: list[dict[str, Any]] = self.do("assign", account=account, conid=conid)
        return rows

    def disconnect(self, client_id: int | None = None) -> None:
        """Cut one client, or all of them."""
        self.do("disconnect", client_id=client_id)

    def fault(self, code: str | int) -> None:
        """Play the trouble that a code of IB tells of.

        1100, 1101 and 1102 lose and restore the connection to IB, 2103 to 2158 break and mend a
        data farm; another code is sent as a message that belongs to no request.

        Raises:
            ActionError: The code is no number.
        """
        if not str(code).isdecimal():
            raise ActionError("code", f"{code!r} is no code of IB: give a number such as 1100")

        number = int(code)
        if number in CONNECTIVITY:
            self.do("connectivity", state=CONNECTIVITY[Code(number)])
        elif number in FARM_NOTICES:
            self.do("farm", code=number)
        else:
            self.do("error", code=number)


class RunningReplay(ServedInThread[Replay]):
    """A recording that is played to the clients that connect, in a thread."""

    @property
    def orders_received(self) -> list[OrderMessage]:
        """Every order message of every client, oldest first; none is ever carried out."""
        return self.call(lambda: list(self._server.stats.orders))

    @property
    def unanswered(self) -> list[str]:
        """What clients asked and the recording does not have, each with the nearest it has."""
        return self.call(lambda: [str(request) for request in self._server.unanswered])
