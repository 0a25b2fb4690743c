"""What the broker writes of the world: statements as XML, executions, positions."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import date, timedelta
from fractions import Fraction
from random import Random
from xml.sax.saxutils import quoteattr

from tests.support.ledger_world.values import Booking, Contract
from tests.support.ledger_world.world import World

# The sections that each statement has, and what their rows are called.
ROWS = {
    "Trades": "Trade", "OptionEAE": "OptionEAE", "CorporateActions": "CorporateAction",
    "Transfers": "Transfer", "CashTransactions": "CashTransaction",
}  # fmt: skip


def statement_of(world: World, account: str, day: date, *, is_first: bool = False) -> str:
    """Return the statement of an account and a day, with its rows in any order.

    Args:
        is_first: Whether it is the one that was made first, of which a trade is wrong.
    """
    sections = _state(world, account, day) | {name: [] for name in ROWS}
    bookings = [each for each in world.bookings if (each.account, each.day) == (account, day)]
    trades = [booking for booking in bookings if booking.section == "Trades"]
    for booking in bookings:
        if is_first and booking == trades[-1]:
            booking = replace(booking, price=booking.price + 1, cash=booking.cash + 1)
        sections[booking.section].append(_booked(booking))
    for rows in sections.values():
        Random(len(rows)).shuffle(rows)

    made = f"{day + timedelta(days=1):%Y%m%d};0{1 - is_first}0000"
    inner = "".join(f"<{name}>{''.join(rows)}</{name}>" for name, rows in sections.items())
    return (
        '<FlexQueryResponse queryName="q" type="AF"><FlexStatements count="1"><FlexStatement '
        f'accountId="{account}" fromDate="{_day(day)}" toDate="{_day(day)}" '
        f'period="LastBusinessDay" whenGenerated="{made}">{inner}'
        "</FlexStatement></FlexStatements></FlexQueryResponse>"
    )


def _state(world: World, account: str, day: date) -> dict[str, list[str]]:
    """Return the sections that state what an account has at a close."""
    close = world.closes[day]
    held = {
        conid: quantity for (where, conid), quantity in close.positions.items() if where == account
    }
    worth = Fraction(close.cash[account])
    for conid, quantity in held.items():
        contract = world.contracts[conid]
        if contract.category != "FUT":
            worth += quantity * close.marks[conid] * contract.multiplier

    cash = dollars(close.cash[account])
    equity = dict(currency="USD", reportDate=_day(day), cash=cash, total=dollars(worth))
    balance = {"currency": "USD", "toDate": _day(day), "endingCash": cash}
    positions = [_position(world, account, conid, size, day) for conid, size in held.items()]
    return {
        "EquitySummaryInBase": [_row("EquitySummaryByReportDateInBase", **equity)],
        "CashReport": [_row("CashReportCurrency", **balance)],
        "OpenPositions": positions,
    }


def statements_of(world: World, accounts: Iterable[str]) -> dict[str, str]:
    """Return all statements, by the name of the file."""
    return {
        f"{account}-{day:%Y%m%d}.xml": statement_of(world, account, day)
        for account in accounts
        for day in world.days
    }


def first_statements_of(world: World, accounts: Iterable[str]) -> dict[str, str]:
    """Return statements that were made first, and are wrong, by the name of the file."""
    return {
        f"{account}-{day:%Y%m%d}-first.xml": statement_of(world, account, day, is_first=True)
        for account in accounts
        for day in world.days[2::3]
        if any((each.account, each.day, each.section) == (account, day, "Trades")
               for each in world.bookings)
    }  # fmt: skip


def _position(world: World, account: str, conid: int, quantity: Fraction, day: date) -> str:
    contract = world.contracts[conid]
    close = world.closes[day]
    value = quantity * close.marks[conid] * contract.multiplier
    cost = close.costs.get((account, conid))
    stated = {} if cost is None else {"costBasisMoney": dollars(-cost)}
    return _row("OpenPosition", **_contract(contract), reportDate=_day(day),
                position=number(quantity), markPrice=dollars(close.marks[conid]),
                positionValue=dollars(value), levelOfDetail="SUMMARY", **stated)  # fmt: skip


def _booked(booking: Booking) -> str:
    """Return a row of the section of a booking."""
    fields = {
        **_contract(booking.contract), "accountId": booking.account,
        "reportDate": _day(booking.day), "dateTime": f"{booking.at:%Y%m%d;%H%M%S}",
        "quantity": number(booking.quantity), "transactionID": booking.name,
    }  # fmt: skip
    of_section = _FIELDS[booking.section](booking)
    if not booking.is_quantity_stated:
        of_section["quantity"] = None
    written = {name: text for name, text in (fields | of_section).items() if text is not None}
    return _row(ROWS[booking.section], **written)


# The fields of a row beside those that all have; None: it does not have one.
_Fields = dict[str, str | None]


def _trade(booking: Booking) -> _Fields:
    is_trade = booking.kind == "ExchTrade"
    return dict(
        tradeDate=_day(booking.day), tradeID=f"{booking.number}9",
        ibExecID=execution_id(booking) if is_trade else "",
        ibOrderID=str(booking.order or ""), tradePrice=dollars(booking.price),
        proceeds=dollars(booking.cash), ibCommissionCurrency="USD",
        ibCommission=dollars(-booking.fee) if booking.is_fee_stated else None,
        transactionType=booking.kind, openCloseIndicator=booking.side,
        notes=booking.codes, buySell="BUY" if booking.quantity > 0 else "SELL",
        fifoPnlRealized="0", levelOfDetail="EXECUTION",
    )  # fmt: skip


def _option_event(booking: Booking) -> _Fields:
    return dict(
        date=_day(booking.day), dateTime=None, transactionType=booking.kind,
        tradePrice="0", proceeds=dollars(booking.cash), commisionsAndTax="0",
        tradeID="",
    )  # fmt: skip


def _action(booking: Booking) -> _Fields:
    return dict(
        amount=dollars(-booking.cash), proceeds=dollars(booking.cash), value="0",
        type=booking.kind, actionID=str(booking.action), fifoPnlRealized="0",
        mtmPnl="0", levelOfDetail="DETAIL",
    )  # fmt: skip


def _transfer(booking: Booking) -> _Fields:
    return dict(
        date=_day(booking.day), type=booking.kind, direction=booking.side,
        positionAmount=None if booking.value is None else dollars(booking.value),
        transferPrice="0", cashTransfer="0", pnlAmount="0",
        account=booking.partner, levelOfDetail="TRANSFER",
    )  # fmt: skip


def _cash(booking: Booking) -> _Fields:
    return dict(
        quantity=None, dateTime=_day(booking.day), amount=dollars(booking.cash),
        type=booking.kind, levelOfDetail="DETAIL", description=booking.words,
    )  # fmt: skip


_FIELDS: dict[str, Callable[[Booking], _Fields]] = {
    "Trades": _trade, "OptionEAE": _option_event, "CorporateActions": _action,
    "Transfers": _transfer, "CashTransactions": _cash,
}  # fmt: skip


def execution_id(booking: Booking) -> str:
    """Return the id by which a gateway and a statement name a trade."""
    return f"0000{booking.number}.01"


def _contract(contract: Contract | None) -> dict[str, str]:
    if contract is None:
        return {"currency": "USD"}
    written = dict(
        currency="USD", fxRateToBase="1", assetCategory=contract.category,
        symbol=contract.symbol, underlyingSymbol=contract.symbol,
        conid=str(contract.conid), multiplier=str(contract.multiplier),
    )  # fmt: skip
    if contract.category == "FUT" and contract.expiry is not None:
        written |= {"symbol": f"{contract.symbol}H6", "expiry": _day(contract.expiry)}
    if contract.is_option and contract.expiry is not None:
        written |= dict(
            symbol=f"{contract.symbol} {contract.right}{contract.strike}",
            strike=str(contract.strike), expiry=_day(contract.expiry),
            putCall=contract.right, underlyingConid=str(contract.underlying),
        )  # fmt: skip
    return written


def dollars(cents: Fraction | int) -> str:
    """Return an amount as the broker writes it.

    >>> dollars(-1234)
    '-12.34'
    """
    return f"{float(Fraction(cents) / 100):.8f}".rstrip("0").rstrip(".")


def number(quantity: Fraction) -> str:
    """Return a quantity as the broker writes it."""
    return f"{float(quantity):g}"


def _day(day: date) -> str:
    return f"{day:%Y%m%d}"


def _row(name: str, **fields: str) -> str:
    written = " ".join(f"{field}={quoteattr(text)}" for field, text in fields.items())
    return f"<{name} {written} />"
