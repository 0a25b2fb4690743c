"""Measurements of a gateway for the preflight: its version, clock, time zone, and a trial line."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.gateway import ib_async_internals
from position_sync_dagster.gateway.accounts.account_downloads import zone_of
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.gateway.market_data_lines import Refusal

POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class LineTrial:
    """The result of a market data line that was requested as a trial and cancelled.

    Attributes:
        refusal: The gateway's message that refused or ended it.
        market_data_type: The type of the ticks that came (1 live, 2 frozen, 3 delayed, 4 delayed
            frozen); None if no tick came.
        greeks: Whether greeks came; None for a contract that has none.
    """

    conid: int
    refusal: Refusal | None = None
    market_data_type: int | None = None
    greeks: bool | None = None


def server_version(connection: GatewayConnection) -> int:
    """Return the version of the protocol that the gateway speaks."""
    return int(connection.ib.client.serverVersion())


def library_problem() -> tuple[str, str] | None:
    """Return what is wrong with the installed version of ib_async, and the remedy."""
    return ib_async_internals.version_problem()


async def clock_difference_s(
    connection: GatewayConnection, *, timeout_s: float, clock: Clock = utc_now
) -> float | None:
    """Return by how many seconds the gateway's clock is ahead of ours; None without an answer.

    The gateway answers in whole seconds (reqCurrentTime). A difference that this rounding and the
    time of the answer explain is returned as 0.
    """
    before = clock()
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            theirs = await connection.ib.reqCurrentTimeAsync()
        early, late = (theirs - clock()).total_seconds(), (theirs - before).total_seconds()
        return 0.0 if early <= 0.0 and late + 1.0 >= 0.0 else max(early, late + 1.0, key=abs)
    return None


def zone_offset(account_time: str, now: datetime) -> timedelta | None:
    """Return how far ahead of UTC the gateway's clock is: as ours, or not at all; else None.

    The newest time of a download is about now, if the account is kept current (IB, "Account
    Updates": every 3 minutes).
    """
    zone = zone_of(account_time, now=now)
    return None if zone is None else now.astimezone(zone).utcoffset()


async def try_line(
    connection: GatewayConnection,
    details: ContractDetails,
    *,
    wait_s: float,
    market_data_type: int | None = None,
) -> LineTrial:
    """Request one market data line, wait for its first tick or its refusal, and cancel it.

    Of an option the greeks are awaited as well.
    """
    refusals: list[Refusal] = []
    connection.lines.on_refusal.append(refusals.append)
    connection.lines.subscribe(details, market_data_type=market_data_type)
    kind, greeks = None, None if details.right is None else False
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while not refusals and connection.is_connected:
                    quote = connection.lines.quote(details.conid)
                    if quote is not None and quote.received_at is not None:
                        kind = quote.market_data_type or 1
                        greeks = None if greeks is None else quote.delta is not None
                    if kind is not None and greeks is not False:
                        break
                    await asyncio.sleep(POLL_S)
    finally:
        connection.lines.cancel(details.conid)
        connection.lines.on_refusal.remove(refusals.append)
    refusal = refusals[0] if refusals else None
    return LineTrial(conid=details.conid, refusal=refusal, market_data_type=kind, greeks=greeks)
