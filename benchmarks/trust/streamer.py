"""The measured process: the whole stream over some legs, as a run of Dagster does it.

`python benchmarks/trust/streamer.py LAKE PORT SECONDS LEG…`, a leg as JSON. It uses only what older
checkouts have too.
"""

import asyncio
import json
import sys

from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.stream_parts import with_money
from position_sync_dagster.sync.stream.streamer import stream
from tests.support.settings import make_settings


async def main(lake: str, port: str, seconds: str, *legs: str) -> None:
    """Stream the legs for some seconds."""
    settings = make_settings(lake=lake, gateway_port=int(port), rotate_after_s=float(seconds))
    opened = MoneyLake(lake)
    await opened.initialize()
    for leg in legs:
        await opened.registry.add_active(**json.loads(leg))
    await stream(opened, settings, stop=asyncio.Event(), complete=with_money, run_id="trust")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
