"""Sums of money and greeks by strategy, account, underlying and currency, and their curves.

Different currencies are never added: each sum has one currency. The curve is the profit and loss of
each strategy over the last hours, from the ledger.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from position_sync_dagster.domain.broker_position import AccountSummary
from position_sync_dagster.domain.close_facts import A_DAY
from position_sync_dagster.domain.leg import UNATTRIBUTED, ActiveContract
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.position_updates import SyncUpdates
from position_sync_dagster.risk.campaigns import Campaign, open_profit
from position_sync_dagster.sync.reports.exposure import Split, claims_of, summed

if TYPE_CHECKING:
    from position_sync_dagster.sync.reports.overview import Book


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """Sums in one currency over the known values; None if all are unknown.

    Attributes:
        name: The strategy, UNATTRIBUTED, the underlying, or the name of the total.
        account: The account of UNATTRIBUTED or of an account's total; None for all accounts.
        currency: None for legs that are not held and have never been valued.
        legs, legs_held: The number of active legs, and of those with a holding; each holding that
            is in no strategy counts as one. For an underlying and for a total, `legs_held`
            is the number of holdings, each counted once.
        legs_closed, closed: The number of legs of a strategy that were held and are gone for a
            known reason, and what happened to them.
        value: The value of options, stocks and the like, without the notional value of futures.
        gamma_1pct: The change of dollar_delta when the underlyings move by 1 %.
        theta, vega: Per day, and per point of volatility.
        oldest_age_s: The age of the oldest price; None without one, or if one is unknown.
        oldest_greeks_s: The age of the oldest greeks; None without any, or if one is unknown.
        delayed: The number of holdings with a price of delayed or frozen market data.
        lines: Market data lines that the holdings use; None while no owner is connected.
        unvalued: The number of held legs without a value, which the sums leave out.
        options, options_with_greeks: Held options, and those of them whose greeks are known.
        options_modelled: Those of the latter whose greeks this package computed.
        nearest_expiry: The first day on which a holding expires.
        short_in_money, short_unknown: Short options in the money, and those of which the price of
            the underlying is not known.
        differences: Where strategies claim another quantity than is held.
        realized_pnl: The realised profit of what closed since `realized_since`; None if that of one
            of the closes is not known, or if no change of a quantity has been recorded yet.
        closes, closes_without_profit: The number of these closes, and of those without a known
            profit.
        campaign: What a strategy has earned since its first leg.
        unknown: Of how many holdings a sum leaves out the value, by the name of the sum.
        rates_age_s: For a total in the base currency: the age of the oldest exchange rate used.
        without_rate: For a total in the base currency: the currencies whose rate is not known. The
            sums are unknown then.
    """

    name: str
    account: str | None
    currency: str | None
    legs: int
    legs_held: int
    value: float | None
    unrealized_pnl: float | None
    daily_pnl: float | None
    dollar_delta: float | None
    gamma_1pct: float | None
    theta: float | None
    vega: float | None
    oldest_age_s: float | None
    oldest_greeks_s: float | None
    delayed: int
    lines: int | None
    unvalued: int
    options: int
    options_with_greeks: int
    options_modelled: int
    nearest_expiry: date | None
    short_in_money: int
    short_unknown: int
    differences: str | None
    legs_closed: int = 0
    closed: str | None = None
    realized_pnl: float | None = None
    realized_since: datetime | None = None
    closes: int = 0
    closes_without_profit: int = 0
    campaign: Campaign | None = None
    unknown: Mapping[str, int] = field(default_factory=dict)
    rates_age_s: float | None = None
    without_rate: tuple[str, ...] = ()

    @property
    def partial(self) -> tuple[str, ...]:
        """The names of the sums that leave out a holding."""
        return tuple(self.unknown)

    @property
    def legs_text(self) -> str:
        """How many legs are held, and what became of the others.

        Such as "3 of 4 legs, one expired on 2026-11-20, one missing".
        """
        missing = self.legs - self.legs_held - self.legs_closed
        rest = f"{'one' if missing == 1 else missing} missing" if missing else ""
        held = f"{self.legs_held} of {self.legs} legs"
        return ", ".join(part for part in (held, self.closed, rest) if part)


_SUMS = {
    "value": "market_value",
    "unrealized_pnl": "unrealized_pnl",
    "daily_pnl": "daily_pnl",
    "dollar_delta": "dollar_delta",
    "gamma_1pct": "gamma_1pct",
    "theta": "theta",
    "vega": "vega",
}
"""Each sum of money, and its name among the sums of parts."""

_COUNTS = ("delayed", "options", "options_with_greeks", "options_modelled", "nearest_expiry")


def seconds_since(at: datetime | None, now: datetime) -> float | None:
    """Return the seconds since a time, at least 0; None if it is unknown."""
    return None if at is None else max((now - at).total_seconds(), 0.0)


TOTAL, BASE_TOTAL = "total", "total in base"
"""The names of sums that are of no strategy and of no underlying."""


@dataclass(frozen=True, kw_only=True)
class BookMoney:
    """The money of the holdings, or of one strategy alone; a table is summed when it is first used.

    Attributes:
        book: The holdings.
        strategy: The only strategy of interest; None for all holdings.
    """

    book: "Book"
    strategy: str | None = None

    @cached_property
    def strategies(self) -> tuple[Money, ...]:
        """Each strategy by currency."""
        return self._by("strategy_id", "currency", where=pl.col("strategy_id") != UNATTRIBUTED)

    @cached_property
    def rest(self) -> tuple[Money, ...]:
        """What no strategy has, by account and currency (UNATTRIBUTED)."""
        names = ("strategy_id", "account", "currency")
        return self._by(*names, where=pl.col("strategy_id") == UNATTRIBUTED)

    @cached_property
    def totals(self) -> tuple[Money, ...]:
        """All holdings: by account and currency if there are several accounts, then by currency."""
        several = len({one.account for one in self._accounts}) > 1
        totals = (*(self._accounts if several else ()), *self._by("currency"))
        return tuple(one for one in totals if one.currency is not None)

    @cached_property
    def in_base(self) -> tuple[Money, ...]:
        """The totals of each account in its base currency, by the broker's exchange rates.

        An account has one only if a holding has another currency.
        """
        found = map(self._in_base, self.book.accounts)
        return tuple(one for one in found if one is not None)

    @cached_property
    def underlyings(self) -> tuple[Money, ...]:
        """All holdings by underlying and currency."""
        return self._by("symbol", "currency")

    @cached_property
    def expiries(self) -> tuple[Money, ...]:
        """All holdings with an expiry by that and currency, the nearest first."""
        parts = self._chosen.parts.filter(pl.col("expiry").is_not_null())
        rows = summed(Split(parts, self._chosen.legs), ("expiry", "currency"), self.book.now)
        named = rows.iter_rows(named=True)
        return tuple(_money(row, self.book.now, self.book.streamed) for row in named)

    @property
    def tables(self) -> dict[str, tuple[Money, ...]]:
        """All tables by name."""
        names = ("strategies", "rest", "totals", "in_base", "underlyings")
        return {name: getattr(self, name) for name in names}

    @cached_property
    def _accounts(self) -> tuple[Money, ...]:
        return tuple(o for o in self._by("account", "currency") if o.currency is not None)

    @cached_property
    def _chosen(self) -> Split:
        if self.strategy is None:
            return self.book.split
        return self.book.split.filter(pl.col("strategy_id") == self.strategy)

    def _by(self, *names: str, where: pl.Expr | None = None) -> tuple[Money, ...]:
        found = self._chosen if where is None else self._chosen.filter(where)
        rows = summed(found, names, self.book.now).iter_rows(named=True)
        sums = (_money(row, self.book.now, self.book.streamed) for row in rows)
        if "symbol" in names:
            return tuple(sums)
        if "strategy_id" in names:
            return tuple(self._with_profit(one, one.name) for one in sums)
        return tuple(self._with_profit(one, self.strategy) for one in sums)

    def _with_profit(self, one: Money, name: str | None) -> Money:
        """Return a sum with the realised profit of a strategy, of UNATTRIBUTED, or of all."""
        if one.account is not None and name not in (None, UNATTRIBUTED):
            return one  # the profit of a strategy is not divided among accounts
        found = self.book.closes.realized(name, one.account, one.currency)
        if found is None:
            return one
        return replace(
            one,
            realized_pnl=found.profit,
            realized_since=found.since,
            closes=found.closes,
            closes_without_profit=found.unknown,
            campaign=None
            if name in (None, UNATTRIBUTED)
            else self._campaign(name, one, found.since),
        )

    def _campaign(self, name: str, one: Money, since: datetime | None) -> Campaign:
        campaigns, currency = self.book.closes.campaigns, str(one.currency)
        realised, fees = campaigns.realised.get((name, currency), (0.0, 0.0))
        lots = [o for o in campaigns.lots if (o.strategy_id, o.currency) == (name, currency)]
        parts = self.book.split.parts.filter(strategy_id=name, currency=currency)
        opened = open_profit(lots, parts, self.book.priced)
        return Campaign(since=since, realised=realised, open=opened, fees=fees)

    def _in_base(self, account: AccountSummary) -> Money | None:
        base, rates = account.currency, account.rates
        currencies = {one.currency for one in self._accounts if one.account == account.account}
        if base is None or currencies <= {base}:
            return None
        without = tuple(sorted(one for one in currencies if one and one not in rates))
        found = self._chosen.filter(
            pl.col("account") == account.account, pl.col("currency").is_not_null()
        )
        # If a rate is missing, no sum is known, and the sums that are made here are not used.
        rate = pl.col("currency").replace_strict(rates, default=1.0, return_dtype=pl.Float64)
        converted = Split(
            found.parts.with_columns(
                *(pl.col(name) * rate for name in _SUMS.values()), currency=pl.lit(base)
            ),
            found.legs.with_columns(currency=pl.lit(base)),
        )
        unknown: dict[str, Any] = dict.fromkeys(_SUMS) if without else {}
        (row,) = summed(converted, ("account", "currency"), self.book.now).iter_rows(named=True)
        return replace(
            # The lines are in the total of each currency.
            _money(row, self.book.now, streamed=None),
            name=BASE_TOTAL,
            differences=None,
            rates_age_s=seconds_since(account.rates_received_at, self.book.now),
            without_rate=without,
            **unknown,
        )


def _money(row: Mapping[str, Any], now: datetime, streamed: frozenset[int] | None) -> Money:
    held = row["holdings"]
    name = row.get("strategy_id") or row.get("symbol") or (row.get("expiry") and f"{row['expiry']}")
    is_total = name is None
    return Money(
        name=name or TOTAL,
        account=row.get("account"),
        currency=row["currency"],
        legs=row["legs"] - row["legs_held"] + held if is_total else row.get("legs", held),
        legs_held=held if is_total else row.get("legs_held", held),
        **{name: row[of] for name, of in _SUMS.items()},
        **{name: row[name] for name in _COUNTS},
        oldest_age_s=seconds_since(row["priced_at"], now),
        oldest_greeks_s=seconds_since(row["greeks_at"], now),
        lines=None if streamed is None else len(streamed.intersection(row["conids"] or ())),
        unvalued=row["legs_without_value"],
        short_in_money=row["short_legs_in_money"],
        short_unknown=row["short_legs_unknown"],
        differences=row.get("differences"),
        legs_closed=0 if is_total else row.get("legs_closed", 0),
        closed=None if is_total else row.get("closed"),
        unknown={name: count for name, of in _SUMS.items() if (count := row[f"without_{of}"])},
    )


SPAN = timedelta(hours=12)
"""The time span of the diagram: a trading day with the hours around it."""

POINTS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfitLine:
    """The daily profit and loss of a strategy in one currency; None where it is not known."""

    strategy_id: str
    currency: str
    points: tuple[tuple[datetime, float | None], ...]


def profit_lines(updates: SyncUpdates, book: "Book") -> list[ProfitLine]:
    """Read the daily profit and loss of the strategies over the last SPAN; blocks.

    The present legs count for the whole span: a leg that became active at noon is in the points of
    the morning as well.
    """
    first = book.now - SPAN
    rows = updates.sampled({leg.conid for leg in book.matching}, first, book.now, POINTS)
    return lines_of(rows, book.matching, book.priced.filter(pl.col("timestamp") < first))


def read_curves(lake: Lake, book: "Book") -> list[dict[str, Any]]:
    """Read the daily profit of each strategy, and of each account as the broker sums it; blocks."""
    curves: list[dict[str, Any]] = [
        {"name": one.strategy_id, "currency": one.currency, "points": one.points}
        for one in profit_lines(lake.updates.sync, book)
    ]
    rows = lake.account_values.between(book.now - SPAN, book.now)
    known = rows.filter(pl.col("daily_pnl").is_not_null())
    for (account, currency), of in known.group_by("account", "currency", maintain_order=True):
        points = of.gather_every(max(1, of.height // POINTS)).select("timestamp", "daily_pnl")
        curve = {"name": account, "currency": currency, "points": points.rows()}
        curves.append(curve | {"is_account": True})
    return curves


def lines_of(
    rows: pl.DataFrame, legs: Sequence[ActiveContract], still: pl.DataFrame
) -> list[ProfitLine]:
    """Sum the newest rows at each point, with the shares of strategies as in `claims_of`.

    A profit of more than a day before is that of another day: the present one is not known.

    Args:
        rows: The rows of each point (`SyncUpdates.sampled`).
        legs: The active legs that match their contracts.
        still: The newest rows of the holdings that have none among `rows`.
    """
    found: dict[tuple[str, str], list[tuple[datetime, float | None]]] = defaultdict(list)
    newest = {(row["account"], row["conid"]): row for row in still.iter_rows(named=True)}
    for part in rows.partition_by("slot", maintain_order=True):
        slot: datetime = part.item(0, "slot")
        newest |= {(row["account"], row["conid"]): row for row in part.iter_rows(named=True)}
        held = {key: row["position"] for key, row in newest.items()}
        sums: dict[tuple[str, str], list[float | None]] = defaultdict(list)
        for n, holding, share in claims_of(legs, held):
            row = newest[holding]
            is_of_day = row["daily_pnl"] is not None and slot - row["timestamp"] <= A_DAY
            profit = row["daily_pnl"] * share if is_of_day else None
            sums[legs[n].strategy_id, row["currency"]].append(profit)
        for key, values in sums.items():
            found[key].append((slot, _whole(values)))
    return [
        ProfitLine(strategy_id=strategy, currency=currency, points=tuple(points))
        for (strategy, currency), points in sorted(found.items())
    ]


def _whole(values: Iterable[float | None]) -> float | None:
    """Return the sum; None if one of the values is unknown, since a curve shows no marks."""
    listed = list(values)
    known = [value for value in listed if value is not None]
    return sum(known) if len(known) == len(listed) else None
