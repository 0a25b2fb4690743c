"""What closed: which legs of strategies are gone and why, and what was realised.

What a strategy has realised follows from its postings. What all holdings have, and those in no
strategy, is what the broker states of each close.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, lru_cache
from operator import attrgetter
from typing import Any

import polars as pl
from polars import Boolean, DataFrame, Datetime, Int64, String, col, concat_list, lit, when

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.holding import KEY, grouped
from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.domain.leg import UNATTRIBUTED, ActiveContract
from position_sync_dagster.lake.schema import ACTIVE_STRATEGIES, is_ahead, moment, records_of
from position_sync_dagster.money.as_of import Past
from position_sync_dagster.money.campaigns.campaigns import last_campaigns
from position_sync_dagster.money.campaigns.strategy_money import (
    Remembered,
    StrategyKey,
    StrategyMoney,
    lot_rows,
    money_of_strategies,
)
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.closes import Closure, end_text
from position_sync_dagster.money.past.owned_parts import PostingBook, part_rows
from position_sync_dagster.money.past.postings import Posting
from position_sync_dagster.money.sums import sum_if_known
from position_sync_dagster.money.tables import CLOSURES

# What the broker states of some closes together, of rows of `closures`.
SUMS_OF_CLOSES = {
    "realized_pnl": sum_if_known(col.realized_pnl),
    "closes": pl.len(),
    "closes_without_profit": col.realized_pnl.null_count(),
}

# By contract, in each account: when a holding ended, and how; None: it is not known.
Ends = Mapping[int, Mapping[str, tuple[datetime, str | None]]]


@dataclass(frozen=True, kw_only=True)
class Closes:
    """The closes of all holdings, as the tables have them.

    They are kept in columns: a book of thousands of legs has tens of thousands of them in a year.

    Attributes:
        rows: The causes that count, oldest first: rows of the table `closures`.
        since: When the first change of a quantity was recorded; before it, when recording began.
        ends: How holdings of strategies' legs ended whose last change left nothing.
        legs: The legs of strategies, also those that were removed: rows of `active_strategies`.
        parts: Whose the movements of contracts are that strategies may have.
        details: The details of the contracts of the last campaigns.
        remembered: The money of strategies as it was computed before.
    """

    rows: DataFrame = field(default_factory=CLOSURES.polars.to_frame)
    since: datetime | None = None
    ends: Ends = field(default_factory=dict)
    legs: DataFrame = field(default_factory=ACTIVE_STRATEGIES.polars.to_frame)
    parts: Sequence[Posting] = ()
    details: Mapping[int, ContractDetails] = field(default_factory=dict)
    remembered: Remembered = field(default_factory=dict)

    @cached_property
    def money(self) -> Mapping[StrategyKey, StrategyMoney]:
        """What the movements of each strategy say of its money, in each currency."""
        return money_of_strategies(self.parts, self.details, self.remembered)

    @cached_property
    def lots(self) -> DataFrame:
        """What is left of the movements of strategies, in rows."""
        return lot_rows(self.money)

    @cached_property
    def owned(self) -> DataFrame:
        """The parts, in rows."""
        return part_rows(self.parts)

    @cached_property
    def _closing(self) -> DataFrame:
        """The parts of movements that closed something, with their owners and what states them."""
        return _closing_rows(self.parts)

    @cached_property
    def _with_owners(self) -> DataFrame:
        """The rows, with those that had what closed, and whether its profit is divided."""
        said = col.evidence.fill_null([])
        rows = self.rows.with_row_index("row")
        inferred = concat_list("change_id", col.counter_conid.cast(String))
        evidence = rows.select("row", *KEY, evidence=said.list.concat(inferred)).explode("evidence")
        named = evidence.join(self._closing, on=[*KEY, "evidence"])
        is_divided = (col.owner.n_unique() > 1) | col.is_unclear.any()
        of_closes = named.group_by("row").agg(
            owners=col.owner.unique().sort(), is_divided=is_divided
        )
        rows = rows.join(of_closes, on="row", how="left", maintain_order="left").drop("row")
        rows = rows.with_columns(col.owners.fill_null([UNATTRIBUTED]))
        return rows.with_columns(col.is_divided.fill_null(value=False))

    def realized(
        self, name: str | None, account: str | None, currency: str | None
    ) -> dict[str, Any] | None:
        """Return the realised profit of a group; None where nothing is known of it.

        Args:
            name: A strategy, UNATTRIBUTED, or None for all closes.
            account: None for all accounts; the profit of a strategy is not divided among them.
            currency: None for legs that were never valued.

        Returns:
            `realized_pnl`, None if a part of it is not known; the number of `closes`, and of
            `closes_without_profit`. Nothing before `realized_since` is in it: that is the first
            movement of a strategy, or what it had before it; of others the first change that was
            recorded, else the first session.
        """
        if currency is None:
            return None
        if name is not None and (name, currency) in self.money:
            earned = self.money[name, currency].earned
            return {
                "realized_pnl": earned.realised,
                "closes": earned.closes,
                "closes_without_profit": earned.closes_without_profit,
                "realized_since": earned.since,
            }
        if self.since is None:
            return None
        rows = self.rows
        if name is not None:
            # The parts of a profit that is divided are not known.
            profit_of_one = when(~col.is_divided).then("realized_pnl")
            rows = self._with_owners.with_columns(realized_pnl=profit_of_one)
            rows = rows.filter(col.owners.list.contains(lit(name)))
        rows = rows.filter(currency=currency, account=account or col.account)
        return rows.select(**SUMS_OF_CLOSES).row(0, named=True) | {"realized_since": self.since}

    def owners_since(self, since: datetime) -> DataFrame:
        """Return who had what closed since a time: account, conid and `owners`."""
        by_holding = self._closing.filter(col.at >= moment(since)).group_by(KEY)
        return by_holding.agg(owners=col.owner.unique())

    def end_of(self, leg: ActiveContract) -> str | None:
        """Return how a leg that is not held was closed, such as "expired on 2026-11-20".

        Returns:
            None if it was not held since it was added, or if a cause is not known.
        """
        ends = [
            end
            for account, end in self.ends.get(leg.conid, {}).items()
            if leg.account in (None, account) and end[0] >= leg.added_at
        ]
        if not ends or any(text is None for _seen_at, text in ends):
            return None
        return max(ends)[1]

    def chosen(
        self, strategy: str | None, underlying: str | None, limit: int | None
    ) -> tuple[list[tuple[Closure, list[str]]], int]:
        """Return closes with the strategies that had them, the newest first, and their number.

        Args:
            strategy: The only strategy of interest; None: all.
            underlying: The only underlying of interest, in any case; None: all.
            limit: Maximum number of closes; None for all.
        """
        rows = self._with_owners.reverse()
        if strategy is not None:
            rows = rows.filter(col.owners.list.contains(lit(strategy)))
        if underlying is not None:
            rows = rows.filter(col.symbol.str.to_uppercase() == underlying.upper())

        shown = rows[:limit]
        names_of = [[name for name in owners if name != UNATTRIBUTED] for owners in shown["owners"]]
        return [*zip(records_of(Closure, shown), names_of, strict=True)], rows.height


NO_CLOSES = Closes()


def read_closes(lake: MoneyLake, past: Past | None = None) -> Closes:
    """Read the closes as they are known now, or as they were at a moment; blocks.

    Args:
        lake: The tables.
        past: The moment.

    Raises:
        LakeError: A table cannot be used.
    """
    until = None if past is None else past.at
    changes = _changes(lake, until)
    legs = lake.registry.sync.history()
    book = PostingBook(lake, until)
    since: Any = changes["seen_at"].min() or _first_session(lake, past)
    parts = book.postings(book.of_strategies)
    last = last_campaigns(parts).values()
    return Closes(
        rows=book.closures,
        since=since,
        ends=_ends(changes, book.closures, legs),
        legs=legs,
        parts=parts,
        details=lake.contracts.get({conid for campaign in last for conid in campaign.conids}),
        remembered=_remembered(lake) if past is None else {},
    )


def read_ends(lake: MoneyLake) -> Closes:
    """Read how holdings ended, without what their closes earned; blocks.

    Raises:
        LakeError: A table cannot be used.
    """
    closures = lake.closures.current_rows()
    return Closes(ends=_ends(_changes(lake), closures, lake.registry.sync.history()))


def _changes(lake: MoneyLake, until: datetime | None = None) -> DataFrame:
    """Return the changes of quantities, the oldest first; of a past moment those until then."""
    changes = lake.position_changes.rows(columns=["change_id", *KEY, "after", "seen_at"])
    # One that a clock ahead dated came before those that have been written since.
    changes = changes.sort(~is_ahead("seen_at", utc_now()), "seen_at")
    if until is None:
        return changes
    return changes.filter(col.seen_at <= moment(until))


@lru_cache(maxsize=2)
def _remembered(_lake: MoneyLake) -> Remembered:
    """Return the money of strategies as it was computed last."""
    return {}


def _first_session(lake: MoneyLake, past: Past | None) -> datetime | None:
    """Return when a login was first owned: from then on each change is recorded."""
    started = (session.started_at for session in lake.sessions.history(limit=None))
    return min((at for at in started if past is None or at <= past.at), default=None)


_CLOSING: dict[str, Any] = {
    "account": String, "conid": Int64, "at": Datetime("us", "UTC"), "evidence": String,
    "owner": String, "is_unclear": Boolean,
}  # fmt: skip


def _closing_rows(parts: Iterable[Posting]) -> DataFrame:
    """Return to whom the parts of movements belong that closed something."""
    rows = []
    for part in parts:
        movement = part.movement
        if part.quantity and not part.opens:
            # Of what an option delivered before its statement, the change is that of the option.
            names = (movement.execution_id, movement.event_id, movement.through, movement.change_id)
            name = next(filter(None, names), None)
            rows.append((*part.key, part.at, name and f"{name}", part.owner, part.is_owner_unclear))
    return DataFrame(rows, _CLOSING, orient="row")


def _ends(changes: DataFrame, rows: DataFrame, legs: DataFrame) -> Ends:
    """Return how the holdings of legs ended whose last change left nothing."""
    closed = changes.group_by(KEY, maintain_order=True).last()
    closed = closed.filter(after=0).join(legs, on="conid", how="semi")
    closures = records_of(Closure, rows.join(closed, on="change_id", how="semi"))
    closures_of = grouped(attrgetter("change_id"), closures)

    ends: defaultdict[int, dict[str, tuple[datetime, str | None]]] = defaultdict(dict)
    closed = closed.select(*KEY, "change_id", "seen_at")
    for account, conid, change_id, seen_at in closed.iter_rows():
        ends[conid][account] = (seen_at, end_text(closures_of[change_id]))
    return ends
