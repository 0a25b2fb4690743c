"""Contract details, asked for once per conid."""

import asyncio
from collections.abc import Iterable

from ib_async import IB, Contract

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.gateway.translate import details_of

AT_ONCE = 20
"""Requests in flight; the gateway answers contract details one after the other."""


async def fetch_details(
    ib: IB, conids: Iterable[int], *, timeout_s: float, clock: Clock = utc_now
) -> dict[int, ContractDetails]:
    """Ask for the details of each conid; one that the gateway does not know is left out.

    An unknown conid is answered by code 200 and no end message (recorded: ibkr-go
    contract_details_not_found.txt); a refusal by 321 never ends in ib_async, hence the bound.
    """
    gate = asyncio.Semaphore(AT_ONCE)

    async def ask(conid: int) -> ContractDetails | None:
        async with gate:
            try:
                found = await asyncio.wait_for(
                    ib.reqContractDetailsAsync(Contract(conId=conid)), timeout_s
                )
            except (TimeoutError, ConnectionError):
                return None
        return details_of(found[0], seen_at=clock()) if found else None

    answers = await asyncio.gather(*(ask(conid) for conid in conids))
    return {details.conid: details for details in answers if details is not None}
