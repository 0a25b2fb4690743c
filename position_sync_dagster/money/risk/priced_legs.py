"""The parts of the holdings with what each is priced as, or why it is not.

A part is what a strategy has of a holding. Its underlying is a share or an index by its symbol, or
one future: futures of two months are two underlyings. Where a part has no price of its underlying,
that of another part of the same underlying counts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import repeat
from operator import itemgetter
from typing import Any

import numpy as np
import polars as pl
from polars import (
    DataFrame,
    Date,
    Expr,
    Float64,
    Int64,
    Series,
    String,
    arg_where,
    coalesce,
    col,
    lit,
    when,
)

from position_sync_dagster.domain.exchange_time import NEW_YORK
from position_sync_dagster.domain.instrument import (
    OPTION_TYPES,
    ContractDetails,
    Instrument,
)
from position_sync_dagster.money.magnifiers import IS_USUALLY_MAJOR
from position_sync_dagster.money.past.postings import names_of
from position_sync_dagster.money.risk.model import Array, VanillaOptions
from position_sync_dagster.money.risk.terms import (
    CONTRACT_FIELDS,
    WITHOUT_CARRY,
    DatedDividend,
    ExerciseTerms,
    NotPriced,
    OptionTerms,
    as_options,
    expires_at,
    option_terms,
)
from position_sync_dagster.sync.exchange_days import LISTED

LINEAR_TYPES = frozenset({"STK", "FUT"})
_IS_LINEAR = col.sec_type.is_in(list(LINEAR_TYPES))

# The number of units of the underlying in a part of a holding.
SIZE = col.position * col.multiplier * col.share

Row = Mapping[str, Any]

# A row that is changed, or one for a program.
NewRow = dict[str, Any]

# Returns the holding that a row is of.
HOLDING_OF = itemgetter("account", "conid")

# What an option delivers: as OptionTerms, if the model prices it. Or why that is not known; None of
# a share or a future.
Terms = ExerciseTerms | NotPriced | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What the legs are priced with, besides their own rows.

    Attributes:
        now: The time from which the days of a scenario count.
        details: The known contract details, by conid.
        rates: Interest rates per year, by currency.
        dividends: Those of each underlying, by its symbol; one that is missing is unknown.
        betas: By how much each underlying moves when the index moves by 1.
        calendar: The exchange whose days count.
    """

    now: datetime
    details: Mapping[int, ContractDetails] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    dividends: Mapping[str, Sequence[DatedDividend]] = field(default_factory=dict)
    betas: Mapping[str, float] = field(default_factory=dict)
    calendar: str = LISTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which holdings are looked at: of a strategy, on an underlying, of an account; None: all."""

    strategy: str | None = None
    underlying: str | None = None
    account: str | None = None

    @property
    def condition(self) -> Expr:
        """What is true of the parts that are looked at."""
        condition = lit(value=True)
        if self.strategy is not None:
            condition &= col.strategy_id == self.strategy
        if self.underlying is not None:
            condition &= col.symbol.str.to_uppercase() == self.underlying.upper()
        if self.account is not None:
            condition &= col.account == self.account
        return condition


EVERY_PART = Choice()

# Whose a part is, and of what.
_NAMES_OF_A_PART = ("strategy_id", "account", "conid", "symbol", "currency")


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedLeg:
    """A part of a holding.

    Attributes:
        row: Its row, as `PricedLegs.parts` has it.
        terms: As `PricedLegs.terms` has them.
        details: Its contract details; None: not known.
    """

    row: Row
    terms: Terms
    details: ContractDetails | None

    @property
    def delivered(self) -> ExerciseTerms | None:
        """What an option delivers; None: it is none, or that is not known."""
        if isinstance(self.terms, ExerciseTerms):
            return self.terms
        return None

    @property
    def priced(self) -> OptionTerms | None:
        """What the model prices an option as; None: it does not."""
        if isinstance(self.terms, OptionTerms):
            return self.terms
        return None

    @property
    def ends_at(self) -> datetime | None:
        """When it expires, in New York; None: never, or that is not known."""
        moment = expires_at(self.row["expiry"], self.details)
        return moment and moment.astimezone(NEW_YORK)

    @property
    def order(self) -> tuple[date, float, bool, int]:
        """The sort key of a leg, whatever came last: shares, then options by expiry and strike."""
        row = self.row
        expiry = row["expiry"] or date.min
        return expiry, row["strike"] or 0.0, row["right"] == "CALL", row["conid"]

    @property
    def text(self) -> str:
        """The contract as a trader writes it, with its quantity."""
        return f"{self.quantity:+.15g} {self.name}"

    @property
    def named(self) -> dict[str, Any]:
        """Whose leg it is, and the contract, for a program."""
        named = {column: self.row[column] for column in _NAMES_OF_A_PART}
        named["leg"] = self.name
        return named

    @property
    def size(self) -> float:
        """The number of units of the underlying, negative for a short part."""
        return self.quantity * float(self.row["multiplier"])

    @property
    def quantity(self) -> float:
        """The number of contracts or shares."""
        return float(self.row["position"] * self.row["share"])

    @property
    def name(self) -> str:
        """The contract as a trader writes it."""
        return str(self.row["name"])


# What trades that somebody thinks of settle: whose part of which contract they trade, what closing
# it realises, and what the trade gives against the mark; null: not known.
SETTLED_COLUMNS = {
    **dict.fromkeys(("strategy_id", "account", "symbol", "sec_type", "currency"), String),
    "under": String, "expiry": Date, "conid": Int64, "name": String,
    "quantity": Float64, "realised": Float64, "against_mark": Float64,
}  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PricedLegs:
    """The parts of the holdings, ready for scenarios and payoffs.

    Attributes:
        parts: A row for each part, as `Split.parts` has them, with `name` (the contract as a
            trader writes it), `under` (the name of the underlying), `spot` (its price in the major
            unit) and `reason` (why the part is in no scenario).
        given: What they are priced with.
        terms: What each part delivers, and is priced as.
        settled: What trades settled, with the `SETTLED_COLUMNS`; of a book as it is, nothing.
    """

    parts: DataFrame
    given: Assumptions
    terms: Sequence[Terms]
    settled: DataFrame = field(default_factory=lambda: DataFrame(schema=SETTLED_COLUMNS))

    @classmethod
    def of(cls, parts: DataFrame, given: Assumptions, choice: Choice = EVERY_PART) -> "PricedLegs":
        """Return the parts of holdings (`Split.parts`) with what each is priced as.

        Args:
            parts: All parts: the price of an underlying may be known of any of them.
            given: What they are priced with.
            choice: Those that are returned.
        """
        parts = parts.with_columns(magnifier=_magnifier(), under=_underlying(given.details))
        parts = parts.with_columns(spot=_own_spot())
        parts = parts.with_columns(spot=_spot_of_underlying()).filter(choice.condition)

        terms = []
        reasons = []
        for row in parts.iter_rows(named=True):
            terms_of_part = terms_of(row, given.details.get(row["conid"]), given)
            terms.append(terms_of_part)
            reasons.append(_left_out(row, terms_of_part))

        parts = parts.with_columns(name=names_of(parts), reason=Series(reasons, dtype=String))
        return cls(parts=parts, given=given, terms=terms)

    def of_strategy(self, strategy: str | None) -> "PricedLegs":
        """Return the parts of one strategy; None: all."""
        return self.chosen(Choice(strategy=strategy))

    def chosen(self, choice: Choice) -> "PricedLegs":
        """Return the parts of a strategy, on an underlying, of an account."""
        return self.where(choice.condition)

    def where(self, *conditions: Expr, **values: Any) -> "PricedLegs":
        """Return the parts for which conditions are true, and whose columns have some values."""
        chosen = self.parts.with_row_index("place").filter(*conditions, **values)
        terms = [self.terms[place] for place in chosen["place"]]
        settled = self.settled.filter(*conditions, **values)
        return PricedLegs(
            parts=chosen.drop("place"), given=self.given, terms=terms, settled=settled
        )

    @property
    def sizes(self) -> Array:
        """The number of units of the underlying in each part, as a column."""
        return self.parts.select(SIZE).to_numpy()

    @property
    def options(self) -> list[int]:
        """The places of the options that are in scenarios: the model prices each of them."""
        is_option = col.reason.is_null() & ~_IS_LINEAR
        return self.parts.select(arg_where(is_option)).to_series().to_list()

    def modelled(self, places: Sequence[int]) -> tuple[VanillaOptions, Array, Array]:
        """Return options that are in scenarios as the model takes them, by their places.

        Returns:
            The options; the price of the underlying and the volatility of each, as columns.
        """
        of_places = [self.terms[place] for place in places]
        terms = [priced for priced in of_places if isinstance(priced, OptionTerms)]
        inputs = self.parts[places].select("spot", "implied_vol")
        spot, volatility = np.hsplit(inputs.to_numpy(), 2)
        return as_options(terms, repeat(self.given.now), inputs["spot"]), spot, volatility

    def left_out(self) -> dict[str, int]:
        """Return how many legs are left out of every scenario, by reason."""
        counts = self.parts.drop_nulls("reason").group_by("reason").len()
        return dict(counts.sort("len", descending=True).iter_rows())

    def __iter__(self) -> Iterator[PricedLeg]:
        rows = self.parts.iter_rows(named=True)
        for row, terms in zip(rows, self.terms, strict=True):
            yield PricedLeg(row=row, terms=terms, details=self.given.details.get(row["conid"]))


def terms_of(row: Row, details: ContractDetails | None, given: Assumptions) -> Terms:
    """Return what a part delivers; None: a share or a future, which it is itself."""
    if row["sec_type"] in LINEAR_TYPES:
        return None
    if row["sec_type"] not in OPTION_TYPES:
        return NotPriced.OTHER_TYPE

    option = Instrument(**{name: row[name] for name in CONTRACT_FIELDS})
    dividends = given.dividends.get(option.symbol)
    return option_terms(option, details, given.rates, dividends, row["magnifier"])


def _left_out(row: Row, terms: Terms) -> NotPriced | None:
    """Return why a part is in no scenario; None: it is in all."""
    if isinstance(terms, NotPriced):
        return terms

    if terms is None:
        if row["spot"] is None:
            return NotPriced.NO_PRICE
        return None
    if not isinstance(terms, OptionTerms):
        return NotPriced.NO_RATE
    if (row["implied_vol"] or 0.0) <= 0:
        return NotPriced.NO_VOLATILITY
    if (row["spot"] or 0.0) > 0:
        return None
    return NotPriced.NO_PRICE


def _magnifier() -> Expr:
    """Return the divisor of each part's prices; null: in cents or not, nobody knows.

    Most are known from the contract or from its value. Without both, shares of most currencies and
    options on them are quoted in the major unit.
    """
    return coalesce(col.magnifier.cast(Float64), when(IS_USUALLY_MAJOR).then(1.0))


def _own_spot() -> Expr:
    """Return the price that moves, in the major unit: of a share or a future its own.

    It is null where the divisor of the prices is not known.
    """
    implied = coalesce("market_value", "notional") / SIZE  # a value that came without a price
    price = coalesce(col.market_price / col.magnifier, implied)
    of_underlying = col.underlying_price / col.magnifier
    return when(_IS_LINEAR).then(price).otherwise(of_underlying)


def _spot_of_underlying() -> Expr:
    """Return the price of the underlying, of another part of it where a part has none."""
    same = ["under", "currency"]
    spot = col.spot
    of_holding = spot.filter(_IS_LINEAR).median().over(same)
    of_options = spot.filter(~_IS_LINEAR).median().over(same)
    return coalesce("spot", of_holding, of_options)


def _underlying(details: Mapping[int, ContractDetails]) -> Expr:
    """Return the name of the underlying of each part."""
    future_of = {conid: known.under_conid or None for conid, known in details.items()}
    of_option = col.conid.replace_strict(future_of, default=None, return_dtype=Int64)
    is_future = col.sec_type == "FUT"
    is_on_future = col.sec_type == "FOP"
    stated = when(is_future).then("conid").when(is_on_future).then(of_option)

    # Where only one future of a symbol is known, it is that of an option without details.
    first = stated.min().over("symbol")
    is_only = first == stated.max().over("symbol")
    future = coalesce(stated, when(is_only).then(first)).cast(String)
    by_future = pl.format("{} future {}", "symbol", future.fill_null("unknown"))

    follows_future = col.symbol.str.to_uppercase().is_in(list(WITHOUT_CARRY))
    by_expiry = pl.format("{} {}", "symbol", col.expiry.cast(String).fill_null("unknown"))
    of_future = when(is_future | is_on_future).then(by_future)
    is_of_month = follows_future & (col.sec_type == "OPT")
    return of_future.when(is_of_month).then(by_expiry).otherwise("symbol")
