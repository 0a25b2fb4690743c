"""A mailbox per handler: the newest value of each position, delivered in its own time."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from position_sync_dagster.domain.routing import Key
from position_sync_dagster.domain.update import PositionUpdate, PositionUpdateHandler
from position_sync_dagster.errors import (
    ForeignTableError,
    LeaseLostError,
    PositionSyncError,
    TradingModeError,
)

logger = logging.getLogger(__name__)

FINAL = (LeaseLostError, TradingModeError, ForeignTableError)
"""Errors that another try cannot mend."""

RETRY_S = 0.5
SLOW_S = 10.0
"""A delivery that takes longer is reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """An update, and when the tick behind it arrived (Unix seconds; None without a tick)."""

    update: PositionUpdate
    arrived: float | None = None


class Mailbox:
    """Deliver updates to one handler, so that a slow or failing one harms nobody else.

    Undelivered updates are conflated by (account, conid): memory is bounded by the number of
    positions, and the newest value is never lost. A handler with `on_position_updates` takes
    each flush as one call, and gets it again when it raises a `PositionSyncError` (a table that
    could not commit), unless its lease is lost; any other error is reported and the update counts
    as delivered.
    """

    def __init__(
        self, handler: PositionUpdateHandler, *, on_delivered: Callable[[float], None] | None = None
    ) -> None:
        self.handler = handler
        self.failures = 0
        self._batched = getattr(handler, "on_position_updates", None)
        self._on_delivered = on_delivered
        self._pending: dict[Key, Letter] = {}
        self._filled = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None

    def put(self, letters: Iterable[Letter]) -> None:
        """Take updates; a newer one of a position replaces an undelivered older one."""
        for letter in letters:
            key = (letter.update.account, letter.update.conid)
            older = self._pending.get(key)
            if older is not None and older.arrived is not None:
                letter = Letter(update=letter.update, arrived=older.arrived)
            self._pending[key] = letter
        if self._pending:
            self._idle.clear()
            self._filled.set()
            if self._task is None:
                self._task = asyncio.create_task(self._run())

    async def close(self, *, timeout_s: float) -> None:
        """Deliver what is left, within a bound, and end."""
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            logger.error(
                "%s did not take its last %d updates",
                type(self.handler).__name__,
                len(self._pending),
            )
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            letters, self._pending = list(self._pending.values()), {}
            watch = asyncio.get_running_loop().call_later(SLOW_S, self._report_slow, len(letters))
            try:
                failed = await self._deliver(letters)
            finally:
                watch.cancel()
            if failed:
                newer, self._pending = self._pending, {}
                self.put(letters)
                self.put(newer.values())
                await asyncio.sleep(RETRY_S)
            elif not self._pending:
                self._idle.set()

    async def _deliver(self, letters: list[Letter]) -> bool:
        """Hand the updates over; True where the handler wants them again."""
        try:
            if self._batched is not None:
                await self._batched([letter.update for letter in letters])
            else:
                for letter in letters:
                    await self._hand_over(letter.update)
        except PositionSyncError as error:
            self._report(error)
            return not isinstance(error, FINAL)
        except Exception as error:  # noqa: BLE001 - a handler's own code: report it, go on
            self._report(error)
            return False
        if self._on_delivered is not None:
            now = time.time()
            for letter in letters:
                if letter.arrived is not None:
                    self._on_delivered(now - letter.arrived)
        return False

    async def _hand_over(self, update: PositionUpdate) -> None:
        try:
            await self.handler.on_position_update(update)
        except Exception as error:  # noqa: BLE001 - a handler's own code: report it, go on
            self._report(error)

    def _report(self, error: Exception) -> None:
        self.failures += 1
        trace = None if isinstance(error, PositionSyncError) else error
        logger.error("%s failed: %s", type(self.handler).__name__, error, exc_info=trace)

    def _report_slow(self, count: int) -> None:
        logger.warning(
            "%s has been busy with %d updates for more than %g s; newer values wait for it",
            type(self.handler).__name__,
            count,
            SLOW_S,
        )
