"""What needs a decision of a person, ordered by the money at stake; pure.

The money at stake is one figure for all: what the strategy or the account loses if prices move by
5 % to its worse side, as the scenarios say. What an expiry or an assignment moves is in the reason.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from operator import itemgetter
from typing import Any

from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.domain.leg import few
from position_sync_dagster.money.past.movements import known_sum
from position_sync_dagster.money.reports.figures import Figures
from position_sync_dagster.money.risk.scenarios import Breakdown
from position_sync_dagster.money.strategies.limits import LimitState

# How many legs a reason names.
MOST_NAMED = 3

# The moves of all prices, in percent, of which the worse one says what is at stake.
MOVES = (-5.0, 5.0)

Row = Mapping[str, Any]


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
        at_stake: What is lost if prices move 5 % to the worse side; None: not known.
        is_urgent: Whether something is wrong already, or an account lacks what it must deliver.
        reason: What is the case.
        step: What one can do next.
    """

    kind: Kind
    name: str
    strategy: str | None
    currency: str | None
    at_stake: float | None
    is_urgent: bool
    reason: str
    step: str


class _AtStake:
    """What each strategy and account loses at the worse of some moves."""

    def __init__(self, scenario_rows: Iterable[Row], points: Sequence[int]) -> None:
        group_of = itemgetter("level", "name", "currency")
        self._rows = grouped(group_of, scenario_rows)
        self._points = points

    def of(self, level: Breakdown, name: str | None, currency: str | None) -> float | None:
        """Return what is lost at the worse move; None: not known, 0: nothing is."""
        rows = self._rows.get((level, name, currency), [])
        profits = []
        for point in self._points:
            of_accounts = [row["profits"][point] for row in rows]
            profits.append(known_sum(of_accounts) if of_accounts else None)
        known = [profit for profit in profits if profit is not None]
        if known and len(known) == len(profits):
            return max(0.0, -min(known))
        return None


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
    at_stake = _AtStake(scenario_rows, points)
    strategies = [*figures.book.strategies, *figures.book.rest]
    listed = [
        *_over_limits(figures, at_stake),
        *_broken(figures.book.strategies, at_stake),
        *_assignments(expiry["early_assignments"], at_stake),
        *_expiries(expiry["expiries"], at_stake),
    ]
    is_listed = {(decision.strategy, decision.currency) for decision in listed}
    listed += _threatened(strategies, at_stake, is_listed)

    rates: dict[str | None, float] = {
        code: rate for account in figures.book.accounts for code, rate in account.rates.items()
    }
    currencies = {decision.currency for decision in listed if decision.at_stake}
    if len(currencies) == 1:
        rates = dict.fromkeys(currencies, 1.0)  # amounts of one currency need no rate

    def place(decision: Decision) -> tuple[bool, float]:
        rate = rates.get(decision.currency)
        is_known = decision.at_stake == 0 or (decision.at_stake is not None and rate is not None)
        return not is_known, -(decision.at_stake or 0.0) * (rate or 0.0)

    return [_with_rate_named(decision, rates) for decision in sorted(listed, key=place)]


def _with_rate_named(decision: Decision, rates: Mapping[str | None, float]) -> Decision:
    """Return a decision that says why its amount is not compared with others."""
    if not decision.at_stake or decision.currency in rates:
        return decision
    why = f"the broker has sent no exchange rate of {decision.currency}"
    return replace(decision, reason=f"{decision.reason}; {why}")


def _of_strategy(
    kind: Kind, strategy: str, currency: str | None, at_stake: _AtStake, **said: Any
) -> Decision:
    return Decision(
        kind=kind, name=strategy, strategy=strategy, currency=currency,
        at_stake=at_stake.of(Breakdown.STRATEGY, strategy, currency), **said,
    )  # fmt: skip


def _over_limits(figures: Figures, at_stake: _AtStake) -> Iterable[Decision]:
    currencies = {account.account: account.currency for account in figures.book.accounts}
    of_strategies = {sums.name: sums.currency for sums in figures.book.strategies}
    for evaluated in figures.limits:
        limit = evaluated.limit
        if evaluated.outcome is not LimitState.BROKEN:
            continue

        is_of_account = limit.strategy_id is None
        level = Breakdown.ACCOUNT if is_of_account else Breakdown.STRATEGY
        name = str(limit.account if is_of_account else limit.strategy_id)
        currency = limit.currency or (currencies if is_of_account else of_strategies).get(name)
        yield Decision(
            kind=Kind.LIMIT, name=name, strategy=limit.strategy_id, currency=currency,
            at_stake=at_stake.of(level, name, currency), is_urgent=True,
            reason=evaluated.text, step="reduce it, or set another limit",
        )  # fmt: skip


def _broken(strategies: Iterable[Any], at_stake: _AtStake) -> Iterable[Decision]:
    for sums in strategies:
        if sums.differences is not None:
            step = "trade what is missing, or correct the strategy"
            said = {"is_urgent": True, "reason": sums.differences, "step": step}
            yield _of_strategy(Kind.BROKEN, sums.name, sums.currency, at_stake, **said)


def _assignments(rows: Iterable[Row], at_stake: _AtStake) -> Iterable[Decision]:
    by_strategy = grouped(itemgetter("strategy_id", "currency"), rows)
    for (strategy, currency), legs in by_strategy.items():
        reasons = []
        for leg in legs:
            dividend = f", ex-date {leg['ex_date']:%d %b}" if leg["ex_date"] else ""
            side = "above" if leg["extrinsic"] > -0.005 else "below"
            worth = f"worth {abs(leg['extrinsic']):.2f} {side} its exercise"
            reasons.append(f"{leg['position']:+g} {leg['leg']} is {worth}{dividend}")
        step = "close or roll it, or take the delivery"
        said = {"is_urgent": True, "reason": few(reasons, MOST_NAMED, "; "), "step": step}
        yield _of_strategy(Kind.ASSIGNMENT, strategy, currency, at_stake, **said)


def _expiries(rows: Iterable[Row], at_stake: _AtStake) -> Iterable[Decision]:
    expiry_of = itemgetter("strategy_id", "currency", "expires_at")
    for (strategy, currency, moment), legs in grouped(expiry_of, rows).items():
        by_symbol = grouped(itemgetter("symbol"), legs)
        left = [text for symbol in by_symbol if (text := _left_by(by_symbol[symbol], symbol))]
        said = left or ["worthless at this price"]
        lacking = [leg["leg"] for leg in legs if leg["is_uncovered"]]
        open_ended = [leg["leg"] for leg in legs if leg["is_pinned"]]
        if open_ended:
            said.append(f"at the strike: {few(open_ended, MOST_NAMED)}")
        if lacking:
            said.append(f"uncovered: {few(lacking, MOST_NAMED)}")

        step = "let it expire"
        if left:
            step = "close or roll it, or take what it leaves"
        if open_ended or lacking:
            step = "close or roll it before then"
        reason = f"{_count(legs)} at {_moment(moment)}: {few(said, MOST_NAMED, '; ')}"
        yield _of_strategy(
            Kind.EXPIRY, strategy, currency, at_stake,
            is_urgent=bool(lacking), reason=reason, step=step,
        )  # fmt: skip


def _left_by(legs: Sequence[Row], symbol: str) -> str | None:
    """Return what legs on one underlying leave at the present price; None: nothing."""
    units = known_sum(leg["units"] for leg in legs)
    cash = known_sum(leg["cash"] for leg in legs)
    if units is None or cash is None:
        reasons = [leg["reason"] for leg in legs if leg["reason"]]
        return f"{symbol} is not known ({few(dict.fromkeys(reasons), 1)})"
    if not units and not cash:
        return None
    delivered = f"{units:+,.0f} {symbol} and " if units else ""
    return f"{delivered}{cash:+,.0f} {legs[0]['currency']}"


def _count(legs: Sequence[Row]) -> str:
    if len(legs) == 1:
        return "1 leg"
    return f"{len(legs)} legs"


def _moment(at: datetime) -> str:
    return f"{at:%a %d %b %H:%M} New York"


def _threatened(
    strategies: Iterable[Any], at_stake: _AtStake, is_listed: set[tuple[str | None, str | None]]
) -> Iterable[Decision]:
    for sums in strategies:
        if sums.short_in_money and (sums.name, sums.currency) not in is_listed:
            verb = "option is" if sums.short_in_money == 1 else "options are"
            reason = f"{sums.short_in_money} short {verb} in the money"
            said = {"is_urgent": False, "reason": reason, "step": "roll it, close it, or keep it"}
            yield _of_strategy(Kind.THREATENED, sums.name, sums.currency, at_stake, **said)
