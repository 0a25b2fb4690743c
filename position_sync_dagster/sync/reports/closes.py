"""What closed: which legs of strategies are gone and why, and the realised profit of closes."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

import polars as pl

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.closures import Closure, HoldingEnd, current_closures
from position_sync_dagster.domain.leg import UNATTRIBUTED, ActiveContract
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.schema.codec import moment
from position_sync_dagster.sync.reports.past import Past

TOTAL = "total"

Group = tuple[str, str | None, str]
"""A strategy, UNATTRIBUTED or TOTAL; an account, or None for all of them; and the currency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Realized:
    """The realised profit of closes in one currency.

    Attributes:
        profit: None if that of one of the closes is not known.
        closes, unknown: The number of closes, and of those without a known profit.
        since: Earlier closes are not in it: the first change that was recorded, or the first leg of
            the strategy.
    """

    profit: float | None
    closes: int
    unknown: int
    since: datetime


@dataclass(frozen=True, kw_only=True)
class Closes:
    """The closes of all holdings, as the tables have them.

    Attributes:
        current: The causes that count, oldest first.
        since: When the first change of a quantity was recorded; None before it.
        ends: The holdings of which the last change left nothing.
        legs: The legs of strategies, also those that were removed.
    """

    current: tuple[Closure, ...] = ()
    since: datetime | None = None
    ends: Mapping[Key, HoldingEnd] = field(default_factory=dict)
    legs: tuple[ActiveContract, ...] = ()

    @cached_property
    def _legs_of(self) -> Mapping[int, list[ActiveContract]]:
        found: defaultdict[int, list[ActiveContract]] = defaultdict(list)
        for leg in self.legs:
            found[leg.conid].append(leg)
        return found

    @cached_property
    def _ends_of(self) -> Mapping[int, list[tuple[str, HoldingEnd]]]:
        found: defaultdict[int, list[tuple[str, HoldingEnd]]] = defaultdict(list)
        for (account, conid), end in self.ends.items():
            found[conid].append((account, end))
        return found

    @cached_property
    def _first_legs(self) -> Mapping[str, datetime]:
        found: dict[str, datetime] = {}
        for leg in self.legs:
            found[leg.strategy_id] = min(leg.added_at, found.get(leg.strategy_id, leg.added_at))
        return found

    def strategies_of(self, one: Closure) -> list[str]:
        """Return the strategies that had what closed, sorted by name."""
        return sorted(
            {
                leg.strategy_id
                for leg in self._legs_of.get(one.conid, ())
                if leg.account in (None, one.account)
                and leg.added_at <= one.closed_at
                and (leg.removed_at is None or one.closed_at <= leg.removed_at)
            }
        )

    @cached_property
    def _profits(self) -> Mapping[Group, list[float | None]]:
        found: defaultdict[Group, list[float | None]] = defaultdict(list)
        for one in self.current:
            names = self.strategies_of(one)
            for name in names:
                # What several strategies had is not divided: the part of each is not known.
                profit = one.realized_pnl if len(names) == 1 else None
                found[name, None, one.currency].append(profit)
            for account in {None, one.account}:
                if not names:
                    found[UNATTRIBUTED, account, one.currency].append(one.realized_pnl)
                found[TOTAL, account, one.currency].append(one.realized_pnl)
        return found

    @property
    def groups(self) -> list[Group]:
        """The strategies, and UNATTRIBUTED of all accounts, of which something closed."""
        return sorted(
            (name, account, currency)
            for name, account, currency in self._profits
            if name != TOTAL and account is None
        )

    def realized(self, name: str, account: str | None, currency: str | None) -> Realized | None:
        """Return the realised profit of a group; None where no change has been recorded yet.

        Args:
            name: A strategy, UNATTRIBUTED or TOTAL.
            account: None for all accounts.
            currency: None of legs that were never valued.
        """
        if self.since is None or currency is None:
            return None
        profits = self._profits.get((name, account, currency), [])
        known = [one for one in profits if one is not None]
        first = self._first_legs.get(name)
        return Realized(
            profit=sum(known) if len(known) == len(profits) else None,
            closes=len(profits),
            unknown=len(profits) - len(known),
            since=self.since if first is None else max(self.since, first),
        )

    def end_of(self, leg: ActiveContract) -> str | None:
        """Return how a leg that is not held was closed, such as "expired on 2026-11-20".

        Returns:
            None if it was not held since it was added, or if a cause is not known.
        """
        ends = [
            end
            for account, end in self._ends_of.get(leg.conid, ())
            if leg.account in (None, account) and end.seen_at >= leg.added_at
        ]
        if not ends or any(end.text is None for end in ends):
            return None
        return max(ends, key=lambda end: end.seen_at).text

    def chosen(self, strategy: str | None, underlying: str | None) -> list[Closure]:
        """Return the closes of a strategy and on an underlying, the newest first; None: of all."""
        return [
            one
            for one in reversed(self.current)
            if underlying is None or one.symbol.upper() == underlying.upper()
            if strategy is None or strategy in self.strategies_of(one)
        ]


NO_CLOSES = Closes()


def read_closes(lake: Lake, past: Past | None = None) -> Closes:
    """Read the closes as they are known now, or as they were at a moment; blocks.

    Raises:
        LakeError: A table cannot be used.
    """
    names = ["change_id", "account", "conid", "after", "seen_at"]
    changes = lake.position_changes.table.rows(None, names)
    if past is not None:
        changes = changes.filter(pl.col("seen_at") <= moment(past.at))
    if changes.is_empty():
        return NO_CLOSES
    causes = [
        one
        for one in lake.closures.records()
        if past is None
        or (one.closed_at if past.as_known_now or one.judged_at is None else one.judged_at)
        <= past.at
    ]
    current = tuple(current_closures(causes))
    of_change: defaultdict[str, list[Closure]] = defaultdict(list)
    for one in current:
        of_change[one.change_id].append(one)
    last = changes.sort("seen_at").group_by("account", "conid", maintain_order=True).last()
    return Closes(
        current=current,
        since=changes.get_column("seen_at").min(),  # type: ignore[arg-type]
        ends={
            (row["account"], row["conid"]): HoldingEnd(
                seen_at=row["seen_at"], causes=tuple(of_change[row["change_id"]])
            )
            for row in last.filter(pl.col("after") == 0).iter_rows(named=True)
        },
        legs=tuple(lake.registry.sync.history()),
    )


class ClosesReader:
    """Reads the closes repeatedly, and only when a cause or a leg was added or changed."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._versions: tuple[int, ...] = ()
        self._found = NO_CLOSES

    def read(self) -> Closes:
        """Return the closes of now; blocks.

        Raises:
            LakeError: A table cannot be used.
        """
        lake = self._lake
        # Seconds after a change of a holding that closed, its cause is in `closures`.
        versions = (lake.closures.table.version(), lake.registry.version)
        if versions != self._versions:
            self._found, self._versions = read_closes(lake), versions
        return self._found
