"""Faults of positions and of the account feed, as the real ib_async sees them."""

import asyncio

import pytest
from ib_async import IB

from ib_gateway_simulator import ActionError
from tests.support.waiting import DEADLINE_S

CALL = 921000001
FIRST, SECOND = "DUSIM0001", "DUSIM0002"


async def download(ib: IB, account: str) -> None:
    """Request an account, and wait for the end of its download."""
    await asyncio.wait_for(ib.reqAccountUpdatesAsync(account), DEADLINE_S)


def ends_of(ib: IB) -> list[str]:
    """Return the list to which the account of every end of a download is appended."""
    ends: list[str] = []
    handle = ib.wrapper.accountDownloadEnd

    def record(account: str) -> None:
        ends.append(account)
        handle(account)

    ib.wrapper.accountDownloadEnd = record  # type: ignore[method-assign]
    return ends


async def test_a_late_end_of_a_download_ends_the_next_download_of_ib_async(
    sim, post, ib, eventually
):
    ends = ends_of(ib)
    await post("download_end", account=FIRST, delay_s=0.01)
    await post("download_end", account=SECOND, delay_s=None)
    # Late ends wait for the restore, so that the first one cannot come too early here.
    await post("connectivity", state="lost")
    first = ib.reqAccountUpdatesAsync(FIRST)
    await eventually(lambda: ib.portfolio(FIRST))
    assert not first.done()
    ib.client.reqAccountUpdates(False, FIRST)
    second = ib.reqAccountUpdatesAsync(SECOND)
    await eventually(lambda: ib.portfolio(SECOND))
    await post("connectivity", state="restored_data_kept")
    await asyncio.wait_for(second, DEADLINE_S)
    assert ends == [FIRST]
    assert sim.stats()["account_feed"] == {"account": SECOND, "clients": [1]}
    await post("download_end", account=SECOND)
    await download(ib, SECOND)
    assert ends == [FIRST, SECOND]


async def test_the_late_end_of_a_position_list_ends_the_next_request_of_ib_async_without_rows(
    sim, post, ib, eventually
):
    await post("positions_end", delay_s=0.01)
    # Late ends wait for the restore, so that the first one cannot come too early here.
    await post("connectivity", state="lost")
    sent, ends = (sim.stats()["messages_sent"][n] for n in ("position", "positionEnd"))
    first = ib.reqPositionsAsync()
    await eventually(lambda: sim.stats()["messages_sent"]["position"] == sent + 10)
    assert not first.done()
    second = ib.reqPositionsAsync()
    await asyncio.wait_for(ib.reqCurrentTimeAsync(), DEADLINE_S)
    assert sim.stats()["messages_sent"]["position"] == sent + 10
    await post("connectivity", state="restored_data_kept")
    assert await asyncio.wait_for(second, DEADLINE_S) == []
    await eventually(lambda: sim.stats()["messages_sent"]["positionEnd"] == ends + 2)
    assert sim.stats()["messages_sent"]["position"] == sent + 20
    await post("positions_end")
    assert len(await asyncio.wait_for(ib.reqPositionsAsync(), DEADLINE_S)) == 10


async def test_account_values_come_in_the_base_currency_and_by_currency_with_their_sum(ib):
    await download(ib, FIRST)
    values = {(v.tag, v.currency): v.value for v in ib.accountValues(FIRST)}
    assert [currency for tag, currency in values if tag == "NetLiquidation"] == ["USD"]
    total = float(values["NetLiquidation", "USD"])
    rows = [item for item in ib.portfolio(FIRST) if item.contract.secType != "FUT"]
    held = sum(item.marketValue for item in rows)
    assert total == pytest.approx(100_000 + held, abs=len(rows))
    assert values["NetLiquidationByCurrency", "BASE"] == values["NetLiquidation", "USD"]
    assert values["TotalCashBalance", "BASE"] == values["TotalCashValue", "USD"] == "100000.00"
    assert float(values["AvailableFunds", "USD"]) < total


@pytest.mark.parametrize("options", [{"pnl_interval_s": 0.05}])
async def test_the_broker_may_value_a_contract_by_another_price_than_its_mark(
    sim, post, ib, eventually
):
    pnl = ib.reqPnLSingle(FIRST, "", CALL)
    sim.pin_quote(CALL, bid=9.9, ask=10.1, mark=10.0)
    await eventually(lambda: abs(pnl.value) == pytest.approx(abs(pnl.position) * 1000))
    await post("broker_price", conid=CALL, factor=1.05)
    await eventually(lambda: abs(pnl.value) == pytest.approx(abs(pnl.position) * 1050))
    with pytest.raises(ActionError, match="factor"):
        sim.broker_price(CALL, -1.0)
