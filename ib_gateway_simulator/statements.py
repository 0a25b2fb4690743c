"""The broker's statements: of the past sessions of a book, and of a running gateway.

The names of elements and attributes are those of IB's activity Flex queries.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from pathlib import Path
from xml.etree import ElementTree as Xml
from zoneinfo import ZoneInfo

from ib_gateway_simulator.accounts.day_executions import (
    BOOKED,
    COMMISSION,
    EXECUTED,
    TRANSFER,
    Deal,
)
from ib_gateway_simulator.books.book import Book
from ib_gateway_simulator.gateway.gateway import Gateway
from ib_gateway_simulator.market.market import Market
from ib_gateway_simulator.protocol.contract import Contract

SESSIONS_PER_YEAR = 252
TRADES_PER_DAY = 3


# The days and times of statements are New York's.
NEW_YORK = ZoneInfo("America/New_York")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trade:
    """One execution; `quantity` is signed.

    Attributes:
        price: In the major unit of the currency.
        order: The id of its order.
        realized: The realised profit of what it closed; None: it opened.
    """

    conid: int
    quantity: float
    time: str
    number: int
    price: float
    order: str
    realized: float | None


def closing_market(book: Book, closed_at: datetime, *, seed: int = 7) -> Market:
    """Return the market from whose closing prices the simulator counts the profit of its day.

    Args:
        closed_at: The close of the session before the simulator's day.
        seed: As the simulator has it.
    """
    return Market(
        underlyings=book.underlyings,
        contracts=book.contracts,
        as_of=closed_at,
        rate=book.rate,
        seed=seed,
        options=book.option_market,
    )


def write_statements(
    book: Book,
    days: Sequence[date],
    folder: Path,
    *,
    seed: int = 7,
    closing: Market | None = None,
) -> list[Path]:
    """Write one statement for each account and day; return the files, in the order of days.

    The last day ends near the prices with which the simulator starts, and after it the holdings
    are those of the book. The same book, days and seed give the same files.

    Args:
        days: The sessions, ascending.
        folder: Is created if it is absent.
        closing: The market of the last close (`closing_market`): the last day then ends with the
            closing prices of the simulator.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    last = closing or closing_market(book, _end_of(book.as_of or days[-1]), seed=seed)
    marks = _marks(book, days, seed, closing)
    for account in book.accounts:
        held = {one.conid: one.quantity for one in book.openings if one.account == account.name}
        cost = {conid: last.opening_cost(conid) for conid in held}
        trades_of = {day: _trades(book, account.name, day, days, marks, cost, seed) for day in days}
        cash = account.cash
        for day in reversed(days):
            root = _statement(account.name, day)
            statement = root[0][0]
            trades = trades_of[day]
            _add_positions(book, statement, account.name, day, held, cost, marks[day])
            _add_trades(book, statement, account.name, day, trades)
            value = sum(
                quantity * marks[day][conid] * book.contracts[conid].multiplier
                for conid, quantity in held.items()
            )
            _add_cash(statement, account.name, day, account.currency, cash, cash + value)
            path = folder / f"{account.name}-{day:%Y%m%d}.xml"
            Xml.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
            written.append(path)
            for trade in trades:  # the day before ends without what was traded on this day
                held[trade.conid] = held.get(trade.conid, 0.0) - trade.quantity
                paid = trade.quantity * trade.price * book.contracts[trade.conid].multiplier
                cash += paid + COMMISSION * abs(trade.quantity)
    return sorted(written)


def _end_of(day: date) -> datetime:
    return datetime.combine(day, time(16), NEW_YORK)


def _marks(
    book: Book, days: Sequence[date], seed: int, last: Market | None
) -> dict[date, dict[int, float]]:
    """Return the prices of all contracts at the close of each day, walking back from the last.

    Args:
        last: The market of the last day, if that ends with closing prices.
    """
    noise = {name: random.Random(f"{seed}:{name}:past") for name in book.underlyings}  # noqa: S311
    spots = {name: one.price for name, one in book.underlyings.items()}
    today = book.as_of or days[-1]
    found: dict[date, dict[int, float]] = {}
    for back, day in enumerate(reversed(days), start=1):
        if back == 1 and last is not None:
            found[day] = {conid: round(last.close_price(conid), 4) for conid in book.contracts}
            for name, one in book.underlyings.items():
                spots[name] = last.close_price(one.conid)
            continue

        for name, one in book.underlyings.items():
            shock = noise[name].gauss(0.0, one.volatility / math.sqrt(SESSIONS_PER_YEAR))
            spots[name] *= math.exp(-shock)
        market = _market(book, spots, date.fromordinal(today.toordinal() - back * 7 // 5), seed)
        found[day] = {conid: round(market.value_price(conid), 4) for conid in book.contracts}
    return found


def _market(book: Book, spots: dict[str, float], as_of: date, seed: int) -> Market:
    """Return the market of one day; its options are priced as European ones.

    American ones would take a second for each day.
    """
    return Market(
        underlyings={n: replace(one, price=spots[n]) for n, one in book.underlyings.items()},
        contracts=book.contracts,
        as_of=as_of,
        rate=book.rate,
        seed=seed,
    )


def _trades(
    book: Book,
    account: str,
    day: date,
    days: Sequence[date],
    marks: dict[date, dict[int, float]],
    cost: dict[int, float],
    seed: int,
) -> list[_Trade]:
    """Return the trades of a day: the orders of the book; without any, some of what is held.

    A holding of the book was opened at its cost; everything else is traded at the day's prices, and
    gets the cost that it was opened at.
    """
    held = {one.conid for one in book.openings if one.account == account}
    sessions_ago = len(days) - days.index(day)
    orders = [
        order
        for order in book.orders
        if order.account == account and order.sessions_ago == sessions_ago
    ]
    trades: list[_Trade] = []
    for number, order in enumerate(orders):
        for conid, quantity in order.legs.items():
            size = book.contracts[conid].multiplier
            is_closing = conid not in held and conid in cost
            price = cost[conid] / size if conid in held else marks[day][conid]
            realized = -quantity * (price * size - cost[conid]) if is_closing else None
            cost.setdefault(conid, price * size)
            trades.append(
                _Trade(
                    conid=conid,
                    quantity=quantity,
                    time=f"{day:%Y%m%d};{10 + number}{30 + number}00",
                    number=len(trades),
                    price=price,
                    order=f"{day:%y%m%d}{number:02}",
                    realized=realized,
                )
            )

    if any(order.sessions_ago for order in book.orders):
        return trades
    chance = random.Random(f"{seed}:{day}:trades")  # noqa: S311
    for conid in chance.sample(sorted(held), min(TRADES_PER_DAY, len(held))):
        quantity = chance.choice((-1.0, 1.0))
        price = marks[day][conid]
        gain = price * book.contracts[conid].multiplier - cost[conid]
        number = len(trades)
        trades.append(
            _Trade(
                conid=conid,
                quantity=quantity,
                time=f"{day:%Y%m%d};{chance.randint(10, 15)}{chance.randint(10, 59)}00",
                number=number,
                price=price,
                order=f"{day:%y%m%d}{number:02}",
                realized=gain if quantity < 0 else None,
            )
        )
    return trades


def _statement(
    account: str, day: date, *, first: date | None = None, made: datetime | None = None
) -> Xml.Element:
    text = f"{day:%Y%m%d}"
    root = Xml.Element("FlexQueryResponse", queryName="simulated", type="AF")
    statements = Xml.SubElement(root, "FlexStatements", count="1")
    Xml.SubElement(
        statements,
        "FlexStatement",
        accountId=account,
        fromDate=f"{first or day:%Y%m%d}",
        toDate=text,
        period="LastBusinessDay",
        whenGenerated=f"{text};210000" if made is None else f"{made:%Y%m%d;%H%M%S}",
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


def _add_trades(
    book: Book, statement: Xml.Element, account: str, day: date, trades: Sequence[_Trade]
) -> None:
    section = Xml.SubElement(statement, "Trades")
    for trade in trades:
        contract = book.contracts[trade.conid]
        is_closing = trade.realized is not None
        _add(
            section,
            "Trade",
            accountId=account,
            **_instrument(contract),
            tradeID=f"{day:%Y%m%d}{trade.number:03}",
            ibExecID=f"0000sim.{day:%Y%m%d}.{account}.{trade.number:02}.01",
            ibOrderID=trade.order,
            dateTime=trade.time,
            tradeDate=f"{day:%Y%m%d}",
            transactionType=EXECUTED,
            notes="",
            openCloseIndicator="C" if is_closing else "O",
            buySell="SELL" if trade.quantity < 0 else "BUY",
            quantity=f"{trade.quantity:g}",
            tradePrice=f"{trade.price * contract.price_magnifier:.4f}",
            ibCommission=f"{-COMMISSION * abs(trade.quantity):.2f}",
            ibCommissionCurrency=contract.currency,
            fifoPnlRealized=f"{trade.realized or 0.0:.2f}",
            levelOfDetail="EXECUTION",
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
