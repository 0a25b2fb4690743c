"""The broker's statements of a running gateway.

The names of elements and attributes are those of IB's activity Flex queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from xml.etree import ElementTree as Xml

from ib_gateway_simulator.accounts.day_executions import (
    BOOKED,
    COMMISSION,
    EXECUTED,
    TRANSFER,
    Deal,
)
from ib_gateway_simulator.books.book import Account, Book
from ib_gateway_simulator.gateway.gateway import Gateway
from ib_gateway_simulator.market.underlying import NEW_YORK
from ib_gateway_simulator.protocol.contract import Contract


def statements_so_far(gateway: Gateway) -> dict[str, str]:
    """Return a statement of each account: what was traded and booked since the gateway's start.

    It covers whole days, up to the present one, and has the positions of this moment.
    """
    journal = gateway.accounts.executions.journal
    now = datetime.fromtimestamp(gateway.now(), NEW_YORK)
    first = min([now, *(datetime.fromtimestamp(deal.at, NEW_YORK) for deal in journal)]).date()
    statements = {}
    for account in gateway.ledger.accounts.values():
        deals = [deal for deal in journal if deal.account == account.name]
        root = _statement(account.name, now.date(), first=first, made=now)
        _add_sections(root[0][0], gateway, account, deals, now.date())
        statements[account.name] = Xml.tostring(root, encoding="unicode")
    return statements


def _add_sections(
    statement: Xml.Element, gateway: Gateway, account: Account, deals: Sequence[Deal], day: date
) -> None:
    holdings = gateway.ledger.holdings(account.name)
    quantities = {holding.contract.conid: holding.quantity for holding in holdings}
    costs = {holding.contract.conid: holding.average_cost for holding in holdings}
    marks = {conid: gateway.market.value_price(conid) for conid in quantities}
    _add_positions(gateway.book, statement, account.name, day, quantities, costs, marks)
    _add_deals(statement, deals)

    values = [
        quantity * marks[conid] * gateway.book.contracts[conid].multiplier
        for conid, quantity in quantities.items()
    ]
    cash = gateway.ledger.cash[account.name]
    _add_cash(statement, account.name, day, account.currency, cash, cash + sum(values))


def _add_deals(statement: Xml.Element, deals: Sequence[Deal]) -> None:
    trades = Xml.SubElement(statement, "Trades")
    actions = Xml.SubElement(statement, "CorporateActions")
    transfers = Xml.SubElement(statement, "Transfers")
    for deal in deals:
        common = {"accountId": deal.account, **_instrument(deal.contract)}
        if deal.kind == TRANSFER:
            _add(transfers, "Transfer", **common, **_of_transfer(deal))
        elif deal.kind in (EXECUTED, BOOKED):
            _add(trades, "Trade", **common, **_of_trade(deal))
        else:
            _add(actions, "CorporateAction", **common, **_of_action(deal))


def _of_transfer(deal: Deal) -> dict[str, str]:
    return {
        "type": "ACATS",
        "direction": "IN" if deal.quantity > 0 else "OUT",
        "dateTime": _time_of(deal),
        "quantity": f"{abs(deal.quantity):g}",
        "transactionID": _number_of(deal),
    }


def _of_action(deal: Deal) -> dict[str, str]:
    return {
        "type": deal.kind,
        "actionID": f"{deal.order}",
        "dateTime": _time_of(deal),
        "quantity": f"{deal.quantity:g}",
        "transactionID": _number_of(deal),
    }


def _of_trade(deal: Deal) -> dict[str, str]:
    """Return the fields of a trade; a booking has no ids of an execution, and costs nothing."""
    of_execution = {}
    commission = 0.0
    if deal.kind == EXECUTED:
        of_execution = {"ibExecID": deal.execution_id, "ibOrderID": f"{deal.order}"}
        commission = -COMMISSION * abs(deal.quantity)

    at = _time_of(deal)
    price = deal.price * deal.contract.price_magnifier
    of_deal = {
        "tradeID": _number_of(deal),
        "dateTime": at,
        "tradeDate": at[:8],
        "transactionType": deal.kind,
        "notes": deal.codes,
        "openCloseIndicator": deal.codes[-1],
        "buySell": "BUY" if deal.quantity > 0 else "SELL",
        "quantity": f"{deal.quantity:g}",
    }
    of_money = {
        "tradePrice": f"{price:.4f}",
        "ibCommission": f"{commission:.2f}",
        "ibCommissionCurrency": deal.contract.currency,
        "fifoPnlRealized": f"{deal.realized:.2f}",
    }
    return of_execution | of_deal | of_money | {"levelOfDetail": "EXECUTION"}


def _time_of(deal: Deal) -> str:
    return f"{datetime.fromtimestamp(deal.at, NEW_YORK):%Y%m%d;%H%M%S}"


def _number_of(deal: Deal) -> str:
    return f"{deal.order}{deal.number:04}"


def _statement(account: str, day: date, *, first: date, made: datetime) -> Xml.Element:
    root = Xml.Element("FlexQueryResponse", queryName="simulated", type="AF")
    statements = Xml.SubElement(root, "FlexStatements", count="1")
    Xml.SubElement(
        statements,
        "FlexStatement",
        accountId=account,
        fromDate=f"{first:%Y%m%d}",
        toDate=f"{day:%Y%m%d}",
        period="LastBusinessDay",
        whenGenerated=f"{made:%Y%m%d;%H%M%S}",
    )
    return root


def _instrument(contract: Contract) -> dict[str, str]:
    option = contract.is_option
    return {
        "currency": contract.currency,
        "assetCategory": contract.sec_type.value,
        "symbol": contract.local_symbol,
        "conid": str(contract.conid),
        "underlyingSymbol": contract.symbol,
        "multiplier": f"{contract.multiplier:g}",
        "strike": f"{contract.strike:g}" if option else "",
        "expiry": contract.expiry,
        "putCall": contract.right if option else "",
    }


def _add_positions(
    book: Book,
    statement: Xml.Element,
    account: str,
    day: date,
    held: dict[int, float],
    cost: dict[int, float],
    marks: dict[int, float],
) -> None:
    section = Xml.SubElement(statement, "OpenPositions")
    for conid, quantity in sorted(held.items()):
        if not quantity:
            continue
        contract = book.contracts[conid]
        mark = marks[conid]
        value = quantity * mark * contract.multiplier
        basis = quantity * cost[conid]
        basis_price = cost[conid] / contract.multiplier
        _add(
            section,
            "OpenPosition",
            accountId=account,
            **_instrument(contract),
            reportDate=f"{day:%Y%m%d}",
            position=f"{quantity:g}",
            markPrice=f"{mark * contract.price_magnifier:.4f}",
            positionValue=f"{value:.2f}",
            costBasisPrice=f"{basis_price:.6f}",
            costBasisMoney=f"{basis:.2f}",
            fifoPnlUnrealized=f"{value - basis:.2f}",
            side="Long" if quantity > 0 else "Short",
            levelOfDetail="SUMMARY",
        )


def _add_cash(
    statement: Xml.Element, account: str, day: date, currency: str, cash: float, total: float
) -> None:
    section = Xml.SubElement(statement, "EquitySummaryInBase")
    Xml.SubElement(
        section,
        "EquitySummaryByReportDateInBase",
        accountId=account,
        currency=currency,
        reportDate=f"{day:%Y%m%d}",
        cash=f"{cash:.2f}",
        total=f"{total:.2f}",
    )


def _add(parent: Xml.Element, name: str, **attributes: str) -> None:
    Xml.SubElement(parent, name, attributes)
