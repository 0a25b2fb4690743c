"""The measured process: the whole stream as a run of Dagster does it, without Dagster.

`python -m benchmarks.stream.streamer LAKE PORT SECONDS`
"""

import asyncio
import json
import sys
import time

from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.stream_parts import with_money
from position_sync_dagster.sync.stream.streamer import stream
from tests.support.settings import make_settings


async def main(lake: str, port: str, seconds: str) -> None:
    """Stream into the lake for some seconds."""
    settings = make_settings(
        lake=lake,
        gateway_port=int(port),
        max_lines=105,
        rotate_after_s=float(seconds),
    )
    last = await stream(
        MoneyLake(lake), settings, stop=asyncio.Event(), complete=with_money, run_id="benchmark"
    )
    found = {
        "rows": last.rows,
        "commits": last.commits,
        "reconnects": last.reconnects,
        "processor_s": time.process_time(),
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
