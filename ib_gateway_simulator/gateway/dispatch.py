"""Which service answers which request."""

from __future__ import annotations

from collections.abc import Callable

from ib_gateway_simulator.accounts.account_data import AccountDataService
from ib_gateway_simulator.accounts.profit_and_loss import ProfitAndLossService
from ib_gateway_simulator.clients.connection import ClientConnection
from ib_gateway_simulator.gateway.reference_data import ReferenceDataService
from ib_gateway_simulator.gateway.refusals import REFUSALS, refusal
from ib_gateway_simulator.market_data.market_data import MarketDataService
from ib_gateway_simulator.protocol import account_messages, messages
from ib_gateway_simulator.protocol.codes import Code
from ib_gateway_simulator.protocol.requests import Request

Handler = Callable[[ClientConnection, Request], None]

# Requests of what this login does not have.
_SAME_ANSWERS = {
    "reqOpenOrders": messages.open_order_end(),
    "reqAllOpenOrders": messages.open_order_end(),
    "reqCompletedOrders": messages.completed_orders_end(),
    "reqNewsProviders": messages.news_providers(),
    "reqFamilyCodes": messages.family_codes(),
    "reqMktDepthExchanges": messages.depth_exchanges(),
}
_ANSWERS_BY_ID = {
    "reqSoftDollarTiers": messages.soft_dollar_tiers,
    "reqSmartComponents": messages.smart_components,
    "reqUserInfo": messages.user_info,
}


class Dispatcher:
    """Answers requests: a table from a request's name to the service that knows the answer.

    Args:
        open_market: Called by requests that see prices move.
        open_market_soon: Called by requests for account data.
    """

    def __init__(
        self,
        *,
        accounts: AccountDataService,
        market_data: MarketDataService,
        profits: ProfitAndLossService,
        reference_data: ReferenceDataService,
        now: Callable[[], float],
        first_order_id: int,
        open_market: Callable[[], None],
        open_market_soon: Callable[[], None],
    ) -> None:
        self._accounts = accounts
        self._market_data = market_data
        self._profits = profits
        self._now = now
        self._first_order_id = first_order_id
        self._open_market = open_market
        self._open_market_soon = open_market_soon
        self._handlers: dict[str, Handler] = {
            **dict.fromkeys(REFUSALS, lambda c, r: c.send(refusal(r))),
            **dict.fromkeys(_SAME_ANSWERS, lambda c, r: c.send(_SAME_ANSWERS[r.name])),
            **dict.fromkeys(_ANSWERS_BY_ID, lambda c, r: c.send(_ANSWERS_BY_ID[r.name](r.req_id))),
            "reqMktData": self._request_market_data,
            "cancelMktData": lambda c, r: market_data.cancel(c, r.req_id),
            "reqMarketDataType": _set_market_data_type,
            "reqPositions": accounts.list_positions,
            "cancelPositions": lambda c, r: accounts.positions.cancel(c),
            "reqPositionsMulti": accounts.positions_multi,
            "cancelPositionsMulti": lambda c, r: accounts.positions.cancel_multi(c, r.req_id),
            "reqAccountUpdates": self._request_account_updates,
            "reqAccountUpdatesMulti": accounts.account_updates_multi,
            "reqAccountSummary": accounts.summary,
            "reqPnL": self._request_profit,
            "reqPnLSingle": self._request_profit,
            "cancelPnL": self._cancel_profit,
            "cancelPnLSingle": self._cancel_profit,
            "reqContractDetails": reference_data.details,
            "reqSecDefOptParams": reference_data.option_chain,
            "reqMatchingSymbols": reference_data.matching_symbols,
            "reqExecutions": accounts.executions.answer,
            "reqCurrentTime": self._send_current_time,
            "reqIds": self._send_next_id,
            "reqManagedAccts": self._send_accounts,
            "requestFA": _refuse_advisor_request,
            "replaceFA": _refuse_advisor_request,
            "reqMarketRule": lambda c, r: c.send(messages.market_rule(r.number)),
        }

    def handle(self, client: ClientConnection, request: Request) -> None:
        """Answer one request.

        Requests without a handler (log level, news bulletins, display groups, …) get no answer
        from a real gateway either.
        """
        handler = self._handlers.get(request.name)
        if handler is not None:
            handler(client, request)

    def _request_market_data(self, client: ClientConnection, request: Request) -> None:
        self._market_data.request(client, request)
        self._open_market()

    def _request_account_updates(self, client: ClientConnection, request: Request) -> None:
        self._accounts.updates.request(client, request)
        self._open_market_soon()

    def _request_profit(self, client: ClientConnection, request: Request) -> None:
        self._profits.subscribe(client, request)
        self._open_market()

    def _cancel_profit(self, client: ClientConnection, request: Request) -> None:
        self._profits.cancel(client, request.req_id)

    def _send_current_time(self, client: ClientConnection, request: Request) -> None:
        client.send(messages.current_time(int(self._now())))

    def _send_next_id(self, client: ClientConnection, request: Request) -> None:
        client.send(messages.next_valid_id(self._first_order_id))

    def _send_accounts(self, client: ClientConnection, request: Request) -> None:
        client.send(account_messages.managed_accounts(self._accounts.names))


def _set_market_data_type(client: ClientConnection, request: Request) -> None:
    if request.number in (1, 2, 3, 4):
        client.market_data_type = request.number
    else:
        cause = "Invalid market data type"
        client.send(messages.error(-1, Code.INVALID_REQUEST, validator="cC", cause=cause))


def _refuse_advisor_request(client: ClientConnection, request: Request) -> None:
    text = "FA data operations ignored for non FA customers."
    client.send(messages.error(-1, Code.INVALID_REQUEST, text))
