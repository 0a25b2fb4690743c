"""Contracts: as a book defines them, and as a request describes them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from ib_gateway_simulator.protocol.fields import Fields, number


class SecType(StrEnum):
    """The kinds of contract that a book may have."""

    STK = "STK"
    IND = "IND"
    OPT = "OPT"
    FUT = "FUT"
    FOP = "FOP"


OPTIONS = frozenset({SecType.OPT, SecType.FOP})
DEFAULT_FARM = "usfarm"
STOCK_VENUES = ("SMART", "NYSE", "NASDAQ", "ARCA", "BATS")
OPTION_VENUES = ("SMART", "AMEX", "CBOE", "PHLX", "ISE")
# The names of time zones by exchange, as gateways write them; all others are in New York.
TIME_ZONES = {
    "CME": "US/Central", "CBOT": "US/Central", "CBOE": "US/Central",
    "EUREX": "MET", "IBIS": "MET", "LSE": "GB-Eire",
}  # fmt: skip
DATED = frozenset({SecType.OPT, SecType.FUT, SecType.FOP})


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """One contract."""

    conid: int
    symbol: str
    sec_type: SecType
    # The symbol of the underlying whose random walk moves the price.
    underlying: str
    under_conid: int = 0
    # The last trading day, on which a contract trades until `last_trade` in its time zone.
    expiry: str = ""
    last_trade: str = "16:00:00"
    # Whether messages name the month of the expiry alone, beside `realExpirationDate` with the day.
    is_named_by_month: bool = False
    # The day of the settlement, where it follows the last trading day: at the open (AM).
    settled_on: str = ""
    strike: float = 0.0
    right: str = ""
    multiplier: float = 1.0
    currency: str = "USD"
    # The exchange that lists the contract.
    exchange: str = "SMART"
    local_symbol: str = ""
    trading_class: str = ""
    # Quoted prices are this many times the price in the major unit: 100 for cents.
    price_magnifier: int = 1
    min_tick: float = 0.01
    long_name: str = ""
    # The data farm that sends its ticks.
    farm: str = DEFAULT_FARM
    # The exchanges to route to, if they are not the usual ones of its kind.
    exchanges: tuple[str, ...] = ()
    # Venues for algorithms, which list the contract. Here they have no market data of it; that
    # real ones have none is not verified.
    algo_venues: tuple[str, ...] = ()

    @property
    def is_option(self) -> bool:
        """Whether the contract is an option, on a future or on anything else."""
        return self.sec_type in OPTIONS

    @property
    def expiry_text(self) -> str:
        """The expiry as the gateway writes it."""
        if self.is_named_by_month:
            return self.expiry[:6]

        return self.expiry

    @property
    def time_zone(self) -> str:
        """The time zone of its exchange, as the gateway names it."""
        return TIME_ZONES.get(self.exchange, "US/Eastern")

    @property
    def multiplier_text(self) -> str:
        """The multiplier as the gateway writes it: empty for stocks and indices."""
        if self.sec_type in (SecType.STK, SecType.IND):
            return ""
        return f"{self.multiplier:g}"

    @property
    def valid_exchanges(self) -> tuple[str, ...]:
        """The exchanges to route to: SMART is one of them for stocks and equity options only."""
        if self.exchanges:
            return self.exchanges
        if self.sec_type is SecType.STK:
            venues = STOCK_VENUES
        elif self.sec_type is SecType.OPT:
            venues = OPTION_VENUES
        else:
            return (self.exchange,)
        if self.exchange in venues:
            return venues

        return (*venues, self.exchange)


def contract_fields(contract: Contract, exchange: str) -> Fields:
    """Return a contract as positions and executions have it, as traded at an exchange."""
    return (
        str(contract.conid),
        contract.symbol,
        contract.sec_type,
        contract.expiry_text,
        number(contract.strike),
        contract.right,
        contract.multiplier_text,
        exchange,
        contract.currency,
        contract.local_symbol,
        contract.trading_class,
    )


# Other ways in which clients write the right of an option, or that there is none.
RIGHTS = {"CALL": "C", "PUT": "P", "0": "", "?": ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractQuery:
    """The contract fields of a request; empty and zero mean "any"."""

    conid: int = 0
    symbol: str = ""
    sec_type: str = ""
    expiry: str = ""
    strike: float = 0.0
    right: str = ""
    multiplier: str = ""
    exchange: str = ""
    primary_exchange: str = ""
    currency: str = ""
    local_symbol: str = ""
    trading_class: str = ""

    def matches(self, contract: Contract) -> bool:
        """Return whether a contract matches all fields except the exchanges.

        A conid decides alone, as it does at the gateway. An expiry may be a month (YYYYMM).
        """
        if self.conid:
            return contract.conid == self.conid
        if not self.symbol and not self.local_symbol:
            return False
        if not contract.expiry.startswith(self.expiry.split(" ")[0]):
            return False

        right = self.right.upper()
        local_symbol = contract.local_symbol.replace(" ", "")
        wanted_and_found = (
            (self.symbol, contract.symbol),
            (self.local_symbol.replace(" ", ""), local_symbol),
            (self.sec_type, contract.sec_type),
            (self.strike, contract.strike),
            (RIGHTS.get(right, right), contract.right),
            (self.multiplier, contract.multiplier_text),
            (self.currency, contract.currency),
            (self.trading_class, contract.trading_class),
        )
        return all(not wanted or wanted == found for wanted, found in wanted_and_found)

    def find(self, contracts: Iterable[Contract]) -> list[Contract]:
        """Return the contracts that match, in their order."""
        return [contract for contract in contracts if self.matches(contract)]
