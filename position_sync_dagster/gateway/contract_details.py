"""Contract details: one request per conid, or one for a contract that a leg describes."""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime

from ib_async import IB, Contract
from ib_async import ContractDetails as IBContractDetails

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.domain.leg import UnresolvedLeg
from position_sync_dagster.gateway.codes import ALGO_VENUE, GatewayCode
from position_sync_dagster.gateway.translate import details_of

CONCURRENT_REQUESTS = 20
"""Maximum number of requests that wait at once: the gateway answers them one after the other."""


async def fetch_details(
    ib: IB, conids: Iterable[int], *, timeout_s: float
) -> dict[int, ContractDetails]:
    """Request the details of each conid; one that the gateway does not know is left out.

    The gateway answers an unknown conid by code 200 and no end message (recorded: ibkr-go
    contract_details_not_found.txt). A request that it refuses by 321 never ends in ib_async: hence
    the bound of each answer.

    Args:
        ib: The connection.
        conids: The contracts.
        timeout_s: Bound of one answer; a conid without one is left out.
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
        return _readable(found, utc_now()) if found else None

    answers = await asyncio.gather(*(request(conid) for conid in conids))
    return {details.conid: details for details in answers if details is not None}


async def fetch_candidates(
    ib: IB, leg: UnresolvedLeg, *, timeout_s: float, like: bool = False
) -> list[ContractDetails] | None:
    """Request the contracts that a leg describes: each conid once, in the gateway's order.

    A description that fits several contracts is answered with all of them. Source: IB,
    "Requesting Contract Details" (interactivebrokers.github.io/tws-api/contract_details.html). Of
    options the whole month of the expiry is asked for: an index option that is settled at the open
    may be listed by the day of its last trade or by the day after, and both must be seen to be told
    apart. Futures are asked for by day, since their month is that of delivery.

    Args:
        ib: The connection.
        leg: What is described.
        timeout_s: Bound of the answer.
        like: Request similar contracts: of the same underlying and right, at any strike.

    Returns:
        The contracts; an empty list if the gateway knows none (code 200); None if it did not
        answer, which says nothing about the leg.
    """
    pattern = _pattern(leg, like=like)
    codes: list[int] = []

    def note(_request: int, code: int, _text: str, about: Contract | None) -> None:
        if about is pattern:
            codes.append(code)

    ib.errorEvent += note
    try:
        found = await asyncio.wait_for(ib.reqContractDetailsAsync(pattern), timeout_s)
    except (TimeoutError, ConnectionError):
        return None
    finally:
        ib.errorEvent -= note
    if not found and codes != [GatewayCode.NO_CONTRACT]:
        return None
    by_conid: dict[int, list[IBContractDetails]] = {}
    for details in found:
        if details.contract is not None:
            by_conid.setdefault(details.contract.conId, []).append(details)
    candidates = [_readable(each, utc_now()) for each in by_conid.values()]
    # A contract that cannot be read may be the one that the leg describes.
    return None if None in candidates else [each for each in candidates if each is not None]


def _readable(found: Sequence[IBContractDetails], seen_at: datetime) -> ContractDetails | None:
    """Return the details of a contract; None where they cannot be read."""
    try:
        return details_of(_at_an_exchange(found), seen_at=seen_at)
    except ValueError:
        return None


def _pattern(leg: UnresolvedLeg, *, like: bool) -> Contract:
    kind = leg.sec_type or ("OPT" if leg.right else "FUT" if leg.expiry else "STK")
    pattern = Contract(
        symbol=leg.symbol,
        secType=kind,
        lastTradeDateOrContractMonth=_last_trade(leg, kind, like=like),
        right=leg.right[0] if leg.right else "",
        currency=leg.currency or "",
    )
    if not like:
        pattern.strike = leg.strike or 0.0
        pattern.tradingClass = leg.trading_class or ""
        pattern.multiplier = f"{leg.multiplier:g}" if leg.multiplier else ""
        pattern.exchange = leg.exchange or ""
    return pattern


def _last_trade(leg: UnresolvedLeg, kind: str, *, like: bool) -> str:
    if leg.expiry is None or (like and kind == "FUT"):
        return ""
    return f"{leg.expiry:%Y%m%d}" if kind in ("FUT", "FOP") else f"{leg.expiry:%Y%m}"


def _at_an_exchange(found: Sequence[IBContractDetails]) -> IBContractDetails:
    """Return the first details that are not those of an algo venue, where there are any.

    The gateway answers with one message for each venue; that of a future's algo venue may be the
    first. Source: see `ALGO_VENUE`.
    """
    return next(
        (d for d in found if d.contract and not d.contract.exchange.startswith(ALGO_VENUE)),
        found[0],
    )
