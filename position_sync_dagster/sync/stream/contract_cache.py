"""Contract details: from the table where it has them, from the gateway once where not."""

import asyncio
import logging
from collections.abc import Iterable

from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.errors import LakeError
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.lake.contracts import ContractsTable

logger = logging.getLogger(__name__)

CHUNK = 20
"""Conids learned in one go in the background, one commit each: lines come first."""


class ContractCache:
    """Know the details of every contract at first sight."""

    def __init__(self, table: ContractsTable | None) -> None:
        self._table = table
        self._known: dict[int, ContractDetails] = {}
        self._without_details: set[int] = set()
        self._task: asyncio.Task[None] | None = None

    async def initialize(self) -> None:
        """Read what the table has."""
        if self._table is not None:
            await self._table.initialize()
            self._known.update(await self._table.get(None))

    def magnifier(self, conid: int) -> int | None:
        """Give the price magnifier, None while the details are unknown."""
        details = self._known.get(conid)
        return details.price_magnifier if details else None

    async def details(
        self, connection: GatewayConnection, conids: Iterable[int]
    ) -> dict[int, ContractDetails]:
        """Give the details of the conids, asking the gateway for those not known yet."""
        wanted = set(conids)
        missing = wanted - self._known.keys()
        if missing:
            await self._fetch(connection, missing)
        return {conid: self._known[conid] for conid in wanted if conid in self._known}

    def fetch_in_background(self, connection: GatewayConnection, conids: Iterable[int]) -> None:
        """Learn the next few unknown conids beside everything else."""
        if self._task is not None and not self._task.done():
            return
        missing = [c for c in conids if c not in self._known and c not in self._without_details][
            :CHUNK
        ]
        if missing:
            self._task = asyncio.create_task(self._fetch_quietly(connection, missing))

    async def close(self) -> None:
        """End what runs in the background."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _fetch_quietly(self, connection: GatewayConnection, conids: list[int]) -> None:
        try:
            await self._fetch(connection, conids)
        except (LakeError, ConnectionError) as error:
            logger.warning("contract details are asked for again: %s", error)
            return
        self._without_details.update(c for c in conids if c not in self._known)

    async def _fetch(self, connection: GatewayConnection, conids: Iterable[int]) -> None:
        found = await connection.details(conids)
        if found and self._table is not None:
            await self._table.add(list(found.values()))
        self._known.update(found)
