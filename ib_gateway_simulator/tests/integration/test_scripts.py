"""What a script says: word for word, in place of the gateway's own answers or unasked."""

import pytest

from ib_gateway_simulator import ActionError
from ib_gateway_simulator.gateway.scripts import Cut
from ib_gateway_simulator.protocol import account_messages, wire

CALL = 921000001
END = account_messages.position_end()
CLOCK = account_messages.account_time("23:59")


@pytest.fixture
def options():
    return {"autostep": False}


async def test_each_request_takes_the_next_answer_of_a_script_and_all_later_ones_the_last(
    sim, client
):
    sim.answer("reqPositions", [[], [CLOCK, END], [END]])
    client.send(61, 1)
    since = await client.barrier()
    assert client.of(61, 62) == []

    await client.positions()
    assert client.messages[since:] == [list(CLOCK), list(END)]
    since = len(client.messages)
    await client.positions()
    await client.positions()
    assert client.messages[since:] == [list(END), list(END)]
    assert [said.request.name for said in sim.said] == ["reqPositions"] * 4

    sim.answer("reqPositions")
    since = len(client.messages)
    await client.positions()
    assert len(client.of(61, since=since)) == 10
    assert len(sim.said) == 4


async def test_a_script_may_answer_for_one_account_and_a_feed_still_ends(sim, client):
    sim.answer("reqAccountUpdates", [])
    sim.answer("reqAccountUpdates", [[CLOCK]], account="DUSIM0002")
    client.send(6, 2, 1, "DUSIM0001")
    since = await client.barrier()
    assert client.of(6, 7, 8, 54) == []

    client.send(6, 2, 1, "DUSIM0002")
    await client.barrier()
    assert client.of(6, 7, 8, 54, since=since) == [list(CLOCK)]
    client.send(6, 2, 0, "DUSIM0002")
    await client.wait_error(2100)


async def test_an_answer_may_be_silence_and_names_the_request_that_it_leaves_without_a_line(
    sim, client
):
    sim.answer("reqMktData", [])
    await client.line(7, CALL)
    ((request, messages),) = sim.said
    assert request.req_id == 7
    assert request.contract.conid == CALL
    assert messages == ()
    assert client.about(7) == []
    assert sim.stats()["lines_in_use"] == 0


async def test_a_script_says_exactly_these_bytes_and_then_cuts_the_connection(sim, post, client):
    half = wire.frame(CLOCK)[:5]
    await post("say", messages=[list(CLOCK), wire.frame(END).hex(), half.hex(), "cut", list(CLOCK)])
    await client.wait_closed()
    assert client.messages[-2:] == [list(CLOCK), list(END)]
    assert sim.said[-1].messages == [list(CLOCK), wire.frame(END), half, Cut.HERE, list(CLOCK)]


async def test_only_requests_that_a_gateway_answers_have_a_script(sim, post):
    for name in ("reqSomething", "startApi", "placeOrder"):
        with pytest.raises(ActionError, match="no request that a gateway answers"):
            sim.answer(name, [])
    await post("answer", status=422, request="placeOrder", answers=[])
