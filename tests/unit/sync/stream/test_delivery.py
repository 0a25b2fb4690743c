"""Delivery to handlers: the newest value is never lost, and no handler harms another."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.errors import CommitContentionError, StalledError
from position_sync_dagster.sync.stream import delivery as module
from position_sync_dagster.sync.stream.delivery import Flusher, HandlerDelivery
from position_sync_dagster.sync.stream.publisher import Submissions
from tests.support.settings import make_settings
from tests.support.streams import eventually
from tests.support.unowned import unowned


def delivery_to(handler):
    """Return what delivers to a handler, and does not wait long."""
    delays = Backoff(first_s=0.01, longest_s=0.02)
    return HandlerDelivery(handler, delays=delays, cancel_s=0.2)


def pending(conid, price, position=1.0):
    return PositionUpdate(conid, "SPY", None, position, price, None, None, None, utc_now())


class Listener:
    def __init__(self, fails=0, error=None):
        self.received = []
        self.fails = fails
        self.error = error or RuntimeError("broken")

    async def on_position_update(self, update):
        if self.fails:
            self.fails -= 1
            raise self.error
        self.received.append((update.conid, update.market_price))


class Table(Listener):
    def __init__(self, fails=0, error=None):
        super().__init__(fails, error or CommitContentionError("busy", remedy="wait"))
        self.batches = []
        self.open = asyncio.Event()
        self.open.set()
        self.task = None

    async def on_position_updates(self, updates):
        self.task = asyncio.current_task()
        await self.open.wait()
        if self.fails:
            self.fails -= 1
            raise self.error
        self.batches.append([(u.conid, u.market_price) for u in updates])


async def delivered(handler, *updates):
    """Deliver updates of one flush; return the delivery after its end."""
    delivery = delivery_to(handler)
    delivery.put(updates or [pending(1, 1.0), pending(2, 2.0)])
    await delivery.close(timeout_s=5)
    return delivery


async def test_a_slow_table_gets_the_newest_value_of_each_position():
    table = Table()
    delivery = delivery_to(table)
    delivery.put([pending(1, 1.0)])
    await turns()
    table.open.clear()
    for price in range(2, 50):
        delivery.put([pending(1, float(price)), pending(2, float(price))])
    table.open.set()
    await delivery.close(timeout_s=5)
    assert table.batches[-1] == [(1, 49.0), (2, 49.0)]
    assert len(table.batches) <= 3


async def test_a_handler_that_hangs_harms_no_other_and_does_not_block_the_end(caplog):
    hanging = Table()
    listener = Listener()
    hanging.open.clear()
    deliveries = [delivery_to(hanging), delivery_to(listener)]
    for delivery in deliveries:
        delivery.put([pending(1, 1.0)])
    for delivery in deliveries:
        await delivery.close(timeout_s=0.1)
    assert listener.received == [(1, 1.0)]
    assert "Table did not accept its last updates" in caplog.text


@pytest.mark.parametrize("error", module.ENDS_STREAM)
async def test_an_error_that_another_attempt_cannot_repair_ends_the_stream(error):
    table = Table(fails=9, error=error("not this table", remedy="move"))
    delivery = await delivered(table)
    assert delivery.failures == 1
    assert delivery.refused is table.error
    table.fails = 0
    delivery.put([pending(1, 2.0)])
    await delivery.close(timeout_s=5)
    assert table.batches == [], "no row follows one that was refused for good"


async def test_a_table_that_raises_gets_the_newest_values_again(caplog):
    table = Table(fails=3, error=RuntimeError("a defect"))
    delivery = delivery_to(table)
    delivery.put([pending(1, 1.0), pending(2, 2.0)])
    while not delivery.failures:  # before the first delay is over, however busy the machine is
        await asyncio.sleep(0)
    delivery.put([pending(2, 3.0)])
    await delivery.close(timeout_s=5)
    assert table.batches == [[(1, 1.0), (2, 3.0)]]
    assert delivery.failures == 3
    lines = [record for record in caplog.records if "Table failed: " in record.getMessage()]
    assert [bool(line.exc_info) for line in lines] == [True]  # the same error is logged once
    assert "a defect" in caplog.text


async def test_a_listener_that_raises_receives_the_others_of_the_flush():
    listener = Listener(fails=1)
    assert (await delivered(listener)).failures == 1
    assert listener.received == [(2, 2.0)]


class Picky(Listener):
    """A handler that raises for one position, and takes all others."""

    async def on_position_update(self, update):
        if update.conid == 1:
            raise self.error
        await super().on_position_update(update)


async def test_a_handler_that_fails_again_and_again_is_logged_once(caplog):
    delivery = delivery_to(Picky())
    for _ in range(20):
        count = delivery.failures
        delivery.put([pending(conid, 1.0) for conid in range(5)])
        await eventually(lambda count=count: delivery.failures > count)
    await delivery.close(timeout_s=5)
    assert [r.getMessage() for r in caplog.records] == ["Picky failed: broken"]


async def test_a_handler_that_fails_again_after_a_flush_without_an_error_is_logged_again(caplog):
    delivery = delivery_to(Picky())
    for count, conid in ((1, 1), (1, 2), (2, 1)):
        delivery.put([pending(conid, 1.0)])
        await turns()
        assert delivery.failures == count
    await delivery.close(timeout_s=5)
    assert [r.getMessage() for r in caplog.records] == ["Picky failed: broken"] * 2


async def test_a_handler_that_raises_before_it_is_awaited_is_reported():
    class Plain:
        def on_position_update(self, update):
            raise RuntimeError("no coroutine")

    assert (await delivered(Plain(), pending(1, 1.0))).failures == 1


class Panic(BaseException):
    """An exception like a panic of a library in Rust: no `Exception`."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("error", [asyncio.CancelledError(), Panic("index out of bounds")])
async def test_a_handler_that_ends_its_own_delivery_is_served_again(error):
    table = Table(fails=1, error=error)
    delivery = delivery_to(table)
    delivery.put([pending(1, 1.0), pending(2, 2.0)])
    await eventually(lambda: table.task is not None and table.task.done())
    delivery.put([pending(1, 3.0)])
    await delivery.close(timeout_s=5)
    assert table.batches == [[(2, 2.0), (1, 3.0)]]


@pytest.mark.parametrize("swallowed", [False, True])
async def test_closing_a_delivery_ends_its_task_whatever_the_handler_does(swallowed):
    class Stubborn(Table):
        async def on_position_updates(self, updates):
            self.task = asyncio.current_task()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if not swallowed:
                    raise RuntimeError("not now") from None

    table = Stubborn()
    delivery = delivery_to(table)
    delivery.put([pending(1, 1.0)])
    await eventually(lambda: table.task)
    await delivery.close(timeout_s=0.05)
    assert table.task.done()


async def turns():
    """Let every task that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_after_a_slow_flush_values_wait_and_a_fill_does_not(monkeypatch):
    monkeypatch.setattr(module, "rest_s", lambda _took_s: 3_600.0)
    table = Table()
    delivery = delivery_to(table)
    delivery.put([pending(1, 1.0), pending(2, 2.0)])
    await turns()
    assert len(table.batches) == 1
    delivery.put([pending(1, 1.5), pending(2, 2.5)])
    await turns()
    assert len(table.batches) == 1

    delivery.put([pending(1, 1.0, position=2.0)], urgent=True)
    await turns()
    assert table.batches[1:] == [[(2, 2.5), (1, 1.0)]]
    delivery.put([pending(2, 3.0)])
    await turns()
    assert len(table.batches) == 2
    await delivery.close(timeout_s=5)
    assert table.batches[2:] == [[(2, 3.0)]]


async def test_a_handler_of_single_updates_gets_them_without_a_rest(monkeypatch):
    monkeypatch.setattr(module, "rest_s", lambda _took_s: 3_600.0)
    listener = Listener()
    delivery = delivery_to(listener)
    for price in (1.0, 2.0, 3.0):
        delivery.put([pending(1, price)])
        await turns()
    assert [price for _conid, price in listener.received] == [1.0, 2.0, 3.0]
    await delivery.close(timeout_s=5)


async def test_a_lease_that_runs_out_within_a_flush_does_not_end_the_stream(monkeypatch):
    """The look before the flush found it valid; it may be renewed."""
    ownership = unowned(make_settings(flush_interval_s=0.01))
    flushed = asyncio.Event()

    def flush(*_changes):
        flushed.set()
        return []

    pricer: Any = SimpleNamespace(flush=flush)
    connection: Any = SimpleNamespace(pnl=SimpleNamespace(valued=set()))

    def ran_out():
        raise StalledError("The lease ended.", remedy="It is renewed.")

    monkeypatch.setattr(ownership, "check", ran_out)
    flusher = Flusher(ownership, pricer, Submissions())
    running = asyncio.create_task(flusher.run(lambda: connection))
    waiting = asyncio.create_task(flushed.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    assert not running.done()
    running.cancel()
