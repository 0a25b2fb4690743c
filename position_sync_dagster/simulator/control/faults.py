"""What can be done to a running gateway: trades, faults and rude behaviour.

Every method may be called by a test, the control port or a scenario; each raises ActionError for
arguments that make no sense, and changes nothing then.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from position_sync_dagster.simulator.accounts.ledger import Holding
from position_sync_dagster.simulator.clients.connection import ClientConnection
from position_sync_dagster.simulator.errors import ActionError
from position_sync_dagster.simulator.gateway.gateway import Gateway
from position_sync_dagster.simulator.market.market import Pin
from position_sync_dagster.simulator.protocol import messages

Connectivity = Literal["lost", "restored_data_lost", "restored_data_kept"]

LOST = "Connectivity between IB and Trader Workstation has been lost."
RESTORED_LOST = "Connectivity between IB and TWS has been restored - data lost."
RESTORED_KEPT = (
    "Connectivity between IB and Trader Workstation has been restored - data maintained. "
    "All data farms are connected: {farms}."
)
FARM_TEXTS = {
    2103: "Market data farm connection is broken:{farm}",
    2104: "Market data farm connection is OK:{farm}",
    2105: "HMDS data farm connection is broken:{farm}",
    2106: "HMDS data farm connection is OK:{farm}",
    2107: "HMDS data farm connection is inactive but should be available upon demand.{farm}",
    2108: "Market data farm connection is inactive but should be available upon demand.{farm}",
    2119: "Market data farm is connecting:{farm}",
    2157: "Sec-def data farm connection is broken:{farm}",
    2158: "Sec-def data farm connection is OK:{farm}",
}
ERROR_TEXTS = {
    100: "Max rate of messages per second has been exceeded.",
    101: "Max number of tickers has been reached.",
    200: "No security definition has been found for the request",
    354: (
        "Requested market data is not subscribed."
        "Delayed market data is available.Error&BEST/STK/Top&BEST/STK/Top"
    ),
    10197: "No market data during competing live session",
}


class Faults:
    """Do things to one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def fill(
        self, account: str, conid: int, quantity: float, price: float | None = None
    ) -> dict[str, Any]:
        """Trade a signed quantity in an account: opens, changes or closes its position."""
        return self._tell(self._gateway.ledger.fill(account, conid, quantity, price))

    def close_position(self, account: str, conid: int) -> dict[str, Any]:
        """Trade a position down to 0; its row stays, with 0, until the nightly reset."""
        return self._tell(self._gateway.ledger.close(account, conid))

    def assign(self, account: str, conid: int) -> list[dict[str, Any]]:
        """Assign a short option: it goes to 0 and the stock comes at the strike."""
        return [self._tell(row) for row in self._gateway.ledger.assign(account, conid)]

    def _tell(self, holding: Holding) -> dict[str, Any]:
        self._gateway.accounts.changed(holding)
        self._gateway.flush()
        return as_dict(holding)

    def _clients(self, client_id: int | None) -> list[ClientConnection]:
        clients = self._gateway.clients
        if client_id is None:
            return list(clients.values())
        if client_id not in clients:
            raise ActionError("client_id", f"no client {client_id} is connected")
        return [clients[client_id]]

    def disconnect(self, client_id: int | None = None, busy_s: float = 0.0) -> int:
        """Cut one client or all, and return how many; their ids answer 326 for `busy_s`."""
        clients = self._clients(client_id)
        until = asyncio.get_running_loop().time() + busy_s
        for client in clients:
            if busy_s and client.client_id is not None:
                self._gateway.busy_ids[client.client_id] = until
            client.abort()
        return len(clients)

    def send_error(
        self, code: int, text: str | None = None, req_id: int = -1, client_id: int | None = None
    ) -> int:
        """Send an error message with any code to one client or all; nothing else happens."""
        clients = self._clients(client_id)
        shown = ERROR_TEXTS.get(code, f"Simulated error {code}") if text is None else text
        for client in clients:
            client.send(messages.error(req_id, code, shown))
            client.flush()
        return len(clients)

    def connectivity(self, state: Connectivity) -> None:
        """Lose the connection to IB (1100), or get it back without (1101) or with (1102) data.

        While it is lost nothing ticks. After 1101 every subscription is gone; after 1102 all
        continue by themselves.
        """
        gateway = self._gateway
        if state == "lost":
            gateway.connected = False
            gateway.data.silent = gateway.accounts.silent = gateway.profits.silent = True
            self.send_error(1100, LOST)
        elif state in ("restored_data_lost", "restored_data_kept"):
            gateway.connected = True
            kept = state == "restored_data_kept"
            if not kept:
                gateway.data.lines.free_all()
                gateway.accounts.forget()
                gateway.profits.forget()
            farms = "; ".join(gateway.data.farms())
            text = RESTORED_KEPT.format(farms=farms) if kept else RESTORED_LOST
            self.send_error(1102 if kept else 1101, text)
            gateway.profits.silent = False
            gateway.accounts.speak()
            gateway.data.resume()
            gateway.flush()
        else:
            raise ActionError("state", f"{state!r} is not a state of the connection")

    def farm(self, farm: str, code: int = 2103) -> None:
        """Send a farm notice; after 2103 the farm's contracts stop ticking, after 2104 they go on.

        All other codes are notices only.
        """
        text = FARM_TEXTS.get(code)
        if text is None:
            codes = ", ".join(map(str, FARM_TEXTS))
            raise ActionError("code", f"{code} is not a farm notice; use one of {codes}")
        if code in (2103, 2105):
            self._gateway.data.broken_farms.add(farm)
        elif code in (2104, 2106):
            self._gateway.data.broken_farms.discard(farm)
        self.send_error(code, text.format(farm=farm))

    def set_line_limit(self, limit: int) -> None:
        """Change the number of lines; running ones go on even above a lower limit."""
        if limit < 0:
            raise ActionError("limit", "a line limit is 0 or more")
        self._gateway.data.lines.limit = limit

    def pause(self) -> None:
        """Fall silent: connections are accepted, but nothing is answered and nothing ticks."""
        self._gateway.paused = True

    def resume(self) -> None:
        """Answer what has arrived meanwhile, and tick again."""
        self._gateway.paused = False
        self._gateway.resume_sockets()

    def set_permission(self, conid: int | None = None, code: int | None = None) -> None:
        """Set the market data permission of one contract, or of all; code None permits."""
        self._gateway.data.permit(conid, code)
        self._gateway.flush()

    def pin_quote(
        self,
        conid: int,
        bid: float | None = None,
        ask: float | None = None,
        last: float | None = None,
        mark: float | None = None,
        no_mark: bool = False,
        release: bool = False,
    ) -> None:
        """Hold the quote of a contract: no bid, crossed, half, none; `release` lets it go."""
        if self._gateway.data.contract(conid) is None:
            raise ActionError("conid", f"no contract of the book has conid {conid}")
        pin = Pin(bid=bid, ask=ask, last=last, mark=mark, no_mark=no_mark)
        self._gateway.market.pin(conid, None if release else pin)

    def freeze(self, frozen: bool = True) -> None:
        """Stop the ticks without any notice (a closed market), or let them go on."""
        self._gateway.data.frozen = frozen

    def send_raw(self, data: bytes, client_id: int | None = None) -> int:
        """Send bytes as they are: garbage, half frames, huge lengths."""
        clients = self._clients(client_id)
        for client in clients:
            client.send_raw(data)
            client.flush()
        return len(clients)

    def reset_day(self) -> None:
        """Forget the rows closed today and today's realized profits."""
        self._gateway.ledger.reset_day()


def as_dict(holding: Holding) -> dict[str, Any]:
    """Return one position for JSON."""
    contract = holding.contract
    return {
        "account": holding.account,
        "conid": contract.conid,
        "symbol": contract.symbol,
        "sec_type": contract.sec_type.value,
        "local_symbol": contract.local_symbol,
        "expiry": contract.expiry or None,
        "strike": contract.strike if contract.is_option else None,
        "right": contract.right or None,
        "multiplier": contract.multiplier,
        "currency": contract.currency,
        "quantity": holding.quantity,
        "average_cost": holding.average_cost,
        "realized_pnl": holding.realized,
    }
