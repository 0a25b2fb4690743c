"""The shape of each answer of `/api/v1`; the OpenAPI description is made of these records.

Within a version names are added, and none is removed or changed. Unknown is null.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    create_model,
    field_validator,
)

from position_sync_dagster.errors import UserError, shown
from position_sync_dagster.money.profit.bridge import Today
from position_sync_dagster.money.reports.changes import DayChange
from position_sync_dagster.money.reports.known_names import nearest
from position_sync_dagster.money.reports.money_sums import (
    BaseTotal,
    ExpirySum,
    StrategySum,
    TotalSum,
    UnderlyingSum,
)
from position_sync_dagster.money.risk.curve import ANSWER, AtExpiry
from position_sync_dagster.money.risk.priced_legs import Choice
from position_sync_dagster.money.risk.scenario_file import INDEX, Point
from position_sync_dagster.money.risk.scenarios import Breakdown
from position_sync_dagster.money.risk.what_if import USUAL_MOVES, Changes, read_changes

# A number; null: it is not known.
Number = float | None


class ApiModel(BaseModel):
    """A part of an answer; it has no other names than these."""

    model_config = ANSWER


class Gateway(ApiModel):
    """The state of a login and its owner."""

    gateway_id: str
    state: str | None
    """STARTING, LIVE, BLIND, ENDED or LOST; null: it never had an owner."""
    since: datetime | None
    blind_since: datetime | None
    """Since when nothing has come from the gateway."""
    reason: str | None
    owner: str | None
    run_id: str | None
    lines: int | None
    """Market data lines in use."""
    line_limit: int | None


class Account(ApiModel):
    """An account as the broker reports it, in its base currency."""

    account: str
    currency: str | None
    net_liquidation: Number
    available_funds: Number
    excess_liquidity: Number
    initial_margin: Number
    maintenance_margin: Number
    cushion: Number
    """Excess liquidity as a part of the net liquidation."""
    not_kept: int
    """The holdings whose value, which is in `open` of `today`, is not kept: see `kept`."""
    age_s: Number
    today: Today
    moved: Number
    """The part of `unexplained` by which holdings moved after the account's own number."""
    moved_since: datetime
    """The moment of the account's own number."""
    realised_today: Number
    """The broker's realised profit of today: what closed earned since it was opened."""
    unrealised: Number
    total: Number


class PositionGreeks(ApiModel):
    """The greeks of one unit."""

    delta: Number
    gamma: Number
    vega: Number
    theta: Number
    implied_vol: Number
    underlying_price: Number


class Position(ApiModel):
    """A holding with its newest row."""

    account: str
    conid: int
    name: str
    """The contract as a trader writes it."""
    symbol: str
    sec_type: str
    right: str | None
    strike: Number
    expiry: date | None
    multiplier: Number
    currency: str
    position: float
    """Signed quantity."""
    market_price: Number
    price_kind: str | None
    bid: Number
    ask: Number
    market_value: Number
    average_cost: Number
    """Of one contract or share, with its multiplier and the commissions."""
    unrealized: Number
    today: Number
    realised_today: Number
    moneyness: Number
    """A part of the strike, above 0 in the money."""
    extrinsic: Number
    """Of one unit."""
    greeks: PositionGreeks
    greeks_source: str | None
    days: int | None
    """Days to the expiry."""
    age_s: Number
    greeks_age_s: Number
    feed: str | None
    current: bool
    """Whether its source confirmed the value since the login was connected."""
    kept: bool
    """Whether `at` answers with this value later. Values of queued holdings are newer than their
    rows in the ledger; of a past moment the row before it is known."""
    source: str
    strategies: list[str]
    shares: list[float]
    """The part of each strategy; what is missing from 1 belongs to nobody."""


_OPTIONAL_FIELDS: Any = {
    name: (field.annotation, Field(None, description=field.description))
    for name, field in Position.model_fields.items()
}
PartOfPosition = create_model(
    "PartOfPosition",
    __config__=ApiModel.model_config | {"json_schema_serialization_defaults_required": False},
    __doc__="Of a holding, the fields that the query names.",
    **_OPTIONAL_FIELDS,
)


class JudgedLimit(ApiModel):
    """A limit of the strategies file, and the number that it is compared with."""

    subject: str
    account: str | None
    measure: str
    bound: str
    currency: str | None
    strategy: str | None
    limit: float
    number: Number
    state: str
    text: str


class ComputedAnswer(ApiModel):
    """What is computed from the values of holdings."""

    at: datetime
    """The moment of all numbers."""
    not_current: list[str]
    """Why values are not of now, as `status` says it; of a past moment: not what was shown then."""


class AccountsAnswer(ApiModel):
    """The accounts at a moment."""

    at: datetime
    accounts: list[Account]


class ChangesAnswer(ApiModel):
    """What happened today, the newest first."""

    at: datetime
    changes: list[DayChange]


class HeaderAnswer(AccountsAnswer, ChangesAnswer):
    """The header of a page: accounts, logins, how old all is, and what needs attention."""

    gateways: list[Gateway]
    attention: list[str]
    hints: list[str]
    """What of `attention` one may leave as it is."""
    limits: list[JudgedLimit]
    current: int
    """The holdings whose value is current."""
    held: int
    oldest_age_s: Number
    """The age of the oldest price; null if one is unknown."""
    lines: str | None
    """The market data lines in use."""
    without_line: str | None
    """How many active legs that are held have no line, and why; null: each has one."""
    mode: str | None
    """LIVE, PAPER or SIMULATED."""
    totals: list[TotalSum]


class StrategiesAnswer(ApiModel):
    """The sums of strategies, of underlyings, of expiries, and of all, at a moment."""

    at: datetime
    strategies: list[StrategySum]
    underlyings: list[UnderlyingSum]
    expiries: list[ExpirySum]
    totals: list[TotalSum]
    in_base: list[BaseTotal]
    """The totals over currencies; empty where all is in the base currency of its account."""


class PositionsAnswer(ApiModel):
    """The open positions at a moment."""

    at: datetime
    positions: list[Position]


class PositionsPage(ApiModel):
    """Open positions at a moment: all that match, or so many of them."""

    at: datetime
    positions: list[Position | PartOfPosition]
    next_cursor: str | None
    """The cursor of the positions after these; null: there are none."""


class FiguresAnswer(HeaderAnswer, StrategiesAnswer, PositionsAnswer):
    """All figures of a moment."""

    not_kept: list[str]
    """Of a past moment: the names whose tables are replaced, so that nobody knows them."""

    version: Literal[1]
    ledger_version: int | None
    gateway: Gateway
    """The login that has been without its gateway longest, or the only one."""
    closed_today: list[Position]


class Dividend(ApiModel):
    """A dividend that an option is priced with."""

    ex_date: date
    amount: float


class PayoffCorner(ApiModel):
    """A price of the underlying, and the profit there."""

    price: float
    profit: float


class PayoffRow(AtExpiry):
    """The profit of a strategy at its next expiry, over the price of one underlying."""

    strategy: str
    underlying: str
    expiry: date | None
    corners: list[PayoffCorner]
    legs: list[str]


class ListedLeg(ApiModel):
    """A part of a holding."""

    strategy_id: str
    account: str
    conid: int
    symbol: str
    currency: str
    leg: str


class UncoveredCall(ListedLeg):
    """A short call that its account could not deliver if all calls were exercised."""

    expires_at: datetime
    missing: float
    """Shares or futures."""


class GroupValue(ApiModel):
    """Value and profit of a group of legs."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    value: Number
    profit: Number
    left_out: int
    """The legs that cannot be priced; the sums leave them out."""
    known: int
    """The legs that can; where they do not carry the sum, value and profit are null."""
    of: int
    """All legs."""


class WhatIfSide(GroupValue):
    """What a group is before or after trades; of a strategy or an account also its sums.

    The profit after trades has what they give or cost against the mark, the payoffs have what
    closing realises.
    """

    realised: Number
    """What trades realise that close parts of it; null: not known."""
    against_mark: Number
    """What trades give or, below 0, cost against the mark; null: not known."""
    dollar_delta: Number = None
    delta: Number = None
    gamma_1pct: Number = None
    theta: Number = None
    vega: Number = None
    greeks_known: dict[str, int] = {}
    """Of how many holdings a greek is known, where that is not all; null: they do not carry it."""
    greeks_of: dict[str, int] = {}
    """Of how many holdings it is."""
    payoffs: list[PayoffRow] = []
    uncovered: list[UncoveredCall] = []
    limits_broken: list[str] = []


class WhatIfRow(GroupValue):
    """Value and profit of a group in a scenario; of a leg also what it is priced with."""

    level: Breakdown
    name: str | None
    strategy: str | None
    conid: int | None
    scenario: str | None
    spot: float
    vol: float
    days: float
    account: str | None
    currency: str | None
    leg: str | None = None
    underlying_price: Number = None
    implied_vol: Number = None
    rate: Number = None
    dividends: list[Dividend] | None = None
    exercise: str | None = None
    expires_at: datetime | None = None
    reason: str | None = None
    before: WhatIfSide | None = None
    """Before the trades; null: it was not there."""
    after: WhatIfSide | None = None
    """After the trades; null: nothing is held, and nothing was closed."""


class LeftOut(ApiModel):
    """Why legs are in no sum, and how many."""

    reason: str
    legs: int


class WhatIfAnswer(ComputedAnswer):
    """Value and profit under other prices, volatilities and days."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    rows: list[WhatIfRow]
    left_out: list[LeftOut]
    closed_days: list[str]
    """Which of the chosen days are no trading days, with those beside each."""
    notes: list[str] = []
    """What the trades give or cost against the mark, and what priced each."""


class PayoffAnswer(ComputedAnswer):
    """The payoffs of strategies at their next expiry."""

    payoffs: list[PayoffRow]


class Problem(ApiModel):
    """An error (RFC 9457), with media type `application/problem+json`."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    """What happened."""
    remedy: str
    """What to do."""


def _numbers(value: Any) -> Any:
    """Read numbers or texts that are separated by commas, as in a query."""
    return value.split(",") if isinstance(value, str) else value


Numbers = Annotated[list[float], BeforeValidator(_numbers), Field(min_length=1, max_length=50)]


Texts = Annotated[list[str], BeforeValidator(_numbers), Field(max_length=50)]


class NoQuery(ApiModel):
    """The query of what takes none."""


def _in_utc(at: datetime) -> datetime:
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise ValueError("In UTC it is not in the years 1 to 9999") from None


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class MomentQuery(ApiModel):
    """Of which moment."""

    at: Moment | None = None
    """As it was known at this past time with its zone, such as 2026-03-09T15:30:00Z."""


class PositionsQuery(MomentQuery):
    """Which positions."""

    strategy: str | None = None
    """Only the legs of this strategy."""
    underlying: str | None = None
    """Only contracts on this symbol."""
    limit: int | None = Field(None, ge=1, le=10_000)
    """At most so many; all without it."""
    cursor: str | None = None
    """`next_cursor` of the answer before."""
    fields: Texts = []
    """Only these fields of each position, separated by commas; all without it."""

    @field_validator("fields")
    @classmethod
    def _known_fields(cls, fields: list[str]) -> list[str]:
        for name in fields:
            if name not in Position.model_fields:
                remedy = nearest(name, Position.model_fields)
                raise UserError(f"A position has no field {shown(name)}.", remedy=remedy)
        return fields


class FeedQuery(MomentQuery):
    """Which state of the pages."""

    after: int = Field(0, ge=0, lt=10**16)
    """`sequence` of the newest state that the page has; 0: none."""
    curves: bool = False
    """Whether a past moment has the curves of its day."""


class PayoffQuery(ApiModel):
    """Which payoffs."""

    strategy: str | None = None
    """Only this strategy."""

    @property
    def choice(self) -> Choice:
        """What is chosen."""
        return Choice(strategy=self.strategy)


class TradesQuery(ApiModel):
    """What is chosen, and the trades that somebody thinks of."""

    strategy: str | None = None
    """Only this strategy; trades open and close legs of it."""
    underlying: str | None = None
    """Only contracts on this symbol."""
    account: str | None = None
    """Only this account, which is also that of the trades."""
    trade: Texts = []
    """Trades that are done, such as -2 SPY 20281215 C 645 @62.70, separated by commas."""
    close: Texts = []
    """Strategies that are closed, separated by commas."""
    roll: Texts = []
    """STRATEGY:EXPIRY of strategies whose nearest options are rolled, separated by commas."""

    @property
    def choice(self) -> Choice:
        """What is chosen."""
        return Choice(strategy=self.strategy, underlying=self.underlying, account=self.account)

    def changes(self) -> Changes:
        """Return the trades, none if no parameter names one.

        Raises:
            UserError: One cannot be read.
        """
        rolled = []
        for text in self.roll:
            name, _colon, expiry = text.rpartition(":")
            rolled.append((name, expiry))
        return read_changes(self.trade, self.close, rolled, self.account, self.strategy)


class WhatIfQuery(MomentQuery, TradesQuery):
    """The scenarios: each move with each change of volatility and each number of days."""

    spot: Numbers = [*USUAL_MOVES]
    """Moves of the underlyings in percent, separated by commas."""
    vol: Numbers | None = None
    """Changes of the volatilities in points, separated by commas; none without it."""
    days: Numbers = [0.0]
    """Days that have passed, separated by commas."""
    scenario: str | None = None
    """A scenario of scenarios.yaml, instead of the numbers."""
    by_beta: bool = False
    """Whether each underlying moves by its beta times `spot`; one without a beta is left out."""
    level: Breakdown = Breakdown.STRATEGY
    """What each row is of."""

    def points(self, named: Mapping[str, Point]) -> list[Point]:
        """Return the scenarios.

        Args:
            named: Those of scenarios.yaml.

        Raises:
            ValidationError: A number is out of its range.
            UserError: There is no such scenario.
        """
        if self.scenario is not None:
            if self.scenario not in named:
                raise UserError(
                    f"There is no scenario {shown(self.scenario)} in scenarios.yaml.",
                    remedy=nearest(self.scenario, named),
                )
            return [named[self.scenario]]

        index = INDEX if self.by_beta else None
        return [
            Point(spot=spot, underlying=index, vol=vol, days=days)
            for spot, vol, days in product(self.spot, self.vol or [0.0], self.days)
        ]
