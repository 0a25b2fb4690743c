"""What needs a decision of a person, ordered by the money at stake; pure.

The money at stake is one figure for all: what the strategy or the account loses if prices move by
5 % to its worse side, as the scenarios say. What an expiry or an assignment moves is in the reason.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from operator import itemgetter
from typing import Any

from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.domain.leg import few
from position_sync_dagster.money.past.movements import known_sum
from position_sync_dagster.money.reports.columns import Row
from position_sync_dagster.money.reports.figures import Figures
from position_sync_dagster.money.risk.scenarios import Breakdown
from position_sync_dagster.money.strategies.limits import LimitState

# How many legs a reason names.
MOST_IN_DECISION = 3

# The moves of all prices, in percent, of which the worse one says what is at stake.
MOVES = (-5.0, 5.0)


class Kind(StrEnum):
    """Why a decision is needed."""

    LIMIT = "over a limit"
    BROKEN = "broken"
    ASSIGNMENT = "may be assigned"
    EXPIRY = "expires"
    THREATENED = "threatened"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Something to decide.

    Attributes:
        kind: Why.
        name: The strategy or the account.
        strategy: The strategy; None: it is about an account.
        currency: That of `at_stake`.
        is_urgent: Whether something is wrong already, or an account lacks what it must deliver.
        reason: What is the case.
        step: What one can do next.
        at_stake: What is lost if prices move 5 % to the worse side; None: not known.
    """

    kind: Kind
    name: str
    strategy: str | None
    currency: str | None
    is_urgent: bool
    reason: str
    step: str
    at_stake: float | None = None


def _about_strategy(
    kind: Kind, name: str, currency: str | None, reason: str, step: str, *, is_urgent: bool = True
) -> Decision:
    return Decision(
        kind=kind, name=name, strategy=name, currency=currency, is_urgent=is_urgent, reason=reason,
        step=step,
    )  # fmt: skip


def decisions(
    figures: Figures, scenario_rows: Iterable[Row], points: Sequence[int], expiry: Mapping[str, Any]
) -> list[Decision]:
    """Return what needs a decision, what has most at stake first.

    Args:
        figures: The figures of the moment.
        scenario_rows: The profits of strategies and accounts in scenarios (`scenarios.profits`).
        points: The places of the scenarios in which prices move by `MOVES`.
        expiry: What expires and may be assigned (`deliveries.expiry_report`).
    """
    book = figures.book
    found = [*_over_limits(figures), *_of_strategies(book.strategies, expiry)]
    is_listed = {(decision.strategy, decision.currency) for decision in found}
    for sums in (*book.strategies, *book.rest):
        if sums.short_in_money and (sums.name, sums.currency) not in is_listed:
            reason = "1 short option is in the money"
            if sums.short_in_money > 1:
                reason = f"{sums.short_in_money} short options are in the money"
            found.append(
                Decision(
                    kind=Kind.THREATENED,
                    name=sums.name,
                    strategy=sums.name,
                    currency=sums.currency,
                    is_urgent=False,
                    reason=reason,
                    step="roll it, close it, or keep it",
                )
            )

    rows_of = grouped(itemgetter("level", "name", "currency"), scenario_rows)
    listed = []
    for decision in found:
        level = Breakdown.STRATEGY
        if decision.strategy is None:
            level = Breakdown.ACCOUNT
        rows = rows_of[level, decision.name, decision.currency]
        listed.append(replace(decision, at_stake=_at_stake(rows, points)))
    return sorted(listed, key=_order)


def _order(decision: Decision) -> tuple[bool, str, float]:
    """Return the place of a decision: what is not known comes last, currencies apart."""
    amount = decision.at_stake
    return amount is None, decision.currency or "", -(amount or 0.0)


def _at_stake(rows: Sequence[Row], points: Sequence[int]) -> float | None:
    """Return what rows of scenarios lose at the worse point; None: not known, 0: nothing."""
    profits = [known_sum(row["profits"][point] for row in rows) for point in points]
    known = [profit for profit in profits if profit is not None]
    if not rows or len(known) < len(points):
        return None
    return max(0.0, -min(known))


def _over_limits(figures: Figures) -> Iterable[Decision]:
    """Yield the broken limits; one without a currency has that of its strategy or account."""
    currencies = {account.account: account.currency for account in figures.book.accounts}
    of_strategies = {sums.name: sums.currency for sums in figures.book.strategies}
    for evaluated in figures.limits:
        limit = evaluated.limit
        if evaluated.outcome is LimitState.BROKEN:
            of_subject = of_strategies
            if limit.strategy_id is None:
                of_subject = currencies
            name = str(limit.strategy_id or limit.account)
            yield Decision(
                kind=Kind.LIMIT,
                name=name,
                strategy=limit.strategy_id,
                currency=limit.currency or of_subject.get(name),
                is_urgent=True,
                reason=evaluated.text,
                step="reduce it, or set another limit",
            )


def _of_strategies(strategies: Iterable[Any], expiry: Mapping[str, Any]) -> Iterable[Decision]:
    """Yield broken structures, short options that may be assigned, and what expires."""
    for sums in strategies:
        if sums.differences is not None:
            step = "trade what is missing, or correct the strategy"
            yield _about_strategy(Kind.BROKEN, sums.name, sums.currency, sums.differences, step)

    owner_of = itemgetter("strategy_id", "currency")
    for (strategy, currency), legs in grouped(owner_of, expiry["early_assignments"]).items():
        reason = few(map(_why_assigned, legs), MOST_IN_DECISION, "; ")
        step = "close or roll it, or take the delivery"
        yield _about_strategy(Kind.ASSIGNMENT, strategy, currency, reason, step)

    expiry_of = itemgetter("strategy_id", "currency", "expires_at")
    for (strategy, currency, at), legs in grouped(expiry_of, expiry["expiries"]).items():
        is_urgent, left, step = _what_expires(legs)
        count = "1 leg"
        if len(legs) > 1:
            count = f"{len(legs)} legs"
        reason = f"{count} at {at:%a %d %b %H:%M} New York: {left}"
        yield _about_strategy(Kind.EXPIRY, strategy, currency, reason, step, is_urgent=is_urgent)


def _why_assigned(leg: Row) -> str:
    text = f"{leg['position']:+g} {leg['leg']}"
    text += f" is worth {abs(leg['extrinsic']):.2f}"
    if leg["extrinsic"] > -0.005:
        text += " above its exercise"
    else:
        text += " below its exercise"
    if leg["ex_date"]:
        text += f", ex-date {leg['ex_date']:%d %b}"
    return text


def _what_expires(legs: Sequence[Row]) -> tuple[bool, str, str]:
    """Return whether legs lack what they deliver, what they leave, and what to do."""
    by_symbol = grouped(itemgetter("symbol"), legs)
    left = [text for symbol in by_symbol if (text := _left_by(by_symbol[symbol], symbol))]
    said = left or ["worthless at this price"]
    step = "close or roll it, or take what it leaves" if left else "let it expire"

    pinned = [leg["leg"] for leg in legs if leg["is_pinned"]]
    if pinned:
        said.append(f"at the strike: {few(pinned, MOST_IN_DECISION)}")
    lacking = [leg["leg"] for leg in legs if leg["is_uncovered"]]
    if lacking:
        said.append(f"uncovered: {few(lacking, MOST_IN_DECISION)}")
    if pinned or lacking:
        step = "close or roll it before then"
    return bool(lacking), few(said, MOST_IN_DECISION, "; "), step


def _left_by(legs: Sequence[Row], symbol: str) -> str | None:
    """Return what legs on one underlying leave at the present price; None: nothing."""
    units = known_sum(leg["units"] for leg in legs)
    cash = known_sum(leg["cash"] for leg in legs)
    if units is None or cash is None:
        reasons = dict.fromkeys(leg["reason"] for leg in legs if leg["reason"])
        return f"{symbol} is not known ({few(reasons, 1)})"
    if not units and not cash:
        return None
    left = f"{cash:+,.0f} {legs[0]['currency']}"
    if units:
        return f"{units:+,.0f} {symbol} and {left}"
    return left
