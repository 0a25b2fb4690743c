"""Rows of holdings that no sane account has, as the real ib_async sees them."""

import asyncio
import math

import pytest
from ib_async import PortfolioItem, Position

from ib_gateway_simulator import ActionError
from tests.support.waiting import DEADLINE_S

CALL = 921000001
FIRST = "DUSIM0001"

ODD: list[tuple[str, int, float | str, str]] = [
    (FIRST, CALL, "nan", "AAPL"),
    (FIRST, 8, "1.7976931348623157E308", "AAPL"),
    (FIRST, -5, 2.5, "AAPL"),
    (FIRST, 9, 4, ""),
    ("", 11, 6, "AAPL"),
]


def same(found: float, given: float | str) -> bool:
    wanted = float(given)
    return found == wanted or (math.isnan(found) and math.isnan(wanted))


@pytest.mark.parametrize(("account", "conid", "position", "symbol"), ODD)
async def test_an_odd_row_is_sent_now_and_in_every_list_as_given(
    sim, post, ib, eventually, account, conid, position, symbol
):
    def is_it(row: Position | PortfolioItem) -> bool:
        return (
            row.account == account
            and row.contract.conId == conid
            and row.contract.symbol == symbol
            and same(row.position, position)
        )

    changes: list[Position] = []
    ib.positionEvent += changes.append
    rows: list[PortfolioItem] = []
    ib.updatePortfolioEvent += rows.append
    await asyncio.wait_for(ib.reqAccountUpdatesAsync(FIRST), DEADLINE_S)
    odd = {"account": account, "conid": conid, "position": position, "symbol": symbol}
    assert await post("holding", **odd) == odd
    await eventually(lambda: any(map(is_it, changes)) and any(map(is_it, rows)))
    listed = await asyncio.wait_for(ib.reqPositionsAsync(), DEADLINE_S)
    assert [row for row in listed if is_it(row)]
    assert len(listed) == (10 if conid == CALL else 11)
    rows.clear()
    await asyncio.wait_for(ib.reqAccountUpdatesAsync(FIRST), DEADLINE_S)
    assert [row for row in rows if is_it(row)]
    assert len(rows) == (6 if conid == CALL else 7)
    assert sim.stats()["odd_rows"] == 1
    assert len(sim.positions()) == 10


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
