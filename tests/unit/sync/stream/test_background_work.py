"""Work beside the steps of an owner: one task of a kind, and a pause after a failure."""

import asyncio

import pytest

from position_sync_dagster.errors import LakeNotWritableError
from position_sync_dagster.sync.stream.ownership import WORK_AGAIN_S, BackgroundWork


async def turns():
    for _ in range(3):
        await asyncio.sleep(0)


async def test_work_of_a_kind_is_not_begun_while_it_runs_and_its_end_is_waited_for():
    work = BackgroundWork(lambda: 0.0)
    may_end = asyncio.Event()
    done = []

    async def wait(name):
        await may_end.wait()
        done.append(name)

    for kind, name in (("a", "first"), ("a", "second"), ("b", "other")):
        work.begin(kind, wait, name)
    await turns()
    may_end.set()
    await work.end(within_s=10.0)
    assert done == ["first", "other"]


@pytest.mark.parametrize(
    ("error", "traced"),
    [(LakeNotWritableError("The disk is full.", remedy="Make room."), False), (KeyError(7), True)],
)
async def test_after_a_failure_work_pauses_and_an_outage_is_logged_once(error, traced, caplog):
    now = [0.0]
    begun = []
    work = BackgroundWork(lambda: now[0])

    async def fail():
        begun.append(now[0])
        raise error

    for second in range(int(3 * WORK_AGAIN_S)):
        now[0] = float(second)
        work.begin("storing", fail)
        await turns()
    await work.end()
    assert begun == [0.0, WORK_AGAIN_S, 2 * WORK_AGAIN_S]
    assert [bool(r.exc_info) for r in caplog.records] == [traced]
    assert caplog.records[0].getMessage() == f"storing, tried again later: {error}"
