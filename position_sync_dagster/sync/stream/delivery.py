"""A mailbox per handler: the newest value of each position, delivered in its own time."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial

from position_sync_dagster.domain.retry import Backoff
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

RETRY = Backoff(first_s=0.5, longest_s=2.0)
"""Pauses before another try; shorter than an end waits for a delivery."""

LOG_INTERVAL_S = 30.0
"""An error of one kind is said at most so often: a handler may raise at every tick of every leg."""

END_S = 1.0
"""A handler that is cancelled has so long to obey."""

SLOW_S = 10.0
"""A delivery that takes longer is reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingUpdate:
    """An update, and when the tick behind it arrived (Unix seconds; None without a tick)."""

    update: PositionUpdate
    arrived: float | None = None


class Delivery:
    """Deliver updates to one handler, so that a slow or failing one harms nobody else.

    Undelivered updates are conflated by (account, conid): memory is bounded by the number of
    positions, and the newest value is never lost. A handler with `on_position_updates` takes
    each flush as one call, and gets it again, newer values over it, whatever it raises (a table
    that could not commit, a defect in the code below it), unless its lease is lost. One without
    hears each update once: it may have acted on it before it raised, so what it raises is
    reported and the update counts as delivered.
    """

    def __init__(
        self, handler: PositionUpdateHandler, *, on_delivered: Callable[[float], None] | None = None
    ) -> None:
        self.handler = handler
        self.failures = 0
        self._batched = getattr(handler, "on_position_updates", None)
        self._on_delivered = on_delivered
        self._pending: dict[Key, PendingUpdate] = {}
        self._being_delivered = 0
        self._logged_s: dict[str, float] = {}
        self._filled = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None

    def put(self, updates: Iterable[PendingUpdate]) -> None:
        """Take updates; a newer one of a position replaces an undelivered older one."""
        for pending in updates:
            key = (pending.update.account, pending.update.conid)
            older = self._pending.get(key)
            if older is not None and older.arrived is not None:
                pending = PendingUpdate(update=pending.update, arrived=older.arrived)
            self._pending[key] = pending
        if self._pending:
            self._idle.clear()
            self._filled.set()
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._run())

    async def close(self, *, timeout_s: float) -> None:
        """Deliver what is left, within a bound, and end."""
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            logger.error(
                "%s did not take its last %d updates",
                type(self.handler).__name__,
                self._being_delivered + len(self._pending),
            )
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=END_S)
            self._task = None

    async def _run(self) -> None:
        failures = 0
        while True:
            await self._filled.wait()
            self._filled.clear()
            updates, self._pending = list(self._pending.values()), {}
            self._being_delivered = len(updates)
            timer = asyncio.get_running_loop().call_later(SLOW_S, self._report_slow, len(updates))
            try:
                failed = await self._deliver(updates)
            except BaseException:
                self._put_back(updates)
                raise
            finally:
                timer.cancel()
                self._being_delivered = 0
            if failed:
                self._put_back(updates)
                failures += 1
                await asyncio.sleep(RETRY.delay_s(failures))
                continue
            failures = 0
            if not self._pending:
                self._idle.set()

    def _put_back(self, updates: list[PendingUpdate]) -> None:
        newer, self._pending = self._pending, {}
        self.put(updates)
        self.put(newer.values())

    async def _deliver(self, updates: list[PendingUpdate]) -> bool:
        """Hand the updates over; True where the handler is to get them again."""
        if self._batched is None:
            for pending in updates:
                error = await _raised(partial(self.handler.on_position_update, pending.update))
                if error is not None:
                    self._report(error)
        else:
            error = await _raised(partial(self._batched, [pending.update for pending in updates]))
            if error is not None:
                self._report(error)
                return not isinstance(error, FINAL)
        if self._on_delivered is not None:
            now = time.time()
            for pending in updates:
                if pending.arrived is not None:
                    self._on_delivered(now - pending.arrived)
        return False

    def _report(self, error: BaseException) -> None:
        self.failures += 1
        kind, now_s = type(error).__name__, time.monotonic()
        if kind in self._logged_s and now_s < self._logged_s[kind] + LOG_INTERVAL_S:
            return
        self._logged_s[kind] = now_s
        logger.error(
            "%s failed: %s (failure %d)",
            type(self.handler).__name__,
            str(error) or kind,
            self.failures,
            exc_info=None if isinstance(error, PositionSyncError) else error,
        )

    def _report_slow(self, count: int) -> None:
        logger.warning(
            "%s has been busy with %d updates for more than %g s; newer values wait for it",
            type(self.handler).__name__,
            count,
            SLOW_S,
        )


async def _raised(call: Callable[[], Awaitable[None]]) -> BaseException | None:
    """Call a handler's own code and give what it raised, unless it is this task that must end.

    A cancellation that the handler brought about itself, and a panic of a library in Rust, are
    no `Exception`: they would end the delivery for good.
    """
    task = asyncio.current_task()
    raised: BaseException | None = None
    try:
        await call()
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - a handler's own code: report it, go on
        raised = error
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
    return raised
