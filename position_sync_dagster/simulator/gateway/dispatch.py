"""Which desk answers which request."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from position_sync_dagster.simulator.clients.connection import ClientConnection
from position_sync_dagster.simulator.gateway.reference_data import REFUSALS
from position_sync_dagster.simulator.protocol import messages
from position_sync_dagster.simulator.protocol.requests import Request

if TYPE_CHECKING:
    from position_sync_dagster.simulator.gateway.gateway import Gateway

Answer = Callable[["Gateway", ClientConnection, Request], None]


def _market_data(gateway: Gateway, client: ClientConnection, request: Request) -> None:
    gateway.data.request(client, request)
    gateway.open_market()


def _market_data_type(gateway: Gateway, client: ClientConnection, request: Request) -> None:
    if request.number not in (1, 2, 3, 4):
        text = "Error validating request.-'cC' : cause - Invalid market data type"
        client.send(messages.error(-1, 321, text))
        return
    client.market_data_type = request.number


def _account_updates(gateway: Gateway, client: ClientConnection, request: Request) -> None:
    gateway.accounts.account_updates(client, request)
    gateway.open_market_soon()


def _profit(gateway: Gateway, client: ClientConnection, request: Request) -> None:
    gateway.profits.subscribe(client, request)
    gateway.open_market()


def _current_time(gateway: Gateway, client: ClientConnection, request: Request) -> None:
    client.send(messages.current_time(int(gateway.now())))


def _next_id(gateway: Gateway, client: ClientConnection, request: Request) -> None:
    client.send(messages.next_valid_id(gateway.options.first_order_id))


def _accounts(gateway: Gateway, client: ClientConnection, request: Request) -> None:
    client.send(messages.managed_accounts(gateway.accounts.names))


def _advisor(gateway: Gateway, client: ClientConnection, request: Request) -> None:
    client.send(messages.error(-1, 321, "FA data operations ignored for non FA customers."))


def _refuse(gateway: Gateway, client: ClientConnection, request: Request) -> None:
    gateway.reference.refuse(client, request)


ANSWERS: dict[str, Answer] = {
    **dict.fromkeys(REFUSALS, _refuse),
    "reqMktData": _market_data,
    "cancelMktData": lambda g, s, r: g.data.cancel(s, r.req_id),
    "reqMarketDataType": _market_data_type,
    "reqPositions": lambda g, s, r: g.accounts.subscribe_positions(s),
    "cancelPositions": lambda g, s, r: g.accounts.cancel_positions(s),
    "reqPositionsMulti": lambda g, s, r: g.accounts.positions_multi(s, r),
    "reqAccountUpdates": _account_updates,
    "reqAccountUpdatesMulti": lambda g, s, r: g.accounts.account_updates_multi(s, r),
    "reqAccountSummary": lambda g, s, r: g.accounts.summary(s, r),
    "reqPnL": _profit,
    "reqPnLSingle": _profit,
    "cancelPnL": lambda g, s, r: g.profits.cancel(s, r.req_id),
    "cancelPnLSingle": lambda g, s, r: g.profits.cancel(s, r.req_id),
    "reqContractDetails": lambda g, s, r: g.reference.details(s, r),
    "reqSecDefOptParams": lambda g, s, r: g.reference.option_chain(s, r),
    "reqMatchingSymbols": lambda g, s, r: g.reference.matching_symbols(s, r),
    "reqOpenOrders": lambda g, s, r: s.send(messages.open_order_end()),
    "reqAllOpenOrders": lambda g, s, r: s.send(messages.open_order_end()),
    "reqCompletedOrders": lambda g, s, r: s.send(messages.completed_orders_end()),
    "reqExecutions": lambda g, s, r: s.send(messages.executions_end(r.req_id)),
    "reqCurrentTime": _current_time,
    "reqIds": _next_id,
    "reqManagedAccts": _accounts,
    "requestFA": _advisor,
    "replaceFA": _advisor,
    "reqMarketRule": lambda g, s, r: s.send(("93", str(r.number), "1", "0", "0.01")),
    "reqNewsProviders": lambda g, s, r: s.send(("85", "0")),
    "reqFamilyCodes": lambda g, s, r: s.send(("78", "1", "*", "")),
    "reqMktDepthExchanges": lambda g, s, r: s.send(("80", "0")),
    "reqSoftDollarTiers": lambda g, s, r: s.send(("77", str(r.req_id), "0")),
    "reqSmartComponents": lambda g, s, r: s.send(("82", str(r.req_id), "0")),
    "reqUserInfo": lambda g, s, r: s.send(("107", str(r.req_id), "")),
}
"""Requests that are not here (log level, news bulletins, display groups, …) need no answer."""
