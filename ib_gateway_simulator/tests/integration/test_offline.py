"""A gateway that has lost IB, before or while a client logs in, and its broken farms."""

import asyncio

import pytest
from ib_async import IB

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
    ib = IB()
    codes = []
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


async def notices_at_login(sim, connect):
    """Return the codes and texts that a client gets at its log-in."""
    client = await connect(sim.port, start=False)
    client.greet()
    await client.log_in()
    await client.barrier()
    return [(int(m[3]), m[4]) for m in client.of(4)]


@pytest.mark.parametrize("code", [1100, 2110])
async def test_a_login_while_offline_gets_1100_or_2110_instead_of_farm_notices(
    sim, post, connect, code
):
    await post("connectivity", state="lost", login_code=code)
    assert [c for c, _ in await notices_at_login(sim, connect)] == [code]
    with pytest.raises(ActionError, match="login_code"):
        sim.connectivity("lost", login_code=2104)


async def test_a_farm_that_is_broken_at_login_is_announced_whatever_its_name(sim, post, connect):
    for farm in ("usfarm", "usfarm.nj", "usbond"):
        await post("farm", farm=farm)
    await post("farm", farm="euhmds", code=2105)
    await post("farm", farm="usbond", code=2104)
    notices = await notices_at_login(sim, connect)
    assert sorted((code, text.split(":")[1]) for code, text in notices) == [
        (2103, "usfarm"), (2103, "usfarm.nj"), (2104, "usfuture"),
        (2105, "euhmds"), (2106, "ushmds"), (2158, "secdefnj"),
    ]  # fmt: skip


CLOCK = {"s": 1_789_996_400.0}


@pytest.mark.parametrize("options", [{"autostep": False, "now": lambda: CLOCK["s"]}])
async def test_cached_answers_are_those_of_the_moment_when_the_connection_was_lost(
    sim, client, monkeypatch
):
    async def downloaded():
        since = len(client.messages)
        await client.download("DUSIM0001")
        return client.of(6, 7, 8, since=since)

    before = await downloaded()
    sim.connectivity("lost")
    sim.step(50)
    sim.fill("DUSIM0001", CALL, 1)
    monkeypatch.setitem(CLOCK, "s", CLOCK["s"] + 3600)
    await client.positions()
    assert [m[14] for m in client.of(61) if m[2:4] == ["DUSIM0001", str(CALL)]] == ["5"]
    assert await downloaded() == before
    assert {m[2] for m in client.of(8)} == {"13:13"}

    sim.connectivity("restored_data_kept")
    await client.wait_id(8, having={2: "14:13"})
    await client.wait_id(61, having={3: CALL, 14: 6})
    (then, *_), (now, *_) = (
        [m[14] for m in some if m[0] == "7" and m[2] == str(CALL)]
        for some in (before, await downloaded())
    )
    assert now != then


async def test_kept_requests_are_answered_in_their_order_and_not_to_a_client_that_left(
    sim, connect, eventually
):
    stays = await connect(sim.port, 1)
    leaves = await connect(sim.port, 2)
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


@pytest.mark.parametrize("options", [{"autostep": False}])
async def test_a_farm_that_is_still_broken_is_named_when_the_connection_is_restored(sim, client):
    await client.line(1, CALL)
    sim.farm("usfarm", 2103)
    sim.connectivity("lost")
    sim.connectivity("restored_data_kept")
    assert (await client.wait_error(1102))[4].endswith(
        "data maintained. The following farms are connected: usfuture. "
        "The following farms are not connected: usfarm."
    )
    since = await client.barrier()
    await client.step(sim, 5)
    assert client.about(1, since) == []
