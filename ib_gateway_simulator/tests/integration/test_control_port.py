"""The control port: counts, actions and faults for programs, and nothing for a web page."""

import pytest
import yaml

CALL = 921000001
PUT = 921000002


@pytest.fixture
def options():
    return {"autostep": False}


async def test_counts_positions_and_ticks_can_be_read(sim, http, connect):
    client = await connect(sim.port, client_id=6)
    await client.line(1, CALL, ticks="232")
    stats = (await http.get("/stats")).json()
    assert stats["lines_in_use"] == 1
    assert stats["peak_lines"] == 1
    assert stats["line_limit"] == 100
    assert stats["requests"]["6"]["reqMktData"] == 1
    assert stats["connections"]["by_client"] == {"6": {"now": 1, "total": 1}}
    assert stats["messages_sent"]["marketDataType"] == 1
    assert stats["orders_received"] == []

    rows = (await http.get("/positions")).json()
    assert len(rows) == 10
    assert rows[0]["conid"] == CALL
    ticks = (await http.get("/ticks", params={"conid": CALL})).json()
    assert ticks["mark"]["sent_at_us"] > 1_700_000_000_000_000
    theory = (await http.get("/greeks", params={"conid": CALL})).json()
    assert theory == {str(CALL): sim.greeks(CALL)[CALL]}
    assert 0 < theory[str(CALL)]["delta"] < 1
    assert len((await http.get("/greeks")).json()) == len(sim.greeks())
    assert "POST /fill" in (await http.get("/")).json()


async def test_trades_through_the_control_port(post, client):
    await client.positions()
    since = len(client.messages)
    row = await post("fill", account="DUSIM0002", conid=PUT, quantity=-4, price=11.0)
    assert row["quantity"] == -4
    assert row["average_cost"] == 1099.35
    assert (await client.wait_id(61, since))[14] == "-4"
    rows = await post("assign", account="DUSIM0002", conid=PUT)
    assert [r["quantity"] for r in rows] == [0, 400]
    row = await post("close", account="DUSIM0001", conid=CALL)
    assert row["quantity"] == 0
    await client.wait_id(61, since, {3: CALL, 14: 0})


async def test_a_disconnect_cuts_one_client_or_all_and_can_keep_ids_busy(sim, post, connect):
    first, two, three = [await connect(sim.port, n) for n in (1, 2, 3)]
    assert await post("disconnect", client_id=1, busy_s=60) == 1
    await first.wait_closed()
    again = await connect(sim.port, start=False)
    again.greet()
    again.send(71, 2, 1, "")
    await again.wait_error(326)
    assert await post("disconnect") == 2
    await two.wait_closed()
    await three.wait_closed()


async def test_any_error_can_be_sent(sim, post, connect):
    first = await connect(sim.port, 1)
    two = await connect(sim.port, 2)
    await post("error", code=10197, req_id=9, client_id=1)
    error = await first.wait_error(10197, 9)
    assert error[4] == "No market data during competing live session"
    await post("error", code=4711, text="anything")
    assert (await two.wait_error(4711))[4] == "anything"
    assert [m for m in two.of(4) if m[3] == "10197"] == []


async def test_lines_continue_by_themselves_after_connectivity_is_restored_with_data(
    sim, post, client
):
    await client.line(1, CALL, ticks="232")
    await post("connectivity", state="lost")
    await client.wait_error(1100)
    since = await client.barrier()
    sim.step(5)
    await client.line(2, PUT, ticks="232")
    assert client.about(1, since) == []
    assert client.about(2, since) == []

    await post("connectivity", state="restored_data_kept")
    text = (await client.wait_error(1102))[4]
    assert "data maintained. All data farms are connected: usfarm; usfuture." in text
    sim.step()
    await client.wait_id(1, since, {2: 1})
    await client.wait_id(81, since, {1: 2})
    assert sim.stats()["lines_in_use"] == 2


@pytest.mark.parametrize("options", [{"tick_interval_s": 0.01, "refresh_interval_s": 0.02}])
async def test_a_paused_gateway_accepts_connections_and_sends_nothing(
    sim, http, post, client, connect
):
    client.market_data(1, CALL, ticks="232")
    await client.download("DUSIM0001")
    await post("pause")
    late = await connect(sim.port, start=False)
    late.greet()
    client.send(49, 1)
    since = len(client.messages)
    steps = sim.stats()["steps"]
    for _ in range(20):
        assert (await http.get("/stats")).json()["paused"] is True

    assert sim.stats()["steps"] == steps
    assert client.messages[since:] == []
    assert late.messages == []

    await post("resume")
    await client.wait_id(49, since)
    await client.wait_id(7, since)
    await client.wait_id(1, since)
    await late.wait_id(178)


async def test_quotes_farms_and_steps_can_be_driven(post, client):
    await client.line(1, CALL)
    await post("quote", conid=CALL, bid=1.0, ask=1.5, last=1.25)
    await post("step", count=1)
    await client.wait_id(1, having={3: 1, 4: "1.0"})
    for code in (2103, 2104, 2105, 2106, 2107, 2108, 2119, 2157, 2158):
        since = len(client.messages)
        await post("farm", farm="usfarm", code=code)
        assert (await client.wait_error(code, since=since))[4].endswith("usfarm")
    await post("freeze")
    await post("reset_day")


BAD = yaml.safe_load("""
- [fill, {account: DUSIM0001, conid: 921000001}, quantity]
- [fill, {account: DU1, conid: 921000001, quantity: 1}, account]
- [fill, {account: DUSIM0001, conid: 5, quantity: 1}, conid]
- [fill, {account: DUSIM0001, conid: 921000001, quantity: 0}, quantity]
- [fill, {account: DUSIM0001, conid: 921000001, quantity: 1, px: 2}, px]
- [close, {account: DUSIM0001, conid: 921000007}, conid]
- [assign, {account: DUSIM0001, conid: 921000001}, conid]
- [transfer, {account: DUSIM0001, conid: 921000001, quantity: 0}, quantity]
- [split, {account: DUSIM0001, conid: 921000001, to: 921000007, quantity: 0}, quantity]
- [list_option, {conid: 921000001, like: 921000001, strike: 250, right: C, ends_in_s: 60}, conid]
- [list_option, {conid: 7, like: 920000001, strike: 250, right: C, ends_in_s: 60}, like]
- [disconnect, {client_id: 99}, client_id]
- [connectivity, {state: maybe}, state]
- [permissions, {conid: 921000001, code: 7}, code]
- [permissions, {conid: 7, code: 354}, conid]
- [quote, {conid: 7}, conid]
- [raw, {hex: zz}, hex]
- [pause, [1], body]
""")


@pytest.mark.parametrize(("name", "body", "field"), BAD)
async def test_bad_input_names_its_field_and_changes_nothing(sim, http, name, body, field):
    before = sim.positions()
    answer = await http.post(f"/{name}", json=body)
    assert answer.status_code == (400 if field == "body" else 422)
    problem = answer.json()
    assert problem["field"] == field
    assert problem["error"]
    assert sim.positions() == before


async def test_unknown_paths_and_conids_are_answered(http):
    assert (await http.get("/ticks")).status_code == 400
    assert (await http.get("/ticks", params={"conid": "x"})).status_code == 400
    assert (await http.get("/greeks", params={"conid": "x"})).status_code == 400
    assert (await http.post("/nonsense", json={})).status_code == 404
    assert (await http.get("/fill")).status_code == 405


async def test_changes_during_lost_connectivity_or_a_pause_are_sent_after_it(sim, http, client):
    await client.positions()
    sim.connectivity("lost")
    sim.fill("DUSIM0001", CALL, 1)
    since = await client.barrier()
    assert client.of(61, since=since - 1) == []
    sim.connectivity("restored_data_kept")
    assert (await client.wait_id(61, since))[14] == "6"

    sim.pause()
    since = len(client.messages)
    sim.fill("DUSIM0001", CALL, 1)
    for _ in range(10):
        await http.get("/stats")
    assert client.messages[since:] == []
    sim.resume()
    assert (await client.wait_id(61, since))[14] == "7"


HOLDING = {"account": "DUSIM0001", "conid": 921000001, "position": 7}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "pages.example"}, 400),
        ({"Origin": "http://pages.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": ""}, 415),
    ],
)
async def test_what_a_web_page_can_send_changes_nothing(sim, http, headers, status):
    before = sim.positions()
    answer = await http.post("/holding", json=HOLDING, headers=headers)
    assert answer.status_code == status
    assert sim.positions() == before
    if status != 415:
        assert (await http.get("/stats", headers=headers)).status_code == status
    json = {"Content-Type": "application/json; charset=utf-8"}
    assert (await http.post("/holding", json=HOLDING, headers=json)).status_code == 200


@pytest.mark.parametrize(
    "body", ["[" * 100_000, '{"a":' * 100_000, '{"conid": ' + "9" * 5000 + "}", "{", "[]"]
)
async def test_a_body_that_is_no_json_object_is_refused(http, body):
    headers = {"Content-Type": "application/json"}
    answer = await http.post("/holding", content=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["field"] == "body"
    assert len(answer.text) < 400
