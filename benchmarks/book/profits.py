"""A second's messages of profits: what ib_async takes to read them, and what the stream adds."""

import random
import struct
import time

from ib_async import IB, PnLSingle

from benchmarks.bench import Bench
from benchmarks.outcome import Line, Target
from benchmarks.timing import median
from position_sync_dagster.domain.account_state import AccountStates
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.holding import Key
from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.gateway import ib_async_internals
from position_sync_dagster.gateway.codes import Connectivity
from position_sync_dagster.gateway.connection import MessageReader
from position_sync_dagster.gateway.holdings import HoldingsBook
from position_sync_dagster.gateway.subscriptions import PnlSubscriptions
from position_sync_dagster.processes.heard.wire import Heard

ACCOUNT = "DUSIM0001"
# As many as a book of 20,000 legs has: 2,000 of monitored legs, the others of legs without a line.
SUBSCRIPTIONS = 2_900
SECONDS = 40
UNSET = "1.7976931348623157E308"
ALONE = "read by ib_async alone"


def profits(bench: Bench) -> None:
    """Read the same messages by ib_async alone, into the book, and counted too, in turns."""
    keys = [(ACCOUNT, 920_000_001 + place) for place in range(bench.size(SUBSCRIPTIONS, 200))]
    readers = {
        ALONE: _alone(keys),
        "read into the book": _with_book(keys),
        "read and counted": _with_book(keys, Heard()),
    }
    took = {what: list[float]() for what in readers}
    prices = random.Random(1)
    for _second in range(bench.size(SECONDS, 3)):
        values = [round(prices.uniform(100.0, 900.0), 2) for _key in keys]
        data = b"".join(map(_message, range(1, len(keys) + 1), values))
        for what, ib in readers.items():
            began = time.process_time()
            ib.client.conn.data_received(data)
            took[what].append((time.process_time() - began) * 1e3)

    alone = took.pop(ALONE)
    lines = [
        Line(
            what=f"{what}: processor time of a second",
            state=f"{len(keys):,} messages",
            ours=median(times),
            samples=len(times),
            against="ib_async alone",
            theirs=median(alone),
            target=Target(ratio=3.0),
        )
        for what, times in took.items()
    ]
    bench.report.add("Messages of profits", lines)


def _message(request: int, value: float) -> bytes:
    """Return a message as the gateway sends it, of a holding of one."""
    fields = ("95", str(request), "1.0", str(value / 100), str(value / 10), UNSET, str(value))
    text = "".join(f"{field}\0" for field in fields).encode()
    return struct.pack(">I", len(text)) + text


def _connected() -> IB:
    """Return a client that takes bytes as if they came from a gateway, and sends nowhere."""
    ib = IB()
    client = ib.client
    client._apiReady = True
    client.connState = client.CONNECTED
    client._serverVersion = client.decoder.serverVersion = 176
    client.conn.sendMsg = lambda _data: None  # type: ignore[method-assign]
    client.MaxRequests = 0
    ib.isConnected = lambda: True  # type: ignore[method-assign]
    ib_async_internals.read_in_pieces(ib)
    return ib


def _alone(keys: list[Key]) -> IB:
    """Return a client whose messages ib_async reads into its own objects."""
    ib = _connected()
    for request, (account, conid) in enumerate(keys, start=1):
        ib.wrapper.reqId2PnlSingle[request] = PnLSingle(account=account, conId=conid)
    return ib


def _with_book(keys: list[Key], heard: Heard | None = None) -> IB:
    """Return a client whose messages a book of holdings gets, and a count if there is one."""
    ib = _connected()
    if heard is not None:
        ib_async_internals.listen(ib, heard)
    requests = iter(range(1, len(keys) + 1))
    ib.client.getReqId = lambda: next(requests)  # type: ignore[method-assign]
    book = HoldingsBook(ACCOUNT, AccountStates([ACCOUNT]), Connectivity(), clock=utc_now)
    for account, conid in keys:
        stock = Instrument(conid=conid, symbol="SYM", sec_type="STK", currency="USD")
        book.put_position(account, stock, 1.0, None)

    subscriptions = PnlSubscriptions(ib, book)
    subscriptions.keep(keys)
    while len(subscriptions.keys) < len(keys):
        subscriptions.step()
    MessageReader(ib, ACCOUNT)  # the client keeps both
    return ib
