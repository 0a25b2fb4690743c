"""What accounts returned, by time and by money, from the books of their days.

The return of a day is what the account gained for each unit that was in it. What the owner brought,
less what was taken, counts from the start of the day, and until its end if more was taken. A day of
which one of these is not known breaks every chain that it is in.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from itertools import accumulate, pairwise
from operator import attrgetter, itemgetter, mul
from statistics import stdev
from typing import Any

from polars import DataFrame, col, when

from position_sync_dagster.domain.clock import A_DAY
from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.lake.schema import records_of
from position_sync_dagster.money.lake import MoneyLake, derived_rows
from position_sync_dagster.money.past.movements import first_reasons, known_sum
from position_sync_dagster.money.tables import BOOKS
from position_sync_dagster.money.trading_days import LONGEST_CLOSED
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.exchange_days import exchange_of

TRADING_DAYS_OF_A_YEAR = 252
DAYS_OF_A_YEAR = 365

# A rate for a year from less time than this says nothing.
LEAST_DAYS_OF_A_RATE = 28


class Period(StrEnum):
    """The periods of which returns are told."""

    ALL = "all"
    YEAR = "year"
    MONTH = "month"
    DAY = "day"

    def of(self, day: date) -> str:
        """Return the name of the period of a day.

        >>> Period.MONTH.of(date(2026, 3, 2)), Period.ALL.of(date(2026, 3, 2))
        ('2026-03', 'all')
        """
        formats = {Period.YEAR: "%Y", Period.MONTH: "%Y-%m", Period.DAY: "%Y-%m-%d"}
        return day.strftime(formats.get(self, self.value))


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountDay:
    """An account, or all of one base currency, on a trading day.

    Attributes:
        account: IB account; None: all.
        since: The trading day before, from whose close the day counts.
        before: What it was worth then; None: not stated.
        after: What it is worth at the close.
        owner: What the owner brought less what was taken; None: not known.
    """

    account: str | None
    currency: str | None
    day: date
    since: date
    before: float | None
    after: float | None
    owner: float | None

    @property
    def why_unknown(self) -> str | None:
        """Why the return is not known."""
        if self.before is None or self.after is None:
            return "no statement says its worth"
        if self.owner is None:
            return "what the owner moved has no known value"
        if self.returned is None:
            return "nothing was in it"
        return None

    @property
    def returned(self) -> float | None:
        """What it gained for each unit that was in it; None: not known, or nothing was."""
        if self.before is None or self.after is None or self.owner is None:
            return None

        start = self.before + max(self.owner, 0.0)
        end = self.after - min(self.owner, 0.0)
        if start == end == 0:
            return 0.0  # an account in which nothing is yet, or any more, neither gains nor loses
        if start > 0:
            return end / start - 1
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodReturn:
    """What an account, or all of one base currency, returned in a period.

    Attributes:
        account: IB account; None: all.
        period: Its name: all, 2026, 2026-03 or 2026-03-02.
        currency: Base currency, in which all amounts are.
        days: The trading days.
        days_known: Those whose return is known: if one is not, no number below is.
        since: The close from which it counts.
        until: Its last day.
        net_liquidation_before, net_liquidation: What it was worth at both ends.
        brought: What the owner brought less what was taken.
        profit: The change without what the owner brought.
        time_weighted: The returns of the days, chained: a part of one, as those below.
        money_weighted: The rate for a year at which what was brought, what was taken and what is
            there are worth nothing together, as XIRR of spreadsheets has it.
        deepest_fall: How far the chain fell below its highest.
        volatility: The standard deviation of the days, for a year.
        worst_return, worst_on, best_return, best_on: The extreme days.
        why_unknown: Why numbers are null.
    """

    account: str | None
    period: str
    currency: str | None
    days: int
    days_known: int
    since: date
    until: date
    net_liquidation_before: float | None
    net_liquidation: float | None
    brought: float | None = None
    profit: float | None = None
    time_weighted: float | None = None
    money_weighted: float | None = None
    deepest_fall: float | None = None
    volatility: float | None = None
    worst_return: float | None = None
    worst_on: date | None = None
    best_return: float | None = None
    best_on: date | None = None
    why_unknown: str | None


def returns_of(days: Iterable[AccountDay], by: Period) -> list[PeriodReturn]:
    """Return what each account returned in each period; pure.

    Args:
        days: The days of accounts; all accounts of a currency that has several are added.
    """
    of_accounts = [*days]
    all_days = [*of_accounts, *_added(of_accounts)]
    periods = grouped(lambda day: (day.currency or "", day.account or "", by.of(day.day)), all_days)
    return [
        _returned(period, sorted(of_period, key=attrgetter("day")))
        for (_currency, _account, period), of_period in sorted(periods.items())
    ]


def _added(days: Sequence[AccountDay]) -> Iterator[AccountDay]:
    """Yield the days of all accounts of each currency that has several."""
    accounts_of = grouped(itemgetter(0), {(day.currency, day.account) for day in days})
    # From one account to another is no flow.
    amounts_of = attrgetter("before", "after", "owner")
    for (currency, _day), of_day in grouped(attrgetter("currency", "day"), days).items():
        if len(accounts_of[currency]) > 1:
            amounts = zip(*map(amounts_of, of_day), strict=True)
            before, after, owner = map(known_sum, amounts)
            yield replace(of_day[0], account=None, before=before, after=after, owner=owner)


def _returned(period: str, days: Sequence[AccountDay]) -> PeriodReturn:
    first = days[0]
    last = days[-1]
    returns = []
    unknown = []
    for day in days:
        returned = day.returned
        if returned is None:
            unknown.append(f"{day.day}: {day.why_unknown}")
        else:
            returns.append((returned, day.day))

    numbers: dict[str, Any] = {}
    if not unknown:
        parts = [part for part, _day in returns]
        numbers["worst_return"], numbers["worst_on"] = min(returns)
        numbers["best_return"], numbers["best_on"] = max(returns)
        numbers.update(
            time_weighted=math.prod(1 + part for part in parts) - 1,
            deepest_fall=deepest_fall(parts),
            brought=known_sum(day.owner for day in days),
            profit=math.fsum(map(_profit_of, days)),
        )

        if len(parts) > 1:
            numbers["volatility"] = stdev(parts) * math.sqrt(TRADING_DAYS_OF_A_YEAR)
        else:
            unknown.append("volatility: it is one day")

        if last.day - first.since < LEAST_DAYS_OF_A_RATE * A_DAY:
            unknown.append(f"money_weighted: it is less than {LEAST_DAYS_OF_A_RATE} days")
        else:
            numbers["money_weighted"] = rate_for_a_year(_payments(days))
            if numbers["money_weighted"] is None:
                unknown.append("money_weighted: no rate, or more than one, solves it")

    return PeriodReturn(
        account=first.account,
        period=period,
        currency=first.currency,
        days=len(days),
        days_known=len(returns),
        since=first.since,
        until=last.day,
        net_liquidation_before=first.before,
        net_liquidation=last.after,
        why_unknown=first_reasons(unknown) or None,
        **numbers,
    )


def _profit_of(day: AccountDay) -> float:
    # Its return is known, and so are these.
    return (day.after or 0.0) - (day.before or 0.0) - (day.owner or 0.0)


def deepest_fall(returns: Iterable[float]) -> float:
    """Return how far a chain of returns fell below its highest, as a part of that.

    >>> round(deepest_fall([0.1, -0.2, 0.1, -0.1]), 4)
    0.208
    """
    growth = [*accumulate((1 + part for part in returns), mul, initial=1.0)]
    return max(1 - now / most for now, most in zip(growth, accumulate(growth, max), strict=True))


def _payments(days: Sequence[AccountDay]) -> list[tuple[date, float]]:
    """Return what was paid in, negative, and out: what was there at first, flows, and what is."""
    payments = []
    worth = 0.0
    for day in days:
        # All are known, as above. An account that joins brings what it has.
        payments.append((day.since, worth - (day.before or 0.0)))
        payments.append((day.day, -(day.owner or 0.0)))
        worth = day.after or 0.0
    return [*payments, (days[-1].day, worth)]


# The logarithms of the growth of a year among which a rate is looked for, and the steps.
_GROWTHS = [step / 20 for step in range(-240, 241)]


def rate_for_a_year(payments: Sequence[tuple[date, float]]) -> float | None:
    """Return the rate at which payments are worth nothing together; None: none, or several are.

    >>> day, later = date(2025, 1, 1), date(2026, 1, 1)
    >>> round(rate_for_a_year([(day, -100.0), (later, 110.0)]), 6)
    0.1
    """
    first = payments[0][0]
    timed = [((day - first) / A_DAY / DAYS_OF_A_YEAR, paid) for day, paid in payments if paid]

    def is_below(growth: float) -> bool:
        return sum(paid * math.exp(-growth * years) for years, paid in timed) < 0

    turns = [(low, high) for low, high in pairwise(_GROWTHS) if is_below(low) != is_below(high)]
    if len(turns) != 1:
        return None

    low, high = turns[0]
    for _halving in range(60):
        middle = (low + high) / 2
        if is_below(low) == is_below(middle):
            low = middle
        else:
            high = middle
    return math.expm1(low)


# ---- what is read


def read_returns(
    lake: MoneyLake, settings: Settings, by: Period, since: date | None = None
) -> list[PeriodReturn]:
    """Read what each account returned in all, and then in each period; blocks.

    Args:
        since: The first day; None: any.
    """
    chosen = col("partition.session_date") >= (since or date.min)
    books = derived_rows(lake.derived_table(BOOKS), chosen=chosen).sort("session_date")
    if books.is_empty():
        return []

    days = _days_of(books, settings.calendar)
    periods = dict.fromkeys((Period.ALL, by))
    return [row for period in periods for row in returns_of(days, period)]


def _days_of(books: DataFrame, calendar: str) -> list[AccountDay]:
    """Return the days of accounts, from the first with books to the last.

    A day without its books has no known worth.
    """
    first = books["session_date"][0] - LONGEST_CLOSED
    last = books["session_date"][-1]
    sessions = exchange_of(calendar).trading_days(first, last)
    of_calendar = DataFrame({"since": sessions[:-1], "session_date": sessions[1:]})

    day = col.session_date
    spans = books.group_by("account").agg(
        first=day.min(), last=day.max(), usual_currency=col.currency.first()
    )
    days = spans.join(of_calendar, how="cross").filter(day.is_between("first", "last"))
    days = days.join(books, on=("account", "session_date"), how="left")
    is_booked = col.statement.is_not_null()
    days = days.select(
        "account", "since", "owner",
        currency=when(is_booked).then("currency").otherwise("usual_currency"),
        day=day, before="net_liquidation_before", after="net_liquidation",
    )  # fmt: skip
    return records_of(AccountDay, days)
