"""Drains as the product does, of a broker that holds each contract that it is asked for."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from position_sync_dagster.domain.holding import BrokerPosition
from position_sync_dagster.domain.queue_request import QueueStatus
from position_sync_dagster.errors import LeaseLostError
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.sync.broker_view import BrokerView
from position_sync_dagster.sync.drain import QueueWorker
from tests.support.holdings import make_holding
from tests.support.settings import make_settings

# The broker's values change this often. Some requests meet a new value and some an old one.
STEP_S = 3.0


def price_at(at: datetime) -> float:
    """Return the price that the broker reports at a moment; later ones are greater."""
    return at.timestamp() // STEP_S


class EveryHolding(Mapping[tuple[str, int], BrokerPosition]):
    """A broker that holds each contract that it is asked for, at a price that grows with time."""

    def __getitem__(self, key: tuple[str, int]) -> BrokerPosition:
        now = datetime.now(UTC)
        price = price_at(now)
        return make_holding(
            key[1], now, account=key[0], market_price=price, market_value=100.0 * price
        )

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(())

    def __len__(self) -> int:
        return 0


class AlwaysCurrent:
    """A source of values that is always available."""

    async def view(self, _conids: object = None) -> BrokerView:
        return BrokerView(holdings=EveryHolding(), complete=True)


def worker_of(lake: Lake, batch_size: int, lease_s: float = 600.0) -> QueueWorker:
    return QueueWorker(
        lake.queue, batch_size=batch_size, values=AlwaysCurrent(), updates=lake.updates,
        settings=make_settings(lease_s=lease_s),
    )  # fmt: skip


async def drain_all(lake: Lake, batch_size: int) -> None:
    """Drain until nothing is left."""
    worker = worker_of(lake, batch_size)
    await lake.queue.rescue()
    while (await worker.process_batch()).claimed:
        pass


async def drain_for_ever(lake: Lake, batch_size: int, lease_s: float) -> None:
    """Drain until this process is killed."""
    worker = worker_of(lake, batch_size, lease_s)
    while True:
        await lake.queue.rescue()
        with suppress(LeaseLostError):
            await worker.process_batch()


def drain_later(lake: Lake, batch_size: int = 100) -> None:
    """Drain what is left, an hour later, so that every lease is over."""
    later = Lake(lake.path, clock=lambda: datetime.now(UTC) + timedelta(hours=1), fsync=False)
    asyncio.run(drain_all(later, batch_size))


def assert_each_ended_once(lake: Lake) -> int:
    """Check that each request ended well, once, with one row; return how many there are."""
    stored = lake.queue.table.rows(columns=["request_id"])["request_id"]
    assert {n: c for n, c in lake.queue.sync.counts().items() if c} == {
        QueueStatus.SUCCESS: len(stored)
    }
    assert stored.is_unique().all(), "a request ended twice"
    written = lake.updates.table.rows(columns=["update_id", "request_id"])
    assert written["update_id"].is_unique().all(), "a row was written twice"
    assert sorted(written["request_id"]) == sorted(stored)
    return len(stored)
