"""How a holding follows from the one before and a message."""

from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from position_sync_dagster.domain.broker_position import BrokerPosition, Completeness
from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.domain.update import ValueOrigin


class PnlValues(NamedTuple):
    """What a PnLSingle message says of a holding, and when it arrived."""

    received_at: datetime
    market_value: float
    unrealized_pnl: float | None
    realized_pnl: float | None
    daily_pnl: float | None


def with_pnl(
    holding: BrokerPosition,
    values: PnlValues,
    *,
    completeness: Completeness,
    confirmed_at: datetime | None,
) -> BrokerPosition:
    """Return a holding with the values of a PnLSingle message, which has no price and no time."""
    realized_pnl = values.realized_pnl
    return replace(
        holding,
        market_price=None,
        market_value=values.market_value,
        unrealized_pnl=values.unrealized_pnl,
        realized_pnl=realized_pnl if realized_pnl is not None else holding.realized_pnl,
        daily_pnl=values.daily_pnl,
        value_source=ValueOrigin.PNL_SINGLE,
        value_time=None,
        received_at=values.received_at,
        completeness=completeness,
        confirmed_at=confirmed_at,
    )


def closed(holding: BrokerPosition, *, at: datetime, snapshot_id: str) -> BrokerPosition:
    """Return a holding that is closed: of its values, the realized profit stays."""
    return BrokerPosition(
        gateway_id=holding.gateway_id,
        account=holding.account,
        instrument=holding.instrument,
        position=0.0,
        realized_pnl=holding.realized_pnl,
        received_at=at,
        position_time=at,
        snapshot_id=snapshot_id,
    )


def with_exchange(instrument: Instrument, before: BrokerPosition | None) -> Instrument:
    """Keep the listing exchange when a later message leaves it empty."""
    if instrument.exchange or before is None:
        return instrument
    return replace(instrument, exchange=before.instrument.exchange)
