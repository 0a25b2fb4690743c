"""The numbers that limits are compared with, from the parts of holdings.

A number is known if it is known of every holding behind it: each has a value that its source
confirmed lately, and its login is connected. A sum leaves nothing out.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from position_sync_dagster.domain.clock import seconds_since
from position_sync_dagster.domain.leg import few
from position_sync_dagster.domain.limits import (
    OF_ACCOUNTS,
    SUMS_OF_MONEY,
    Limit,
    LimitState,
    Measure,
    Reading,
    judge,
)
from position_sync_dagster.domain.rules import exchange_date
from position_sync_dagster.sync.confirmations import PRICED
from position_sync_dagster.sync.reports.book import Book, is_current
from position_sync_dagster.sync.reports.exposure import Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """A limit and its number, with the outcome and the sentence for a person."""

    limit: Limit
    reading: Reading

    @property
    def outcome(self) -> LimitState:
        """Whether the limit holds, is broken, or is not known."""
        return judge(self.limit, self.reading)

    @property
    def text(self) -> str:
        """The number, and the limit that it is compared with."""
        limit, number = self.limit, self.reading.number
        unit = f" {limit.currency}" if limit.currency else ""
        than = f"the {limit.bound} is {limit.value:,.10g}{unit}"
        what = f"{limit.subject}: {limit.measure}"
        if self.outcome is LimitState.UNKNOWN:
            return f"{what} is not known ({than}): {self.reading.unknown}."
        if number is None:
            return f"{what}: nothing to measure ({than})."
        return f"{what} {'≥ ' if self.reading.unknown else ''}{number:,.10g}{unit}; {than}."


def evaluate(limits: Iterable[Limit], book: Book) -> list[Evaluated]:
    """Return the number and the outcome of each limit, in order; pure."""
    return [Evaluated(limit=limit, reading=read(limit, book)) for limit in limits]


def read(limit: Limit, book: Book) -> Reading:
    """Return the number that a limit is compared with; pure."""
    if limit.measure in OF_ACCOUNTS:
        return _of_account(limit, book)
    of = pl.col("strategy_id").eq_missing(limit.strategy_id)
    if limit.account is not None:  # a leg without one that is not held is missing in each account
        of = (pl.col("account") == limit.account) | pl.col("account").is_null()
    found = book.split.filter(of)
    doubt = _doubt(limit, book, found)
    if limit.measure in SUMS_OF_MONEY:
        return Reading(unknown=doubt) if doubt else _sum(limit, book, found.parts)
    reading = _number(limit.measure, found, book.now)
    if not doubt:
        return reading
    # An age only grows while no message arrives: a number beyond the limit stays beyond it.
    at_least = limit.measure is Measure.VALUE_AGE_S
    return Reading(number=reading.number, unknown=doubt, at_least=at_least)


def _of_account(limit: Limit, book: Book) -> Reading:
    """Return a number that the broker sends of an account, in the currency of the limit."""
    one = next((one for one in book.accounts if one.account == limit.account), None)
    if one is None or limit.account is None:
        return Reading(unknown="nothing is known of this account")
    if one.gateway_id not in book.live_since:
        return Reading(unknown=f"the gateway of {one.gateway_id} is not connected")
    number: float | None = getattr(one, limit.measure.value)
    if number is None:
        return Reading(unknown="the broker has not sent it")
    rate = one.rates.get(limit.currency) if limit.currency else 1.0
    if not rate:
        return Reading(unknown=f"the broker has sent no exchange rate to {limit.currency}")
    return Reading(number=round(number / rate, 9))


def _doubt(limit: Limit, book: Book, found: Split) -> str:
    """Return why the numbers of a limit's subject are not certain; "" if they are."""
    parts, legs = found.parts, found.legs
    used = set(parts.get_column("gateway_id").to_list()) or set(book.logins)
    away = sorted(str(login) for login in used if login not in book.live_since)
    if away:
        return f"the gateway of {', '.join(away)} is not connected"
    if limit.account is None or limit.measure is Measure.MISSING_LEGS:
        unresolved = book.unresolved
        if limit.strategy_id in unresolved or (limit.account is not None and unresolved):
            return "the contract of a leg is not found"
        wrong = legs.get_column("mismatch").drop_nulls().unique().sort().to_list()
        if wrong:
            return f"a leg does not match its contract: {'; '.join(wrong)}"
    if limit.account is None and legs.is_empty():
        return "the strategy has no active leg"
    known = {one.account for one in book.accounts}
    if limit.account is not None and parts.is_empty() and limit.account not in known:
        return "nothing is known of this account"
    legs_of = [leg.conid for leg in book.matching if leg.strategy_id == limit.strategy_id]
    of = pl.col("conid").is_in(legs_of)
    if limit.account is not None:
        of = pl.col("account") == limit.account
    unwritten = book.unwritten.filter(of)
    if not unwritten.is_empty():
        return f"the quantity has changed, and no row has been written since: {_named(unwritten)}"
    late = parts.filter(~is_current(book.live_since))
    return "" if late.is_empty() else f"not confirmed lately: {_named(late)}"


def _sum(limit: Limit, book: Book, parts: pl.DataFrame) -> Reading:
    """Return a sum in the currency of the limit; unknown unless every holding has its part."""
    name = limit.measure.value
    if limit.measure in (Measure.THETA, Measure.VEGA, Measure.GAMMA_1PCT):
        parts = parts.filter("is_option")  # nothing else has them
    without = parts.filter(pl.col(name).is_null() | pl.col(name).is_nan())
    if not without.is_empty():
        return Reading(unknown=f"no {limit.measure} is known of {_named(without)}")
    rates = {one.account: one.rates for one in book.accounts}
    total = 0.0
    sums = parts.group_by("account", "currency").agg(pl.col(name).sum()).sort("account", "currency")
    for account, currency, amount in sums.iter_rows():
        known = {} if currency == limit.currency else rates.get(account, {})
        rate, to = known.get(currency), known.get(limit.currency or "")
        if currency != limit.currency and not (rate and to):
            return Reading(
                unknown=f"{limit.place}: account {account} has values in {currency}, and the "
                f"broker has sent no exchange rate to {limit.currency}"
            )
        total += amount * (rate / to if rate and to else 1.0)
    return Reading(number=round(total, 9))


def _named(parts: pl.DataFrame) -> str:
    return f"conid {few(parts.get_column('conid').unique().sort(), 5)}"


def _number(measure: Measure, found: Split, now: datetime) -> Reading:
    """Return a number that is no sum: days, a count, or an age."""
    parts, legs = found.parts, found.legs
    if measure is Measure.MISSING_LEGS:
        missing = legs.filter(pl.col("is_held").not_(), pl.col("closed").is_null())
        return Reading(number=missing.get_column("leg").n_unique())
    if measure is Measure.DAYS_TO_EXPIRY:
        days = (pl.col("expiry").min() - exchange_date(now)).dt.total_days()
        return Reading(number=parts.select(days).item())
    number: float | None
    if measure is Measure.SHORT_IN_MONEY:
        number = parts.filter("short_in_money").select("account", "conid").n_unique()
        unknown, why = parts.filter("short_unknown"), "no price of the underlying is known of"
    else:
        number = seconds_since(parts.select(pl.col(PRICED).min()).item(), now)
        unknown, why = parts.filter(pl.col(PRICED).is_null() | pl.col("valueless")), "no price of"
    if unknown.is_empty():
        return Reading(number=number)
    return Reading(number=number, unknown=f"{why} {_named(unknown)}", at_least=True)
