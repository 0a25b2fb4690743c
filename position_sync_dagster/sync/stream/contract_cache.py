"""Contract details: read from their table, or fetched from the gateway once."""

import asyncio
import logging
from collections.abc import Iterable

from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.errors import LakeError
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.lake.contracts import ContractsTable

logger = logging.getLogger(__name__)

CHUNK = 20
"""Conids fetched at once in the background, in one commit: lines come first."""


class ContractCache:
    """The details of every contract that was seen once.

    Args:
        table: Keeps the details across processes; without it they are fetched in each process.
    """

    def __init__(self, table: ContractsTable | None) -> None:
        self._table = table
        self._known: dict[int, ContractDetails] = {}
        self._without_details: set[int] = set()
        self._task: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """Read the details that the table has."""
        if self._table is not None:
            self._known.update(await self._table.get(None))

    def magnifier(self, conid: int) -> int | None:
        """Return the price magnifier; None while the details are unknown."""
        details = self._known.get(conid)
        return details.price_magnifier if details else None

    async def details(
        self, connection: GatewayConnection, conids: Iterable[int]
    ) -> dict[int, ContractDetails]:
        """Return the details of the conids; fetch from the gateway those that are not known.

        A conid that the gateway does not know is left out.
        """
        wanted = set(conids)
        missing = wanted - self._known.keys()
        if missing:
            await self._fetch(connection, missing)
        return {conid: self._known[conid] for conid in wanted if conid in self._known}

    def fetch_in_background(self, connection: GatewayConnection, conids: Iterable[int]) -> None:
        """Fetch the next few conids without details, in a task of their own."""
        if self._task is not None and not self._task.done():
            return
        missing = [c for c in conids if c not in self._known and c not in self._without_details]
        if missing:
            work = self._fetch_or_log(connection, missing[:CHUNK])
            self._task = asyncio.create_task(work)

    async def close(self) -> None:
        """Cancel the fetch in the background."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _fetch_or_log(self, connection: GatewayConnection, conids: list[int]) -> None:
        try:
            await self._fetch(connection, conids)
        except (LakeError, ConnectionError) as error:
            logger.warning("contract details could not be fetched, they are due again: %s", error)
            return
        self._without_details.update(c for c in conids if c not in self._known)

    async def _fetch(self, connection: GatewayConnection, conids: Iterable[int]) -> None:
        found = await connection.details(conids)
        if found and self._table is not None:
            await self._table.add(list(found.values()))
        self._known.update(found)
