"""Market data lines: what streams, what is refused, and how lines are counted."""

from dataclasses import replace
from itertools import pairwise

import pytest

from ib_gateway_simulator import Book, SimulatedGateway

CALL, PUT, CENTS, ES_PUT = (921000000 + n for n in (1, 2, 4, 5))
STOCK, FUTURE, INDEX = 920000001, 920000002, 920000004


@pytest.fixture
def options():
    return {"autostep": False}


async def test_a_line_opens_with_type_and_parameters_then_ticks(client):
    client.market_data(9, CALL, ticks="232")
    await client.barrier()
    received = client.about(9)
    assert received[0] == ["58", "1", "9", "1"]
    assert received[1] == ["81", "9", "0.01", "9c0001", "3"]
    kinds = {(m[0], m[3]) if m[0] != "21" else (m[0], m[2]) for m in received[2:]}
    assert {("46", "45"), ("45", "49"), ("1", "4"), ("1", "1"), ("1", "2")} <= kinds
    assert {("1", "37"), ("21", "13"), ("2", "8"), ("1", "9")} <= kinds


async def test_the_mark_price_comes_with_generic_tick_232_only(sim, client):
    client.market_data(9, CALL, ticks="")
    client.market_data(10, CALL, ticks="100,232")
    await client.barrier()
    sim.step(20)
    await client.barrier()
    marks = [m[2] for m in client.of(1) if m[3] == "37"]
    assert len(marks) >= 20
    assert set(marks) == {"10"}


async def test_only_changes_are_sent_as_ticks(sim, client):
    client.market_data(9, STOCK, sec_type="STK", ticks="232")
    await client.barrier()
    sim.step(200)
    await client.barrier()
    for kind in ("1", "2", "4", "37"):
        prices = [m[4] for m in client.of(1) if m[3] == kind]
        assert len(prices) > 20
        assert all(a != b for a, b in pairwise(prices))


async def test_a_duplicate_request_is_another_full_stream_and_another_line(sim, client):
    client.market_data(1, CALL, ticks="232")
    client.market_data(2, CALL, ticks="232")
    await client.barrier()
    sim.step(5)
    await client.barrier()
    first = [[*m[:2], *m[3:]] for m in client.about(1) if m[0] == "1"]
    second = [[*m[:2], *m[3:]] for m in client.about(2) if m[0] == "1"]
    assert first == second
    assert len(first) > 10
    assert sim.stats()["lines_in_use"] == 2
    assert sim.stats()["lines_by_conid"] == {str(CALL): 2}
    client.send(2, 2, 1)
    since = await client.barrier()
    sim.step(5)
    await client.barrier()
    assert client.about(1, since) == []
    assert client.about(2, since) != []


async def test_over_the_limit_a_request_gets_101_and_running_lines_continue(small, connect):
    async with SimulatedGateway(small, autostep=False, max_lines=2) as sim:
        one, two = await connect(sim.port, 1), await connect(sim.port, 2)
        one.market_data(1, CALL)
        await one.barrier()
        two.market_data(1, PUT)
        two.market_data(2, STOCK, sec_type="STK")
        error = await two.wait_error(101)
        assert error == ["4", "2", "2", "101", "Max number of tickers has been reached.", ""]
        sim.step(5)
        since = await one.barrier()
        assert len(one.about(1)) > 12
        assert two.about(2) == [error]
        one.send(2, 2, 1)
        await one.barrier()
        assert one.about(1, since) == []
        two.market_data(2, STOCK, sec_type="STK")
        await two.wait(lambda m: m[0] == "58" and m[2] == "2")
        stats = sim.stats()
        assert (stats["lines_in_use"], stats["peak_lines"], stats["line_limit"]) == (2, 2, 2)


async def test_a_disconnect_frees_the_lines_of_that_client(sim, connect, eventually):
    one, two = await connect(sim.port, 1), await connect(sim.port, 2)
    one.market_data(1, CALL)
    one.market_data(2, PUT)
    two.market_data(1, CALL)
    await one.barrier()
    await two.barrier()
    assert sim.stats()["lines_in_use"] == 3
    await one.close()
    await eventually(lambda: sim.stats()["lines_in_use"] == 1)
    two.market_data(2, PUT)
    await two.barrier()
    assert sim.stats()["lines_in_use"] == 2
    assert sim.stats()["peak_lines"] == 3


async def test_the_same_request_id_twice_gets_102_and_the_first_line_continues(sim, client):
    client.market_data(1, CALL)
    client.market_data(1, PUT)
    assert (await client.wait_error(102))[4] == "Duplicate ticker ID."
    since = len(client.messages)
    sim.step(5)
    await client.barrier()
    assert client.about(1, since) != []
    assert sim.stats()["lines_by_conid"] == {str(CALL): 1}


async def test_a_cancel_of_an_id_that_does_not_stream_gets_300(client):
    client.market_data(1, CALL)
    client.send(2, 2, 1)
    client.send(2, 2, 1)
    error = await client.wait_error(300)
    assert error[2] == "1"
    assert error[4] == "Can't find EId with tickerId:1"
    assert len([m for m in client.of(4) if m[3] == "300"]) == 1


UNKNOWN = "No security definition has been found for the request"
ILLEGAL = "Incorrect generic tick list of 232,999.  Legal ones for (OPT) are: 100("


@pytest.mark.parametrize(
    ("conid", "request_", "code", "text"),
    [
        (123456, {}, 200, UNKNOWN),
        (CALL, {"exchange": ""}, 321, "Please enter exchange"),
        (FUTURE, {"exchange": ""}, 321, "Please enter exchange"),
        (ES_PUT, {"exchange": ""}, 321, "Please enter exchange"),
        (CALL, {"ticks": "232,999"}, 321, ILLEGAL),
    ],
)
async def test_a_request_that_is_refused_holds_no_line_and_nothing_follows(
    sim, client, conid, request_, code, text
):
    client.market_data(1, conid, **request_)
    error = await client.wait_error(code, 1)
    assert text in error[4]
    sim.step(5)
    await client.barrier()
    assert client.about(1) == [error]
    assert sim.stats()["lines_in_use"] == 0


async def test_a_snapshot_uses_a_line_until_its_end_and_cannot_be_cancelled_then(
    small, connect, eventually
):
    async with SimulatedGateway(small, tick_interval_s=0.01, snapshot_s=0.15) as sim:
        client = await connect(sim.port)
        client.market_data(1, CALL, snapshot=1)
        await client.wait(lambda m: m[0] == "21" and m[1] == "1")
        assert sim.stats()["lines_in_use"] == 1
        count = len(client.about(1))
        await client.wait_id(57)
        assert client.about(1)[count:] == [["57", "1", "1"]]
        assert sim.stats()["lines_in_use"] == 0
        client.send(2, 2, 1)
        await client.wait_error(300, 1)


async def test_cents_are_quoted_in_cents_and_an_index_has_no_sides(client):
    client.market_data(1, CENTS, exchange="CBOT", sec_type="FOP", ticks="232")
    client.market_data(2, INDEX, exchange="CBOE", sec_type="IND")
    await client.barrier()
    cents = {m[3]: float(m[4]) for m in client.about(1) if m[0] == "1"}
    assert 20 < cents["37"] < 50
    index = {m[3]: m for m in client.about(2) if m[0] == "1"}
    assert index["4"][5] == ""
    assert "1" not in index
    assert "2" not in index


async def test_delayed_data_comes_with_10167_and_delayed_types(sim, connect):
    sim.set_permission(CALL, 354)
    client = await connect(sim.port)
    client.market_data(1, CALL)
    text = (await client.wait_error(354, 1))[4]
    assert text.startswith("Requested market data is not subscribed.Delayed")
    client.send(2, 2, 1)
    await client.wait_error(300, 1)
    client.send(59, 1, 3)
    client.market_data(2, CALL)
    await client.barrier()
    received = client.about(2)
    assert [m[0] for m in received[:3]] == ["81", "58", "4"]
    assert received[1] == ["58", "1", "2", "3"]
    assert received[2][3] == "10167"
    kinds = {int(m[2] if m[0] == "21" else m[3]) for m in received[3:]}
    assert kinds == {66, 67, 68, 72, 73, 74, 75, 76, 83, 88, 90}
    sim.step(8)
    await client.barrier()
    assert len(client.about(2)) > len(received)


@pytest.mark.parametrize("code", [354, 10089, 10168, 10197])
async def test_a_permission_that_ends_stops_the_running_line_with_its_code(sim, client, code):
    client.market_data(1, CALL)
    client.market_data(2, PUT)
    await client.barrier()
    sim.set_permission(CALL, code)
    await client.wait_error(code, 1)
    assert sim.stats()["lines_by_conid"] == {str(PUT): 1}
    sim.set_permission(CALL, None)
    client.market_data(3, CALL)
    await client.wait(lambda m: m[0] == "21" and m[1] == "3")


@pytest.mark.parametrize("code", [10090, 10091])
async def test_an_advisory_code_leaves_the_ticks_but_not_the_greeks(sim, connect, code):
    sim.set_permission(CALL, code)
    client = await connect(sim.port)
    client.market_data(1, CALL, ticks="232")
    await client.wait_error(code, 1)
    sim.step(5)
    await client.barrier()
    received = client.about(1)
    assert len([m for m in received if m[0] == "1"]) > 10
    assert [m for m in received if m[0] == "21"] == []


async def test_a_pinned_quote_can_be_crossed_half_or_missing(sim, client):
    sim.pin_quote(CALL, bid=3.0, ask=2.5, last=2.7)
    client.market_data(1, CALL, ticks="232")
    await client.barrier()
    prices = {m[3]: float(m[4]) for m in client.of(1)}
    assert (prices["1"], prices["2"], prices["4"]) == (3.0, 2.5, 2.7)
    sim.pin_quote(CALL, bid=3.0, ask=2.5, last=2.7)
    since = len(client.messages)
    sim.step(8)
    await client.barrier()
    assert client.of(1, since=since) == []
    sim.pin_quote(CALL, ask=2.5, no_mark=True)
    since = len(client.messages)
    sim.step()
    await client.barrier()
    changed = {m[3]: float(m[4]) for m in client.of(1, since=since)}
    assert changed == {"1": -1.0}
    sim.pin_quote(CALL, release=True)
    sim.step()
    await client.wait(lambda m: m[0] == "1" and m[3] == "1" and float(m[4]) > 10)


async def test_a_broken_farm_stops_its_own_ticks_only(sim, client, connect):
    client.market_data(1, CALL)
    client.market_data(2, FUTURE, exchange="CME", sec_type="FUT")
    await client.barrier()
    sim.farm("usfarm", 2103)
    await client.wait_error(2103)
    since = await client.barrier()
    sim.step(8)
    await client.barrier()
    assert client.about(1, since) == []
    assert client.about(2, since) != []
    late = await connect(sim.port, 2)
    assert "Market data farm connection is broken:usfarm" in [m[4] for m in late.of(4)]
    sim.farm("usfarm", 2104)
    since = len(client.messages)
    sim.step()
    await client.barrier()
    assert client.about(1, since) != []


async def test_halted_contracts_are_marked_and_do_not_tick(small, connect):
    async with SimulatedGateway(replace(small, halted=frozenset({CALL})), autostep=False) as sim:
        client = await connect(sim.port)
        client.market_data(1, CALL)
        since = await client.barrier()
        assert ["45", "6", "1", "49", "1.0"] in client.about(1)
        sim.step(8)
        await client.barrier()
        assert client.about(1, since) == []


async def test_a_frozen_market_sends_neither_ticks_nor_a_notice(sim, client):
    client.market_data(1, CALL)
    since = await client.barrier()
    sim.freeze()
    sim.step(5)
    client.send(59, 1, 2)
    client.market_data(2, CALL)
    await client.barrier()
    assert client.about(1, since) == []
    assert client.about(2)[0] == ["58", "1", "2", "2"]
    sim.freeze(False)
    sim.step(5)
    await client.barrier()
    assert client.about(1, since) != []


async def recorded_run(book: Book, connect, seed: int) -> list[list[str]]:
    async with SimulatedGateway(
        book, seed=seed, autostep=False, now=lambda: 1_790_000_000.0
    ) as sim:
        client = await connect(sim.port)
        client.send(6, 2, 1, "DUSIM0001")
        client.send(61, 1)
        client.market_data(1, CALL, ticks="232")
        client.send(94, 2, "DUSIM0001", "", CALL)
        await client.barrier()
        sim.step(30)
        client.market_data(3, FUTURE, exchange="CME", sec_type="FUT", ticks="232")
        sim.fill("DUSIM0001", CALL, 2)
        sim.step(30)
        await client.barrier()
        return list(client.messages)


async def test_the_same_seed_and_requests_give_the_same_messages(small, connect):
    first = await recorded_run(small, connect, 11)
    assert first == await recorded_run(small, connect, 11)
    assert first != await recorded_run(small, connect, 12)
    assert len(first) > 200


async def test_every_sent_price_can_be_looked_up_with_its_time(small, connect):
    async with SimulatedGateway(small, autostep=False, tick_ring=50) as sim:
        client = await connect(sim.port)
        client.market_data(1, CALL, ticks="232")
        await client.barrier()
        sim.step(100)
        await client.barrier()
        mark = [m for m in client.of(1) if m[3] == "37"][-1]
        assert sim.ticks(CALL)["mark"]["value"] == float(mark[4])
        ring = sim.recent_ticks(CALL)
        assert len(ring) == 50
        times = [tick["sent_at_us"] for tick in ring]
        assert times == sorted(times)
        assert sim.ticks(PUT) == {}


async def test_an_underlying_and_its_volatility_move_at_once(sim, client):
    client.market_data(9, CALL, ticks="232")
    await client.barrier()
    before = sim.greeks(CALL)[CALL]
    price = sim.move_underlying("AAPL", -10)
    sim.shift_volatility(5, "AAPL")
    await client.barrier()
    after = sim.greeks(CALL)[CALL]
    assert after["underlying_price"] == pytest.approx(0.9 * before["underlying_price"])
    assert after["underlying_price"] == pytest.approx(price)
    assert after["implied_vol"] == pytest.approx(before["implied_vol"] + 0.05)
    models = [float(m[5]) for m in client.of(21)]
    assert models[-1] < models[0] - 0.1  # its delta


async def test_dividends_come_with_generic_tick_456_and_are_announced(sim, client):
    client.market_data(9, STOCK, sec_type="STK", ticks="232,456")
    client.market_data(10, STOCK, sec_type="STK", ticks="232")
    await client.barrier()
    price = sim.greeks(CALL)[CALL]["price"]
    sim.dividend("AAPL", 2.5, days=1)
    await client.barrier()
    assert sim.greeks(CALL)[CALL]["price"] < price
    found = [m[4].split(",") for m in client.of(46) if m[3] == "59"]
    assert {m[2] for m in client.of(46) if m[3] == "59"} == {"9"}
    assert float(found[-1][3]) == pytest.approx(2.5, rel=1e-3)
    assert len(found[-1][2]) == 8
