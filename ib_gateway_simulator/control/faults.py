"""Faults and trades: everything that can be done to a running gateway.

Tests, the control port and scenarios call these methods. Each method raises ActionError for
arguments that make no sense, and then changes nothing.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field

from ib_gateway_simulator.accounts.day_executions import TRANSFER
from ib_gateway_simulator.accounts.ledger import Holding
from ib_gateway_simulator.books.listing import listed_like
from ib_gateway_simulator.clearing.entries import BOOKED, EXECUTED, TradeEntry
from ib_gateway_simulator.clients.connection import ClientConnection
from ib_gateway_simulator.control.account_faults import AccountFaults
from ib_gateway_simulator.control.arguments import (
    Bytes,
    Message,
    NotNegative,
    Port,
    Positive,
    Zone,
)
from ib_gateway_simulator.control.market_data_faults import MarketDataFaults
from ib_gateway_simulator.control.readings import as_dict
from ib_gateway_simulator.errors import ActionError
from ib_gateway_simulator.gateway.farm_notices import farm_summary
from ib_gateway_simulator.gateway.reference_data import LastTradeSpelling
from ib_gateway_simulator.protocol import messages
from ib_gateway_simulator.protocol.codes import FARM_NOTICES, Code
from ib_gateway_simulator.protocol.contract import DEFAULT_FARM
from ib_gateway_simulator.protocol.request_ids import NAMES, ORDER_REQUESTS

LastTrade = Literal["instrument", "login", "utc"]
Connectivity = Literal["lost", "restored_data_lost", "restored_data_kept", "reported_lost"]
Answers = Literal["none", "cached"]

# The codes that `send_error` sends with their own text if the caller passes none.
CODES_WITH_TEXT = frozenset(
    {
        Code.MESSAGE_RATE_EXCEEDED,
        Code.LINE_LIMIT_REACHED,
        Code.UNKNOWN_CONTRACT,
        Code.NOT_SUBSCRIBED,
        Code.COMPETING_SESSION,
    }
)

# The requests that a script may answer.
ANSWERED = frozenset(NAMES.values()) - ORDER_REQUESTS - {"startApi"}


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ActionError("clock", f"{name!r} is no zone of the IANA database") from None


class Faults(AccountFaults, MarketDataFaults, ABC):
    """Changes one gateway, besides reading it.

    `restart` acts on the listening socket; the class that owns it defines it, and `statements`.
    """

    # -- trades and market time ---------------------------------------------------------------

    def fill(
        self,
        account: str,
        conid: int,
        quantity: float,
        price: NotNegative | None = None,
        parts: Annotated[int, Field(ge=1)] = 1,
    ) -> dict[str, Any]:
        """Trade a signed quantity by one order: opens, changes or closes a position.

        Args:
            account: The account that trades.
            conid: The contract.
            quantity: Above 0 buys, below 0 sells.
            price: Per unit in the major currency; without it the current price.
            parts: In how many equal executions the order is filled.
        """
        ledger = self._gateway.ledger
        order = self._gateway.accounts.executions.new_order()
        rows = [
            self._booked(
                lambda: [ledger.fill(account, conid, quantity / parts, price)], EXECUTED, order
            )
            for _part in range(parts)
        ]
        return rows[-1][0]

    def order(
        self, account: str, legs: Annotated[dict[int, float], Field(min_length=1)]
    ) -> list[dict[str, Any]]:
        """Trade signed quantities of several contracts, by conid, by one combo order."""
        ledger = self._gateway.ledger
        for conid, quantity in legs.items():
            ledger.check_change(account, conid, quantity)
        return self._booked(
            lambda: [ledger.fill(account, conid, quantity) for conid, quantity in legs.items()],
            EXECUTED,
        )

    def execute(self, entry: TradeEntry) -> dict[str, Any]:
        """Trade what a back office booked as an execution, with its id, order and commission.

        Raises:
            ActionError: The book does not know the account or the security.
        """
        row = self._gateway.ledger.fill(
            entry.account,
            entry.security.conid,
            float(entry.quantity),
            float(entry.price),
            float(entry.commission / abs(entry.quantity)),
        )
        self._gateway.accounts.executions.add_booked(row.contract, entry)
        return self._send_change(row)

    def list_executed(self, entry: TradeEntry) -> None:
        """List what a back office booked before the start, whose holding is in the book already."""
        contract = self._gateway.book.contracts[entry.security.conid]
        self._gateway.accounts.executions.add_booked(contract, entry)

    def close_position(self, account: str, conid: int) -> dict[str, Any]:
        """Trade a position down to 0; its row stays, with 0, until the nightly reset."""
        return self.fill(account, conid, -self._quantity(account, conid))

    def roll(self, account: str, conid: int, to: int) -> list[dict[str, Any]]:
        """Close a position and open as much of another contract, by one combo order."""
        quantity = self._quantity(account, conid)
        return self.order(account, {conid: -quantity, to: quantity})

    def assign(self, account: str, conid: int) -> list[dict[str, Any]]:
        """Assign a short option: it goes to 0, and its underlying is traded at the strike."""
        ledger = self._gateway.ledger
        return self._booked(lambda: ledger.assign(account, conid), BOOKED, code="A")

    def exercise(self, account: str, conid: int) -> list[dict[str, Any]]:
        """Exercise a long option: it goes to 0, and its underlying is traded at the strike."""
        ledger = self._gateway.ledger
        return self._booked(lambda: ledger.exercise(account, conid), BOOKED, code="Ex")

    def expire(self, account: str, conid: int, price: NotNegative = 0.0) -> dict[str, Any]:
        """Close a derivative as it expires, worthless or at a price; no execution names it."""
        ledger = self._gateway.ledger
        rows = self._booked(lambda: [ledger.expire(account, conid, price)], BOOKED, code="Ep")
        return rows[0]

    def transfer(
        self, account: str, conid: int, quantity: float, cost: NotNegative = 0.0
    ) -> dict[str, Any]:
        """Move a signed quantity into an account, or out of it, without an execution."""
        ledger = self._gateway.ledger
        return self._booked(lambda: [ledger.move(account, conid, quantity, cost)], TRANSFER)[0]

    def split(
        self, account: str, conid: int, to: int, quantity: float, kind: str = "FS"
    ) -> list[dict[str, Any]]:
        """Replace a holding by a quantity of another contract: a corporate action.

        Args:
            account: The account that holds it.
            conid: The contract that goes.
            to: The contract that comes.
            quantity: How much of it, signed.
            kind: The type of the action in statements: FS is a split, IC a change of the issue,
                as with a new symbol (ibflex 1.1, `enums.Reorg`).
        """
        ledger = self._gateway.ledger
        held = self._quantity(account, conid)
        ledger.check_change(account, to, quantity)
        before = ledger.holding(account, conid)
        cost = 0.0
        if before:
            cost = before.average_cost * held / quantity

        return self._booked(
            lambda: [
                ledger.move(account, conid, -held, 0.0),
                ledger.move(account, to, quantity, cost),
            ],
            kind,
        )

    def list_option(
        self,
        conid: Annotated[int, Field(gt=0)],
        like: int,
        strike: Positive,
        right: Literal["C", "P"],
        ends_in_s: float,
    ) -> dict[str, Any]:
        """List a new contract, like another option, that trades last in `ends_in_s` seconds.

        It is on the same underlying, and is settled on the day on which it trades last.
        """
        contracts = self._gateway.book.contracts
        contract_like = contracts.get(like)
        if conid in contracts:
            raise ActionError("conid", "is known already")
        if contract_like is None or not contract_like.is_option:
            raise ActionError("like", f"{like} is no option of the book")
        end = datetime.fromtimestamp(
            self._gateway.now() + ends_in_s, ZoneInfo(contract_like.time_zone)
        )
        contracts[conid] = listed_like(contract_like, conid, strike=strike, right=right, end=end)
        return {"conid": conid, "ends_at": end.isoformat()}

    def _quantity(self, account: str, conid: int) -> float:
        held = self._gateway.ledger.holding(account, conid)
        if held is None or not held.quantity:
            raise ActionError("conid", f"{account} does not hold conid {conid}")
        return held.quantity

    def _booked(
        self,
        act: Callable[[], Sequence[Holding]],
        kind: str,
        order: int | None = None,
        code: str = "",
    ) -> list[dict[str, Any]]:
        """Change the ledger, record what happened, and send the new rows."""
        executions = self._gateway.accounts.executions
        ledger = self._gateway.ledger
        before = {
            (holding.account, holding.contract.conid): holding for holding in ledger.holdings()
        }
        rows = act()
        order = executions.new_order() if order is None else order
        for row in rows:
            row_before = before.get((row.account, row.contract.conid))
            executions.add(row_before, row, order, kind, code)
        return [self._send_change(row) for row in rows]

    def refuse_executions(self, refused: bool = True) -> None:
        """Refuse requests for executions by an error, or answer them again."""
        self._gateway.accounts.executions.refused = refused

    def execution_times(self, zone: Zone | None = None, clock: str = "UTC") -> None:
        """Write this name behind the times of executions; None: write UTC with a hyphen.

        A gateway that runs in UTC writes `20231214-20:57:37` (ib_insync issues/671,
        nautilus_trader issues/2359). A zone is free text, such as `China Standard Time`
        (lbilli/Jib.jl) or `EST` in summer (ib_async issues/143), and ib_async reads only the names
        of the IANA database.

        Args:
            zone: The name.
            clock: The zone whose clocks the times show, by its name in the IANA database.
        """
        self._gateway.accounts.executions.clock = _zone(clock)
        self._gateway.accounts.executions.zone = zone

    def last_trade_times(
        self, written: LastTrade = "instrument", clock: str = "UTC", zone: Zone | None = None
    ) -> None:
        """Write last trades in contract details in one of the three ways that TWS can be set to.

        In the zone of the instrument, in that of the login, or in UTC with a hyphen: the same last
        trade of an option is `20281214 16:00:00 US/Eastern`, `20281215 05:00:00 Asia/Shanghai` and
        `20281214-21:00:00` (ib_insync issues/605 and issues/693, ib_async issues/203,
        pysystemtrade issues/1244). The trading hours stay in the zone of the instrument.

        Args:
            written: Which of them.
            clock: The zone of the login, by its name in the IANA database.
            zone: How the login names it; by default by that name.
        """
        if written not in get_args(LastTrade):
            raise ActionError("written", f"{written!r} is not instrument, login or utc")
        reference = self._gateway.reference_data
        at = _zone(clock)
        reference.spelling = {
            "instrument": None,
            "utc": LastTradeSpelling(zone=UTC, name=None),
            "login": LastTradeSpelling(zone=at, name=zone or clock),
        }[written]

    def refuse_details(self, code: int | None = None) -> None:
        """Refuse every request for contract details with this code; None: answer again.

        With 200 the gateway knows no contract, also one that it knows again a moment later: its
        farm of definitions is away (nautilus_trader issues/4455). With 100 the client sends too
        fast (ib_insync issues/201, Lean issues/913).
        """
        self._gateway.reference_data.refused = code

    def _send_change(self, holding: Holding) -> dict[str, Any]:
        self._gateway.accounts.send_change(holding)
        self._gateway.flush()
        return as_dict(holding)

    def reset_day(self) -> None:
        """Remove the rows closed today, today's realized profits and today's executions."""
        self._gateway.ledger.reset_day()
        self._gateway.accounts.executions.reset_day()

    def step(self, count: Annotated[int, Field(ge=1, le=100_000)] = 1) -> None:
        """Advance the market now, besides the steps that it takes by itself."""
        for _ in range(count):
            self._gateway.step()

    def move_underlying(self, symbol: str, percent: float) -> float:
        """Move the price of one underlying at once, and return the new one."""
        self._check_underlying(symbol)
        if percent <= -100:
            raise ActionError("percent", "a price stays above 0")
        self._gateway.market.jump(symbol, 1 + percent / 100)
        self._send_moved()
        return self._gateway.market.spot(symbol)

    def shift_volatility(self, points: float, symbol: str | None = None) -> None:
        """Raise the volatility of each option on one underlying, or on any, at once."""
        if symbol is not None:
            self._check_underlying(symbol)
        self._gateway.market.shift_volatility(points, symbol)
        self._send_moved()

    def dividend(self, symbol: str, amount: float, days: float = 1.0) -> None:
        """Announce a dividend besides those of the yield; the prices of options follow it.

        Lines that requested generic tick 456 get it. The price of the stock falls on no day: time
        does not pass in the prices of the simulator.
        """
        self._check_underlying(symbol)
        if not 0 < amount < self._gateway.market.spot(symbol):
            raise ActionError("amount", "a dividend is above 0 and below the price")
        if days <= 0:
            raise ActionError("days", "a dividend is announced before its day")
        self._gateway.market.add_dividend(symbol, amount, days)
        self._gateway.market_data.send_dividends()
        self._send_moved()

    def _check_underlying(self, symbol: str) -> None:
        if symbol not in self._gateway.book.underlyings:
            raise ActionError("symbol", f"there is no underlying {symbol!r} in the book")

    def _send_moved(self) -> None:
        self._gateway.market_data.send_changes()
        self._gateway.flush()

    # -- connections --------------------------------------------------------------------------

    def disconnect(self, client_id: int | None = None, busy_s: NotNegative = 0.0) -> int:
        """Cut one client or all, and return how many; their ids answer 326 for `busy_s`."""
        clients = self._clients(client_id)
        until = asyncio.get_running_loop().time() + busy_s
        for client in clients:
            if busy_s and client.client_id is not None:
                self._gateway.busy_ids[client.client_id] = until
            client.abort()
        return len(clients)

    def log_in_as(self, accounts: Annotated[list[str], Field(min_length=1)]) -> int:
        """Log the gateway in with another user name, and return how many clients it cut.

        From then on the login manages these accounts of the book: it names them at each log-in
        (IB, "Managed Accounts"), its lists have their holdings, and requests for others are
        refused (321). A gateway keeps its port whoever logs in.
        """
        self._gateway.ledger.manage(accounts)
        return self.disconnect()

    def send_error(
        self, code: int, text: str | None = None, req_id: int = -1, client_id: int | None = None
    ) -> int:
        """Send an error with any code to one client or all, and return how many.

        Nothing else happens: the gateway's state stays as it is.
        """
        if text is None and code not in CODES_WITH_TEXT:
            text = f"Simulated error {code}"
        clients = self._clients(client_id)
        for client in clients:
            client.send(messages.error(req_id, code, text))
            client.flush()
        return len(clients)

    def send_raw(
        self, data: Annotated[Bytes, Field(alias="hex")], client_id: int | None = None
    ) -> int:
        """Send bytes as they are: garbage, half frames, huge lengths.

        Return how many clients got them.
        """
        clients = self._clients(client_id)
        for client in clients:
            client.send_raw(data)
            client.flush()
        return len(clients)

    def say(self, messages: Sequence[Message], client_id: int | None = None) -> int:
        """Send exactly these messages in one packet, and return how many clients got them.

        A message is its fields, of which the first is its id, or bytes as they are, as half a
        message is; `Cut.HERE` closes the connection behind what came before. `said` has all of it.
        """
        clients = self._clients(client_id)
        self._gateway.scripts.say(clients, messages)
        return len(clients)

    def answer(
        self,
        request: str,
        answers: Sequence[Sequence[Message]] | None = None,
        account: str | None = None,
    ) -> None:
        """Answer requests of a name by exactly these messages; None: as a gateway does.

        Nothing else happens: a request that is answered so starts no line and no subscription.
        `said` has each request and its answer.

        Args:
            request: The name, as `stats` has it: `reqPositions`.
            answers: The messages of each answer, as `say` takes them. Each request takes the next
                answer, and all later ones the last; without any, requests stay unanswered.
            account: The account that the requests name, before an answer for any account.
        """
        if request not in ANSWERED:
            raise ActionError("request", f"{request!r} is no request that a gateway answers")
        self._gateway.scripts.set_answers(request, account, answers)

    def _clients(self, client_id: int | None) -> list[ClientConnection]:
        clients = self._gateway.clients
        if client_id is None:
            return list(clients.values())
        if client_id not in clients:
            raise ActionError("client_id", f"no client {client_id} is connected")
        return [clients[client_id]]

    def _send_notice(self, code: Code, **values: object) -> None:
        self.send_error(code, code.text.format(**values))

    def pause(self) -> None:
        """Stop answering: connections are accepted, but nothing is answered and nothing ticks."""
        self._gateway.set_paused(True)

    def resume(self) -> None:
        """Answer what arrived during the pause, and tick again."""
        self._gateway.set_paused(False)

    @abstractmethod
    def statements(self) -> dict[str, str]:
        """Return the statement of each account since the start, as XML of an activity query."""

    @abstractmethod
    async def restart(self, down_s: NotNegative = 1.0, needs_login: bool = False) -> None:
        """Restart as gateways do every night: down for `down_s`, then without closed rows.

        With `needs_login` it refuses connections until `confirm_login`, as a gateway does whose
        tokens were invalidated on Sunday at 01:00 in New York: the automatic restart waits for a
        person (ibkrguides.com, "Auto Restart Considerations"; Lean.Brokerages.InteractiveBrokers
        issues/246: "Auto-restart token expired").
        """

    @abstractmethod
    async def change_port(self, port: Port = 0) -> int:
        """Listen on another port, any free one by default, and return it; drop all clients.

        They get 1300 before, which names the new port (IB, "System Message Codes").
        """

    @abstractmethod
    def confirm_login(self) -> None:
        """Confirm the login that a restart with `needs_login` waits for."""

    # -- connectivity to IB -------------------------------------------------------------------

    def connectivity(
        self,
        state: Connectivity,
        answers: Answers = "cached",
        login_code: int = Code.GATEWAY_OFFLINE,
    ) -> None:
        """Lose the connection to IB (1100), or restore it with data lost (1101) or kept (1102).

        While it is lost, nothing ticks. After 1101 every subscription is gone; after 1102 all
        continue by themselves, unless `after_restore` says that lines are dead; the contracts of
        a broken farm, which 1102 names, still do not tick.

        With "reported_lost" the gateway sends 1100 alone: data go on, and no 1102 comes.

        A client may log in while it is lost, and then gets `login_code` instead of farm notices:
        2110 (stoqey errorCode.ts), or 1100, which gateways repeat until the restore (IBC
        issues/143). `answers` says how requests about positions and accounts are answered while it
        is lost: with `cached` at once, from what the gateway had when it was lost; with `none` only
        after the restore. Lean.Brokerages.InteractiveBrokers pull/13 reports account data that did
        not come before a time-out while IB's servers were away. It was never recorded that the
        answers come after the restore.
        """
        if answers not in get_args(Answers):
            raise ActionError("answers", f"{answers!r} is not none or cached")
        if login_code not in (Code.GATEWAY_OFFLINE, Code.CONNECTIVITY_LOST):
            raise ActionError("login_code", f"{login_code} is not 1100 or 2110")

        gateway = self._gateway
        if state == "reported_lost":
            self._send_notice(Code.CONNECTIVITY_LOST)
        elif state == "lost":
            gateway.login_code = Code(login_code)
            gateway.lose_connectivity(answers=answers == "cached")
            self._send_notice(Code.CONNECTIVITY_LOST)
        elif state == "restored_data_lost":
            gateway.end_subscriptions()
            self._send_notice(Code.CONNECTIVITY_RESTORED_DATA_LOST)
            gateway.restore_connectivity()
        elif state == "restored_data_kept":
            market_data = gateway.market_data
            farms = farm_summary(market_data.farms(), market_data.broken_farms)
            self._send_notice(Code.CONNECTIVITY_RESTORED_DATA_KEPT, farms=farms)
            gateway.restore_connectivity()
        else:
            raise ActionError("state", f"{state!r} is not a state of the connection")

    def farm(self, farm: str = DEFAULT_FARM, code: int = Code.MARKET_FARM_BROKEN) -> None:
        """Send a farm notice; after 2103 the farm's contracts stop ticking, after 2104 they go on.

        2105 and 2106 do the same to a farm of historical data. All other codes are notices only.
        The farm may have any name, also one with a dot (`usfarm.nj`) or one of which the book has
        no contracts. A broken farm is announced at each log-in (ibkr-go,
        contract_details_not_found: 2103 for usbond among the OK notices).
        """
        if code not in FARM_NOTICES:
            codes = ", ".join(map(str, FARM_NOTICES))
            raise ActionError("code", f"{code} is not a farm notice; use one of {codes}")
        market_data = self._gateway.market_data
        if code in (Code.MARKET_FARM_BROKEN, Code.HISTORY_FARM_BROKEN):
            market_data.broken_farms[farm] = Code(code)
        elif code in (Code.MARKET_FARM_OK, Code.HISTORY_FARM_OK):
            market_data.farm_restored(farm)
        self._send_notice(Code(code), farm=farm)
