"""Positions, account updates, profits and contract details, over the wire and to ib_async."""

import asyncio
import math
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from ib_async import IB

from ib_gateway_simulator import ActionError, SimulatedGateway
from ib_gateway_simulator.clearing.entries import TradeEntry
from ib_gateway_simulator.clearing.securities import Category, Security
from tests.support.waiting import DEADLINE_S

CALL, PUT, WORTHLESS, CENTS, ES_PUT, INDEX_PUT, UNHELD, CLOSED = (
    921000000 + n for n in range(1, 9)
)
STOCK = 920000001
FUTURE = 920000002
UNSET = 1.7976931348623157e308


async def test_positions_come_with_the_layout_of_each_kind(client):
    await client.positions()
    rows = {(m[2], int(m[3])): m for m in client.of(61)}
    assert len(rows) == 10
    option = rows["DUSIM0001", CALL]
    assert option[4:14] == [
        *("AAPL", "OPT", "20281215", "240.0", "C", "100"),
        *("", "USD", "AAPL  281215C00240000", "AAPL"),
    ]
    assert option[14:] == ["5", "2150.65"]
    stock = rows["DUSIM0001", STOCK]
    assert stock[6:11] == ["", "0.0", "", "", "NASDAQ"]
    future = rows["DUSIM0002", FUTURE]
    assert future[6:11] == ["20281215", "0.0", "", "50", ""]
    assert rows["DUSIM0001", CLOSED][14:] == ["0", "0.0"]
    assert rows["DUSIM0002", CALL][14] == "-1"


async def test_position_changes_come_while_subscribed_and_not_after(sim, client):
    await client.positions()
    since = len(client.messages)
    sim.fill("DUSIM0001", UNHELD, 3, 12.5)
    opened = await client.wait_id(61, since)
    assert opened[3] == str(UNHELD)
    assert opened[14:] == ["3", "1250.65"]

    since = len(client.messages)
    sim.close_position("DUSIM0001", UNHELD)
    closed = await client.wait_id(61, since)
    assert closed[3] == str(UNHELD)
    assert closed[14:] == ["0", "0.0"]
    client.send(64, 1)
    since = await client.barrier()
    sim.fill("DUSIM0001", UNHELD, 3)
    await client.barrier()
    assert client.of(61, since=since) == []


async def test_an_account_download_has_a_time_after_every_row_and_then_its_end(client):
    await client.download("DUSIM0001")
    received = [m for m in client.messages if m[0] in ("6", "7", "8", "54")]
    kinds = "".join({"6": "v", "7": "p", "8": "t", "54": "e"}[m[0]] for m in received)
    assert kinds.lstrip("v") == "pt" * 6 + "te"
    assert all(len(m[2]) == 5 and m[2][2] == ":" for m in client.of(8))
    rows = {int(m[2]): m for m in client.of(7)}
    assert rows[STOCK][6:8] == ["0", "0"]
    assert rows[STOCK][19] == "DUSIM0001"
    assert rows[CLOSED][13] == "0"

    for conid, row in rows.items():
        held, price, value, cost, unrealized = map(float, row[13:18])
        factor = float(row[8] or 1)
        assert value == pytest.approx(held * price * factor)
        assert unrealized == pytest.approx(value - held * cost), conid
    assert ["6", "2", "AccountCode", "DUSIM0001", "", "DUSIM0001"] in received


@pytest.mark.parametrize(
    ("zone", "clock", "greeting"),
    [
        ("UTC", "13:13", "20260921 13:13:20 Greenwich Mean Time"),
        ("America/New_York", "09:13", "20260921 09:13:20 EDT"),
        ("Asia/Kolkata", "18:43", "20260921 18:43:20 IST"),
    ],
)
async def test_account_times_are_in_the_zone_of_the_gateway(small, connect, zone, clock, greeting):
    def now() -> float:
        return 1_789_996_400.0

    async with SimulatedGateway(small, now=now, time_zone=zone) as sim:
        client = await connect(sim.port)
        assert client.messages[0][1] == greeting
        await client.download("DUSIM0001")
        assert {m[2] for m in client.of(8)} == {clock}


async def test_one_account_at_a_time_over_all_clients(sim, connect, eventually):
    first, two, three = [await connect(sim.port, n) for n in (1, 2, 3)]
    await first.download("DUSIM0001")
    two.send(6, 2, 1, "DUSIM0002")
    error = await two.wait_error(2101)
    assert error[4].startswith("Unable to subscribe to account")
    assert "DUSIM0001" in error[4]
    await two.barrier()
    assert two.of(6, 7, 8, 54) == []

    await three.download("DUSIM0001")
    assert sim.stats()["account_feed"] == {"account": "DUSIM0001", "clients": [1, 3]}
    first.send(6, 2, 0, "DUSIM0001")
    text = "API client has been unsubscribed from account data."
    assert (await first.wait_error(2100))[4] == text
    await three.close()
    await eventually(lambda: sim.stats()["account_feed"] is None)
    await two.download("DUSIM0002")


async def test_a_clients_next_account_replaces_its_first(sim, client):
    await client.download("DUSIM0001")
    client.send(6, 2, 1, "DUSIM0002")
    await client.wait(lambda m: m == ["54", "1", "DUSIM0002"])
    await client.wait_error(2100)
    assert sim.stats()["account_feed"] == {"account": "DUSIM0002", "clients": [1]}


async def test_an_unknown_account_gets_321_and_no_end(client):
    client.send(6, 2, 1, "DU999")
    client.send(6, 2, 1, "")
    client.send(76, 1, 8, "DU999", "", 0)
    await client.wait_error(321, 8)
    await client.barrier()
    assert client.of(54, 74) == []


@pytest.mark.parametrize("options", [{"refresh_interval_s": 0.1}])
async def test_a_change_brings_one_row_with_its_time_and_the_refresh_brings_all(sim, client):
    await client.download("DUSIM0001")
    since = len(client.messages)
    sim.fill("DUSIM0001", CALL, -2, 17.0)
    row = await client.wait_id(7, since)
    assert row[2] == str(CALL)
    assert row[13] == "3"
    assert float(row[18]) == pytest.approx(2 * (1700 - 0.65 - 2150.65))

    await client.wait(lambda m: len(client.of(7, since=since)) >= 13, since)
    rows = client.of(7, since=since)
    assert [m[2] for m in rows[1:7]] == [m[2] for m in rows[7:13]]
    assert len(client.of(54)) == 1
    client.send(6, 2, 0, "DUSIM0001")
    since = await client.barrier()
    sim.fill("DUSIM0001", CALL, 1)
    await client.barrier()
    assert client.of(7, since=since) == []


@pytest.mark.parametrize("options", [{"pnl_interval_s": 0.03}])
async def test_the_profit_of_a_held_contract_is_sent_repeatedly_and_of_others_never(
    sim, client, eventually
):
    client.send(94, 1, "DUSIM0001", "", CALL)
    client.send(94, 2, "DUSIM0001", "", UNHELD)
    client.send(92, 3, "DUSIM0001", "")
    await client.wait(lambda m: len(client.of(95)) >= 3)
    assert {m[1] for m in client.of(95)} == {"1"}
    row = client.of(95)[0]
    assert row[2] == "5"
    assert float(row[5]) == UNSET
    assert all(math.isfinite(float(row[i])) and float(row[i]) < UNSET for i in (3, 4, 6))

    await client.wait(lambda m: len(client.of(94)) >= 2)
    sim.fill("DUSIM0001", UNHELD, 1)
    opened = await client.wait_id(95, having={1: 2})
    assert float(opened[5]) == 0.0
    client.send(95, 1)
    since = await client.barrier()
    await client.wait(lambda m: len(client.of(95, since=since)) >= 3, since)
    assert {m[1] for m in client.of(95, since=since)} == {"2"}
    assert sim.stats()["lines_in_use"] == 0
    assert sim.stats()["pnl_subscriptions"] == 2
    await client.close()
    await eventually(lambda: sim.stats()["pnl_subscriptions"] == 0)


@pytest.mark.parametrize("options", [{"autostep": False}])
async def test_daily_profit_counts_from_the_close_and_todays_cash(sim, client):
    client.send(94, 1, "DUSIM0001", "", STOCK)
    await client.line(2, STOCK, sec_type="STK", ticks="232")
    close = next(float(m[4]) for m in client.of(1) if m[3] == "9")
    mark = next(float(m[4]) for m in client.of(1) if m[3] == "37")
    assert float(client.of(95)[0][3]) == pytest.approx(200 * (mark - close), abs=3)
    sim.fill("DUSIM0001", STOCK, -200, 300.0)
    client.send(95, 1)
    client.send(94, 1, "DUSIM0001", "", STOCK)
    await client.barrier()
    last = client.of(95)[-1]
    assert last[2] == "0"
    assert float(last[3]) == pytest.approx(200 * (300 - close), abs=3)
    assert float(last[5]) == pytest.approx(200 * (300 - 0.65 - 201.88))


async def test_contract_details_by_conid_and_by_fields(client):
    client.contract_details(1, CALL)
    await client.wait(lambda m: m == ["52", "1", "1"])
    [row] = client.of(10)
    assert row[12] == str(CALL)
    assert row[7] == "SMART"
    fields = ("AAPL", "OPT", "202812", 0.0, "", "", "SMART", "", "USD", "", "")
    client.contract_details(2, 0, *fields)
    await client.wait(lambda m: m == ["52", "1", "2"])
    of_second = [m for m in client.of(10) if m[1] == "2"]
    assert {int(m[12]) for m in of_second} == {CALL, PUT, CLOSED}
    client.contract_details(3, FUTURE)
    await client.wait(lambda m: m == ["52", "1", "3"])
    assert client.of(10)[-1][7] == "CME"


async def test_details_of_one_contract_may_never_come(sim, client):
    sim.contract_details(CALL)
    client.contract_details(1, CALL)
    client.contract_details(2, PUT)
    await client.wait(lambda m: m == ["52", "1", "2"])
    assert [row[12] for row in client.of(10)] == [str(PUT)]
    sim.contract_details(CALL, answered=True)
    client.contract_details(3, CALL)
    await client.wait(lambda m: m == ["52", "1", "3"])


async def test_unknown_contract_details_get_200_and_no_end(client):
    client.contract_details(1, 77)
    client.contract_details(2, 0, "AAPL", "OPT", "20281215", 1.0, "C", *[""] * 6)
    client.contract_details(3, 0, "", "", "", 0.0, "", *[""] * 6)
    for req_id in (1, 2, 3):
        error = await client.wait_error(200, req_id)
        assert error[4] == "No security definition has been found for the request"
    await client.barrier()
    assert client.of(52) == []


async def test_every_remaining_request_is_answered(client):
    client.send(62, 1, 5, "All", "NetLiquidation")
    await client.wait_id(64)
    assert {m[3] for m in client.of(63)} == {"DUSIM0001", "DUSIM0002"}
    client.send(76, 1, 6, "DUSIM0002", "", 0)
    await client.wait_id(74)
    client.send(74, 1, 7, "DUSIM0002", "")
    await client.wait_id(72)
    assert len(client.of(71)) == 4

    client.send(78, 8, "AAPL", "", "STK", STOCK)
    await client.wait_id(76)
    assert "20281215" in client.of(75)[0]
    client.send(81, 9, "AA")
    await client.wait_id(79)
    client.send(8, 1, 1)
    client.send(17, 1)
    client.send(20, 10, CALL, *[""] * 20)
    await client.wait_error(162, 10)


async def test_positions_of_more_than_50_accounts_come_by_account_alone(small, connect):
    other_accounts = tuple(replace(small.accounts[0], name=f"DUSIM9{n:03}") for n in range(49))
    async with SimulatedGateway(replace(small, accounts=(*small.accounts, *other_accounts))) as sim:
        client = await connect(sim.port)
        client.send(61, 1)
        assert (await client.wait_error(321))[2] == "-1"
        client.send(74, 1, 5, "DUSIM0002", "")
        await client.wait_id(72)
        since = await client.barrier()
        assert client.of(61) == []
        assert client.of(62) == []
        assert {(m[2], m[3], m[17]) for m in client.of(71)} == {("5", "DUSIM0002", "")}

        sim.fill("DUSIM0001", CALL, 1)
        sim.fill("DUSIM0002", CALL, 1)
        await client.barrier()
        rows = client.of(71, since=since)
        assert [(m[3], m[15], m[17]) for m in rows] == [("DUSIM0002", "0", "")]
        client.send(75, 1, 5)
        since = await client.barrier()
        sim.fill("DUSIM0002", CALL, 1)
        await client.barrier()
        assert client.of(71, since=since) == []


FIRST = "DUSIM0001"
SECOND = "DUSIM0002"


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
    rows = [row for row in ib.portfolio(FIRST) if row.contract.secType != "FUT"]
    held = sum(row.marketValue for row in rows)
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
    await client.positions()
    row = await client.wait_id(61, having={3: 1})
    assert row[4] == ""
    assert row[14] == "no number"
    assert (await client.wait_id(61, having={3: 2}))[14] == "-Infinity"
    client.send(6, 2, 1, FIRST)
    row = await client.wait_id(7, having={2: 1})
    assert row[13] == "no number"
    assert row[15] == "NaN"


async def test_a_trade_of_a_back_office_comes_with_its_id_time_order_and_commission(sim):
    option = Security(
        conid=CALL, symbol="AAPL", category=Category.OPTION, currency="USD", multiplier=Decimal(100)
    )
    at = datetime(2026, 3, 9, 14, 31, tzinfo=UTC)
    entry = TradeEntry(
        number=77, account="DUSIM0001", at=at, report_day=at.date(), security=option,
        quantity=Decimal(-2), price=Decimal("12.5"), commission=Decimal("1.1"),
        commission_currency="EUR", codes="C", order=900_001,
    )  # fmt: skip
    row = sim.execute(entry)
    ib = IB()
    await ib.connectAsync("127.0.0.1", sim.port, clientId=5)
    [fill] = [fill for fill in ib.fills() if fill.contract.conId == CALL]
    ib.disconnect()

    execution = fill.execution
    report = fill.commissionReport
    assert row["quantity"] == 3
    assert execution.execId == entry.execution_id
    assert execution.permId == 900_001
    assert execution.side == "SLD"
    assert execution.shares == 2
    assert execution.price == 12.5
    assert execution.time == at
    assert report.commission == 1.1
    assert report.currency == "EUR"
