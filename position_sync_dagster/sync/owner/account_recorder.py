"""Write changes of net liquidation, cash, margin and P&L to `account_values`."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

from position_sync_dagster.domain.account_summary import AccountSummary
from position_sync_dagster.domain.valuation import Provenance
from position_sync_dagster.errors import LakeError
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.lake.account_values import AccountValuesTable
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.outage_log import OutageLog
from position_sync_dagster.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(eq=False, repr=False)
class AccountRecorder:
    """Writes a row for each account whose amounts changed, in one commit.

    Net liquidation and profit change with each tick, so there is at most one commit per
    `account_values_interval_s`, with the newest amounts. It runs in a task, and no flush waits for
    it.

    After a commit that failed, the table is read again, and what it lacks is due again.

    Args:
        table: The table; with None, nothing is subscribed and nothing is written.
    """

    table: AccountValuesTable | None
    _: KW_ONLY
    settings: Settings
    monotonic: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._interval_s = self.settings.account_values_interval_s
        self._written: dict[str, AccountSummary] | None = None
        self._next_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._outage = OutageLog(logger)

    def flush(self, connection: GatewayConnection, provenance: Provenance) -> None:
        """Start to write the changes if that is due, and keep the subscriptions alive."""
        table = self.table
        if table is None:
            return
        connection.summaries.subscribe()
        if self._task is not None and not self._task.done():
            return
        if self.monotonic() < self._next_at:
            return
        if self._written is None:
            self._begin(self._restore(table))
            return
        rows = changed(connection.summaries.current(), self._written)
        if rows:
            self._begin(self._write(table, [_owned(row, provenance) for row in rows]))
            self._next_at = self.monotonic() + self._interval_s

    async def close(self, *, timeout_s: float) -> None:
        """Wait until the rows that are being written are in the table."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=timeout_s)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._task = asyncio.create_task(self._run(work))

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
            self._outage.clear()
        except LakeError as error:
            self._written = None
            self._next_at = self.monotonic() + self._interval_s
            self._outage.report(f"account_values: {error}")

    async def _restore(self, table: AccountValuesTable) -> None:
        self._written = {row.account: row for row in await offload(table.latest_summaries)}

    async def _write(self, table: AccountValuesTable, rows: list[AccountSummary]) -> None:
        await offload(table.append, rows)
        written = self._written or {}
        self._written = written | {row.account: row for row in rows}


def changed(
    current: Iterable[AccountSummary], written: dict[str, AccountSummary]
) -> list[AccountSummary]:
    """Return the accounts whose amounts differ from their last row, by a cent or more.

    >>> from datetime import UTC, datetime
    >>> row = AccountSummary(account="U1", cash=5.0, timestamp=datetime(2027, 1, 4, tzinfo=UTC))
    >>> changed([row], {"U1": row}), changed([row], {}) == [row]
    ([], True)
    """
    return [
        row
        for row in current
        if (before := written.get(row.account)) is None or before.amounts != row.amounts
    ]


def _owned(row: AccountSummary, provenance: Provenance) -> AccountSummary:
    return replace(
        row,
        session_id=provenance.session_id,
        fencing_token=provenance.fencing_token,
        run_id=provenance.run_id,
    )
