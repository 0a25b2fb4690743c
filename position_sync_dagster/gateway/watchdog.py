"""The watchdog: ends a connection on which no message arrives any more."""

import asyncio
from collections.abc import Callable

from ib_async import IB

from position_sync_dagster.gateway.ib_async_internals.connection import bytes_received, unread_bytes
from position_sync_dagster.gateway.message_reader import MessageReader, is_no_length

SILENCE_S = 10.0
"""After this long without a readable message the watchdog requests the gateway's time, and waits as
long for the answer. Half a message that is not completed in this time ends the connection."""


class Watchdog:
    """Gives a connection up when no message is understood any more, not even an answer.

    A hung gateway, or one that a broken network hides, keeps its socket open for hours. One that
    sends what is no message, or half of one, is no better, however many bytes come.

    Args:
        ib: The connection.
        reader: Its reader of messages.
        give_up: Called with the reason.
    """

    def __init__(self, ib: IB, reader: MessageReader, *, give_up: Callable[[str], None]) -> None:
        self._ib = ib
        self._reader = reader
        self._give_up = give_up
        bytes_received(ib).connect(self._check_length)
        self._task = asyncio.create_task(self._watch())

    def stop(self) -> None:
        """Stop watching; the connection ends for another reason."""
        self._task.cancel()

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        seen, seen_at = -1, loop.time()
        while self._ib.isConnected():
            if self._reader.understood != seen:
                seen, seen_at = self._reader.understood, loop.time()
            await asyncio.sleep(SILENCE_S / 2)
            if self._reader.understood != seen or loop.time() - seen_at < SILENCE_S:
                continue
            if unread_bytes(self._ib):
                self._give_up(f"half a message has been waiting for its rest for {SILENCE_S:g} s")
                return
            try:
                await asyncio.wait_for(self._ib.reqCurrentTimeAsync(), SILENCE_S)
            except TimeoutError:
                self._give_up(f"it has not answered for {2 * SILENCE_S:g} s")
            except ConnectionError:
                return

    def _check_length(self, _data: bytes) -> None:
        if is_no_length(unread_bytes(self._ib)):
            self._give_up("it sent a frame longer than any message")
