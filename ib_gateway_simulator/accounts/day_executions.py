"""The executions of the day: what was traded and booked, and the answers to reqExecutions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from math import copysign

from ib_gateway_simulator.accounts.ledger import COMMISSION, Holding
from ib_gateway_simulator.clearing.entries import EXECUTED, TradeEntry, execution_id
from ib_gateway_simulator.clients.connection import ClientConnection
from ib_gateway_simulator.protocol import messages
from ib_gateway_simulator.protocol.contract import Contract
from ib_gateway_simulator.protocol.requests import Request

# What a transfer is, beside what is executed or booked.
TRANSFER = "Transfer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deal:
    """One execution or booking; `quantity` is signed, and deals of one `order` belong together.

    `kind` is EXECUTED, BOOKED, TRANSFER, or else the type of a corporate action; `codes` are those
    of a statement. `booked` is the entry of a back office that it plays: id, price, time, order and
    commission are those of the entry.
    """

    account: str
    contract: Contract
    quantity: float
    price: float
    realized: float
    order: int
    number: int
    at: float
    kind: str = EXECUTED
    codes: str = ""
    booked: TradeEntry | None = None

    @property
    def transaction(self) -> int:
        """Return the number that a statement gives it."""
        return self.order * 10_000 + self.number

    @property
    def execution_id(self) -> str:
        """Return the id, which begins as those of IB do."""
        if self.booked is not None:
            return self.booked.execution_id
        return execution_id(self.transaction)

    @property
    def commission(self) -> tuple[float, str]:
        """Return what it cost, with the currency."""
        if self.booked is not None:
            return float(self.booked.commission), self.booked.commission_currency
        return COMMISSION * abs(self.quantity), self.contract.currency


class DayExecutions:
    """Keeps the executions since the nightly reset; assignments and expiries are not among them.

    `journal` has them all since the start, and what was booked without an execution.

    Args:
        now: The wall clock, in seconds since 1970.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._deals: list[Deal] = []
        self.journal: list[Deal] = []
        self._orders = int(now())
        # Whether requests are refused, as by a gateway that cannot reach its servers.
        self.refused = False
        # The name behind their times; None: these are UTC and have a hyphen instead.
        self.zone: str | None = "UTC"
        # The zone whose clocks they show, if they have a name.
        self.clock: tzinfo = UTC

    def new_order(self) -> int:
        """Return the permanent id of a new order; a gateway that starts later uses others."""
        self._orders += 1
        return self._orders

    def add(
        self,
        before: Holding | None,
        after: Holding,
        order: int,
        kind: str = EXECUTED,
        code: str = "",
    ) -> None:
        """Record what led from one row to the next."""
        held = before.quantity if before else 0.0
        cash = before.cash_today if before else 0.0
        realized_before = (before.realized or 0.0) if before else 0.0

        quantity = after.quantity - held
        paid = cash - after.cash_today
        price = paid / (quantity * after.contract.multiplier)
        side = "C"
        if abs(after.quantity) > abs(held):
            side = "O"

        deal = Deal(
            account=after.account,
            contract=after.contract,
            quantity=quantity,
            price=round(price, 6) + 0.0,
            realized=(after.realized or 0.0) - realized_before,
            order=order,
            number=len(self.journal) + 1,
            at=self._now(),
            kind=kind,
            codes=f"{code};{side}" if code else side,
        )
        self.journal.append(deal)
        if kind == EXECUTED:
            self._deals.append(deal)

    def add_booked(self, contract: Contract, entry: TradeEntry) -> None:
        """Record an execution as a back office has it."""
        deal = Deal(
            account=entry.account,
            contract=contract,
            quantity=float(entry.quantity),
            price=float(entry.price),
            realized=0.0,
            order=entry.order,
            number=len(self.journal) + 1,
            at=entry.at.timestamp(),
            codes=entry.codes,
            booked=entry,
        )
        self.journal.append(deal)
        self._deals.append(deal)

    def add_opening(self, legs: Iterable[tuple[Holding, float]], before_s: float) -> None:
        """Record an order that opened parts of holdings, some seconds before now."""
        order = self.new_order()
        for holding, quantity in legs:
            cost = holding.average_cost - copysign(COMMISSION, quantity)
            deal = Deal(
                account=holding.account,
                contract=holding.contract,
                quantity=quantity,
                price=round(cost / holding.contract.multiplier, 6),
                realized=0.0,
                order=order,
                number=len(self.journal) + 1,
                at=self._now() - before_s,
                codes="O",
            )
            self.journal.append(deal)
            self._deals.append(deal)

    def reset_day(self) -> None:
        """Forget the executions, as the nightly reset does."""
        self._deals.clear()

    def _written(self, at: float) -> str:
        if self.zone is None:
            return f"{datetime.fromtimestamp(at, UTC):%Y%m%d-%H:%M:%S}"
        return f"{datetime.fromtimestamp(at, self.clock):%Y%m%d %H:%M:%S} {self.zone}"

    def answer(self, client: ClientConnection, request: Request) -> None:
        """Answer reqExecutions: each execution, the end, and then the commissions."""
        if self.refused:
            client.send(messages.error(request.req_id, 322, "Error processing request.-'bP'"))
            return
        for deal in self._deals:
            row = messages.execution(
                request.req_id,
                deal.contract,
                account=deal.account,
                execution_id=deal.execution_id,
                at=self._written(deal.at),
                quantity=deal.quantity,
                price=deal.price * deal.contract.price_magnifier,
                order=deal.order,
            )
            client.send(row)
        for deal in self._deals:
            amount, currency = deal.commission
            client.send(messages.commission(deal.execution_id, amount, currency, deal.realized))
        client.send(messages.executions_end(request.req_id))
