"""The book before and after trades that somebody thinks of; nothing is stored, and none is sent.

The book after the trades is summed as ever. What the trades give or cost against the mark is a part
of the profit after them, and what closing realises a part of the payoffs.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter, itemgetter
from typing import Any

from polars import col

from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.domain.instrument import parse_expiry
from position_sync_dagster.domain.leg import UNATTRIBUTED
from position_sync_dagster.money.past.movements import known_sum
from position_sync_dagster.money.reports import exposure
from position_sync_dagster.money.reports.book import Book
from position_sync_dagster.money.reports.figures import known_limits
from position_sync_dagster.money.reports.money_sums import counts_behind
from position_sync_dagster.money.risk.deliveries import uncovered_calls
from position_sync_dagster.money.risk.hypothetical_book import HypotheticalBook
from position_sync_dagster.money.risk.payoff import Payoff, payoffs
from position_sync_dagster.money.risk.priced_legs import NewRow, PricedLegs, Row
from position_sync_dagster.money.risk.proposed_trade import (
    ProposedTrade,
    ProposedTradeError,
    parse_trade,
)
from position_sync_dagster.money.risk.recorded_risk import leg_notes
from position_sync_dagster.money.risk.scenario_file import Point
from position_sync_dagster.money.risk.scenarios import GROUPS, Breakdown, group_of, scenario_rows
from position_sync_dagster.money.strategies.limit_readings import evaluate
from position_sync_dagster.money.strategies.limits import OF_ACCOUNTS, OF_STRATEGIES, LimitState
from position_sync_dagster.settings import Settings

# The moves of the prices in percent that are shown if none are named.
USUAL_MOVES = (-10.0, -5.0, -2.0, 0.0, 2.0, 5.0, 10.0)

# The sums of a group that are shown before and after, besides value and profit.
CHANGED_GREEKS = ("dollar_delta", "delta", "gamma_1pct", "theta", "vega")


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What somebody thinks of doing.

    Attributes:
        trades: Single trades.
        closed: Strategies that are closed at their present prices.
        rolled: Strategies whose nearest options are rolled, with the new expiry.
    """

    trades: Sequence[ProposedTrade] = ()
    closed: Sequence[str] = ()
    rolled: Row = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.trades or self.closed or self.rolled)


# What names a row of a level: strategy, name, account, currency and conid.
_Group = tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """The book before and after some trades.

    Attributes:
        notes: What priced each trade.
    """

    before: Book
    before_legs: PricedLegs
    after: Book
    after_legs: PricedLegs
    settings: Settings
    notes: Sequence[str]

    def rows(self, points: Sequence[Point], level: Breakdown) -> list[NewRow]:
        """Return the rows of `scenario_rows`, each with what it is `before` and `after`.

        What a row has of one side (`_SHOWN`) is that after the trades. A group that is not there
        before or after has null; one that the trades closed has what they brought.
        """
        before = self._sides(self.before, self.before_legs, points, level)
        after = self._sides(self.after, self.after_legs, points, level)
        settled_of = grouped(
            lambda settled: _GROUP_OF(group_of(level, settled)), self.after_legs.settled.to_dicts()
        )

        rows = []
        for group, number in sorted({*before, *after}, key=str):
            row_before, side_before = before.get((group, number), (None, None))
            row_after, side_after = after.get((group, number), (None, None))
            if group in settled_of:
                side_after = _with_settled(side_after or _NOTHING_HELD, settled_of[group])

            row = row_after or row_before or {}
            shown = {name: side_after and side_after[name] for name in _SHOWN}
            rows.append(row | shown | {"before": side_before, "after": side_after})
        return rows

    def _sides(
        self, book: Book, legs: PricedLegs, points: Sequence[Point], level: Breakdown
    ) -> dict[tuple[_Group, int], tuple[NewRow, NewRow]]:
        """Return rows of scenarios, and what each has of a side, by group and number of a point."""
        more = self._more_by_group(book, legs, level)
        sides = {}
        for group, rows in grouped(_GROUP_OF, scenario_rows(legs, points, level)).items():
            of_group = _NOTHING_SETTLED | more.get(group, {})
            for number, row in enumerate(rows):
                shown = {name: row[name] for name in _SHOWN}
                sides[group, number] = (row, shown | of_group)
        return sides

    def _more_by_group(
        self, book: Book, legs: PricedLegs, level: Breakdown
    ) -> dict[_Group, NewRow]:
        """Return greeks, payoffs, uncovered calls and broken limits of strategies and accounts."""
        if level not in (Breakdown.STRATEGY, Breakdown.ACCOUNT):
            return {}

        at_expiry: list[Payoff] = []
        if level is Breakdown.STRATEGY:
            of_strategies = legs.where(col.strategy_id != UNATTRIBUTED)
            at_expiry = payoffs(of_strategies, leg_notes(self.before))

        # What the broker alone knows of an account, and what a campaign has earned, is not known
        # after a trade.
        no_part = OF_ACCOUNTS | OF_STRATEGIES
        computed = [limit for limit in known_limits(self.settings) if limit.measure not in no_part]
        broken = []
        for evaluated in evaluate(computed, book):
            limit = evaluated.limit
            if evaluated.outcome is LimitState.BROKEN:
                broken.append((limit.account or limit.strategy_id, evaluated.text))

        payoffs_of = grouped(_STRATEGY_OF, at_expiry)
        uncovered = uncovered_calls(legs)
        more = {}
        for sums in exposure.summed(legs.parts, GROUPS[level]).iter_rows(named=True):
            group = group_of(level, sums)
            subjects = (group["strategy"], group["account"])
            strategy, account = subjects

            uncovered_here = []
            for call in uncovered:
                is_of_strategy = strategy in (None, call["strategy_id"])
                if is_of_strategy and call["account"] == account:
                    uncovered_here.append(call)

            of_group = {name: sums[name] for name in CHANGED_GREEKS}
            counts = counts_behind(sums, {name: name for name in CHANGED_GREEKS})
            of_group |= {"greeks_known": counts["known"], "greeks_of": counts["of"]}
            of_group["payoffs"] = [payoff.row for payoff in payoffs_of[subjects]]
            of_group["uncovered"] = uncovered_here
            of_group["limits_broken"] = [text for subject, text in broken if subject in subjects]
            more[_GROUP_OF(group)] = of_group
        return more


# What a row has of each side.
_SHOWN = ("value", "profit", "left_out", "known", "of")

# What trades brought a side that they did not touch, and a side of which they left nothing.
_NOTHING_SETTLED = {"realised": 0.0, "against_mark": 0.0}
_NOTHING_HELD = {"value": 0.0, "profit": 0.0, "left_out": 0, "known": 0, "of": 0}


def _with_settled(side: NewRow, settled: Sequence[Row]) -> NewRow:
    """Return a side with what trades brought; what has no mark is left out of the profit."""
    against_mark = [row["against_mark"] for row in settled]
    known = [amount for amount in against_mark if amount is not None]
    with_settled = dict(side)
    if side["profit"] is not None:
        with_settled["profit"] += sum(known)
    with_settled["left_out"] += len(against_mark) - len(known)
    with_settled["realised"] = known_sum(row["realised"] for row in settled)
    with_settled["against_mark"] = known_sum(against_mark)
    return with_settled


_GROUP_OF = itemgetter("strategy", "name", "account", "currency", "conid")
_STRATEGY_OF = attrgetter("strategy", "account")


def what_if_of(book: Book, legs: PricedLegs, settings: Settings, changes: Changes) -> WhatIf:
    """Return a book before and after trades.

    Raises:
        ProposedTradeError: A trade names nothing that can be priced.
        UnknownNameError: There is no such account, or no strategy that is closed or rolled.
    """
    for trade in changes.trades:
        book.names.require(account=trade.account)
    for strategy in (*changes.closed, *changes.rolled):
        book.names.require(strategy=strategy)

    after = HypotheticalBook(book=book, legs=legs)
    after.apply_all(changes.trades)
    for strategy in changes.closed:
        after.apply_all(after.closing_trades(strategy))
    for strategy, expiry in changes.rolled.items():
        after.apply_all(after.rolling_trades(strategy, expiry))

    after_book, after_legs = after.result()
    return WhatIf(
        before=book,
        before_legs=legs,
        after=after_book,
        after_legs=after_legs,
        settings=settings,
        notes=after.notes,
    )


def rows_of_choice(
    rows: Sequence[NewRow], strategy: str | None, account: str | None
) -> list[NewRow]:
    """Return the rows of an account, and those of a strategy where rows are of strategies."""
    of_account = [row for row in rows if account in (None, row["account"])]
    if strategy is None:
        return of_account
    return [row for row in of_account if row["strategy"] in (None, strategy)]


def read_changes(
    trades: Iterable[str],
    closed: Iterable[str],
    rolled: Iterable[tuple[str, str]],
    account: str | None = None,
    strategy: str | None = None,
) -> Changes:
    """Read what somebody thinks of doing, as texts.

    Args:
        trades: Trades as `parse_trade` reads them.
        closed: Names of strategies.
        rolled: Names of strategies and new expiries.
        account: The account of the trades; None: the one that holds most of each underlying.
        strategy: The strategy that gets what they open; None: none.

    Raises:
        ProposedTradeError: A text is no trade, or a strategy is closed or rolled twice.
        InvalidLegError: A part of a trade, or an expiry, cannot be read.
    """  # fmt: skip
    parsed = [replace(parse_trade(text), account=account, strategy=strategy) for text in trades]

    expiries = [(name, parse_expiry(expiry)) for name, expiry in rolled]
    names = Counter([*closed, *map(itemgetter(0), expiries)])
    for name, count in names.items():
        if count > 1:
            raise ProposedTradeError(
                f"The strategy {name!r} is closed or rolled {count} times.",
                remedy="Name it once: a strategy is closed once.",
            )
    return Changes(trades=parsed, closed=tuple(closed), rolled=dict(expiries))
