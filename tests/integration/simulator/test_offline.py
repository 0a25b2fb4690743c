"""A gateway that has lost IB before or while the real ib_async logs in."""

import asyncio

import pytest
from ib_async import IB, Contract

from ib_gateway_simulator import ActionError, SimulatedGateway
from tests.support.waiting import DEADLINE_S

CALL = 921000001
RESTORES = [("restored_data_lost", 1101), ("restored_data_kept", 1102)]


async def log_in(ib: IB, sim: SimulatedGateway) -> None:
    """Connect as a user of ib_async does: the log-in ends with positions and account."""
    await ib.connectAsync(
        "127.0.0.1", sim.port, clientId=1, timeout=DEADLINE_S, account="DUSIM0001"
    )


@pytest.mark.parametrize(("restore", "code"), RESTORES)
async def test_without_answers_a_login_waits_and_ends_after_the_restore(
    sim, post, eventually, restore, code
):
    ib, codes = IB(), []
    ib.errorEvent += lambda _id, code, _text, _contract: codes.append(code)
    await post("connectivity", state="lost", answers="none")
    login = asyncio.create_task(log_in(ib, sim))
    try:
        await eventually(lambda: sim.stats()["requests"].get("1", {}).get("reqPositions"))
        await eventually(lambda: codes)
        assert codes == [2110]
        assert not login.done()
        assert ib.positions() == []
        await post("connectivity", state=restore)
        await login
        assert codes == [2110, code]
        assert len(ib.positions()) == 9
        assert len(ib.portfolio("DUSIM0001")) == 5
        positions = len(ib.positions())
        sim.close_position("DUSIM0001", CALL)
        await eventually(lambda: len(ib.positions()) == positions - 1)
    finally:
        login.cancel()
        ib.disconnect()


@pytest.mark.parametrize("code", [1100, 2110])
async def test_a_login_while_offline_gets_1100_or_2110_instead_of_farm_notices(
    sim, post, connect_ib, code
):
    await post("connectivity", state="lost", login_code=code)
    ib = await connect_ib(sim, listen=(codes := []))
    await asyncio.wait_for(ib.reqCurrentTimeAsync(), DEADLINE_S)
    assert [c for c, _ in codes] == [code]
    with pytest.raises(ActionError, match="login_code"):
        sim.connectivity("lost", login_code=2104)


async def test_a_farm_that_is_broken_at_login_is_announced_whatever_its_name(sim, post, connect_ib):
    for farm in ("usfarm", "usfarm.nj", "usbond"):
        await post("farm", farm=farm)
    await post("farm", farm="euhmds", code=2105)
    await post("farm", farm="usbond", code=2104)
    ib = await connect_ib(sim, listen=(notices := []))
    await asyncio.wait_for(ib.reqCurrentTimeAsync(), DEADLINE_S)
    assert sorted((code, text.split(":")[1]) for code, text in notices) == [
        (2103, "usfarm"),
        (2103, "usfarm.nj"),
        (2104, "usfuture"),
        (2105, "euhmds"),
        (2106, "ushmds"),
        (2158, "secdefnj"),
    ]


async def test_cached_answers_are_those_of_the_moment_when_the_connection_was_lost(
    small, connect_ib, eventually
):
    clock = [1_789_996_400.0]
    async with SimulatedGateway(small, autostep=False, now=lambda: clock[0]) as sim:
        ib = await connect_ib(sim)
        times: list[str] = []
        ib.client.decoder.handlers[8] = lambda fields: times.append(fields[2])
        await asyncio.wait_for(ib.reqAccountUpdatesAsync("DUSIM0001"), DEADLINE_S)
        before = {item.contract.conId: item for item in ib.portfolio("DUSIM0001")}
        values = ib.accountValues("DUSIM0001")
        sim.connectivity("lost")
        sim.step(50)
        sim.fill("DUSIM0001", CALL, 1)
        clock[0] += 3600
        listed = await asyncio.wait_for(ib.reqPositionsAsync(), DEADLINE_S)
        [held] = [p for p in listed if p.contract.conId == CALL and p.account == "DUSIM0001"]
        assert held.position == 5
        await asyncio.wait_for(ib.reqAccountUpdatesAsync("DUSIM0001"), DEADLINE_S)
        assert {item.contract.conId: item for item in ib.portfolio("DUSIM0001")} == before
        assert ib.accountValues("DUSIM0001") == values
        assert set(times) == {"13:13"}
        sim.connectivity("restored_data_kept")
        await eventually(lambda: times[-1] == "14:13")
        await eventually(lambda: 6 in [p.position for p in ib.positions("DUSIM0001")])
        await asyncio.wait_for(ib.reqAccountUpdatesAsync("DUSIM0001"), DEADLINE_S)
        after = {item.contract.conId: item for item in ib.portfolio("DUSIM0001")}
        assert after[CALL].marketPrice != before[CALL].marketPrice


async def test_kept_requests_are_answered_in_their_order_and_not_to_a_client_that_left(
    sim, connect, eventually
):
    stays, leaves = await connect(sim.port, 1), await connect(sim.port, 2)
    sim.connectivity("lost", "none")
    for client in (stays, leaves):
        client.send(61, 1)
        client.send(6, 2, 1, "DUSIM0001")
        client.send(6, 2, 0, "DUSIM0001")
        since = await client.barrier()
    assert stays.of(7, 54, 61, 62) == []
    await leaves.close()
    await eventually(lambda: sim.stats()["connections"]["now"] == 1)
    sim.connectivity("restored_data_kept")
    await stays.wait_error(2100, since=since - 1)
    kinds = [m[0] for m in stays.messages if m[0] in ("62", "54") or m[3:4] == ["2100"]]
    assert kinds == ["62", "54", "4"]


async def test_a_farm_that_is_still_broken_is_named_when_the_connection_is_restored(
    sim, connect_ib, eventually
):
    ib = await connect_ib(sim, listen=(notices := []))
    ticker = ib.reqMktData(Contract(conId=CALL, exchange="SMART"))
    await eventually(lambda: ticker.modelGreeks)
    sim.farm("usfarm", 2103)
    sim.connectivity("lost")
    sim.connectivity("restored_data_kept")
    await eventually(lambda: notices[-1][0] == 1102)
    assert notices[-1][1].endswith(
        "data maintained. The following farms are connected: usfuture. "
        "The following farms are not connected: usfarm."
    )
    before = ticker.modelGreeks
    sim.step(5)
    await asyncio.wait_for(ib.reqCurrentTimeAsync(), DEADLINE_S)
    assert ticker.modelGreeks == before
