"""What runs beside a streamer is watched: an error in it ends the stream, and is raised."""

import asyncio

import pytest

from position_sync_dagster.sync.stream.streamer import run_beside


async def for_ever():
    await asyncio.Event().wait()


async def test_an_error_beside_the_stream_ends_it_cleanly_and_is_raised():
    end, cleaned = asyncio.Event(), []

    async def fail():
        raise RuntimeError("the rotation")

    async def work():
        await asyncio.wait_for(end.wait(), 10.0)
        cleaned.append(True)

    with pytest.raises(RuntimeError, match="the rotation"):
        await run_beside(work(), [for_ever(), fail()], end)
    assert cleaned == [True]


async def test_the_tasks_beside_the_stream_end_with_it():
    end = asyncio.Event()

    async def work():
        await asyncio.sleep(0)

    await run_beside(work(), [for_ever()], end)
    assert not end.is_set()
    assert len(asyncio.all_tasks()) == 1
