"""Many simulated gateways in one process: `python -m benchmarks.hosts.many_gateways BOOK…`.

It prints their ports as JSON, serves until its input ends, and prints how many orders came.
"""

import asyncio
import json
import sys
from contextlib import AsyncExitStack

from ib_gateway_simulator import SimulatedGateway


async def serve(books: list[str]) -> None:
    """Serve a gateway for each book."""
    async with AsyncExitStack() as stack:
        gateways = [
            await stack.enter_async_context(
                SimulatedGateway(book=book, port=0, control_port=None, seed=number)
            )
            for number, book in enumerate(books, 1)
        ]
        print(json.dumps([gateway.port for gateway in gateways]), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        print(sum(len(gateway.orders_received) for gateway in gateways), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1:]))
