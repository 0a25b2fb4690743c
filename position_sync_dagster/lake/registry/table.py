"""The table of the legs of active strategies, for asyncio."""

from pathlib import Path
from typing import Unpack

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.leg import ActiveContract, UnresolvedLeg
from position_sync_dagster.lake.registry.operations import SyncRegistry
from position_sync_dagster.lake.schema.tables import ACTIVE_STRATEGIES
from position_sync_dagster.lake.storage.table import Table, TableOptions
from position_sync_dagster.lake.storage.threads import offloaded


class StrategyRegistry:
    """The legs of active strategies, shared by any number of processes.

    `is_active` answers from memory. `refresh` reads the changes of other processes; it takes less
    than a millisecond when there are none. Ended memberships are stored apart and never read again.

    Args:
        delta_lake_path: Folder or `s3://` URI of the table.

    Attributes:
        sync: The same registry as plain, blocking calls.

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
        self.table = Table(delta_lake_path, ACTIVE_STRATEGIES, **options)
        self.sync = SyncRegistry(self.table, clock)

    @property
    def version(self) -> int:
        """The version of the table that was read last; -1 before the first read."""
        return self.sync.version

    @property
    def legs(self) -> tuple[ActiveContract, ...]:
        """The active legs whose contract is known, as last read, from memory."""
        return self.sync.legs

    @property
    def unresolved(self) -> tuple[UnresolvedLeg, ...]:
        """The active legs whose contract is still to be found, as last read, from memory."""
        return self.sync.unresolved

    initialize = offloaded(SyncRegistry.initialize)

    def is_active(self, conid: int, account: str | None = None) -> bool:
        """Return, from memory, whether a strategy has the leg; without an account, in any."""
        return self.sync.is_active(conid, account)

    add_active = offloaded(SyncRegistry.add_active)
    add_many = offloaded(SyncRegistry.add_many)
    remove_active = offloaded(SyncRegistry.remove_active)
    replace_all = offloaded(SyncRegistry.replace_all)
    get_all_active = offloaded(SyncRegistry.get_all_active)
    get_unresolved = offloaded(SyncRegistry.get_unresolved)
    settle = offloaded(SyncRegistry.settle)
    refresh = offloaded(SyncRegistry.refresh)
