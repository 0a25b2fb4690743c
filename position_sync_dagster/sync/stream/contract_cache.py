"""Contract details: read from their table, or fetched from the gateway once."""

import asyncio
import logging
from collections.abc import Iterable
from itertools import islice

from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.domain.leg_contract import contract_mismatch
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
        self._wanted: dict[int, None] = {}
        self._legs: tuple[ActiveContract, ...] = ()
        self._unchecked: set[int] = set()
        self._matching: tuple[ActiveContract, ...] = ()
        self._mismatches: dict[tuple[str, str | None, int], str] = {}

    @property
    def mismatches(self) -> list[str]:
        """The legs that name another contract than their conid, each with the difference."""
        return [
            f"{conid} of strategy {strategy} is not streamed: {difference}"
            for (strategy, _account, conid), difference in sorted(
                self._mismatches.items(), key=lambda item: item[0][2]
            )
        ]

    def matching(self, legs: Iterable[ActiveContract]) -> tuple[ActiveContract, ...]:
        """Return the legs without those that name another contract than their conid.

        A leg whose contract details are not known yet is among them.
        """
        legs = tuple(legs)  # the same object where it is a tuple
        if legs is not self._legs or not self._unchecked.isdisjoint(self._known):
            before = self._mismatches
            self._mismatches = {
                leg.key: difference
                for leg in legs
                if (details := self._known.get(leg.conid)) is not None
                and (difference := contract_mismatch(leg, details)) is not None
            }
            for key in self._mismatches.keys() - before.keys():
                logger.warning(
                    "the leg %d of strategy %s is not streamed: %s. Correct the leg.",
                    key[2],
                    key[0],
                    self._mismatches[key],
                )
            self._matching = tuple(leg for leg in legs if leg.key not in self._mismatches)
            self._legs = legs
            self._unchecked = {leg.conid for leg in legs} - self._known.keys()
        return self._matching

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

    def want(self, conids: Iterable[int]) -> None:
        """Add conids whose details are to be fetched in the background, if they are not known."""
        self._wanted.update(
            (conid, None)
            for conid in conids
            if conid not in self._known and conid not in self._without_details
        )

    def fetch_in_background(self, connection: GatewayConnection) -> None:
        """Fetch the next few wanted conids without details, in a task of their own."""
        if self._task is not None and not self._task.done():
            return
        missing: list[int] = []
        for conid in list(islice(self._wanted, CHUNK)):
            if conid in self._known or conid in self._without_details:
                del self._wanted[conid]
            else:
                missing.append(conid)
        if missing:
            work = self._fetch_or_log(connection, missing)
            self._task = asyncio.create_task(work)

    async def remember(self, details: Iterable[ContractDetails]) -> None:
        """Keep details that were fetched elsewhere."""
        found = {one.conid: one for one in details}
        if self._table is not None:
            await self._table.add(list(found.values()))
        self._known.update(found)

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
        if found:
            await self.remember(found.values())
