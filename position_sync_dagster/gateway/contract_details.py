"""Contract details: one request per conid."""

import asyncio
from collections.abc import Iterable, Sequence

from ib_async import IB, Contract
from ib_async import ContractDetails as IBContractDetails

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.gateway.codes import ALGO_VENUE
from position_sync_dagster.gateway.translate import details_of

CONCURRENT_REQUESTS = 20
"""The gateway answers contract details one after the other."""


async def fetch_details(
    ib: IB, conids: Iterable[int], *, timeout_s: float, clock: Clock = utc_now
) -> dict[int, ContractDetails]:
    """Request the details of each conid; one that the gateway does not know is left out.

    The gateway answers an unknown conid by code 200 and no end message (recorded: ibkr-go
    contract_details_not_found.txt). A request that it refuses by 321 never ends in ib_async: hence
    the bound of each answer.

    Args:
        ib: The connection.
        conids: The contracts.
        timeout_s: Bound of one answer; a conid without one is left out.
        clock: The time of receipt.
    """
    gate = asyncio.Semaphore(CONCURRENT_REQUESTS)

    async def request(conid: int) -> ContractDetails | None:
        async with gate:
            try:
                found = await asyncio.wait_for(
                    ib.reqContractDetailsAsync(Contract(conId=conid)), timeout_s
                )
            except (TimeoutError, ConnectionError):
                return None
        return details_of(_at_an_exchange(found), seen_at=clock()) if found else None

    answers = await asyncio.gather(*(request(conid) for conid in conids))
    return {details.conid: details for details in answers if details is not None}


def _at_an_exchange(found: Sequence[IBContractDetails]) -> IBContractDetails:
    """Return the first details that are not those of an algo venue, where there are any.

    The gateway answers with one message for each venue; that of a future's algo venue may be the
    first. Source: see `ALGO_VENUE`.
    """
    return next(
        (d for d in found if d.contract and not d.contract.exchange.startswith(ALGO_VENUE)),
        found[0],
    )
