"""Books of option structures for tests, by short names, and the orders that opened them."""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from zlib import crc32

from position_sync_dagster.domain.holding import BrokerPosition
from position_sync_dagster.domain.instrument import Instrument, Right
from position_sync_dagster.money.past.movements import Movement
from tests.support.executions import executed, reported
from tests.support.holdings import make_holding

AT = datetime(2028, 11, 1, 15, tzinfo=UTC)
NEAR = date(2028, 12, 15)
FAR = date(2029, 1, 19)
OTHERS = {"stock": ("STK", 1.0), "future": ("FUT", 50.0), "bond": ("BOND", None)}


def contract(name: str) -> Instrument:
    """Return a contract: "stock", "future", or strike, right and expiry as in "100C" or "100P+"."""
    own = {"conid": crc32(name.encode()) % 10**8 + 1, "symbol": "SPY", "currency": "USD"}
    if name in OTHERS:
        kind, multiplier = OTHERS[name]
        return Instrument(sec_type=kind, multiplier=multiplier, **own)
    term = name.rstrip("+")
    kind, multiplier = ("FOP", 50.0) if name.startswith("F") else ("OPT", 100.0)
    return Instrument(
        sec_type=kind,
        multiplier=multiplier,
        right=Right.CALL if term[-1] == "C" else Right.PUT,
        strike=float(term.strip("FCP")),
        expiry=FAR if name.endswith("+") else NEAR,
        **own,
    )


def holding(name: str, quantity: float, cost: float | None = 100.0) -> BrokerPosition:
    """Return what account A holds of a contract."""
    terms = contract(name)
    return make_holding(terms.conid, AT, position=quantity, instrument=terms, average_cost=cost)


def book(quantities: Mapping[str, float]) -> list[BrokerPosition]:
    """Return holdings by the names of their contracts."""
    return [holding(name, quantity) for name, quantity in quantities.items()]


def order(
    number: int | None, quantities: Mapping[str, float], minute: float = 0.0, price: float = 1.0
) -> Iterable[Movement]:
    """Yield the trades of an order, a minute after the first order for each minute."""
    at = AT + timedelta(minutes=minute)
    for name, quantity in quantities.items():
        terms = contract(name)
        execution = executed(terms, quantity, price, at, account="A", order_id=number or 0)
        yield reported(execution, [terms])
