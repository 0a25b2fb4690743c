"""The numbers that limits are compared with, from the parts of holdings.

A number is known if it is known of every holding behind it: each has a value that its source
confirmed lately, and its login is connected. A sum leaves nothing out.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from polars import DataFrame, col

from position_sync_dagster.domain.clock import seconds_since
from position_sync_dagster.domain.leg import few
from position_sync_dagster.money.past.postings import names_of
from position_sync_dagster.money.reports.book import Book, is_current
from position_sync_dagster.money.reports.columns import readable
from position_sync_dagster.money.reports.exposure import Split, figure_of
from position_sync_dagster.money.strategies.limits import (
    OF_ACCOUNTS,
    OF_STRATEGIES,
    SUMS_OF_MONEY,
    Limit,
    LimitState,
    Measure,
    Reading,
    judge,
)
from position_sync_dagster.money.sums import in_base, rate_of
from position_sync_dagster.sync.confirmations import PRICED


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
        limit = self.limit
        value = readable(limit.value, limit.measure)
        unit = f" {limit.currency}" if limit.currency else ""
        bound = f"the {limit.bound} is {value}{unit}"
        measure = f"{limit.subject}: {limit.measure}"
        if self.outcome is LimitState.UNKNOWN:
            return f"{measure} is not known ({bound}): {self.reading.unknown}."

        number = self.reading.number
        if number is None:
            return f"{measure}: nothing to measure ({bound})."
        reached = readable(number, limit.measure)
        if self.reading.unknown:
            measure += " ≥"
        return f"{measure} {reached}{unit}; {bound}."


def evaluate(limits: Iterable[Limit], book: Book) -> list[Evaluated]:
    """Return the number and the outcome of each limit, in order; pure.

    A limit of some kinds is one of the strategies alone whose last campaign began as one of these.
    """
    began_as = set()
    for (strategy, _currency), money in book.closes.money.items():
        if money.latest:
            began_as.add((strategy, money.latest.entry.kind))

    evaluated = []
    for limit in limits:
        kinds = {(limit.strategy_id, kind) for kind in limit.kinds}
        if kinds and kinds.isdisjoint(began_as):
            continue
        evaluated.append(Evaluated(limit=limit, reading=read(limit, book)))
    return evaluated


def read(limit: Limit, book: Book) -> Reading:
    """Return the number that a limit is compared with; pure."""
    if limit.measure in OF_ACCOUNTS:
        return _of_account(limit, book)

    is_subject = col.strategy_id.eq_missing(limit.strategy_id)
    if limit.account is not None:  # a leg without one that is not held is missing in each account
        is_subject = (col.account == limit.account) | col.account.is_null()
    subject = book.split.filter(is_subject)

    doubt = _doubt(limit, book, subject)
    if doubt and limit.measure in OF_STRATEGIES | SUMS_OF_MONEY:
        return Reading(unknown=doubt)
    if limit.measure in OF_STRATEGIES:
        return _of_campaign(limit, book, subject.parts)
    if limit.measure in SUMS_OF_MONEY:
        return _sum(limit, book, subject.parts)

    reading = _number(limit.measure, subject, book)
    if not doubt:
        return reading
    # An age only grows while no message arrives: a number beyond the limit stays beyond it.
    return replace(reading, unknown=doubt, at_least=limit.measure is Measure.VALUE_AGE_S)


def _of_account(limit: Limit, book: Book) -> Reading:
    """Return a number that the broker sends of an account, in the currency of the limit."""
    summary = book.summaries.get(limit.account or "")
    if summary is None:
        return Reading(unknown="nothing is known of this account")
    if summary.gateway_id not in book.live_since:
        return Reading(unknown=f"the gateway of {summary.gateway_id} is not connected")

    number = getattr(summary, limit.measure.value)
    if number is None:
        return Reading(unknown="the broker has not sent it")

    rate = rate_of(summary, summary.currency, limit.currency) if limit.currency else 1.0
    if rate is None:
        return Reading(unknown=f"the broker has sent no exchange rate to {limit.currency}")
    return Reading(number=round(number * rate, 9))


def _of_campaign(limit: Limit, book: Book, parts: DataFrame) -> Reading:
    """Return a number of the open campaign of a strategy."""
    opened = []
    for sums in book.strategies:
        campaign = sums.open_campaign
        if campaign and sums.name == limit.strategy_id:
            opened.append((sums, campaign))
    if not opened:
        return Reading(unknown="" if parts.is_empty() else "no trade says how it was opened")
    if len(opened) > 1:
        return Reading(unknown="it has contracts in several currencies")

    [(sums, campaign)] = opened
    if limit.measure is Measure.REACHED:
        return Reading(number=sums.profit_reached, unknown=sums.profit_reached_unknown or "")
    loss = campaign.loss_of_credit
    unknown = "it was opened for no credit, or this or its profit is not known"
    return Reading(number=loss, unknown=unknown if loss is None else "")


def _doubt(limit: Limit, book: Book, subject: Split) -> str:
    """Return why the numbers of a limit's subject are not certain; "" if they are."""
    logins = set(subject.parts["gateway_id"]) or set(book.logins)
    not_connected = sorted(map(str, logins - book.live_since.keys()))
    if not_connected:
        return f"the gateway of {', '.join(not_connected)} is not connected"

    return _doubt_of_legs(limit, book, subject) or _doubt_of_values(limit, book, subject.parts)


def _doubt_of_legs(limit: Limit, book: Book, subject: Split) -> str:
    """Return which leg is not certain; "" if all are, or if the limit does not depend on legs."""
    is_of_account = limit.account is not None
    if not is_of_account or limit.measure is Measure.MISSING_LEGS:
        if limit.strategy_id in book.unresolved or (is_of_account and book.unresolved):
            return "the contract of a leg is not found"

        mismatches = sorted(set(subject.legs["mismatch"].drop_nulls()))
        if mismatches:
            return f"a leg does not match its contract: {'; '.join(mismatches)}"
    if not is_of_account and subject.legs.is_empty():
        return "the strategy has no active leg"
    return ""


def _doubt_of_values(limit: Limit, book: Book, parts: DataFrame) -> str:
    """Return which holding has no value of now; "" if all have one."""
    if limit.account is None:
        legs = [leg.conid for leg in book.claims.matching if leg.strategy_id == limit.strategy_id]
        is_of_subject = col.conid.is_in(legs)
    else:
        is_of_subject = col.account == limit.account
        if parts.is_empty() and limit.account not in book.summaries:
            return "nothing is known of this account"

    unwritten = book.unwritten.filter(is_of_subject)
    if not unwritten.is_empty():
        return f"the quantity has changed, and no row has been written since: {_named(unwritten)}"

    late = parts.filter(~is_current(book.live_since))
    if late.is_empty():
        return ""
    return f"not confirmed lately: {_named(late)}"


def _sum(limit: Limit, book: Book, parts: DataFrame) -> Reading:
    """Return a sum in the currency of the limit; unknown unless every holding has its part."""
    name = limit.measure.value
    figure = col(name)
    parts = parts.filter(figure_of(name))
    without = parts.filter(figure.is_null() | figure.is_nan())
    if not without.is_empty():
        return Reading(unknown=f"no {limit.measure} is known of {_named(without)}")

    by_currency = parts.group_by("account", "currency").agg(figure.sum())
    rated = []
    for account, currency, amount in by_currency.sort("account", "currency").iter_rows():
        rate = rate_of(book.summaries.get(account), currency, limit.currency)
        if rate is None:
            return Reading(
                unknown=f"account {account} has values in {currency}, and the broker has sent no "
                f"exchange rate to {limit.currency}"
            )
        rated.append((amount, currency, rate))
    total, _why = in_base(rated)
    return Reading(number=round(total or 0.0, 9))


def _named(parts: DataFrame) -> str:
    contracts = parts.unique("conid").sort("symbol", "expiry", "strike", "conid")
    return few(contracts.select(names_of(contracts)).to_series(), 5)


def _number(measure: Measure, subject: Split, book: Book) -> Reading:
    """Return a number that is no sum: days, a count, or an age."""
    parts = subject.parts
    if measure is Measure.MISSING_LEGS:
        missing = subject.legs.filter(~col.is_held, col.closed.is_null())
        return Reading(number=missing["leg"].n_unique())
    if measure is Measure.DAYS_TO_EXPIRY:
        until_expiry = col.expiry.min() - book.today
        return Reading(number=parts.select(until_expiry.dt.total_days()).item())

    number: float | None
    if measure is Measure.SHORT_IN_MONEY:
        number = parts.filter("short_in_money").select("account", "conid").n_unique()
        without = parts.filter("short_unknown")
        reason = "no price of the underlying is known of"
    else:
        priced = col(PRICED)
        number = seconds_since(parts.select(priced.min()).item(), book.now)
        without = parts.filter(priced.is_null() | col.valueless)
        reason = "no price of"

    if without.is_empty():
        return Reading(number=number)
    return Reading(number=number, unknown=f"{reason} {_named(without)}", at_least=True)
