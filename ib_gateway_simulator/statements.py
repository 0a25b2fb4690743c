"""The broker's statements of a running gateway."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from ib_gateway_simulator.accounts.day_executions import TRANSFER, Deal
from ib_gateway_simulator.books.book import Account
from ib_gateway_simulator.clearing.activity_statement import (
    ACTIONS,
    EQUITY,
    POSITIONS,
    TRADES,
    TRANSFERS,
    FlexQuery,
    statement_xml,
)
from ib_gateway_simulator.clearing.back_office import ClosedBooks
from ib_gateway_simulator.clearing.entries import (
    BOOKED,
    EXECUTED,
    ActionEntry,
    Entry,
    TradeEntry,
    TransferEntry,
)
from ib_gateway_simulator.clearing.securities import Category, Security
from ib_gateway_simulator.gateway.gateway import Gateway
from ib_gateway_simulator.market.underlying import NEW_YORK

ONE = Decimal(1)
QUERY = FlexQuery(
    name="simulated", sections=frozenset({POSITIONS, TRADES, TRANSFERS, ACTIONS, EQUITY})
)


def statements_so_far(gateway: Gateway) -> dict[str, str]:
    """Return a statement of each account: what was traded and booked since the gateway's start.

    It covers whole days, up to the present one, and has the positions of this moment.
    """
    now = datetime.fromtimestamp(gateway.now(), NEW_YORK)
    securities = gateway.book.securities()
    entries = defaultdict(list)
    for deal in gateway.accounts.executions.journal:
        entries[deal.account].append(_entry(deal, securities[deal.contract.conid]))

    statements = {}
    for account in gateway.ledger.accounts.values():
        books = _books(gateway, account, now, securities, entries[account.name])
        content = statement_xml([books], securities, made=now, query=QUERY)
        statements[account.name] = content.decode()
    return statements


def _books(
    gateway: Gateway,
    account: Account,
    now: datetime,
    securities: Mapping[int, Security],
    entries: Sequence[Entry],
) -> ClosedBooks:
    """Return the books of an account as if it were closed now; all currencies count as its own."""
    cash = Decimal(str(gateway.ledger.cash[account.name]))
    quantities = {}
    marks = {}
    costs = {}
    wealth = cash
    for holding in gateway.ledger.holdings(account.name):
        if not holding.quantity:
            continue

        conid = holding.contract.conid
        quantities[conid] = Decimal(str(holding.quantity))
        marks[conid] = Decimal(str(gateway.market.value_price(conid)))
        costs[conid] = Decimal(str(holding.average_cost)) / securities[conid].multiplier
        if securities[conid].category is not Category.FUTURE:
            wealth += securities[conid].worth(quantities[conid], marks[conid])

    return ClosedBooks(
        account=account.name,
        base=account.currency,
        session=now.date(),
        previous=None,
        cash={account.currency: cash},
        wealth={account.currency: wealth},
        moved_by_owner={},
        converted={},
        quantities=quantities,
        marks=marks,
        costs=costs,
        accruals={},
        rates=defaultdict(lambda: ONE),
        entries=tuple(entries),
    )


def _entry(deal: Deal, security: Security) -> Entry:
    if deal.booked is not None:
        return replace(deal.booked, security=security)

    at = datetime.fromtimestamp(deal.at, NEW_YORK)
    quantity = Decimal(str(deal.quantity))
    common: dict[str, Any] = {"number": deal.transaction, "account": deal.account}
    common |= {"at": at, "report_day": at.date(), "security": security, "quantity": quantity}
    if deal.kind == TRANSFER:
        return TransferEntry(**common, amount=None)
    if deal.kind not in (EXECUTED, BOOKED):
        return ActionEntry(**common, kind=deal.kind, action=deal.order)

    commission, currency = deal.commission
    if deal.kind == BOOKED:
        commission = 0.0

    return TradeEntry(
        **common,
        price=Decimal(str(deal.price)),
        commission=Decimal(str(commission)),
        commission_currency=currency,
        codes=deal.codes,
        kind=deal.kind,
        realized=Decimal(str(deal.realized)),
        order=deal.order,
    )
