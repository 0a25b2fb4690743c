"""Handshake, login, refusals, and clients that break the protocol."""

import asyncio
import time
from contextlib import AsyncExitStack

import pytest

from ib_gateway_simulator import PortInUseError, SimulatedGateway, SimulatorError
from tests.support.ports import free_port


async def test_a_login_brings_accounts_then_next_id_then_farm_notices(client):
    version, stamp = client.messages[0]
    assert version == "178"
    assert stamp.endswith("Greenwich Mean Time")
    assert client.messages[1] == ["15", "1", "DUSIM0001,DUSIM0002,"]
    assert client.messages[2] == ["9", "1", "1"]
    codes = [message[3] for message in client.messages[3:]]
    assert codes == ["2104", "2104", "2106", "2158"]


@pytest.mark.parametrize("offer", ["v100..151", "v100..156", "v183..193"])
async def test_a_client_without_a_common_version_is_closed_and_named_in_the_log(
    sim, connect, caplog, offer
):
    client = await connect(sim.port, start=False)
    client.greet(offer)
    await client.wait_closed()
    assert client.messages == []
    assert sim.stats()["refused"] == {"version": 1}
    assert offer in caplog.text
    assert "157 to 178" in caplog.text


async def test_a_client_id_in_use_gets_326_and_is_closed_while_the_first_client_stays(
    sim, connect, eventually
):
    first = await connect(sim.port, client_id=5)
    second = await connect(sim.port, start=False)
    second.greet()
    second.send(71, 2, 5, "")
    error = await second.wait_error(326)
    assert error[2] == "-1"
    await second.wait_closed()
    assert [m[0] for m in second.messages[1:]] == ["4"]
    await first.barrier()
    await first.close()
    await eventually(lambda: sim.stats()["connections"]["now"] == 0)
    third = await connect(sim.port, client_id=5)
    await third.barrier()
    assert sim.stats()["connections"]["by_client"]["5"] == {"now": 1, "total": 2}


async def test_the_33rd_client_is_refused(sim, connect):
    for client_id in range(1, 33):
        await connect(sim.port, client_id=client_id)
    late = await connect(sim.port, start=False)
    late.greet()
    late.send(71, 2, 99, "")
    await late.wait_closed()
    assert sim.stats()["connections"]["now"] == 32
    assert sim.stats()["connections"]["peak"] == 32
    assert sim.stats()["refused"] == {"too many clients": 1}


async def test_more_than_50_messages_a_second_bring_one_error_100_and_the_connection_goes_on(
    sim, client
):
    for _ in range(200):  # so many that no busy machine excuses them
        client.send(49, 1)
    await client.wait_error(100)
    await client.barrier()
    assert len([m for m in client.of(4) if m[3] == "100"]) == 1
    assert len(client.of(49)) == 201
    assert 0 < sim.stats()["rate_violations"] <= 151


async def test_messages_that_waited_while_the_gateway_was_busy_are_not_counted_as_one_burst(
    sim, client
):
    await asyncio.sleep(0.2)
    for _ in range(90):  # at the pace of a client that keeps the limit: 2 s of messages
        client.send(49, 1)
    time.sleep(2.0)  # the gateway runs in this loop: it is busy
    await client.barrier()
    assert len(client.of(49)) == 91
    assert sim.stats()["rate_violations"] == 0


async def test_a_burst_just_before_the_gateway_was_busy_is_no_part_of_what_waited_meanwhile(
    sim, client
):
    for _ in range(20):
        client.send(49, 1)
    await client.barrier()
    for _ in range(45):  # of a client that keeps the limit: the last of them a second later
        client.send(49, 1)
    time.sleep(1.3)  # the gateway runs in this loop: it is busy
    await client.barrier()
    assert len(client.of(49)) == 67
    assert sim.stats()["rate_violations"] == 0


async def test_a_request_that_cannot_be_read_gets_320_and_is_closed(client):
    client.market_data(3, "Option(symbol='SPY')")  # what ib_async issue 158 sent
    error = await client.wait_error(320)
    assert error[2] == "3"
    assert "Unable to parse field: 'Con Id' for input string: 'Option(" in error[4]
    await client.wait_closed()


@pytest.mark.parametrize(
    "fields", [(4711, 1), ("x",), (1, 11, 5), (71,), (94, 7, "DUSIM0001", "", "abc")]
)
async def test_unknown_and_incomplete_requests_get_320_too(client, fields):
    client.send(*fields)
    await client.wait_error(320)
    await client.wait_closed()


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"API\0\xff\xff\xff\xff",
        b"API\0\x00\x00\x00\x04abcd",
        b"API\0\x00\x00\x00\x00",
    ],
)
async def test_garbage_closes_its_connection_and_no_other(sim, connect, garbage):
    good = await connect(sim.port)
    bad = await connect(sim.port, start=False)
    bad.writer.write(garbage)
    await bad.wait_closed()
    await good.barrier()
    assert sim.stats()["connections"]["now"] == 1


@pytest.mark.parametrize("options", [{"max_buffer_bytes": 50_000, "max_messages_per_s": 0}])
async def test_a_client_that_does_not_read_is_dropped_at_its_limit(
    sim, connect, eventually, caplog
):
    good = await connect(sim.port, 1)
    slow = await connect(sim.port, 2)
    slow.writer.transport.pause_reading()

    def flood() -> bool:
        for _ in range(200):
            slow.send(61, 1)
        return bool(sim.stats()["refused"].get("slow client"))

    await eventually(flood)
    await eventually(lambda: sim.stats()["connections"]["now"] == 1)
    await good.barrier()
    assert "does not read" in caplog.text


async def test_a_port_in_use_is_named(sim, small):
    with pytest.raises(PortInUseError, match=f"127.0.0.1:{sim.port}"):
        async with SimulatedGateway(small, port=sim.port):
            pass
    with pytest.raises(PortInUseError, match=str(sim.port)):
        async with SimulatedGateway(small, control_port=sim.port):
            pass


async def test_where_a_port_is_taken_one_of_the_next_is_used(small):
    wanted = free_port()
    async with AsyncExitStack() as running:
        found = []
        for _ in range(3):
            simulator = SimulatedGateway(small, port=wanted, next_ports=50)
            found.append((await running.enter_async_context(simulator)).port)
        assert found[0] == wanted
        assert found == sorted(set(found))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("placeOrder", (3, 12, 921000001, "AAPL", "OPT", "junk")),
        ("cancelOrder", (4, 1, 12, "")),
        ("exerciseOptions", (21, 2, 12, 921000001)),
        ("reqGlobalCancel", (58, 1)),
        ("placeOrder", (3,)),
    ],
)
async def test_any_order_message_is_recorded_and_changes_nothing(sim, connect, name, fields):
    client = await connect(sim.port, client_id=4)
    before = sim.positions()
    client.send(*fields)
    await client.barrier()
    [order] = sim.orders_received
    assert order.client_id == 4
    assert order.name == name
    assert order.fields == tuple(str(field) for field in fields)
    assert sim.stats()["orders_received"][0]["name"] == name
    assert sim.positions() == before
    assert not client.closed.is_set()


async def test_a_request_that_only_reads_records_no_order(sim, client):
    for request in ((5, 1), (16, 1), (15, 1, 0), (99, 0), (7, 3, 1, 0, "", "", "", "", "", "")):
        client.send(*request)
    await client.barrier()
    assert [m[0] for m in client.messages[-5:]] == ["53", "53", "102", "55", "49"]
    assert sim.orders_received == []


@pytest.mark.parametrize("options", [{"handshake_timeout_s": 0.05}])
async def test_a_connection_that_never_logs_in_is_closed_after_the_timeout(sim, connect):
    mute = await connect(sim.port, start=False)
    half = await connect(sim.port, start=False)
    half.greet()
    await mute.wait_closed()
    await half.wait_closed()
    assert sim.stats()["refused"] == {"handshake timeout": 2}


@pytest.mark.parametrize("option", ["tick_interval_s", "refresh_interval_s", "pnl_interval_s"])
def test_a_time_of_zero_is_refused(small, option):
    with pytest.raises(SimulatorError, match=f"{option} is 0"):
        SimulatedGateway(small, **{option: 0})  # type: ignore[arg-type]
