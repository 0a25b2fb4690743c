"""Rows of holdings that no sane account has, as the real ib_async sees them."""

import asyncio
import math

import pytest

from ib_gateway_simulator import ActionError
from tests.support.waiting import DEADLINE_S

CALL = 921000001
FIRST = "DUSIM0001"


async def test_an_odd_row_can_be_removed_and_a_trade_replaces_it(sim, post, ib, eventually):
    await post("holding", account=FIRST, conid=0, position=1)
    await post("holding", account=FIRST, conid=0, position=None)
    assert len(await asyncio.wait_for(ib.reqPositionsAsync(), DEADLINE_S)) == 10
    with pytest.raises(ActionError, match="conid"):
        sim.holding(FIRST, 0, None)
    await post("holding", account=FIRST, conid=CALL, position="nan")
    await post("fill", account=FIRST, conid=CALL, quantity=1)
    listed = await asyncio.wait_for(ib.reqPositionsAsync(), DEADLINE_S)
    [held] = [p for p in listed if p.contract.conId == CALL and p.account == FIRST]
    assert held.position == 6
    assert sim.stats()["odd_rows"] == 0


async def test_a_text_is_sent_as_it_is(sim, client):
    sim.holding(FIRST, 2, -math.inf)
    sim.holding(FIRST, 1, "no number", "")
    client.send(61, 1)
    await client.wait_id(62)
    row = await client.wait(lambda m: m[0] == "61" and m[3] == "1")
    assert (row[4], row[14]) == ("", "no number")
    assert (await client.wait(lambda m: m[0] == "61" and m[3] == "2"))[14] == "-Infinity"
    client.send(6, 2, 1, FIRST)
    row = await client.wait(lambda m: m[0] == "7" and m[2] == "1")
    assert (row[13], row[15]) == ("no number", "NaN")
