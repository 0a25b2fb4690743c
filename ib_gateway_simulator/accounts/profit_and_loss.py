"""Answers to reqPnL and reqPnLSingle: about once a second, and without a market data line."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from ib_gateway_simulator.accounts.account_data import AccountDataService
from ib_gateway_simulator.accounts.ledger import Ledger
from ib_gateway_simulator.clients.connection import ClientConnection
from ib_gateway_simulator.market.market import Market
from ib_gateway_simulator.protocol import account_messages, messages
from ib_gateway_simulator.protocol.codes import Code
from ib_gateway_simulator.protocol.fields import Fields
from ib_gateway_simulator.protocol.requests import Request

# How reqPnL of an account is answered.
PnlAnswer = Literal["values", "unset", "silent", "refused"]

# How reqPnLSingle of a position is answered.
SingleAnswer = Literal[
    "values", "unset", "silent", "ended", "refused", "frozen", "yesterday", "closed", "other"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subscription:
    """One running reqPnL (conid 0) or reqPnLSingle."""

    account: str
    conid: int


# Quantity, daily, unrealized and realized profit and value of a position.
_Row = tuple[float, float | None, float | None, float | None, float | None]


class ProfitAndLossService:
    """Sends the profits and losses that clients subscribe to."""

    def __init__(self, *, accounts: AccountDataService, ledger: Ledger, market: Market) -> None:
        self._accounts = accounts
        self._ledger = ledger
        self._market = market
        self._subscriptions: dict[tuple[ClientConnection, int], _Subscription] = {}
        self._answers: dict[str, PnlAnswer] = {}
        self._singles: dict[tuple[str, int | None], SingleAnswer] = {}
        self._last: dict[tuple[str, int], _Row] = {}
        self._ended: set[tuple[ClientConnection, int]] = set()
        self.single_limit: int | None = None
        self.refuse_beyond = True
        # Send nothing, as without a connection to IB.
        self.silent = False

    def subscribe(self, client: ClientConnection, request: Request) -> None:
        """Start reqPnL or reqPnLSingle; the first message is sent at once, if there is one."""
        account = self._accounts.account_of(client, request)
        if account is None:
            return
        if (client, request.req_id) in self._subscriptions:
            client.send(messages.error(request.req_id, Code.DUPLICATE_REQUEST_ID))
            return
        if not request.conid and self._answers.get(account) == "refused":
            client.send(_refused(request.req_id, account))
            return

        running = self._subscriptions.keys() - self._ended
        singles = sum(bool(self._subscriptions[key].conid) for key in running)
        beyond = self.single_limit is not None and singles >= self.single_limit
        answer = self._single_answer(account, request.conid)
        if request.conid and (answer == "refused" or (beyond and self.refuse_beyond)):
            client.send(_refused(request.req_id, account))
            return

        if request.conid and beyond:
            self._ended.add((client, request.req_id))
        subscription = _Subscription(account=account, conid=request.conid)
        self._subscriptions[client, request.req_id] = subscription
        if not self.silent:
            self._send(client, request.req_id, subscription)

    def cancel(self, client: ClientConnection, req_id: int) -> None:
        """End one subscription; answer 300 where there is none."""
        self._ended.discard((client, req_id))
        if self._subscriptions.pop((client, req_id), None) is None:
            client.send(messages.error(req_id, Code.UNKNOWN_REQUEST_ID))

    def send_all(self) -> None:
        """Send every subscription once; the gateway does so about every second."""
        if self.silent:
            return
        for (client, req_id), subscription in list(self._subscriptions.items()):
            self._send(client, req_id, subscription)

    def _send(self, client: ClientConnection, req_id: int, subscription: _Subscription) -> None:
        if subscription.conid:
            row = self._single_row(subscription)
            if row is not None and (client, req_id) not in self._ended:
                client.send(account_messages.pnl_single(req_id, *row))
            return
        answer = self._answers.get(subscription.account)
        if answer == "silent":
            return

        if answer == "unset":
            client.send(account_messages.pnl(req_id, None, None, None))
            return
        daily = unrealized = realized = 0.0
        for holding in self._ledger.holdings(subscription.account):
            worth = self._ledger.value(holding, self._market.close_price(holding.contract.conid))
            daily += worth.daily
            unrealized += worth.unrealized
            realized += holding.realized or 0.0
        client.send(account_messages.pnl(req_id, daily, unrealized, realized))

    def _single_row(self, subscription: _Subscription) -> _Row | None:
        """Return the fields of the next message of a position; None for no message."""
        account = subscription.account
        conid = subscription.conid
        holding = self._ledger.holding(account, conid)
        answer = self._single_answer(account, conid)
        if holding is None or answer == "silent":
            return None
        if answer == "unset":
            return (holding.quantity, None, None, None, None)
        if answer == "closed":
            return (0.0, 0.0, 0.0, 0.0, 0.0)

        worth = self._ledger.value(holding, self._market.close_price(conid))
        row: _Row = (
            holding.quantity,
            worth.daily,
            worth.unrealized,
            holding.realized,
            worth.value,
        )
        before = self._last.setdefault((account, conid), row)
        if answer == "frozen":
            return before
        if answer == "yesterday":
            row = (row[0], before[1], *row[2:])
        self._last[account, conid] = row
        if answer == "other":
            return (row[0] + 1, *row[1:])

        return row

    def _single_answer(self, account: str, conid: int) -> SingleAnswer:
        singles = self._singles
        return singles.get((account, conid)) or singles.get((account, None)) or "values"

    def set_single_answer(self, account: str, conid: int | None, answer: SingleAnswer) -> None:
        """Set how reqPnLSingle of a position is answered, or of every position of an account."""
        running = {
            key: subscription
            for key, subscription in self._subscriptions.items()
            if subscription.account == account
            and subscription.conid
            and conid in (None, subscription.conid)
        }
        if answer == "ended":
            self._ended.update(running)
            return
        self._singles[account, conid] = answer
        if answer == "refused":
            for client, req_id in running:
                del self._subscriptions[client, req_id]
                client.send(_refused(req_id, account))

    def set_answer(self, account: str, answer: PnlAnswer) -> None:
        """Set how reqPnL of an account is answered; `refused` ends its subscriptions as well."""
        self._answers[account] = answer
        if answer == "refused":
            for key, subscription in list(self._subscriptions.items()):
                if subscription == _Subscription(account=account, conid=0):
                    client, req_id = key
                    del self._subscriptions[key]
                    client.send(_refused(req_id, account))

    def accounts(self) -> dict[str, int]:
        """Return how many subscriptions each account has as a whole, beside those of positions."""
        return dict(Counter(s.account for s in self._subscriptions.values() if not s.conid))

    def __len__(self) -> int:
        return len(self._subscriptions)

    def end_subscriptions(self, client: ClientConnection | None = None) -> None:
        """End every subscription of one client, or of all."""
        for key in [key for key in self._subscriptions if client in (None, key[0])]:
            del self._subscriptions[key]


def _refused(req_id: int, account: str) -> Fields:
    cause = f"Invalid account code '{account}'."
    return messages.error(req_id, Code.INVALID_REQUEST, validator="bV", cause=cause)
