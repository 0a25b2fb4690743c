"""What programs that are written for the library rely on, besides its signatures."""

import asyncio
import inspect

import pytest

from position_sync_dagster import (
    DeltaLakePositionWriter,
    IBPositionStreamer,
    Lake,
    PositionQueue,
    QueueWorker,
    ReconciliationService,
    Settings,
    StrategyRegistry,
    errors,
)

TO_CONNECT = (
    errors.GatewayRefusedError,
    errors.GatewayTimeoutError,
    errors.NotAGatewayError,
    errors.ClientIdInUseError,
    errors.GatewayLostError,
    errors.TooManyAccountsError,
)


@pytest.mark.parametrize("error", TO_CONNECT)
def test_a_failure_to_connect_is_a_connection_error_with_its_remedy(error):
    with pytest.raises(ConnectionError) as caught:
        raise error("Nothing answers.", remedy="Start it.")
    assert (caught.value.what, caught.value.remedy) == ("Nothing answers.", "Start it.")


def test_a_streamer_without_a_queue_has_that_of_the_default_path():
    queue = IBPositionStreamer(settings=Settings(_env_file=None)).queue
    default = inspect.signature(PositionQueue).parameters["delta_lake_path"].default
    assert queue.delta_lake_path.endswith(default)


def test_the_arguments_of_a_constructor_can_be_read():
    queue = PositionQueue("some/queue")
    worker = QueueWorker(queue, interval=2.0, batch_size=7, settings=Settings(_env_file=None))
    assert (worker.queue, worker.interval, worker.batch_size) == (queue, 2.0, 7)
    for one in (queue, StrategyRegistry("some/legs"), DeltaLakePositionWriter("some/rows")):
        assert "some/" in one.delta_lake_path


async def test_reconciliation_runs_once_per_interval_and_through_an_outage_until_it_is_stopped(
    tmp_path,
):
    service = ReconciliationService(Lake(tmp_path), Settings(_env_file=None), interval=0.001)
    ran: list[int] = []
    thrice = asyncio.Event()

    async def run():
        ran.append(len(ran))
        if len(ran) == 3:
            thrice.set()
        raise errors.BrokerUnavailableError("No stream is alive.", remedy="Wait.")

    service.run = run
    await service.start()
    await thrice.wait()
    await service.stop()
    count = len(ran)
    await service.stop()
    assert count == len(ran) >= 3
