"""The bytes of a connection: the same messages as ib_async reads, however they are cut."""

import pytest
from ib_async import IB

from position_sync_dagster.gateway.ib_async_internals import read_without_copies, unread_bytes
from tests.support.messages import frame

MESSAGES = [
    ["49", "1", "1772637000"],
    ["8", "1", "14:58"],
    ["61", "3", "DU1", "7", "Zürich", "", "x" * 300],
    ["", ""],
]


SENT = b"".join(frame(*fields) for fields in MESSAGES)


def arrive(ib, data, size):
    for first in range(0, len(data), size):
        ib.client.conn.hasData.emit(data[first : first + size])


def connected(*, ours):
    """Return a connection that is logged in, and the messages that it reads."""
    ib, read = IB(), []
    ib.client.connState, ib.client._serverVersion, ib.client._apiReady = 2, 178, True
    ib.client.decoder.interpret = read.append
    if ours:
        read_without_copies(ib)
    return ib, read


@pytest.mark.parametrize("size", [1, 3, 4, 5, 64, len(SENT), len(SENT) + 2])
async def test_messages_are_read_as_ib_async_reads_them(size):
    half = frame("49", "1", "2")[:-2]
    found = []
    for ours in (True, False):
        ib, read = connected(ours=ours)
        arrive(ib, SENT + half, size)
        counts = (ib.client._numBytesRecv, ib.client._numMsgRecv)
        found.append((list(read), unread_bytes(ib), counts, ib.wrapper.time > 0))
    assert found[0] == found[1]
    assert found[0][0] == MESSAGES
    assert found[0][1] == half


async def test_what_comes_after_the_end_of_a_connection_is_dropped():
    ib, read = connected(ours=True)

    def end(fields):
        read.append(fields)
        if len(read) == 2:
            ib.client.reset()

    ib.client.decoder.interpret = end
    arrive(ib, SENT, len(SENT))
    assert (read, unread_bytes(ib)) == (MESSAGES[:2], b"")


async def test_a_message_that_raises_is_read_once_and_the_others_after_it():
    ib, read = connected(ours=True)

    def fail(fields):
        read.append(fields)
        if len(read) == 1:
            raise ValueError(fields)

    ib.client.decoder.interpret = fail
    arrive(ib, SENT, len(SENT))
    arrive(ib, frame("49", "1", "2"), 100)
    assert read == [*MESSAGES, ["49", "1", "2"]]
