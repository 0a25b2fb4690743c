"""A book: accounts, contracts and positions of a simulated login at the start."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal

from ib_gateway_simulator.clearing.securities import Category, Security
from ib_gateway_simulator.market.quote import Pin
from ib_gateway_simulator.market.underlying import OptionMarket, Underlying
from ib_gateway_simulator.protocol.codes import Code
from ib_gateway_simulator.protocol.contract import Contract


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One managed account; `cash` is in its currency."""

    name: str
    currency: str
    cash: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """One position at the start; a cost of None stands for one near the fair price."""

    account: str
    conid: int
    quantity: float
    average_cost: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpeningOrder:
    """An order of the day before the start, with signed quantities by conid.

    One of a past session is in the statement of that session alone.
    """

    account: str
    legs: dict[int, float]
    sessions_ago: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignLeg:
    """A leg that is chosen by the price at the opening.

    Attributes:
        percent: The strike in percent of the price of the underlying.
        more_weeks: How much later than the others it expires.
    """

    right: str
    percent: float
    quantity: float
    more_weeks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PastCampaign:
    """What a strategy opened in a past session, and is over; times are in sessions before today.

    Attributes:
        rolled: When its legs were replaced by such that the rule chooses then; None: never.
        closed: None: its options were held until they expired.
        weeks: The Fridays between opening and expiry.
    """

    strategy: str
    account: str
    underlying: str
    opened: int
    rolled: int | None
    closed: int | None
    weeks: int
    legs: tuple[CampaignLeg, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """Everything that a simulated login knows at the start.

    Prices belong to the day `as_of`, or to the moment of the start; `rate` is the interest rate per
    year.
    """

    name: str
    as_of: date | None
    rate: float
    accounts: tuple[Account, ...]
    underlyings: dict[str, Underlying]
    contracts: dict[int, Contract]
    openings: tuple[Opening, ...]
    # The orders of today, and of past sessions, that opened or closed positions, oldest first; they
    # change none.
    orders: tuple[OpeningOrder, ...] = ()
    # What is over, in statements alone.
    campaigns: tuple[PastCampaign, ...] = ()
    # Conid to the code of a missing market data permission.
    permissions: dict[int, Code] = field(default_factory=dict)
    # Conid to the values at which its quote is held.
    pins: dict[int, Pin] = field(default_factory=dict)
    # When every contract trades, as `0930-1600` in its time zone; empty: around the clock.
    hours: str = ""
    # Conids whose trading is halted.
    halted: frozenset[int] = frozenset()
    # How options are priced; None: as European ones, by volatilities that stand still.
    option_market: OptionMarket | None = None

    def securities(self) -> dict[int, Security]:
        """Return the contracts as a back office has them, by conid."""
        return {conid: self._security(contract) for conid, contract in self.contracts.items()}

    def _security(self, contract: Contract) -> Security:
        security = Security(
            conid=contract.conid,
            symbol=contract.local_symbol,
            category=Category(contract.sec_type.value),
            currency=contract.currency,
            multiplier=Decimal(str(contract.multiplier)),
            right=contract.right,
            expiry=contract.expiry,
        )
        if not contract.is_option:
            return security

        underlying = self._security(self.contracts[contract.under_conid])
        strike = Decimal(str(contract.strike))
        return replace(security, underlying=underlying, strike=strike)
