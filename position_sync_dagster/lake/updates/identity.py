"""The ids of updates: an update and a batch that come again have the same ids."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC

from position_sync_dagster.domain.update import PositionUpdate, Source, trading_mode_of
from position_sync_dagster.lake.schema.ids import content_id
from position_sync_dagster.lake.updates.coercion import coerce_updates


def identified(
    updates: Iterable[PositionUpdate], batch_id: str = "", run_id: str | None = None
) -> list[PositionUpdate]:
    """Return updates as they are stored, with the empty ids and the trading mode filled in.

    The update of a request takes the id of the request. Another update takes the UUID of its
    content, and a batch that of its rows. The trading mode is that of the account.

    Raises:
        InvalidRequestError: A field of an update cannot be stored; see `coerce_update`.
    """
    coerced = coerce_updates(updates)
    if not coerced:
        return []
    ids = [update.update_id or _update_id(update) for update in coerced]
    batch = batch_id or content_id(max(update.timestamp for update in coerced), *sorted(ids))
    return [
        _with(
            update,
            update_id=update_id,
            batch_id=batch_id or update.batch_id or batch,
            run_id=update.run_id or run_id,
            trading_mode=update.trading_mode
            or (trading_mode_of(update.account) if update.account else None),
        )
        for update, update_id in zip(coerced, ids, strict=True)
    ]


def _with(update: PositionUpdate, **ids: str | None) -> PositionUpdate:
    """Return the update with these fields; the same object if it has them, as rows of drains do."""
    if all(getattr(update, name) == value for name, value in ids.items()):
        return update
    return replace(update, **ids)  # type: ignore[arg-type]


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
