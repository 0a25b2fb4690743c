"""The broker's holdings behind a simulated gateway: contracts, prices, quantities of a moment."""

from collections.abc import Iterable
from datetime import date, datetime, time
from decimal import Decimal

from ib_gateway_simulator import Book, SimulatedGateway
from ib_gateway_simulator.books.book import Account, Opening
from ib_gateway_simulator.clearing.back_office import ClosedBooks
from ib_gateway_simulator.clearing.entries import EXECUTED, TradeEntry
from ib_gateway_simulator.clearing.securities import Category, Security
from ib_gateway_simulator.market.quote import Pin
from ib_gateway_simulator.market.underlying import Underlying
from ib_gateway_simulator.protocol.contract import Contract, SecType
from tests.year.broker import Broker
from tests.year.exchanges import is_third_friday, session_before
from tests.year.market import ES, ESTX50, INTEREST, LAST_TRADES, OPTION_VOLATILITY, SAP, SPX, VOD

# Securities that London quotes in pence.
IN_PENCE = {"GBP"}

_EXCHANGES = {SPX: "CBOE", ESTX50: "EUREX", ES: "CME", SAP: "IBIS", VOD: "LSE"}

# How far bid and ask are from the price.
HALF_SPREAD = Decimal("0.01")


def book_of(broker: Broker, at: datetime) -> Book:
    """Return what the login of the broker knows at a moment of the present session."""
    openings: list[Opening] = []
    accounts: list[Account] = []
    named: set[Security] = {SPX, ESTX50}
    securities = broker.office.securities
    for account in broker.closed:
        books = broker.books(account, broker.session)
        quantities = books.quantities_at(at)
        named |= {securities[conid] for conid in quantities}
        named |= {entry.security for entry in executions(books)}

        for conid, quantity in sorted(quantities.items()):
            cost = books.costs.get(conid, 0) * securities[conid].multiplier
            opening = Opening(
                account=account, conid=conid, quantity=float(quantity), average_cost=float(cost)
            )
            openings.append(opening)

        cash = cash_in_base(books, quantities, broker)
        accounts.append(Account(name=account, currency=books.base, cash=float(cash)))

    named |= {security.underlying for security in named if security.underlying is not None}
    tradable = [security for security in named if security.category is not Category.CURRENCY]
    underlyings = [security for security in tradable if not security.is_option]
    return Book(
        name="year",
        as_of=broker.session,
        rate=INTEREST,
        accounts=tuple(accounts),
        underlyings={under.symbol: _underlying_of(under, broker) for under in underlyings},
        contracts={security.conid: contract_of(security) for security in tradable},
        openings=tuple(openings),
        pins={security.conid: _pin_of(security, broker) for security in tradable},
    )


def executions(books: ClosedBooks) -> list[TradeEntry]:
    """Return what was executed in a session, oldest first, without conversions and other days."""
    return [
        entry
        for entry in books.entries
        if isinstance(entry, TradeEntry)
        and entry.kind == EXECUTED
        and entry.at.date() == books.session
        and entry.security.category is not Category.CURRENCY
    ]


def cash_in_base(books: ClosedBooks, quantities: dict[int, Decimal], broker: Broker) -> Decimal:
    """Return the cash with which an account is worth its net liquidation at the close.

    The gateway has one amount of cash for an account. It is what is left of the wealth without the
    holdings of the moment; accruals are part of net liquidation.
    """
    wealth = books.net_liquidation
    for conid, quantity in quantities.items():
        security = broker.office.securities[conid]
        if security.category is not Category.FUTURE:
            worth = security.worth(quantity, broker.market.price(security))
            wealth -= worth * books.rates[security.currency]
    return wealth


def set_rates(gateway: SimulatedGateway, books: Iterable[ClosedBooks]) -> None:
    """Set what a unit of each currency is worth in the base currency of the accounts."""
    for closed in books:
        for currency, rate in closed.rates.items():
            gateway.exchange_rate(currency, float(rate), closed.account)


def contract_of(security: Security) -> Contract:
    """Return the contract of a security, as the gateway has it."""
    under = security.underlying
    root = security if under is None else under
    symbol = root.symbol
    if _is_of_es(root):
        symbol = ES.symbol

    exchange = _EXCHANGES.get(ES if _is_of_es(root) else root, "SMART")
    if exchange == "SMART" and security.is_option:
        exchange = "AMEX"

    ends = security.expiry
    settled_on = ""
    if under is SPX and is_third_friday(date.fromisoformat(security.expiry)):
        settled_on = security.expiry
        ends = f"{session_before(date.fromisoformat(security.expiry)):%Y%m%d}"
    return Contract(
        conid=security.conid,
        symbol=symbol,
        sec_type=SecType(security.category.value),
        underlying=root.symbol,
        under_conid=0 if under is None else under.conid,
        expiry=ends,
        last_trade=f"{LAST_TRADES.get(root, time(16)):%H:%M:%S}",
        settled_on=settled_on,
        strike=float(security.strike or 0),
        right=security.right,
        multiplier=float(security.multiplier),
        currency=security.currency,
        exchange=exchange,
        local_symbol=security.symbol,
        trading_class=symbol,
        price_magnifier=_magnifier(security),
    )


def _is_of_es(security: Security) -> bool:
    return security.category is Category.FUTURE or security is ES


def _magnifier(security: Security) -> int:
    if security.currency in IN_PENCE:
        return 100

    return 1


def _underlying_of(security: Security, broker: Broker) -> Underlying:
    return Underlying(
        symbol=security.symbol,
        conid=security.conid,
        price=float(broker.market.price(security)),
        volatility=OPTION_VOLATILITY,
        currency=security.currency,
        exchange=_EXCHANGES.get(security, "NASDAQ"),
        sec_type=SecType(security.category.value),
    )


def _pin_of(security: Security, broker: Broker) -> Pin:
    price = broker.market.price(security)
    bid = price - HALF_SPREAD
    size = _magnifier(security)
    return Pin(
        bid=float(bid * size) if bid > 0 else None,
        ask=float((price + HALF_SPREAD) * size),
        last=float(max(price, HALF_SPREAD) * size),
        mark=float(price * size),
    )
