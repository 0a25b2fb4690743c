"""A part of a stream without a lease."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.valuation import Provenance
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.stream.ownership import Ownership, StreamCounts


class Unowned:
    """Replaces the lease where a part of a stream is tested alone; it is never lost."""

    session = None
    suspended = False
    provenance = Provenance()

    def __init__(
        self,
        settings: Settings,
        clock: Clock = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.monotonic = monotonic
        self.counts = StreamCounts()
        self.lost = asyncio.Event()

    def check(self) -> None:
        """Allow each write."""

    def renew_now(self) -> None:
        """Renew nothing."""

    async def claim_mode(self, mode: object) -> None:
        """Bind nothing to the trading mode of the login."""


def unowned(settings: Settings, **clocks: Any) -> Ownership:
    """Return a lease that is never lost."""
    lease: Any = Unowned(settings, **clocks)
    return lease
