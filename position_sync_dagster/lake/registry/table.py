"""Who is active: the legs of the strategies, in memory and in their table."""

from collections.abc import Callable, Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import TypeVar, Unpack

import polars as pl

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.leg import ActiveContract, make_leg
from position_sync_dagster.lake.registry.legs import (
    LegIndex,
    chosen_leg,
    distinct_legs,
    refuse_two_whole_holders,
    same_leg,
)
from position_sync_dagster.lake.storage.codec import leg_rows, legs_of
from position_sync_dagster.lake.storage.lifecycle_table import Change, LifecycleTable, Snapshot
from position_sync_dagster.lake.storage.partitions import bucket_column
from position_sync_dagster.lake.storage.schemas import ACTIVE_STRATEGIES
from position_sync_dagster.lake.storage.table import Table, TableOptions
from position_sync_dagster.lake.storage.threads import offloaded

T = TypeVar("T")
_Legs = Mapping[tuple[str, str | None, int], ActiveContract]

REMOVED = "removed"
"""The partition of stays that are over."""


class SyncRegistry:
    """The registry as plain calls, for callers that may block; see `StrategyRegistry`."""

    def __init__(self, table: Table, clock: Clock) -> None:
        self._stays = LifecycleTable(table, clock)
        self._clock = clock
        self._index = LegIndex()
        self._version = -1
        self._rows: pl.DataFrame | None = None

    @property
    def version(self) -> int:
        """Give the table's version that was read last; -1 before the first read."""
        return self._version

    @property
    def legs(self) -> tuple[ActiveContract, ...]:
        """Give the active legs as read last."""
        return self._index.legs

    def initialize(self) -> None:
        """Create the table, or check and migrate it, and read the active legs."""
        self._stays.initialize()
        self.refresh()

    def is_active(self, conid: int, account: str | None = None) -> bool:
        """Tell, from memory, whether a strategy holds the leg."""
        return self._index.is_active(conid, account)

    def refresh(self) -> bool:
        """Read what other processes changed; tell whether the active legs differ now."""
        view = self._stays.snapshot()
        if view.version == self._version and view.live is self._rows:
            return False
        before = self._index.legs
        self._load(view)
        return before != self._index.legs

    def get_all_active(self) -> list[ActiveContract]:
        """Give the active legs, by conid, account and strategy."""
        self.refresh()
        return list(self._index.legs)

    def add_active(
        self,
        conid: int,
        symbol: str,
        right: str,
        strike: float,
        expiry: str | date,
        strategy_id: int | str,
        *,
        quantity: float | None = None,
        account: str | None = None,
        priority: int = 1,
    ) -> ActiveContract:
        """Begin a leg's stay in a strategy; the same leg again changes nothing.

        A leg with other values ends the former stay and begins a new one. Strategies share a leg
        by quantities: at most one may hold the whole (`quantity` None) of a conid in an account.

        Args:
            right: CALL or PUT; C and P are read too.
            expiry: As IB writes it, "20260220", or a date.
            quantity: Signed contracts of this strategy; None for the whole holding.
            account: None for the leg in any account.

        Raises:
            InvalidLegError: A field does not parse, or two strategies would hold the whole.
        """
        leg = make_leg(
            conid=conid,
            symbol=symbol,
            right=right,
            strike=strike,
            expiry=expiry,
            strategy_id=strategy_id,
            added_at=self._clock(),
            quantity=quantity,
            account=account,
            priority=priority,
        )
        return self.add_many([leg])[0]

    def add_many(self, legs: Iterable[ActiveContract]) -> list[ActiveContract]:
        """Begin many stays in one commit; give the active stay of each leg."""
        asked = distinct_legs(legs)

        def step(view: Snapshot) -> Change[list[ActiveContract]]:
            before = {leg.key: leg for leg in legs_of(view.live)}
            after = before | {
                leg.key: before[leg.key] if same_leg(before.get(leg.key), leg) else leg
                for leg in asked
            }
            result = [after[leg.key] for leg in asked]
            return self._replace(before, after, result)

        return self._change(step, "add")

    def remove_active(
        self, conid: int, strategy_id: int | str | None = None, account: str | None = None
    ) -> ActiveContract:
        """End a leg's stay and give it; its row is kept, with the time of removal.

        Raises:
            UnknownLegError: Nobody holds the leg.
            AmbiguousRemovalError: Several stays match; the message names them.
        """

        def step(view: Snapshot) -> Change[ActiveContract]:
            before = {leg.key: leg for leg in legs_of(view.live)}
            leg = chosen_leg(before.values(), conid, strategy_id, account)
            after = {key: kept for key, kept in before.items() if key != leg.key}
            return self._replace(before, after, leg.ended(self._clock()))

        return self._change(step, "remove")

    def replace_all(self, legs: Iterable[ActiveContract]) -> tuple[int, int]:
        """Make the active legs equal to these, in one commit; give how many came and went."""
        asked = distinct_legs(legs)

        def step(view: Snapshot) -> Change[tuple[int, int]]:
            before = {leg.key: leg for leg in legs_of(view.live)}
            after = {
                leg.key: before[leg.key] if same_leg(before.get(leg.key), leg) else leg
                for leg in asked
            }
            added = sum(before.get(key) != leg for key, leg in after.items())
            removed = sum(after.get(key) != leg for key, leg in before.items())
            return self._replace(before, after, (added, removed))

        return self._change(step, "replace")

    def _replace(self, before: _Legs, after: _Legs, result: T) -> Change[T]:
        refuse_two_whole_holders(after.values())
        if before == after:
            return Change(result)
        now = self._clock()
        over = [leg.ended(now) for key, leg in before.items() if after.get(key) != leg]
        ended = leg_rows(over).with_columns(bucket_column(REMOVED))
        return Change(result, leg_rows(after.values()), ended)

    def _change(self, step: Callable[[Snapshot], Change[T]], action: str) -> T:
        result = self._stays.change(step, {"action": action})
        self.refresh()
        return result

    def _load(self, view: Snapshot) -> None:
        # One assignment: `is_active` is called from other threads without a lock.
        self._index = LegIndex(legs_of(view.live))
        self._version, self._rows = view.version, view.live


class StrategyRegistry:
    """The legs of active strategies, shared by any number of processes.

    `is_active` answers from memory; `refresh` brings what others changed and costs under a
    millisecond while nothing did. Stays that are over lie apart and are never read again.

    Args:
        delta_lake_path: Folder or `s3://` URI of the table.

    >>> registry = StrategyRegistry("data/lake/active_strategies")  # doctest: +SKIP
    >>> await registry.initialize()                                 # doctest: +SKIP
    >>> await registry.add_active(conid=700001, symbol="SPY", right="C", strike=450.0,
    ...                           expiry="20260220", strategy_id="ic-1")  # doctest: +SKIP
    >>> registry.is_active(700001)                                  # doctest: +SKIP
    True
    """

    def __init__(
        self,
        delta_lake_path: str | Path = "data/lake/active_strategies",
        *,
        clock: Clock = utc_now,
        **options: Unpack[TableOptions],
    ) -> None:
        self.table = Table(
            delta_lake_path,
            ACTIVE_STRATEGIES,
            **options,
        )
        self.sync = SyncRegistry(self.table, clock)

    @property
    def version(self) -> int:
        """Give the table's version that was read last; -1 before the first read."""
        return self.sync.version

    @property
    def legs(self) -> tuple[ActiveContract, ...]:
        """Give the active legs as read last, from memory."""
        return self.sync.legs

    initialize = offloaded(SyncRegistry.initialize)

    def is_active(self, conid: int, account: str | None = None) -> bool:
        """Tell, from memory, whether a strategy holds the leg; without an account, in any."""
        return self.sync.is_active(conid, account)

    add_active = offloaded(SyncRegistry.add_active)
    add_many = offloaded(SyncRegistry.add_many)
    remove_active = offloaded(SyncRegistry.remove_active)
    replace_all = offloaded(SyncRegistry.replace_all)
    get_all_active = offloaded(SyncRegistry.get_all_active)
    refresh = offloaded(SyncRegistry.refresh)
