"""The inside of ib_async is touched in one module, and is as that module takes it to be."""

import ast
import heapq
import inspect
import logging
from collections import deque
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import eventkit
import ib_async
import pytest
from ib_async import client, connection, decoder

from ib_gateway_simulator.protocol import wire
from position_sync_dagster import gateway
from position_sync_dagster.gateway import ib_async_internals, login

# Attributes of `IB` and of its client that are no part of its documented interface.
PRIVATE = {"wrapper", "decoder", "conn", "_data", "_logger", "MaxRequests", "RequestsInterval"}


def test_no_other_module_touches_the_inside_of_ib_async():
    touched = {
        f"{path.name}:{node.lineno} {node.attr}"
        for path in Path(gateway.__file__).parent.rglob("*.py")
        if path.stem != "ib_async_internals"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in PRIVATE
    }
    assert not touched


def _used(owners):
    """Return the attributes of these owners that the module uses, as `owner.attribute`."""
    names_found = set()
    for node in ast.walk(ast.parse(Path(ib_async_internals.__file__).read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, (ast.Attribute, ast.Name)):
            owner = getattr(node.value, "attr", None) or getattr(node.value, "id", None)
            if owner in owners:
                names_found.add(f"{owner}.{node.attr}")
    return names_found


EVENT = eventkit.Event
# Each symbol of the inside of ib_async that we use: its type, or the parameters of a function.
SYMBOLS = {
    "client.MaxRequests": int,
    "client.RequestsInterval": int,
    "client._data": bytes,
    "client._msgQ": deque,
    "client.conn": connection.Connection,
    "client.decoder": decoder.Decoder,
    "client.serverVersion": (),
    "conn.data_received": ("data",),
    "conn.disconnected": EVENT,
    "conn.hasData": EVENT,
    "conn.isConnected": (),
    "conn.sendMsg": ("msg",),
    "conn.transport": type(None),
    "decoder.handlers": dict,
    "decoder.interpret": ("fields",),
    "decoder.logger": logging.Logger,
    "wrapper.endTicker": ("ticker", "tickType"),
    "wrapper.position": ("account", "contract", "posSize", "avgCost"),
    "wrapper.ticker2ReqId": dict,
    "wrapper.tickers": dict,
}


@pytest.mark.parametrize("symbol", sorted(SYMBOLS))
def test_each_private_symbol_is_in_the_installed_release_as_we_use_it(symbol):
    ib = ib_async.IB()
    owner, name = symbol.split(".")
    owners = {
        "client": ib.client,
        "conn": ib.client.conn,
        "decoder": ib.client.decoder,
        "wrapper": ib.wrapper,
    }
    found = getattr(owners[owner], name)
    expected = SYMBOLS[symbol]
    if isinstance(expected, tuple) and not any(isinstance(part, type) for part in expected):
        assert tuple(inspect.signature(found).parameters) == expected
    else:
        assert isinstance(found, expected)


def test_no_private_symbol_is_used_without_its_test():
    assert _used({"client", "conn", "decoder", "wrapper"}) == SYMBOLS.keys()


def test_ib_async_offers_gateways_the_versions_that_the_simulator_and_the_recorder_speak():
    client = ib_async.IB().client
    offer = f"v{client.MinClientVersion}..{client.MaxClientVersion}".encode()
    assert wire.negotiate(offer) == wire.MAX_SERVER_VERSION
    assert client.MaxClientVersion == wire.MAX_SERVER_VERSION


class StandsStill:
    """The loop and the socket of a client whose process stands still as it sends a message.

    Attributes:
        sent_at: When each message reached the socket.
    """

    def __init__(self, number: int, stall_s: float) -> None:
        self.sent_at: list[float] = []
        self._at_message, self._stall_s = number, stall_s
        self._now = 0.0
        self._timers: list[tuple[float, int, object]] = []
        self._numbers = count()

    def time(self) -> float:
        return self._now

    def call_at(self, when, callback, *args) -> None:
        heapq.heappush(self._timers, (when, next(self._numbers), lambda: callback(*args)))

    def send(self, _data: bytes) -> None:
        if len(self.sent_at) == self._at_message:
            self._now += self._stall_s
        self.sent_at.append(self._now)

    def run(self) -> None:
        while self._timers:
            when, _number, call = heapq.heappop(self._timers)
            self._now = max(self._now, when + 1e-4)
            call()


@pytest.mark.parametrize("stall_s", [0.0, 0.05, 0.3, 0.6, 1.5])
def test_no_second_has_more_than_50_messages_also_if_the_process_stands_still(monkeypatch, stall_s):
    loop = StandsStill(81, stall_s)
    monkeypatch.setattr(client, "getLoop", lambda: loop)
    ib = ib_async.IB()
    ib_async_internals.set_pace(ib, *login.MESSAGE_PACE)
    ib.client.conn.sendMsg = loop.send  # type: ignore[method-assign]
    for _ in range(240):
        ib.client.sendMsg("49")
    loop.run()

    times = loop.sent_at
    assert len(times) == 240
    assert max(sum(at <= other < at + 1.01 for other in times) for at in times) <= 50
    assert times[-1] - stall_s <= 240 / 40  # as many as before


@pytest.mark.parametrize("ends_after", [None, 2])
def test_what_arrives_at_once_is_read_in_pieces_until_a_message_ends_the_connection(ends_after):
    ib = ib_async.IB()
    ib_async_internals.read_in_pieces(ib)
    conn = ib.client.conn
    pieces: list[Any] = []
    conn.hasData.clear()
    conn.hasData += pieces.append
    data = bytes(range(256)) * 100
    conn.data_received(data[:9])  # what comes first may come before ib_async knows the socket
    assert pieces == [data[:9]]
    pieces.clear()

    conn.transport = SimpleNamespace(is_closing=lambda: len(pieces) == ends_after)
    conn.data_received(data)
    assert max(map(len, pieces)) <= ib_async_internals.PIECE_BYTES
    if ends_after is None:
        assert b"".join(pieces) == data
    else:
        assert len(pieces) == ends_after
