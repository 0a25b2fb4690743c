"""The package as a library, in one script: 200 legs, 20 lines, one connection."""

import re
from importlib.resources import as_file, files

import position_sync_dagster as ps
from position_sync_dagster.lake.strategies_file import load_strategies
from position_sync_dagster.settings import Settings
from tests.support.streams import eventually, simulate


async def test_registry_queue_streamer_and_worker_in_one_script(monkeypatch, caplog):
    caplog.set_level("INFO", logger=ps.__name__)
    async with simulate("demo", tick_interval_s=0.2) as sim:
        monkeypatch.setenv("POSITION_SYNC_GATEWAY_PORT", str(sim.port))
        monkeypatch.setenv("POSITION_SYNC_FLUSH_INTERVAL_S", "0.2")
        monkeypatch.setattr(Settings, "max_batch_size", 60)
        registry, queue = ps.StrategyRegistry(), ps.PositionQueue()
        await registry.initialize()
        with as_file(files("ib_gateway_simulator") / "books") as books:
            await registry.add_many(load_strategies(books / "demo_strategies.yaml"))
        streamer = ps.IBPositionStreamer(registry, queue)
        streamer.register_handler(ps.DeltaLakePositionWriter())
        worker = ps.QueueWorker(queue, interval=0.2, batch_size=50)
        await streamer.start()
        await worker.start()
        table = ps.PositionUpdatesTable()

        async def all_current():
            return (await table.latest()).height == 200

        await eventually(all_current)
        rows = await table.latest()
        assert sorted(rows["source"].value_counts().iter_rows()) == [("QUEUE", 180), ("STREAM", 20)]
        assert rows["market_value"].null_count() == 0
        assert sim.stats()["peak_lines"] == 20
        assert sim.stats()["connections"]["total"] == 1
        assert worker.get_stats().total_failed == 0
        assert caplog.messages.count("20 streamed, 180 queued") == 1
        batches = [text for text in caplog.messages if text.startswith("batch of ")]
        assert re.fullmatch(
            r"batch of 50 in \d+\.\d\d s: 50 succeeded, 0 failed, 0 released", batches[0]
        )
        assert "claimed 50 requests" in caplog.messages
        assert "marked 50 requests SUCCESS" in caplog.messages
        assert sum(int(text.split()[2].rstrip(":")) for text in batches) >= 180
        await worker.stop()
        await streamer.stop()
        await eventually(lambda: sim.stats()["connections"]["now"] == 0)
