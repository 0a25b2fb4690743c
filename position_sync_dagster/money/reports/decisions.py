"""What needs a decision of a person, urgent first, then by the money at stake; pure.

The money at stake is what is lost if prices move by 5 % to the worse side, as the scenarios say: by
the legs that expire, may be assigned or are in the money, and else by the strategy or the account.
What an expiry or an assignment moves is in the reason. What may expire by itself is no decision.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import chain, starmap
from operator import attrgetter, itemgetter
from typing import Any

from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.domain.leg import few
from position_sync_dagster.money.past.movements import known_sum
from position_sync_dagster.money.reports.columns import Row
from position_sync_dagster.money.reports.figures import Figures
from position_sync_dagster.money.risk.priced_legs import HOLDING_OF
from position_sync_dagster.money.risk.scenarios import Breakdown
from position_sync_dagster.money.strategies.limits import OF_TARGETS, Bound, LimitState

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
    TARGET = "has reached its target"


# An account and a contract.
_Holding = tuple[str, int]


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
        step: What one can do next; None: nothing needs to be done.
        holdings: What it is about of the strategy; none: all.
        at_stake: What these lose if prices move 5 % to the worse side; None: not known.
    """

    kind: Kind
    name: str
    strategy: str | None
    currency: str | None
    is_urgent: bool
    reason: str
    step: str | None
    holdings: tuple[_Holding, ...] = ()
    at_stake: float | None = None


def _about_strategy(
    kind: Kind,
    name: str,
    currency: str | None,
    reason: str,
    step: str | None,
    *,
    is_urgent: bool = True,
    legs: Iterable[Row] = (),
) -> Decision:
    return Decision(
        kind=kind, name=name, strategy=name, currency=currency, is_urgent=is_urgent, reason=reason,
        step=step, holdings=tuple(map(HOLDING_OF, legs)),
    )  # fmt: skip


def decisions(
    figures: Figures,
    scenario_rows: Sequence[Row],
    points: Sequence[int],
    expiry: Mapping[str, Any],
    legs_moved: Iterable[Row] = (),
) -> list[Decision]:
    """Return what needs a decision, urgent first, one for a strategy; last what needs nothing.

    Args:
        figures: The figures of the moment.
        scenario_rows: The profits of strategies and accounts in scenarios (`scenarios.profits`).
        points: The places of the scenarios in which prices move by `MOVES`.
        expiry: What expires and may be assigned (`deliveries.expiry_report`).
        legs_moved: The profits of the legs that decisions name, at `MOVES`.
    """
    of_strategies = _of_strategies(figures.book.strategies, expiry)
    raised = [*_over_limits(figures), *of_strategies, *_threatened(figures)]
    needed = [decision for decision in raised if decision.step]
    calm = [decision for decision in raised if not decision.step]
    needed.sort(key=_worst_first)
    needed_of = grouped(attrgetter("name", "strategy", "currency"), needed)

    rows_of = grouped(itemgetter("level", "name", "currency"), scenario_rows)
    rows_of_leg = grouped(itemgetter("name", "currency", "account", "conid"), legs_moved)

    def with_stake(decision: Decision) -> Decision:
        level = Breakdown.ACCOUNT if decision.strategy is None else Breakdown.STRATEGY
        group = (decision.name, decision.currency)
        stake = _at_stake(rows_of[level, *group], points)
        if decision.holdings:
            rows: list[Row] = []
            for held in decision.holdings:
                rows += rows_of_leg[*group, *held]
            stake = _at_stake(rows, range(len(MOVES)))
        return replace(decision, at_stake=stake)

    listed = chain(map(_as_one, needed_of.values()), calm)
    return sorted(map(with_stake, listed), key=_order)


def legs_at_issue(figures: Figures, expiry: Mapping[str, Any]) -> set[int]:
    """Return the contracts that decisions name: those of which `legs_moved` has profits."""
    rows = [*expiry["early_assignments"], *expiry["expiries"]]
    in_money = figures.book.split.parts.filter("short_in_money")["conid"]
    return {*map(itemgetter("conid"), rows), *in_money}


def _threatened(figures: Figures) -> Iterable[Decision]:
    """Yield the strategies of which short options are in the money."""
    in_money = figures.book.split.parts.filter("short_in_money")
    for sums in (*figures.book.strategies, *figures.book.rest):
        if not sums.short_in_money:
            continue

        name = sums.name
        currency = sums.currency
        reason = "1 short option is in the money"
        if sums.short_in_money > 1:
            reason = f"{sums.short_in_money} short options are in the money"
        step = "roll it, close it, or keep it"
        legs = in_money.filter(strategy_id=name, currency=currency).iter_rows(named=True)
        yield _about_strategy(
            Kind.THREATENED, name, currency, reason, step, is_urgent=False, legs=legs
        )


_KINDS = tuple(Kind)


def _worst_first(decision: Decision) -> tuple[bool, int]:
    return not decision.is_urgent, _KINDS.index(decision.kind)


def _as_one(raised: Sequence[Decision]) -> Decision:
    """Return all that is raised about a strategy as one decision, with the worst one's step."""
    first, *others = raised
    # What expires, may be assigned or is over a limit says more than that options are in the money.
    if first.kind is not Kind.THREATENED:
        others = [other for other in others if other.kind is not Kind.THREATENED]

    reason = first.reason
    holdings = dict.fromkeys(first.holdings)
    are_named = bool(holdings)
    for other in others:
        reason += f"; {other.kind}: {other.reason}"
        holdings |= dict.fromkeys(other.holdings)
        are_named &= bool(other.holdings)
    if not are_named:
        holdings = {}  # one of them is about all
    return replace(first, reason=reason, holdings=tuple(holdings))


def _order(decision: Decision) -> tuple[bool, bool, bool, str, float]:
    """Return the place of a decision: what is not known comes last, currencies apart."""
    amount = decision.at_stake
    place = (amount is None, decision.currency or "", -(amount or 0.0))
    return decision.step is None, not decision.is_urgent, *place


def _at_stake(rows: Sequence[Row], points: Sequence[int]) -> float | None:
    """Return what rows of scenarios lose at the worse point; None: not known, 0: nothing."""
    if not rows:
        return None

    worst = 0.0
    for point in points:
        profit = known_sum(row["profits"][point] for row in rows)
        if profit is None:
            return None
        worst = min(worst, profit)
    return abs(worst)


def _over_limits(figures: Figures) -> Iterable[Decision]:
    """Yield the broken limits; one without a currency has that of its strategy or account."""
    of_accounts = {account.account: account.currency for account in figures.book.accounts}
    of_strategies = {sums.name: sums.currency for sums in figures.book.strategies}
    for evaluated in figures.limits:
        if evaluated.outcome is not LimitState.BROKEN:
            continue

        limit = evaluated.limit
        strategy = limit.strategy_id
        of_subject = of_strategies
        if strategy is None:
            of_subject = of_accounts
        name = str(strategy or limit.account)

        kind = Kind.LIMIT
        step = "reduce it, or set another limit"
        if limit.bound is Bound.MAX and limit.measure in OF_TARGETS:
            kind = Kind.TARGET
            step = "take the profit, or set another target"
        yield Decision(
            kind=kind,
            name=name,
            strategy=strategy,
            currency=limit.currency or of_subject.get(name),
            is_urgent=kind is Kind.LIMIT,
            reason=evaluated.text,
            step=step,
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
        yield _about_strategy(Kind.ASSIGNMENT, strategy, currency, reason, step, legs=legs)

    expiry_of = itemgetter("strategy_id", "currency", "expires_at")
    for (strategy, currency, at), legs in grouped(expiry_of, expiry["expiries"]).items():
        is_urgent, left, next_step = _what_expires(legs)
        count = "1 leg"
        if len(legs) > 1:
            count = f"{len(legs)} legs"
        reason = f"{count} at {at:%a %d %b %H:%M} New York: {left}"
        yield _about_strategy(
            Kind.EXPIRY, strategy, currency, reason, next_step, is_urgent=is_urgent, legs=legs
        )


def _why_assigned(leg: Row) -> str:
    side = "above" if leg["extrinsic"] > -0.005 else "below"
    worth = f"{abs(leg['extrinsic']):.2f} {side} its exercise"
    text = f"{leg['position']:+g} {leg['leg']} is worth {worth}"
    if leg["ex_date"]:
        text += f", ex-date {leg['ex_date']:%d %b}"
    return text


def _what_expires(legs: Sequence[Row]) -> tuple[bool, str, str | None]:
    """Return whether legs lack what they deliver, what they leave, and what to do, if anything."""
    by_symbol = grouped(itemgetter("symbol"), legs)
    left = [*filter(None, starmap(_left_by, by_symbol.items()))]
    said = left or ["worthless at this price"]
    step: str | None = None
    if left:
        step = "close or roll it, or take what it leaves"

    pinned = [leg["leg"] for leg in legs if leg["is_pinned"]]
    if pinned:
        said.append(f"at the strike: {few(pinned, MOST_IN_DECISION)}")
    lacking = [leg["leg"] for leg in legs if leg["is_uncovered"]]
    if lacking:
        said.append(f"uncovered: {few(lacking, MOST_IN_DECISION)}")
    if pinned or lacking:
        step = "close or roll it before then"
    return bool(lacking), few(said, MOST_IN_DECISION, "; "), step


def _left_by(symbol: str, legs: Sequence[Row]) -> str | None:
    """Return what legs on one underlying leave at the present price; None: nothing."""
    currency = legs[0]["currency"]
    units = known_sum(map(itemgetter("units"), legs))
    cash = known_sum(map(itemgetter("cash"), legs))
    if units is None or cash is None:
        reasons = dict.fromkeys(leg["reason"] for leg in legs if leg["reason"])
        return f"{symbol} is not known ({few(reasons, 1)})"
    if not units and not round(cash):
        return None
    left = f"{round(cash):+,} {currency}"
    if units:
        return f"{units:+,.0f} {symbol} and {left}"
    return left
