"""The executions of the day, as the gateway names them to a client that only reads."""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, time
from typing import NamedTuple
from zoneinfo import ZoneInfo

from ib_async import IB, Contract, Fill

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.statement import GATEWAY, Execution, Side
from position_sync_dagster.gateway.translate import instrument_of, known

_DAYS = ("America/New_York", "Europe/London", "Asia/Hong_Kong")
"""Time zones in one of which a gateway's day may begin; it does not say in which."""


class DayExecutions(NamedTuple):
    """What a gateway answered.

    Attributes:
        executions: In the order of the answer.
        begin, end: It names every execution of its accounts between these times.
    """

    executions: Sequence[Execution]
    begin: datetime
    end: datetime


async def fetch_executions(
    ib: IB, *, timeout_s: float, clock: Clock = utc_now
) -> DayExecutions | None:
    """Request the executions of all clients since midnight; None if the request failed.

    Source: IB, "Executions and Commissions" (interactivebrokers.github.io/tws-api/
    executions_commissions.html): those since midnight. ib_async takes an error for the end of an
    empty answer, so any error that arrives meanwhile and names no contract makes the answer
    worthless. Commissions follow the executions; a later answer has them.
    """
    asked_at, failed = clock(), False

    def note(request: int, _code: int, _text: str, about: Contract | None) -> None:
        nonlocal failed
        failed = failed or (request > 0 and about is None)

    ib.errorEvent += note
    try:
        fills = await asyncio.wait_for(ib.reqExecutionsAsync(), timeout_s)
    except (TimeoutError, ConnectionError):
        return None
    finally:
        ib.errorEvent -= note
    if failed or not ib.isConnected():
        return None
    read = [_execution(fill, asked_at) for fill in fills]
    return DayExecutions([one for one in read if one is not None], day_begin(asked_at), asked_at)


def day_begin(now: datetime) -> datetime:
    """Return since when an answer names every execution: the last midnight of any market.

    >>> day_begin(datetime(2026, 3, 20, 15, 30, tzinfo=UTC)).isoformat()
    '2026-03-20T04:00:00+00:00'
    """
    local = (now.astimezone(ZoneInfo(name)) for name in _DAYS)
    return max(datetime.combine(at.date(), time(), at.tzinfo) for at in local).astimezone(UTC)


def _execution(fill: Fill, asked_at: datetime) -> Execution | None:
    """Return a fill as an execution; None of a combo as a whole, and of what cannot be read."""
    done, report = fill.execution, fill.commissionReport
    try:
        instrument = instrument_of(fill.contract)
    except ValueError:
        return None
    if instrument.sec_type == "BAG" or done.side not in ("BOT", "SLD") or not done.shares:
        return None
    charged = report.execId == done.execId
    return Execution(
        execution_id=done.execId,
        account=done.acctNumber,
        conid=instrument.conid,
        symbol=instrument.symbol,
        sec_type=instrument.sec_type,
        time=done.time.astimezone(UTC),
        side=Side.BUY if done.side == "BOT" else Side.SELL,
        quantity=abs(done.shares),
        price=known(done.price),
        commission=known(report.commission) if charged else None,
        commission_currency=(report.currency or None) if charged else None,
        # ib_async turns an unknown profit into 0.
        realized_pnl=(known(report.realizedPNL) or None) if charged else None,
        currency=instrument.currency,
        source=GATEWAY,
        statement="",
        order_id=str(done.permId) if done.permId else None,
        attributes=json.dumps(
            {
                name: value
                for name, value in sorted(vars(done).items())
                if isinstance(value, int | float | str) and value
            },
            ensure_ascii=False,
        ),
        stated_at=asked_at,
    )
