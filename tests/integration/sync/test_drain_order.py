"""A drain beside a stream: no value is older than the request that it answers."""

from position_sync_dagster.domain.update import QueueStatus
from position_sync_dagster.sync.drain import LakeValues, drain

A = "DUSIM0001"
PUT = 921000002


async def test_a_close_that_arrives_while_a_drain_is_stopped_gets_its_zero_row(
    simulate, lake, streaming, settings_for, eventually, monkeypatch
):
    async def waiting(number):
        return (await lake.queue.counts())[QueueStatus.PENDING] == number

    async with simulate() as sim, streaming(sim, updates=lake.updates, pnl_subscriptions=0):
        settings = settings_for(sim)
        await eventually(lambda: waiting(9))
        assert (await drain(lake, settings)).succeeded == 9

        look, looks = LakeValues.view, []

        async def stopped_after_the_first_look(self, conids=None):
            view = await look(self, conids)
            looks.append(view)
            if len(looks) == 1:
                sim.close_position(A, PUT)
                await eventually(lambda: waiting(1))
            return view

        monkeypatch.setattr(LakeValues, "view", stopped_after_the_first_look)
        assert (await drain(lake, settings)).succeeded == 1
        rows = {(u.account, u.conid): u for u in await lake.updates.latest_updates()}
        assert (rows[A, PUT].position, rows[A, PUT].market_value) == (0.0, 0.0)
