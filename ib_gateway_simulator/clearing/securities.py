"""Securities, as a back office books them: prices are in the major unit of the currency."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

ONE = Decimal(1)


class Category(StrEnum):
    """The kinds of security, as statements name them."""

    STOCK = "STK"
    OPTION = "OPT"
    FUTURE = "FUT"
    FUTURE_OPTION = "FOP"
    INDEX = "IND"
    BOND = "BOND"
    BILL = "BILL"
    FUND = "FUND"
    CURRENCY = "CASH"


OPTION_CATEGORIES = frozenset({Category.OPTION, Category.FUTURE_OPTION})

# Their prices are in percent of the face value, which is the quantity.
IN_PERCENT = frozenset({Category.BOND, Category.BILL})


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """One security; `underlying` is set for options."""

    conid: int
    symbol: str
    category: Category
    currency: str
    multiplier: Decimal = ONE
    description: str = ""
    underlying: Security | None = None
    strike: Decimal | None = None
    right: str = ""
    expiry: str = ""

    @property
    def is_option(self) -> bool:
        """Whether it is an option, on whatever underlying."""
        return self.category in OPTION_CATEGORIES

    def worth(self, quantity: Decimal, price: Decimal) -> Decimal:
        """Return what a quantity is worth at a price; of a future, its notional amount."""
        money = quantity * price * self.multiplier
        if self.category in IN_PERCENT:
            return money / 100

        return money

    def intrinsic(self, level: Decimal) -> Decimal:
        """Return what one unit of an option is worth at its end, by the level of its underlying."""
        if self.strike is None:
            return Decimal(0)
        gain = self.strike - level
        if self.right == "C":
            gain = level - self.strike

        return max(gain, Decimal(0))
