"""The ids of updates: an update and a batch that come again have the same ids."""

from collections.abc import Iterable
from datetime import UTC
from typing import Any

import polars as pl

from position_sync_dagster.domain.update import (
    PositionUpdate,
    Source,
    TradingMode,
    trading_mode_of,
)
from position_sync_dagster.lake.schema.codec import update_rows
from position_sync_dagster.lake.schema.ids import content_id
from position_sync_dagster.lake.updates.coercion import coerce_updates


def identified(
    updates: Iterable[PositionUpdate], batch_id: str = "", run_id: str | None = None
) -> pl.DataFrame:
    """Return updates as rows of the table, with the empty ids and the trading mode filled in.

    The update of a request takes the id of the request. Another update takes the UUID of its
    content, and a batch that of its rows. The trading mode is that of the account. Of several
    updates with one id, the first counts.

    Raises:
        InvalidRequestError: A field of an update cannot be stored; see `coerce_update`.
    """
    coerced = coerce_updates(updates)
    if not coerced:
        return update_rows([])
    ids = [update.update_id or _update_id(update) for update in coerced]
    batch = batch_id or content_id(max(update.timestamp for update in coerced), *sorted(ids))
    found: dict[str, list[Any]] = {
        "update_id": ids,
        "batch_id": [batch_id or update.batch_id or batch for update in coerced],
        "run_id": [update.run_id or run_id for update in coerced],
        "trading_mode": [update.trading_mode or _trading_mode(update) for update in coerced],
    }
    return update_rows(coerced, found).unique("update_id", keep="first", maintain_order=True)


def _trading_mode(update: PositionUpdate) -> TradingMode | None:
    return trading_mode_of(update.account) if update.account else None


def _update_id(update: PositionUpdate) -> str:
    if update.source is Source.QUEUE and update.request_id:
        return update.request_id
    content = (
        update.gateway_id,
        update.account,
        update.conid,
        update.timestamp.astimezone(UTC).isoformat(),
        update.source.value,
        update.position,
        update.market_price,
        update.market_value,
        update.average_cost,
        update.unrealized_pnl,
    )
    return content_id(update.timestamp, *content)
