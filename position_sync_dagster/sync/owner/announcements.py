"""The state of each holding that was last written as a row or queued as a request."""

from collections.abc import Iterable
from datetime import datetime

import polars as pl

from position_sync_dagster.domain.broker_position import BrokerPosition, Key
from position_sync_dagster.lake.updates.table import PositionUpdatesTable


class Announcements:
    """Remembers what was last announced of each holding: by a streamed row, or by a request.

    The stream and the queue share it. So a close has exactly one zero row: the first of the two
    writes it, and the other one leaves it out.

    Args:
        updates: The ledger. It shows at the start which closes have their zero row. Without it,
            every recent close is announced again.
    """

    def __init__(self, updates: PositionUpdatesTable | None = None) -> None:
        self._updates = updates
        self._announced: dict[Key, tuple[float, bool]] = {}
        self._unwritten_closes: set[Key] = set()
        self._open_at_start: frozenset[Key] = frozenset()

    async def restore(self, holdings: Iterable[BrokerPosition], *, since: datetime) -> None:
        """Continue from the holdings that the last owner of the login wrote.

        `broker_positions` is written before the rows. So the zero row of a close may be missing
        if a process died in between. The next owner then writes it.

        Args:
            since: The ledger is searched for zero rows from this time on.
        """
        holdings = list(holdings)
        closed, self._open_at_start = await self._newest_rows(since)
        self._announced = {
            holding.key: _fingerprint(holding)
            for holding in holdings
            if holding.position or holding.key in closed
        }
        self._unwritten_closes = {h.key for h in holdings} - self._announced.keys()

    async def _newest_rows(self, since: datetime) -> tuple[frozenset[Key], frozenset[Key]]:
        """Return the holdings whose newest row says that they are closed, and the open ones."""
        if self._updates is None:
            return frozenset(), frozenset()
        rows = await self._updates.latest_since(since)
        return _keys(rows, pl.col("position") == 0), _keys(rows, pl.col("position") != 0)

    async def left_open(self, closes: Iterable[BrokerPosition]) -> frozenset[Key]:
        """Return which of these closed holdings are still open by their newest row of the ledger.

        The whole ledger is searched only for what closed since the start: once for each, if the
        close is recorded afterwards.
        """
        keys = {holding.key for holding in closes}
        new = keys - self._unwritten_closes
        found = (keys - new) & self._open_at_start
        if self._updates is None or not new:
            return frozenset(found)
        open_rows = _keys(await self._updates.latest(), pl.col("position") != 0)
        return frozenset(found | (new & open_rows))

    def record(self, holdings: Iterable[BrokerPosition]) -> None:
        """Record that a row was written, or a request queued, for these states of holdings."""
        for holding in holdings:
            self._announced[holding.key] = _fingerprint(holding)
            self._unwritten_closes.discard(holding.key)

    def is_current(self, holding: BrokerPosition) -> bool:
        """Return whether nothing of this holding changed that needs a new row at once."""
        return self._announced.get(holding.key) == _fingerprint(holding)

    def has_zero_row(self, key: Key) -> bool:
        """Return whether the close of a holding was announced already."""
        announced = self._announced.get(key)
        return announced is not None and announced[0] == 0

    def lacks_zero_row(self, holding: BrokerPosition) -> bool:
        """Return whether a holding is closed while it was last announced as open."""
        if holding.position:
            return False
        if holding.key in self._unwritten_closes:
            return True
        announced = self._announced.get(holding.key)
        return announced is not None and announced[0] != 0


def _keys(rows: pl.DataFrame, condition: pl.Expr) -> frozenset[Key]:
    """Return the holdings of the rows that meet a condition."""
    return frozenset(rows.filter(condition).select("account", "conid").iter_rows())


def _fingerprint(holding: BrokerPosition) -> tuple[float, bool]:
    """Return what needs a new row at once when it changes.

    It is the quantity, and whether the value is known.
    """
    return (holding.position, holding.position == 0 or holding.market_value is not None)
