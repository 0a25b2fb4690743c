"""Market data lines: what streams and what is refused, faults of a line, venues and farms."""

from dataclasses import replace
from itertools import pairwise

import pytest

from ib_gateway_simulator import ActionError, Book, BookError, SimulatedGateway, load_book

CALL, PUT, CENTS, ES_PUT = (921000000 + n for n in (1, 2, 4, 5))
STOCK = 920000001
FUTURE = 920000002
INDEX = 920000004


@pytest.fixture
def options():
    return {"autostep": False}


async def test_a_line_opens_with_type_and_parameters_then_ticks(client):
    await client.line(9, CALL, ticks="232")
    received = client.about(9)
    assert received[0] == ["58", "1", "9", "1"]
    assert received[1] == ["81", "9", "0.01", "9c0001", "3"]
    kinds = {(m[0], m[3]) if m[0] != "21" else (m[0], m[2]) for m in received[2:]}
    assert {("46", "45"), ("45", "49"), ("1", "4"), ("1", "1"), ("1", "2")} <= kinds
    assert {("1", "37"), ("21", "13"), ("2", "8"), ("1", "9")} <= kinds


async def test_the_mark_price_comes_with_generic_tick_232_only(sim, client):
    client.market_data(9, CALL, ticks="")
    await client.line(10, CALL, ticks="100,232")
    await client.step(sim, 20)
    marks = [m[2] for m in client.of(1) if m[3] == "37"]
    assert len(marks) >= 20
    assert set(marks) == {"10"}


async def test_only_changes_are_sent_as_ticks(sim, client):
    await client.line(9, STOCK, sec_type="STK", ticks="232")
    await client.step(sim, 200)
    for kind in ("1", "2", "4", "37"):
        prices = [m[4] for m in client.of(1) if m[3] == kind]
        assert len(prices) > 20
        assert all(a != b for a, b in pairwise(prices))


async def test_a_duplicate_request_is_another_full_stream_and_another_line(sim, client):
    client.market_data(1, CALL, ticks="232")
    await client.line(2, CALL, ticks="232")
    await client.step(sim, 5)
    first, second = (
        [[*m[:2], *m[3:]] for m in client.about(line) if m[0] == "1"] for line in (1, 2)
    )
    assert first == second
    assert len(first) > 10
    assert sim.stats()["lines_in_use"] == 2
    assert sim.stats()["lines_by_conid"] == {str(CALL): 2}
    client.send(2, 2, 1)
    since = await client.barrier()
    await client.step(sim, 5)
    assert client.about(1, since) == []
    assert client.about(2, since) != []


@pytest.mark.parametrize("options", [{"autostep": False, "max_lines": 2}])
async def test_over_the_limit_a_request_gets_101_and_running_lines_continue(sim, connect):
    first = await connect(sim.port, 1)
    two = await connect(sim.port, 2)
    await first.line(1, CALL)
    two.market_data(1, PUT)
    two.market_data(2, STOCK, sec_type="STK")
    error = await two.wait_error(101)
    assert error == ["4", "2", "2", "101", "Max number of tickers has been reached.", ""]
    since = await first.step(sim, 5)
    assert len(first.about(1)) > 12
    assert two.about(2) == [error]

    first.send(2, 2, 1)
    await first.barrier()
    assert first.about(1, since) == []
    two.market_data(2, STOCK, sec_type="STK")
    await two.wait_id(58, having={2: 2})
    stats = sim.stats()
    assert stats["lines_in_use"] == 2
    assert stats["peak_lines"] == 2
    assert stats["line_limit"] == 2


async def test_a_disconnect_frees_the_lines_of_that_client(sim, connect, eventually):
    first = await connect(sim.port, 1)
    two = await connect(sim.port, 2)
    first.market_data(1, CALL)
    first.market_data(2, PUT)
    two.market_data(1, CALL)
    await first.barrier()
    await two.barrier()
    assert sim.stats()["lines_in_use"] == 3
    await first.close()
    await eventually(lambda: sim.stats()["lines_in_use"] == 1)
    await two.line(2, PUT)
    assert sim.stats()["lines_in_use"] == 2
    assert sim.stats()["peak_lines"] == 3


async def test_the_same_request_id_twice_gets_102_and_the_first_line_continues(sim, client):
    client.market_data(1, CALL)
    client.market_data(1, PUT)
    assert (await client.wait_error(102))[4] == "Duplicate ticker ID."
    since = len(client.messages)
    await client.step(sim, 5)
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
    await client.step(sim, 5)
    assert client.about(1) == [error]
    assert sim.stats()["lines_in_use"] == 0


@pytest.mark.parametrize("options", [{"tick_interval_s": 0.01, "snapshot_s": 1.0}])
async def test_a_snapshot_uses_a_line_until_its_end_and_cannot_be_cancelled_then(
    sim, client, eventually
):
    client.market_data(1, CALL, snapshot=1)
    await client.wait_id(21, having={1: 1})
    assert sim.stats()["lines_in_use"] == 1
    count = len(client.about(1))
    await client.wait_id(57)
    assert client.about(1)[count:] == [["57", "1", "1"]]
    assert sim.stats()["lines_in_use"] == 0
    client.send(2, 2, 1)
    await client.wait_error(300, 1)


async def test_cents_are_quoted_in_cents_and_an_index_has_no_sides(client):
    client.market_data(1, CENTS, exchange="CBOT", sec_type="FOP", ticks="232")
    await client.line(2, INDEX, exchange="CBOE", sec_type="IND")
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
    await client.line(2, CALL)
    received = client.about(2)
    assert [m[0] for m in received[:3]] == ["81", "58", "4"]
    assert received[1] == ["58", "1", "2", "3"]
    assert received[2][3] == "10167"
    kinds = {int(m[2] if m[0] == "21" else m[3]) for m in received[3:]}
    assert kinds == {66, 67, 68, 72, 73, 74, 75, 76, 83, 88, 90}
    await client.step(sim, 8)
    assert len(client.about(2)) > len(received)


@pytest.mark.parametrize("code", [354, 10089, 10168, 10197])
async def test_a_permission_that_ends_stops_the_running_line_with_its_code(sim, client, code):
    client.market_data(1, CALL)
    await client.line(2, PUT)
    sim.set_permission(CALL, code)
    await client.wait_error(code, 1)
    assert sim.stats()["lines_by_conid"] == {str(PUT): 1}
    sim.set_permission(CALL, None)
    client.market_data(3, CALL)
    await client.wait_id(21, having={1: 3})


@pytest.mark.parametrize("code", [10090, 10091])
async def test_an_advisory_code_leaves_the_ticks_but_not_the_greeks(sim, connect, code):
    sim.set_permission(CALL, code)
    client = await connect(sim.port)
    client.market_data(1, CALL, ticks="232")
    await client.wait_error(code, 1)
    await client.step(sim, 5)
    received = client.about(1)
    assert len([m for m in received if m[0] == "1"]) > 10
    assert [m for m in received if m[0] == "21"] == []


async def test_a_pinned_quote_can_be_crossed_half_or_missing(sim, client):
    sim.pin_quote(CALL, bid=3.0, ask=2.5, last=2.7)
    await client.line(1, CALL, ticks="232")
    prices = prices_of(client)
    assert prices["1"] == 3.0
    assert prices["2"] == 2.5
    assert prices["4"] == 2.7
    sim.pin_quote(CALL, bid=3.0, ask=2.5, last=2.7)
    since = len(client.messages)
    await client.step(sim, 8)
    assert client.of(1, since=since) == []

    sim.pin_quote(CALL, ask=2.5, no_mark=True)
    since = len(client.messages)
    await client.step(sim)
    changed = {m[3]: float(m[4]) for m in client.of(1, since=since)}
    assert changed == {"1": -1.0}
    sim.pin_quote(CALL, release=True)
    sim.step()
    await client.wait(lambda m: m[0] == "1" and m[3] == "1" and float(m[4]) > 10)


async def test_a_broken_farm_stops_its_own_ticks_only(sim, client, connect):
    client.market_data(1, CALL)
    await client.line(2, FUTURE, exchange="CME", sec_type="FUT")
    sim.farm("usfarm", 2103)
    await client.wait_error(2103)
    since = await client.barrier()
    await client.step(sim, 8)
    assert client.about(1, since) == []
    assert client.about(2, since) != []
    late = await connect(sim.port, 2)
    assert "Market data farm connection is broken:usfarm" in [m[4] for m in late.of(4)]
    sim.farm("usfarm", 2104)
    since = len(client.messages)
    await client.step(sim)
    assert client.about(1, since) != []


async def test_halted_contracts_are_marked_and_do_not_tick(small, connect):
    async with SimulatedGateway(replace(small, halted=frozenset({CALL})), autostep=False) as sim:
        client = await connect(sim.port)
        since = await client.line(1, CALL)
        assert ["45", "6", "1", "49", "1.0"] in client.about(1)
        await client.step(sim, 8)
        assert client.about(1, since) == []


async def test_a_frozen_market_sends_neither_ticks_nor_a_notice(sim, client):
    since = await client.line(1, CALL)
    sim.freeze()
    sim.step(5)
    client.send(59, 1, 2)
    await client.line(2, CALL)
    assert client.about(1, since) == []
    assert client.about(2)[0] == ["58", "1", "2", "2"]
    sim.freeze(False)
    await client.step(sim, 5)
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
        await client.step(sim, 30)
        return list(client.messages)


async def test_the_same_seed_and_requests_give_the_same_messages(small, connect):
    first = await recorded_run(small, connect, 11)
    assert first == await recorded_run(small, connect, 11)
    assert first != await recorded_run(small, connect, 12)
    assert len(first) > 200


@pytest.mark.parametrize("options", [{"autostep": False, "tick_ring": 50}])
async def test_every_sent_price_can_be_looked_up_with_its_time(sim, client):
    await client.line(1, CALL, ticks="232")
    await client.step(sim, 100)
    mark = [m for m in client.of(1) if m[3] == "37"][-1]
    assert sim.ticks(CALL)["mark"]["value"] == float(mark[4])
    ring = sim.recent_ticks(CALL)
    assert len(ring) == 50
    times = [tick["sent_at_us"] for tick in ring]
    assert times == sorted(times)
    assert sim.ticks(PUT) == {}


async def test_an_underlying_and_its_volatility_move_at_once(sim, client):
    await client.line(9, CALL, ticks="232")
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
    await client.line(10, STOCK, sec_type="STK", ticks="232")
    price = sim.greeks(CALL)[CALL]["price"]
    sim.dividend("AAPL", 2.5, days=1)
    await client.barrier()
    assert sim.greeks(CALL)[CALL]["price"] < price
    dividend_fields = [m[4].split(",") for m in client.of(46) if m[3] == "59"]
    assert {m[2] for m in client.of(46) if m[3] == "59"} == {"9"}
    assert float(dividend_fields[-1][3]) == pytest.approx(2.5, rel=1e-3)
    assert len(dividend_fields[-1][2]) == 8


async def test_a_silenced_line_speaks_again_after_a_reset(sim, post, client):
    await client.line(1, CALL)
    await post("silence_line", conid=CALL)
    since = len(client.messages)
    await client.step(sim, 5)
    assert client.about(1, since) == []
    assert await post("silence_line", conid=CALL, reset=True) == 1
    await client.step(sim, 5)
    assert client.about(1, since) != []
    assert await post("silence_line", conid=PUT) == 0


async def test_a_restored_farm_leaves_the_lines_of_other_farms_alive(sim, client):
    sim.after_restore("dead")
    since = await client.line(1, CALL)
    sim.farm("usfuture", 2103)
    sim.farm("usfuture", 2104)
    await client.step(sim, 5)
    assert client.about(1, since) != []
    with pytest.raises(ActionError, match="lines"):
        sim.after_restore("half")  # type: ignore[arg-type]


async def test_a_contract_may_tick_with_sizes_only_and_then_with_all_again(sim, post, client):
    await client.line(1, CALL, ticks="232")
    await post("ticking", conid=CALL, only=["size"])
    since = len(client.messages)
    await client.step(sim, 20)
    sizes = client.about(1, since)
    assert {(m[0], m[3]) for m in sizes} <= {("2", "0"), ("2", "3"), ("2", "8")}
    assert max(float(m[4]) for m in sizes if m[3] == "0") > 0
    await post("ticking", conid=CALL, only=None)
    since = len(client.messages)
    await client.step(sim)
    assert {"1", "21"} <= {m[0] for m in client.about(1, since)}


def prices_of(client):
    """Return the newest price of each kind."""
    return {m[3]: float(m[4]) for m in client.of(1)}


@pytest.mark.parametrize("mark", [9.5, 0.0])
async def test_a_mark_may_lie_outside_the_quote_and_be_zero(post, client, mark):
    await post("quote", conid=CALL, bid=1.0, ask=1.2, last=1.1, mark=mark)
    await client.line(1, CALL, ticks="232")
    assert {"37": mark, "1": 1.0, "2": 1.2, "4": 1.1}.items() <= prices_of(client).items()
    await client.download("DUSIM0001")
    [row] = [m for m in client.of(7) if m[2] == str(CALL)]
    assert float(row[14]) == mark


CLOCK = {"s": 1_789_996_400}


def trade_times(client):
    return [int(m[4]) for m in client.of(46) if m[3] == "45"]


@pytest.mark.parametrize("options", [{"autostep": False, "now": lambda: CLOCK["s"]}])
async def test_a_pinned_last_trade_may_be_old_and_stay_so(sim, post, client):
    await post("quote", conid=CALL, bid=1.0, ask=9.0, last=1.2, last_age_s=3600)
    await client.line(1, CALL)
    assert prices_of(client)["4"] == 1.2
    await client.step(sim, 30)
    assert trade_times(client) == [CLOCK["s"] - 3600]
    await post("quote", conid=CALL, bid=1.0, ask=9.0, last=1.2)
    await client.step(sim, 10)
    assert trade_times(client)[-1] == CLOCK["s"]
    with pytest.raises(ActionError, match="last_age_s"):
        sim.pin_quote(CALL, last=1.2, last_age_s=-1)


@pytest.mark.parametrize("options", [{"autostep": False, "now": lambda: CLOCK["s"]}])
async def test_in_a_frozen_market_the_last_trade_was_before(sim, client, monkeypatch):
    began = CLOCK["s"]
    sim.freeze()
    monkeypatch.setitem(CLOCK, "s", began + 86_400)
    sim.freeze()
    client.send(59, 1, 2)
    await client.line(1, CALL)
    assert prices_of(client)["4"] > 0
    assert client.about(1)[0] == ["58", "1", "1", "2"]
    assert trade_times(client) == [began]
    sim.freeze(False)
    await client.step(sim, 10)
    assert trade_times(client)[-1] == CLOCK["s"]


FIRST_OF_CHAIN = 922000001

BOOK = """
as_of: 2028-06-01
accounts: [{name: DUSIM0001}]
underlyings:
  - {symbol: AAPL, conid: 920000001, price: 230, volatility: 0.28}
  - {symbol: ES, conid: 920000002, price: 6500, volatility: 0.18, exchange: CME, sec_type: FUT,
     expiry: 20281215, multiplier: 50, algo_venues: [QBALGO], farm: usfuture.nj}
contracts:
  - {conid: 921000001, underlying: AAPL, sec_type: OPT, expiry: 20281215, strike: 240, right: C,
     exchanges: [CBOE], farm: usfarm.nj}
chains:
  - {name: ES, underlying: ES, first_conid: 922000001, sec_type: FOP, expiries: [20281215],
     strikes: [6400], multiplier: 50, exchange: CME, algo_venues: [QBALGO, JEFFALGO]}
"""


@pytest.fixture
async def of_venues(tmp_path, connect):
    """A simulator of a book that names exchanges and farms, and a client of it."""
    path = tmp_path / "venues.yaml"
    path.write_text(BOOK)
    async with SimulatedGateway(load_book(path), autostep=False) as sim:
        yield sim, await connect(sim.port)


async def details_of(client, *contract):
    """Return where the details of a contract say that it is, and its exchanges."""
    since = len(client.messages)
    client.contract_details(5, *contract)
    await client.wait_id(52, since)
    return [(m[7], m[16]) for m in client.of(10, since=since)]


async def test_algo_venues_are_among_several_contract_details(of_venues):
    _sim, client = of_venues
    exchanges = [("QBALGO", "CME,QBALGO"), ("CME", "CME,QBALGO")]
    assert await details_of(client, FUTURE) == exchanges
    chain = await details_of(client, FIRST_OF_CHAIN)
    assert [exchange for exchange, _ in chain] == ["QBALGO", "JEFFALGO", "CME"]
    at_venue = ("", "", "", 0.0, "", "", "QBALGO", *[""] * 4)
    assert await details_of(client, FUTURE, *at_venue) == exchanges[:1]


@pytest.mark.parametrize(
    ("conid", "sec_type", "good", "bad"),
    [(FUTURE, "FUT", "CME", "QBALGO"), (CALL, "OPT", "CBOE", "SMART")],
)
async def test_market_data_come_from_a_listed_exchange_only(of_venues, conid, sec_type, good, bad):
    sim, client = of_venues
    client.market_data(1, conid, exchange=bad, sec_type=sec_type)
    await client.wait_error(200, 1)
    await client.line(2, conid, exchange=good, sec_type=sec_type)
    assert prices_of(client)["1"] > 0
    assert sim.stats()["lines_by_conid"] == {str(conid): 1}


async def test_a_farm_with_a_dot_is_not_the_one_before_the_dot(of_venues):
    sim, client = of_venues
    farms = [m[4].split(":")[1] for m in client.of(4) if m[3] == "2104"]
    assert farms == ["usfarm", "usfarm.nj", "usfuture", "usfuture.nj"]
    since = await client.line(1, CALL, exchange="CBOE")
    sim.farm("usfarm")
    await client.step(sim)
    assert client.of(21, since=since) != []
    sim.farm("usfarm.nj")
    since = await client.barrier()
    assert [m[4].split(":")[1] for m in client.of(4) if m[3] == "2103"] == ["usfarm", "usfarm.nj"]
    await client.step(sim, 5)
    assert client.about(1, since) == []


def test_an_exchange_that_is_not_among_the_exchanges_is_a_mistake(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(BOOK.replace("exchanges: [CBOE]", "exchange: ISE, exchanges: [CBOE]"))
    with pytest.raises(BookError, match="ISE is not one of exchanges"):
        load_book(path)
