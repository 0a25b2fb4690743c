"""A book: what a simulated login knows at start."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date

from position_sync_dagster.simulator.market.quote import Pin
from position_sync_dagster.simulator.market.underlying import Underlying
from position_sync_dagster.simulator.protocol.codes import Code
from position_sync_dagster.simulator.protocol.contract import Contract


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Hold one managed account; `cash` is in its currency."""

    name: str
    currency: str
    cash: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Hold one position as it stands at start; None as cost means "near the fair price"."""

    account: str
    conid: int
    quantity: float
    average_cost: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """Hold everything that a simulated login knows at start."""

    name: str
    as_of: date
    rate: float
    accounts: tuple[Account, ...]
    underlyings: dict[str, Underlying]
    contracts: dict[int, Contract]
    openings: tuple[Opening, ...]
    permissions: dict[int, Code] = field(default_factory=dict)
    """Conid to the code of a missing market data permission."""
    pins: dict[int, Pin] = field(default_factory=dict)
    halted: frozenset[int] = frozenset()
