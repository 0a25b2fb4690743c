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
from ib_gateway_simulator.books.book import Book
from ib_gateway_simulator.gateway.gateway import Gateway
from ib_gateway_simulator.market.underlying import NEW_YORK
from ib_gateway_simulator.protocol.contract import Contract


def statements_so_far(gateway: Gateway) -> dict[str, str]:
    """Return a statement of each account: what was traded and booked since the gateway's start.

    It covers whole days, up to the present one, and has the positions of this moment.
    """
    journal = gateway.accounts.executions.journal
    now = datetime.fromtimestamp(gateway.now(), NEW_YORK)
    times = [now, *(datetime.fromtimestamp(deal.at, NEW_YORK) for deal in journal)]
    found: dict[str, str] = {}
    for account in gateway.ledger.accounts.values():
        root = _statement(account.name, now.date(), first=min(times).date(), made=now)
        statement, held = root[0][0], gateway.ledger.holdings(account.name)
        quantities = {one.contract.conid: one.quantity for one in held}
        cost = {one.contract.conid: one.average_cost for one in held}
        marks = {conid: gateway.market.value_price(conid) for conid in quantities}
        _add_positions(gateway.book, statement, account.name, now.date(), quantities, cost, marks)
        _add_deals(statement, [deal for deal in journal if deal.account == account.name])
        value = sum(
            one.quantity * marks[one.contract.conid] * one.contract.multiplier for one in held
        )
        cash = gateway.ledger.cash[account.name]
        _add_cash(statement, account.name, now.date(), account.currency, cash, cash + value)
        found[account.name] = Xml.tostring(root, encoding="unicode")
    return found


def _add_deals(statement: Xml.Element, deals: Sequence[Deal]) -> None:
    trades = Xml.SubElement(statement, "Trades")
    actions = Xml.SubElement(statement, "CorporateActions")
    transfers = Xml.SubElement(statement, "Transfers")
    for deal in deals:
        at = f"{datetime.fromtimestamp(deal.at, NEW_YORK):%Y%m%d;%H%M%S}"
        common = {"accountId": deal.account, **_instrument(deal.contract)}
        if deal.kind == TRANSFER:
            direction = "IN" if deal.quantity > 0 else "OUT"
            of_transfer = {"type": "ACATS", "direction": direction, "dateTime": at}
            _add(
                transfers,
                "Transfer",
                **common,
                **of_transfer,
                quantity=f"{abs(deal.quantity):g}",
                transactionID=f"{deal.order}{deal.number:04}",
            )
        elif deal.kind not in (EXECUTED, BOOKED):
            of_action = {"type": deal.kind, "actionID": f"{deal.order}", "dateTime": at}
            _add(
                actions,
                "CorporateAction",
                **common,
                **of_action,
                quantity=f"{deal.quantity:g}",
                transactionID=f"{deal.order}{deal.number:04}",
            )
        else:
            executed = deal.kind == EXECUTED
            of_trade = {"ibExecID": deal.execution_id, "ibOrderID": f"{deal.order}"}
            _add(
                trades,
                "Trade",
                **common,
                **(of_trade if executed else {}),
                tradeID=f"{deal.order}{deal.number:04}",
                dateTime=at,
                tradeDate=at[:8],
                transactionType=deal.kind,
                notes=deal.codes,
                openCloseIndicator=deal.codes[-1],
                buySell="BUY" if deal.quantity > 0 else "SELL",
                quantity=f"{deal.quantity:g}",
                tradePrice=f"{deal.price * deal.contract.price_magnifier:.4f}",
                ibCommission=f"{-COMMISSION * abs(deal.quantity) if executed else 0.0:.2f}",
                ibCommissionCurrency=deal.contract.currency,
                fifoPnlRealized=f"{deal.realized:.2f}",
                levelOfDetail="EXECUTION",
            )


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
        value = quantity * marks[conid] * contract.multiplier
        basis = quantity * cost[conid]
        _add(
            section,
            "OpenPosition",
            accountId=account,
            **_instrument(contract),
            reportDate=f"{day:%Y%m%d}",
            position=f"{quantity:g}",
            markPrice=f"{marks[conid] * contract.price_magnifier:.4f}",
            positionValue=f"{value:.2f}",
            costBasisPrice=f"{cost[conid] / contract.multiplier:.6f}",
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
