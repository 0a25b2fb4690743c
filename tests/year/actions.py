"""Corporate actions: one of each kind that statements name, each on a session of its own.

Kinds are named as in ibflex 1.1, `enums.Reorg`.
"""

from collections.abc import Callable, Mapping
from datetime import date, time
from decimal import Decimal

from ib_gateway_simulator.clearing.securities import Security
from tests.year.book import Book
from tests.year.broker import A, Broker
from tests.year.market import AAPL, NEW, OLD, RENAMED, SPUN, VOD, XYZ, D, option

# One share becomes this many; this many become one.
SPLIT = 5
REVERSE_SPLIT = 10
# For so many shares the holder gets one more.
FOR_A_STOCK_DIVIDEND = 20
FOR_A_SPIN_OFF = 10


def act(broker: Broker, book: Book) -> None:
    """Let the corporate action of the present session happen, if it has one."""
    action = _ACTIONS.get(broker.session)
    if action is not None:
        action(broker, book)


def _spin_off(broker: Broker, _book: Book) -> None:
    _change(broker, "SO", {SPUN: broker.office.held(A, AAPL) // FOR_A_SPIN_OFF})


def _merge(broker: Broker, _book: Book) -> None:
    """Pay cash and shares of another company for all shares of one."""
    changes = {OLD: D(-300), NEW: D(60)}
    broker.office.act(A, changes, "TC", broker.at(time(9)), proceeds=D("8700"))


def _pay_in_stock(broker: Broker, _book: Book) -> None:
    _change(broker, "HD", {VOD: broker.office.held(A, VOD) // FOR_A_STOCK_DIVIDEND})


def _split_in_reverse(broker: Broker, _book: Book) -> None:
    broker.market.split(NEW, 1 / REVERSE_SPLIT)
    held = broker.office.held(A, NEW)
    _change(broker, "RS", {NEW: held / REVERSE_SPLIT - held})


def _rename(broker: Broker, _book: Book) -> None:
    held = broker.office.held(A, NEW)
    _change(broker, "IC", {NEW: -held, RENAMED: held})


def _delist(broker: Broker, _book: Book) -> None:
    """Take the shares of a company away that is worth nothing."""
    _change(broker, "DW", {RENAMED: -broker.office.held(A, RENAMED)})


def _change(broker: Broker, kind: str, changes: Mapping[Security, Decimal]) -> None:
    """Book an action before the open, without cash, if something is held."""
    if any(changes.values()):
        broker.office.act(A, changes, kind, broker.at(time(9)))


def _split(broker: Broker, book: Book) -> None:
    """Split a share and the options on it, before the open; the market has the new price."""
    broker.market.split(XYZ, SPLIT)
    after_of: dict[Security, Security] = {}
    for strategy in book.strategies:
        for tranche in strategy.legs:
            for leg in [leg for leg in tranche if leg.underlying is XYZ]:
                after_of[leg] = _after_split(leg)
                tranche[after_of[leg]] = tranche.pop(leg) * SPLIT

    evening = broker.at(time(20, 25), day=broker.previous_session())
    for leg, after in after_of.items():
        held = broker.office.held(A, leg)
        changes = {leg: -held, after: held * SPLIT}
        broker.office.act(A, changes, "FS", evening, report_day=broker.session)
    shares = broker.office.held(A, XYZ)
    if shares:
        changes = {XYZ: shares * (SPLIT - 1)}
        broker.office.act(A, changes, "FS", evening, report_day=broker.session)


def _after_split(leg: Security) -> Security:
    assert leg.strike is not None
    expiry = date.fromisoformat(leg.expiry)
    return option(XYZ, expiry, leg.right, int(leg.strike) // SPLIT)


MERGER_DAY = date(2027, 1, 20)

_ACTIONS: dict[date, Callable[[Broker, Book], None]] = {
    date(2027, 1, 6): _spin_off,
    date(2027, 1, 12): _split,
    MERGER_DAY: _merge,
    date(2027, 1, 27): _pay_in_stock,
    # The program is down for three weeks around it.
    date(2027, 2, 9): _split_in_reverse,
    date(2027, 3, 4): _rename,
    date(2027, 3, 10): _delist,
}
