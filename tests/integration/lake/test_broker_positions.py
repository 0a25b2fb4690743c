"""Broker positions: replaced by the owner of the login, and by nobody whom it followed."""

from datetime import date

import pytest

from position_sync_dagster.domain.broker_position import BrokerPosition, Completeness
from position_sync_dagster.domain.gateway_session import Owner
from position_sync_dagster.domain.instrument import Instrument, Right
from position_sync_dagster.errors import LeaseLostError, TradingModeError

LOGIN = "127.0.0.1:7497"
WHO = {"lease_s": 15.0, "run_id": "run-1", "host": "box", "pid": 42}


def holding(clock, conid=1, position=2.0, account="DUSIM1", gateway_id=LOGIN, **more):
    values = {
        "instrument": Instrument(
            conid=conid,
            symbol="SPY",
            sec_type="OPT",
            currency="USD",
            multiplier=100.0,
            right=Right.PUT,
            strike=440.0,
            expiry=date(2026, 2, 20),
            local_symbol="SPY   260220P00440000",
        ),
        "average_cost": 120.5,
        "received_at": clock.now,
        "position_time": clock.now,
        "snapshot_id": "download-1",
        "completeness": Completeness.COMPLETE,
    }
    return BrokerPosition(
        gateway_id=gateway_id, account=account, position=position, **(values | more)
    )


async def test_broker_positions_are_read_as_they_were_written(lake, clock):
    positions = [
        holding(clock, 1, market_price=1.5, value_time=clock.now, daily_pnl=-3.0),
        holding(clock, 2, position=0.0),
        holding(clock, 1, account="DUSIM2"),
    ]
    await lake.broker_positions.replace(LOGIN, positions)
    assert await lake.broker_positions.read(LOGIN) == positions
    assert await lake.broker_positions.read("elsewhere") == []


async def test_a_replacement_affects_its_gateway_alone(lake, clock):
    other = [holding(clock, 9, gateway_id="b:1")]
    await lake.broker_positions.replace("b:1", other)
    await lake.broker_positions.replace(LOGIN, [holding(clock, c) for c in (1, 2)])
    version = await lake.broker_positions.version()
    replaced = [holding(clock, 2), holding(clock, 3, position=0.0), holding(clock, 4)]
    await lake.broker_positions.replace(LOGIN, replaced)
    assert await lake.broker_positions.version() == version + 1
    read = await lake.broker_positions.read(LOGIN)
    assert [(p.instrument.conid, p.position) for p in read] == [(2, 2.0), (3, 0.0), (4, 2.0)]
    assert await lake.broker_positions.read("b:1") == other


@pytest.mark.parametrize("gateway_id", ["it's:1", "a' OR '1'='1", "x\0y", "%41=/é🙂"])
async def test_any_gateway_is_kept_apart_from_the_others(lake, clock, gateway_id):
    await lake.broker_positions.replace(LOGIN, [holding(clock, 1)])
    await lake.broker_positions.replace(gateway_id, [holding(clock, 2, gateway_id=gateway_id)])
    await lake.broker_positions.replace(gateway_id, [holding(clock, 3, gateway_id=gateway_id)])
    read = await lake.broker_positions.read(gateway_id)
    assert [p.instrument.conid for p in read] == [3]
    assert [p.instrument.conid for p in await lake.broker_positions.read(LOGIN)] == [1]


@pytest.mark.parametrize("rows", [1, 0], ids=["with rows", "with no rows"])
async def test_an_owner_that_was_followed_writes_nothing(lake, clock, rows):
    first = await lake.sessions.acquire(LOGIN, Owner.STREAM, **WHO)
    await lake.broker_positions.replace(LOGIN, [holding(clock, 1)], first)
    await lake.sessions.end(first)
    second = await lake.sessions.acquire(LOGIN, Owner.REFRESH, **WHO)
    await lake.broker_positions.replace(LOGIN, [holding(clock, 2)] * rows, second)
    before = await lake.broker_positions.read(LOGIN)
    with pytest.raises(LeaseLostError, match="newer owner"):
        await lake.broker_positions.replace(LOGIN, [holding(clock, 3)], first)
    assert await lake.broker_positions.read(LOGIN) == before
    await lake.broker_positions.replace(LOGIN, [holding(clock, 4)], second)


async def test_accounts_of_another_trading_mode_do_not_mix(lake, clock):
    await lake.broker_positions.replace(LOGIN, [holding(clock, 1)])
    with pytest.raises(TradingModeError):
        await lake.broker_positions.replace(LOGIN, [holding(clock, 1, account="U1234567")])
    assert len(await lake.broker_positions.read(LOGIN)) == 1
