"""Answers about accounts: positions, account updates and summaries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import tzinfo

from ib_gateway_simulator.accounts.account_updates import AccountUpdatesService
from ib_gateway_simulator.accounts.account_values import account_values
from ib_gateway_simulator.accounts.day_executions import DayExecutions
from ib_gateway_simulator.accounts.holding_rows import HoldingRows, Row
from ib_gateway_simulator.accounts.ledger import Holding, Ledger
from ib_gateway_simulator.accounts.odd_row import OddRow
from ib_gateway_simulator.accounts.positions import PositionsService
from ib_gateway_simulator.clients.connection import ClientConnection
from ib_gateway_simulator.market.market import Market
from ib_gateway_simulator.protocol import account_messages, messages
from ib_gateway_simulator.protocol.codes import Code
from ib_gateway_simulator.protocol.fields import Fields
from ib_gateway_simulator.protocol.requests import Request

# Maximum number of accounts whose positions reqPositions lists (IB, "Requesting Positions").
MOST_ACCOUNTS = 50


class AccountDataService:
    """Answers requests about accounts. None of it uses a market data line.

    `positions` and `updates` are the services of the two subscriptions, `rows` writes what both
    send, and `executions` keeps the trades of the day.

    Args:
        now: The wall clock, in seconds since 1970.
        zone: The zone of the account times.
        call_later: Runs an action after some seconds, but not during a pause.
        refresh_interval_s: How often a subscribed account is sent again (IB: 3 minutes).
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        market: Market,
        now: Callable[[], float],
        zone: tzinfo,
        call_later: Callable[[float, Callable[[], None]], None],
        refresh_interval_s: float,
    ) -> None:
        self._ledger = ledger
        self._market = market
        self.rows = rows = HoldingRows(ledger=ledger, market=market)
        self.positions = PositionsService(rows, call_later)
        self.executions = DayExecutions(now)
        self.updates = AccountUpdatesService(
            accounts=ledger.accounts,
            rows=rows,
            values=self._values,
            now=now,
            zone=zone,
            call_later=call_later,
            refresh_interval_s=refresh_interval_s,
        )
        self._unsent: list[Row] = []
        self._silent = False
        self._cached_values: dict[str, list[tuple[str, str, str]]] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The accounts of the login."""
        return tuple(self._ledger.accounts)

    # -- requests with an id ------------------------------------------------------------------

    def _values(self, account: str) -> Iterator[tuple[str, str, str]]:
        if self._cached_values is not None:
            return iter(self._cached_values[account])
        return account_values(self._ledger, self._market, account)

    def account_of(self, client: ClientConnection, request: Request) -> str | None:
        """Return the account that a request means, or refuse it with 321 and return None."""
        if request.account in self._ledger.accounts:
            return request.account
        if not request.account and len(self.names) == 1:
            return self.names[0]
        client.send(_unknown_account(request.req_id, request.account))
        return None

    def list_positions(self, client: ClientConnection, request: Request) -> None:
        """Answer reqPositions with the positions of every account.

        With more than 50 accounts it is not available (IB, "Requesting Positions"). No recording
        of the refusal was found: here it is 321 without an id, and no end follows.
        """
        if len(self.names) > MOST_ACCOUNTS:
            cause = f"The positions of more than {MOST_ACCOUNTS} accounts."
            client.send(messages.error(-1, Code.INVALID_REQUEST, validator="bW", cause=cause))
            return
        self.positions.subscribe(client)

    def positions_multi(self, client: ClientConnection, request: Request) -> None:
        """Answer reqPositionsMulti with the positions of one account, and what changes in it."""
        account = self.account_of(client, request)
        if account is not None:
            self.positions.multi(client, request.req_id, account)

    def account_updates_multi(self, client: ClientConnection, request: Request) -> None:
        """Answer reqAccountUpdatesMulti with the values of one account."""
        account = self.account_of(client, request)
        if account is None:
            return
        for tag, value, currency in self._values(account):
            row = (request.req_id, account, tag, value, currency)
            client.send(account_messages.account_update_multi(*row))
        client.send(account_messages.account_update_multi_end(request.req_id))

    def summary(self, client: ClientConnection, request: Request) -> None:
        """Answer reqAccountSummary with the values of every account."""
        for account in self.names:
            for tag, value, currency in self._values(account):
                row = (request.req_id, account, tag, value, currency)
                client.send(account_messages.account_summary(*row))
        client.send(account_messages.account_summary_end(request.req_id))

    # -- changes ------------------------------------------------------------------------------

    def send_change(self, row: Row) -> None:
        """Send a changed position to every subscribed client, or keep it until silence ends.

        A traded position takes the place of its odd row.
        """
        if isinstance(row, Holding):
            self.rows.remove_odd(row.account, row.contract.conid)
        if self._silent:
            self._unsent.append(row)
            return
        self.positions.send_change(row)
        self.updates.send_change(row)

    def send_odd(self, row: OddRow) -> None:
        """Send an odd row now, and in every list from now on."""
        self.rows.add_odd(row)
        self.send_change(row)

    def start_silence(self) -> None:
        """Send no changes from now on, as without a connection to IB.

        Requests are answered with the rows, values and times of this moment.
        """
        if self._cached_values is None:
            self._cached_values = {name: list(self._values(name)) for name in self.names}
        self._silent = True
        self.rows.freeze()
        self.positions.start_silence()
        self.updates.start_silence()

    def end_silence(self) -> None:
        """Send changes again, first those of the silence."""
        self._silent = False
        self._cached_values = None
        self.rows.thaw()
        self.positions.end_silence()
        self.updates.end_silence()
        unsent = self._unsent
        self._unsent = []
        for row in unsent:
            self.send_change(row)

    def end_subscriptions(self, client: ClientConnection | None = None) -> None:
        """End every subscription of one client, or of all."""
        self.positions.end_subscriptions(client)
        self.updates.end_subscriptions(client)


def _unknown_account(req_id: int, account: str) -> Fields:
    cause = f"Invalid account code '{account}'."
    return messages.error(req_id, Code.INVALID_REQUEST, validator="bV", cause=cause)
