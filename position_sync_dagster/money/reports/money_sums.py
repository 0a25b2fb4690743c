"""Sums of money and greeks: one record, from which tables, JSON, page and commands are made.

Each field has its name here, its column in the tables (`validation_alias`) where that is another,
and its name in the JSON of figures (`serialization_alias`) where that is another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from operator import attrgetter
from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FieldSerializationInfo,
    field_serializer,
)

from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.domain.clock import seconds_since
from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.money.sums import in_base, rate_of

# The name of sums that are of no strategy and of no underlying.
TOTAL = "total"


# Each look makes thousands of these and of the next: records of pydantic take three objects each.
@dataclass(frozen=True, slots=True, kw_only=True)
class SinceFirstLeg:
    """What a strategy has earned since its first leg: the sum of its campaigns."""

    __pydantic_config__ = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    since: datetime | None
    """When its first leg was opened."""
    realised: float | None
    """What is closed earned, after fees."""
    open: float | None
    """What is open would earn."""
    fees: float | None
    """The fees of both, as far as they are in this currency."""
    other_fees: dict[str, float | None]
    """Fees of both in currencies of none of its contracts, by currency; they are in no sum."""
    profit: float | None
    """Realised and open; null if one of them is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignSoFar:
    """The campaign of a strategy that is open: what it promised, and what it has earned."""

    __pydantic_config__ = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    kind: str | None
    """The structure that it was as it was opened."""
    credit: float | None
    """What it was opened for, without fees; below 0 it was paid."""
    greatest_profit: float | None
    """The most that it could bring at the next expiry as it was opened, without fees."""
    profit: float | None
    """What it has earned so far, after fees."""
    loss_of_credit: float | None
    """Its loss as a multiple of the credit; 0 while it has none, null without a credit."""


def _of_column(column: str, default: Any = ..., **more: Any) -> Any:
    """Return a field that has another name in the tables, or in the JSON."""
    return Field(default, validation_alias=column, **more)


class Amounts(BaseModel):
    """The sums of money and greeks in one currency."""

    value: float | None = _of_column("market_value", serialization_alias="market_value")
    """The value of options, stocks and the like, without the notional value of futures."""
    unrealized_pnl: float | None = Field(serialization_alias="unrealized")
    """Unrealised profit."""
    daily_pnl: float | None = Field(serialization_alias="today")
    """Profit of the day."""
    dollar_delta: float | None
    """Delta × quantity × multiplier × price of the underlying."""
    beta_delta: float | None
    """Dollar delta × beta, of the underlyings whose beta is known."""
    gamma_1pct: float | None
    """The change of dollar_delta when the underlyings move by 1 %."""
    theta: float | None
    """Per day."""
    vega: float | None
    """Per point of volatility."""


class MoneySum(Amounts):
    """Sums in one currency over the known values of holdings; null if these do not carry a sum."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        use_attribute_docstrings=True,
        json_schema_serialization_defaults_required=True,
    )
    # The column that names the rows; None: the rows are totals.
    named_by: ClassVar[str | None] = None

    name: str
    """The strategy, UNATTRIBUTED, the underlying, the expiry, or the name of the total."""
    account: str | None = None
    """The account of UNATTRIBUTED or of an account's total; null for all accounts."""
    currency: str | None
    """ISO code; null for legs that are not held and have never been valued."""

    legs: int
    """The active legs; each holding that is in no strategy counts as one."""
    legs_held: int
    """The legs with a holding; for an underlying and for a total the holdings, each once."""
    legs_closed: int = 0
    """The legs of a strategy that were held and are gone for a known reason."""
    closed: str | None = None
    """What happened to them."""

    not_kept: int = 0
    """The holdings whose value is not kept, as `kept` of a position says."""
    delayed: int
    """The holdings with a price of delayed or frozen market data."""
    options: int
    """The held options."""
    options_with_greeks: int
    """Those of them whose greeks are known."""
    options_modelled: int
    """Those of the latter whose greeks this package computed."""
    nearest_expiry: date | None
    """The first day on which a holding expires."""
    unvalued: int = _of_column("legs_without_value")
    """The held legs without a value, which the sums leave out."""
    short_in_money: int = _of_column("short_legs_in_money")
    """The short options in the money."""
    short_unknown: int = _of_column("short_legs_unknown")
    """The short options of which the price of the underlying is not known."""

    oldest_age_s: float | None = Field(serialization_alias="age_s")
    """The age of the oldest price; null without one, or if one is unknown."""
    oldest_greeks_s: float | None = Field(serialization_alias="greeks_age_s")
    """The age of the oldest greeks; null without any, or if one is unknown."""
    lines: int | None
    """Market data lines that the holdings use; null while no owner is connected."""
    differences: str | None = Field(None, serialization_alias="note")
    """Where strategies claim another quantity than is held."""

    realized_pnl: float | None = Field(None, serialization_alias="realised")
    """What was realised since `realized_since`; null if a part of it is not known."""
    realized_since: datetime | None = Field(None, serialization_alias="realised_since")
    """Since when that is: of a strategy its first movement, of others the first recorded change."""
    closes: int = 0
    """The number of these closes."""
    closes_without_profit: int = 0
    """Those of them without a known profit."""
    since_first_leg: SinceFirstLeg | None = None
    """What a strategy has earned since its first leg: the sum of its campaigns."""

    unknown: dict[str, int] = {}
    """Of how many holdings a sum leaves out the value, by the name of the sum."""
    known: dict[str, int] = {}
    """Of how many it has the value, for the sums in `unknown`."""
    of: dict[str, int] = {}
    """Of how many holdings these sums are."""

    @field_serializer("unknown", "known", "of")
    def _named_as_in_json(
        self, counts: dict[str, int], info: FieldSerializationInfo
    ) -> dict[str, int]:
        if not info.by_alias:
            return counts
        return {json_name(name): count for name, count in counts.items()}

    @classmethod
    def of_row(
        cls,
        row: Mapping[str, Any],
        realized: Mapping[str, Any],
        now: datetime,
        streamed: frozenset[int] | None,
    ) -> Self:
        """Return the sums of one row of `exposure.summed` or `exposure.summed_legs`.

        Args:
            row: The row.
            realized: The fields of its realised profit.
            now: The reference time of ages.
            streamed: The conids that have a market data line; None while no owner is connected.
        """
        lines = None
        if streamed is not None:
            lines = len(streamed.intersection(row["conids"] or ()))
        name = TOTAL
        if cls.named_by is not None:
            name = f"{row[cls.named_by]}"

        values = {**row, **realized, **cls._legs_of(row), "name": name, "lines": lines}
        values["oldest_age_s"] = seconds_since(row["priced_at"], now)
        values["oldest_greeks_s"] = seconds_since(row["greeks_at"], now)
        values |= counts_behind(row, _COLUMNS_OF_AMOUNTS)
        return cls.model_validate(values)

    @classmethod
    def _legs_of(cls, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the counts of legs; parts of holdings without legs count themselves."""
        held = row["holdings"]
        return {"legs": row.get("legs", held), "legs_held": row.get("legs_held", held)}


class StrategySum(MoneySum):
    """The sums of a strategy, or of what is in none (UNATTRIBUTED)."""

    named_by: ClassVar[str | None] = "strategy_id"
    name: str = Field(serialization_alias="strategy")
    """The strategy, or UNATTRIBUTED."""
    cost_per_share: float | None = None
    """What each of its shares cost, with all that its open campaign brought; null without any."""
    profit_reached: float | None = None
    """The profit of the open campaign as a part of the greatest that was possible at first."""
    profit_reached_unknown: str | None = None
    """Why that is not known."""
    open_campaign: CampaignSoFar | None = None
    """The campaign that is open; null if none is."""


class UnderlyingSum(MoneySum):
    """The sums of an underlying."""

    named_by: ClassVar[str | None] = "symbol"
    name: str = Field(serialization_alias="underlying")
    """The symbol of the underlying."""


class ExpirySum(MoneySum):
    """The sums of what expires on a day."""

    named_by: ClassVar[str | None] = "expiry"
    name: str = Field(serialization_alias="expiry")
    """The day."""
    days: int = 0
    """The number of days until then, by the exchange's calendar day."""


class TotalSum(MoneySum):
    """The sums of all holdings, or of those of an account."""

    name: str = Field(serialization_alias="total")
    """`total`."""

    @classmethod
    def _legs_of(cls, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the counts of legs: each holding counts once, whatever strategies share it."""
        held = row["holdings"]
        missing = row["legs"] - row["legs_held"]
        return {"legs": missing + held, "legs_held": held, "legs_closed": 0, "closed": None}


class BaseTotal(Amounts):
    """All holdings of an account, over its currencies; or of all accounts of one base currency."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, use_attribute_docstrings=True
    )

    account: str | None
    """Null: of all accounts with this base currency."""
    currency: str | None
    """The base currency, in which all amounts are; null: the broker has not sent it."""
    rates: dict[str, float | None]
    """What a unit of each currency is worth in it; null: not known."""
    rates_at: datetime | None
    """When the oldest of the broker's rates was received."""
    why_unknown: str | None
    """Why amounts are null."""
    not_kept: int
    """The holdings whose value is not kept, as `kept` of a position says."""


def base_totals(
    totals: Sequence[TotalSum], accounts: Mapping[str, AccountSummary]
) -> list[BaseTotal]:
    """Return the totals over currencies of accounts that hold one besides their base currency.

    Where there are several accounts, those of a base currency have a total too.

    Args:
        totals: The totals by account and currency.
        accounts: The newest values of the accounts, with the broker's rates.
    """
    bases = {account: summary.currency for account, summary in accounts.items()}
    are_several = len({total.account for total in totals}) > 1
    rows = []
    for base, of_base in grouped(lambda total: bases.get(total.account or ""), totals).items():
        groups = [*grouped(attrgetter("account"), of_base).items()]
        if base is not None and len(groups) > 1:
            groups.append((None, of_base))
        for account, sums in groups:
            currencies = {base, *map(attrgetter("currency"), sums)}
            if len(currencies - {None}) < 2:
                continue

            named = account if are_several else None
            rows.append(_base_total(named, base, sums, accounts))
    return rows


def _base_total(
    account: str | None,
    base: str | None,
    sums: Sequence[TotalSum],
    accounts: Mapping[str, AccountSummary],
) -> BaseTotal:
    """Return the total of sums of accounts with one base currency."""
    rated = []
    rates = {}
    times = []
    for total in sums:
        summary = accounts.get(total.account or "")
        if summary and summary.rates_received_at:
            times.append(summary.rates_received_at)
        rate = rate_of(summary, total.currency, base)
        rates[total.currency or ""] = rate
        rated.append((total, rate))

    amounts: dict[str, float | None] = {}
    reasons: dict[str, None] = {}
    for name in AMOUNTS:
        counted = []
        for total, rate in rated:
            amount = getattr(total, name)
            # What no holding of a currency has, as shares a theta, is in no sum: it adds nothing.
            if amount is None and name not in total.unknown:
                continue

            counted.append((amount, total.currency, rate))
        amounts[name], why_unknown = in_base(counted) if counted else (None, None)
        if why_unknown is not None:
            reasons[why_unknown] = None
    return BaseTotal(
        account=account,
        currency=base,
        rates=rates,
        rates_at=min(times, default=None),
        **amounts,
        why_unknown="; ".join(reasons) or None,
        not_kept=sum(map(attrgetter("not_kept"), sums)),
    )


# The sums of money and greeks: their names here, and their columns in the tables.
AMOUNTS = tuple(Amounts.model_fields)


def column_of(name: str) -> str:
    """Return the column of a field in the tables."""
    alias = MoneySum.model_fields[name].validation_alias
    if isinstance(alias, str):
        return alias
    return name


_COLUMNS_OF_AMOUNTS = {name: column_of(name) for name in AMOUNTS}


def json_name(name: str) -> str:
    """Return the name of a field in the JSON of figures."""
    return MoneySum.model_fields[name].serialization_alias or name


def counts_behind(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Return of how many holdings each sum leaves out the value (`unknown`), if of any.

    Also of how many it has the value (`known`), and of how many it is (`of`).

    Args:
        row: A row of `exposure.summed`.
        columns: The columns of the sums, by their names.
    """
    counts: dict[str, dict[str, int]] = {"unknown": {}, "known": {}, "of": {}}
    for name, column in columns.items():
        missing = row[f"without_{column}"]
        of_all = row[f"of_{column}"]
        # Who has no betas misses none.
        if missing and not (name == "beta_delta" and missing == of_all):
            counts["unknown"][name] = missing
            counts["known"][name] = of_all - missing
            counts["of"][name] = of_all
    return counts
