"""How a holding follows from the one before and a message."""

from dataclasses import replace
from datetime import datetime

from position_sync_dagster.domain.broker_position import BrokerPosition, Completeness
from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.domain.update import ValueOrigin
from position_sync_dagster.gateway.ib_async_internals.holdings import PnlFields
from position_sync_dagster.gateway.translate import known


def with_pnl(
    holding: BrokerPosition,
    sent: PnlFields,
    *,
    received_at: datetime,
    completeness: Completeness,
    confirmed_at: datetime | None,
) -> BrokerPosition:
    """Return a holding with the values of a PnLSingle message, which has no price and no time."""
    realized_pnl = known(sent.realized)
    return replace(
        holding,
        market_price=None,
        market_value=known(sent.value),
        unrealized_pnl=known(sent.unrealized),
        realized_pnl=realized_pnl if realized_pnl is not None else holding.realized_pnl,
        daily_pnl=known(sent.daily),
        value_source=ValueOrigin.PNL_SINGLE,
        value_time=None,
        received_at=received_at,
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
