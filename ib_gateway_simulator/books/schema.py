"""The schema of a book file: its fields and their rules, before references are resolved."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    model_validator,
)

from ib_gateway_simulator.market.sessions import checked
from ib_gateway_simulator.protocol.codes import PERMISSION_CODES, Code
from ib_gateway_simulator.protocol.contract import SecType

ACCOUNT_PREFIX = "DUSIM"
MAX_STRIKES = 1000


def _account_name(value: str) -> str:
    if not value.startswith(ACCOUNT_PREFIX) or not value.isalnum():
        raise ValueError(
            f"an account of the simulator starts with {ACCOUNT_PREFIX} and has letters and "
            "digits only, so that nobody takes it for a real one"
        )
    return value


def _expiry(value: object) -> str:
    text = str(value)
    try:
        datetime.strptime(text, "%Y%m%d")  # noqa: DTZ007 - a date only, no time zone
    except ValueError:
        raise ValueError("an expiry is a date written as YYYYMMDD") from None
    return text


def _right(value: object) -> str:
    short = {"C": "C", "CALL": "C", "P": "P", "PUT": "P"}.get(str(value).upper())
    if short is None:
        raise ValueError("a right is C, CALL, P or PUT")
    return short


def _permission_code(value: object) -> object:
    if value not in PERMISSION_CODES:
        raise ValueError(f"a permission code is one of {', '.join(map(str, PERMISSION_CODES))}")
    return value


AccountName = Annotated[str, AfterValidator(_account_name)]
Expiry = Annotated[str, BeforeValidator(_expiry)]
ExDate = Annotated[date, BeforeValidator(lambda value: date.fromisoformat(_expiry(value)))]
Right = Annotated[str, BeforeValidator(_right)]
Conid = Annotated[int, Field(gt=0, lt=2**31)]
PermissionCode = Annotated[Code, BeforeValidator(_permission_code)]


class Part(BaseModel):
    """A part of a book file; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AccountPart(Part):
    name: AccountName
    currency: str = "USD"
    cash: float = 0.0


class ListedPart(Part):
    """Where a contract is listed and which data farm sends its ticks; empty stands for the usual.

    `algo_venues` (QBALGO) have contract details of the contract. Here they have no market data;
    that real ones have none is not verified.
    """

    farm: str = ""
    exchanges: list[str] = []
    algo_venues: list[str] = []

    @model_validator(mode="after")
    def _listed(self) -> Self:
        exchange = None
        if "exchange" in self.model_fields_set:
            exchange = getattr(self, "exchange", None)

        if self.exchanges and exchange is not None and exchange not in self.exchanges:
            raise ValueError(f"exchange {exchange} is not one of exchanges")
        return self


class UnderlyingPart(ListedPart):
    symbol: str = Field(min_length=1)
    conid: Conid
    price: PositiveFloat
    volatility: NonNegativeFloat
    currency: str = "USD"
    exchange: str = "NASDAQ"
    sec_type: SecType = SecType.STK
    name: str = ""
    # Dividends per year as a share of the price, paid each quarter; a future has none.
    dividend_yield: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    # The next ex-date; without one it follows from the conid.
    ex_dividend: ExDate | None = None
    # By which share the price is expected to move, besides, before the first expiry.
    earnings_move: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    price_magnifier: PositiveInt = 1
    min_tick: PositiveFloat = 0.01
    # For an underlying that is a future.
    multiplier: PositiveFloat = 1.0
    expiry: Expiry | None = None


class ContractPart(ListedPart):
    """One contract on an underlying of the book."""

    conid: Conid
    underlying: str
    sec_type: SecType
    expiry: Expiry | None = None
    strike: PositiveFloat | None = None
    right: Right | None = None
    multiplier: PositiveFloat | None = None
    exchange: str | None = None
    currency: str | None = None
    trading_class: str | None = None
    local_symbol: str | None = None
    price_magnifier: PositiveInt = 1
    min_tick: PositiveFloat = 0.01


class StrikeRange(Part):
    start: PositiveFloat
    stop: PositiveFloat
    step: PositiveFloat

    @model_validator(mode="after")
    def _countable(self) -> StrikeRange:
        if not 0 <= (self.stop - self.start) / self.step <= MAX_STRIKES:
            raise ValueError(f"a range of strikes goes upwards and has at most {MAX_STRIKES} steps")
        return self

    def values(self) -> list[float]:
        """Return the strikes from start to stop, both included, in decimal arithmetic."""
        at, stop, step = (Decimal(str(x)) for x in (self.start, self.stop, self.step))
        strikes = []
        while at <= stop:
            strikes.append(float(at))
            at += step
        return strikes


def _strikes_kind(value: object) -> str:
    if isinstance(value, (dict, StrikeRange)):
        return "range"

    return "list"


Strikes = Annotated[
    Annotated[list[PositiveFloat], Field(min_length=1), Tag("list")]
    | Annotated[StrikeRange, Tag("range")],
    Discriminator(_strikes_kind),
]


class ChainPart(ListedPart):
    """A whole chain of options; conids count up by expiry, then strike, then right."""

    name: str = Field(min_length=1)
    underlying: str
    first_conid: Conid
    expiries: Annotated[list[Expiry], Field(min_length=1)]
    strikes: Strikes
    rights: Annotated[list[Right], Field(min_length=1)] = ["C", "P"]
    sec_type: Literal[SecType.OPT, SecType.FOP] = SecType.OPT
    multiplier: PositiveFloat = 100.0
    exchange: str | None = None
    trading_class: str | None = None
    price_magnifier: PositiveInt = 1
    min_tick: PositiveFloat = 0.01


class PositionPart(Part):
    """A position in one contract or, with `chain`, in every contract of a chain.

    `quantities` repeats over the chain. Without `average_cost`, the cost is near the first fair
    price. A quantity of 0 is a position that was closed today.
    """

    account: AccountName
    conid: Conid | None = None
    chain: str | None = None
    quantity: float | None = None
    quantities: Annotated[list[float], Field(min_length=1)] | None = None
    average_cost: float | None = None


class OrderPart(Part):
    """An order that opened holdings or parts of them: signed quantities by conid.

    It is of today, or of a session so many sessions ago; that one may also have closed something.
    """

    account: AccountName
    legs: Annotated[dict[Conid, float], Field(min_length=1)]
    sessions_ago: NonNegativeInt = 0


# Right, strike in percent of the price, quantity, and how many weeks after the others it expires.
CampaignLegPart = (
    tuple[Right, PositiveFloat, float] | tuple[Right, PositiveFloat, float, NonNegativeInt]
)


class CampaignPart(Part):
    """What a strategy opened in a past session, and is over: times are in sessions before today.

    Without `closed` its options are held until they expire.
    """

    strategy: str
    underlying: str
    opened: PositiveInt
    rolled: PositiveInt | None = None
    closed: PositiveInt | None = None
    weeks: NonNegativeInt
    legs: Annotated[list[CampaignLegPart], Field(min_length=1)]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        times = [at for at in (self.opened, self.rolled, self.closed) if at is not None]
        if times != sorted(set(times), reverse=True):
            raise ValueError("a campaign is opened, then rolled, then closed")
        return self


class PermissionPart(Part):
    conid: Conid
    code: PermissionCode


class NoBidPart(Part):
    """A contract that has no bid; `last` is the price of an old trade."""

    conid: Conid
    ask: PositiveFloat = 0.05
    last: PositiveFloat | None = None


class OptionMarketPart(Part):
    """American options by volatilities that walk; the fields are those of `OptionMarket`."""

    volatility_walk: NonNegativeFloat = 0.8
    skew_walk: NonNegativeFloat = 0.3
    seed: int = 1


class BookPart(Part):
    """The whole file.

    Without `as_of` the prices belong to the moment at which the gateway starts. Without
    `option_market` options are European, and their volatilities stand still. `hours` are those of
    every contract: "0930-1600" on Monday to Friday in its time zone, "CLOSED", or nothing for
    around the clock.
    """

    name: str = ""
    as_of: date | None = None
    rate: float = 0.04
    hours: Annotated[str, AfterValidator(checked)] = ""
    accounts: Annotated[list[AccountPart], Field(min_length=1)]
    underlyings: Annotated[list[UnderlyingPart], Field(min_length=1)]
    contracts: list[ContractPart] = []
    chains: list[ChainPart] = []
    positions: list[PositionPart] = []
    orders: list[OrderPart] = []
    campaigns: list[CampaignPart] = []
    # What a contract had cost, for positions that name no cost.
    costs: dict[Conid, float] = {}
    permissions: list[PermissionPart] = []
    no_bid: list[NoBidPart] = []
    halted: list[Conid] = []
    option_market: OptionMarketPart | None = None
