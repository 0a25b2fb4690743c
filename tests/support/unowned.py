"""A part of a stream without a lease."""

import asyncio
from typing import Any

from position_sync_dagster.domain.valuation import Provenance
from position_sync_dagster.sync.stream.ownership import OwnerContext


class Unowned:
    """Replaces the lease where a part of a stream is tested alone; it is never lost."""

    session = None
    suspended = False
    provenance = Provenance()

    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def check(self) -> None:
        """Allow each write."""

    def renew_now(self) -> None:
        """Renew nothing."""

    async def claim_mode(self, mode: object) -> None:
        """Bind nothing to the trading mode of the login."""


def unowned_context(**parts: Any) -> OwnerContext:
    """Return a context whose lease is never lost."""
    lease: Any = Unowned()
    return OwnerContext(lease=lease, **parts)
