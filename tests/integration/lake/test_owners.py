"""The tables of a login's owner: sessions, broker positions, contracts and breaks."""

import asyncio
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from position_sync_dagster.domain.broker_position import BrokerPosition, Completeness
from position_sync_dagster.domain.gateway_session import Owner, SessionState
from position_sync_dagster.domain.instrument import ContractDetails, Instrument, Right
from position_sync_dagster.domain.reconciliation import BreakState, Discrepancy, DiscrepancyType
from position_sync_dagster.domain.update import TradingMode
from position_sync_dagster.errors import (
    InvalidRequestError,
    LeaseLostError,
    LoginOwnedError,
    TradingModeError,
    UnknownRequestError,
)
from position_sync_dagster.lake.breaks import BreakCounts
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.storage.maintenance import maintain
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.owner.ownership import Ownership

LOGIN = "127.0.0.1:7497"
WHO = {"lease_s": 15.0, "run_id": "run-1", "host": "box", "pid": 42}


@pytest.fixture
async def lake(tmp_path, clock):
    made = Lake(tmp_path, clock=clock)
    await made.initialize()
    return made


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


async def test_a_login_has_one_owner_who_is_named_to_the_others(lake):
    session = await lake.sessions.acquire(LOGIN, Owner.STREAM, **WHO)
    assert (session.state, session.fencing_token) == (SessionState.STARTING, 1)
    with pytest.raises(LoginOwnedError, match=r"STREAM \(process 42 on box, .* until"):
        await lake.sessions.acquire(LOGIN, Owner.REFRESH, **WHO)
    assert await lake.sessions.current(LOGIN) == session
    other = await lake.sessions.acquire("127.0.0.1:4001", Owner.REFRESH, **WHO)
    assert other.fencing_token == 1


async def test_a_heartbeat_renews_the_lease_and_records_the_state_of_the_owner(lake, clock):
    session = await lake.sessions.acquire(LOGIN, Owner.STREAM, **WHO)
    clock.advance(10)
    live = await lake.sessions.renew(
        session, lease_s=15, state=SessionState.LIVE, lines_in_use=20, line_limit=95
    )
    clock.advance(4)
    again = await lake.sessions.renew(session, lease_s=15)
    assert (again.state, again.lines_in_use, again.line_limit) == (SessionState.LIVE, 20, 95)
    assert again.state_since == live.state_since == live.heartbeat_at
    assert (again.expires_at - clock.now).total_seconds() == 15
    blind = await lake.sessions.renew(
        session, lease_s=15, state=SessionState.BLIND, detail="1100 connectivity lost"
    )
    assert (blind.state_since, blind.detail) == (clock.now, "1100 connectivity lost")
    back = await lake.sessions.renew(blind, lease_s=15, state=SessionState.LIVE)
    assert back.detail is None
    assert await lake.sessions.current(LOGIN) == back
    assert back.is_alive(clock.now)


async def test_an_owner_loses_a_session_whose_lease_has_expired(lake, clock):
    session = await lake.sessions.acquire(LOGIN, Owner.STREAM, **WHO)
    clock.advance(15)
    assert not (await lake.sessions.current(LOGIN)).is_alive(clock.now)
    with pytest.raises(LeaseLostError, match="its lease has expired"):
        await lake.sessions.renew(session, lease_s=15)


async def test_a_dead_owner_is_followed_by_one_with_a_higher_token(lake, clock):
    first = await lake.sessions.acquire(LOGIN, Owner.STREAM, **WHO)
    clock.advance(15)
    second = await lake.sessions.acquire(LOGIN, Owner.REFRESH, **WHO)
    assert second.fencing_token == first.fencing_token + 1
    for call in (lake.sessions.renew(first, lease_s=15), lake.sessions.end(first)):
        with pytest.raises(LeaseLostError, match="a newer session has followed"):
            await call
    newest, lost = await lake.sessions.history()
    assert newest == second
    assert (lost.session_id, lost.state) == (first.session_id, SessionState.LOST)


@pytest.mark.parametrize("cleanly", [True, False])
async def test_the_time_when_the_gateway_was_last_seen_is_kept_across_sessions(
    lake, clock, cleanly
):
    async def follow(session):
        clock.advance(7)
        if cleanly:
            await lake.sessions.end(session)
        clock.advance(60)
        return await lake.sessions.acquire(LOGIN, Owner.STREAM, **WHO)

    session = await lake.sessions.acquire(LOGIN, Owner.STREAM, **WHO)
    assert session.state_since == clock.now
    clock.advance(5)
    session = await lake.sessions.renew(session, lease_s=15, state=SessionState.LIVE)
    assert session.state_since == clock.now
    clock.advance(10)
    session = await lake.sessions.renew(session, lease_s=15, state=SessionState.LIVE)
    last_seen = clock.now + timedelta(seconds=7 if cleanly else 0)
    session = await follow(session)
    assert (session.state, session.state_since) == (SessionState.STARTING, last_seen)
    session = await follow(session)
    assert session.state_since == last_seen
    session = await lake.sessions.renew(session, lease_s=15, state=SessionState.BLIND)
    assert session.state_since == last_seen
    session = await follow(session)
    assert session.state_since == last_seen
    session = await lake.sessions.renew(session, lease_s=15, state=SessionState.LIVE)
    assert session.state_since == clock.now
    assert all(s.state_since <= last_seen for s in (await lake.sessions.history())[1:])


async def test_a_lease_from_the_future_holds_for_minutes_and_not_for_hours(lake, clock):
    real = clock.now
    for ahead_s, fails in ((240, True), (4 * 3600, False)):
        clock.advance(ahead_s)
        dead = await lake.sessions.acquire(LOGIN, Owner.STREAM, **WHO)
        clock.now = real
        if fails:
            with pytest.raises(LoginOwnedError):
                await lake.sessions.acquire(LOGIN, Owner.STREAM, **WHO)
            await lake.sessions.end(dead)
    assert not (await lake.sessions.current(LOGIN)).is_alive(clock.now)
    session = await lake.sessions.acquire(LOGIN, Owner.STREAM, **WHO)
    assert session.fencing_token == dead.fencing_token + 1
    assert session.state_since <= real
    with pytest.raises(LeaseLostError):
        await lake.sessions.renew(dead, lease_s=15)


@pytest.fixture
async def owning(lake, clock):
    """An owner of the login whose lease nothing renews by itself."""
    seconds = [1000.0]
    settings = Settings(_env_file=None, heartbeat_s=3600, session_lease_s=4000)
    own = Ownership(
        lake.sessions, settings, owner=Owner.STREAM, clock=clock, monotonic=lambda: seconds[0]
    )
    async with own:
        yield own, seconds


async def test_a_clock_that_jumped_forward_is_named_when_the_lease_is_lost(owning, clock, caplog):
    own, seconds = owning
    clock.advance(3600)
    seconds[0] += 3600
    own.check()
    clock.advance(7200)
    seconds[0] += 3
    with pytest.raises(LeaseLostError, match=r"clock jumped forward by 7197 s since the last"):
        own.check()
    own.nudge()
    await asyncio.wait_for(own.lost.wait(), 30)
    assert "its lease has expired" in caplog.text
    assert "clock jumped forward by 7197 s" in caplog.text


async def test_a_lease_that_ran_out_by_both_clocks_says_nothing_of_them(owning, clock):
    own, seconds = owning
    clock.advance(4001)
    seconds[0] += 4000
    with pytest.raises(LeaseLostError) as caught:
        own.check()
    assert "jumped" not in str(caught.value)


async def test_a_clock_that_went_back_ends_no_owner(owning, clock):
    own, _seconds = owning
    clock.advance(-3600)
    own.check()
    own.nudge()
    async with asyncio.timeout(30):
        while own.session.heartbeat_at != clock.now:
            await asyncio.sleep(0.01)
    own.check()


async def test_an_ended_session_leaves_the_login_free_at_once(lake, clock):
    first = await lake.sessions.acquire(LOGIN, Owner.STREAM, **WHO)
    ended = await lake.sessions.end(first, detail="rotation")
    assert await lake.sessions.current(LOGIN) == ended
    assert not ended.is_alive(clock.now)
    with pytest.raises(LeaseLostError, match="ENDED"):
        await lake.sessions.renew(first, lease_s=15)
    second = await lake.sessions.acquire(LOGIN, Owner.STREAM, **WHO)
    assert second.fencing_token == 2
    assert [s.state for s in await lake.sessions.history()] == [
        SessionState.STARTING,
        SessionState.ENDED,
    ]


async def test_a_lease_of_no_time_is_refused(lake):
    for lease_s in (0, -1, float("nan")):
        with pytest.raises(InvalidRequestError):
            await lake.sessions.acquire(LOGIN, Owner.STREAM, **(WHO | {"lease_s": lease_s}))
    assert await lake.sessions.current(LOGIN) is None


async def test_a_login_of_another_trading_mode_is_refused(lake):
    session = await lake.sessions.acquire(
        LOGIN, Owner.STREAM, trading_mode=TradingMode.PAPER, **WHO
    )
    await lake.sessions.end(session)
    with pytest.raises(TradingModeError, match="PAPER"):
        await lake.sessions.acquire(LOGIN, Owner.STREAM, trading_mode=TradingMode.LIVE, **WHO)
    assert (await lake.sessions.current(LOGIN)).fencing_token == 1


async def test_weeks_of_heartbeats_leave_a_handful_of_files(lake, clock):
    session = await lake.sessions.acquire(LOGIN, Owner.STREAM, **WHO)
    for _ in range(30):
        clock.advance(4)
        session = await lake.sessions.renew(session, lease_s=15)
    for _ in range(40):
        await lake.sessions.end(session)
        session = await lake.sessions.acquire(LOGIN, Owner.REFRESH, **WHO)
    result = maintain(lake.sessions.table, clean_now=True)
    assert result.files == 2  # the live session and the past ones
    assert len(await lake.sessions.history(100)) == 41
    assert await lake.sessions.current(LOGIN) == session


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


def details(clock, conid):
    return ContractDetails(
        conid=conid,
        symbol="SPY",
        sec_type="OPT",
        currency="USD",
        local_symbol="SPY   260220P00440000",
        trading_class="SPY",
        exchange="SMART",
        under_conid=756733,
        multiplier=100.0,
        price_magnifier=1,
        right=Right.PUT,
        strike=440.0,
        last_trade_date=date(2026, 2, 20),
        last_trade_time="16:00:00",
        time_zone="US/Eastern",
        trading_hours="20260102:0930-20260102:1600",
        seen_at=clock.now,
    )


async def test_a_contract_is_stored_when_it_is_first_seen(lake, clock):
    first = details(clock, 1)
    assert await lake.contracts.add([first, first, details(clock, 2)]) == 2
    clock.advance(60)
    assert await lake.contracts.add([details(clock, 1), details(clock, 3)]) == 1
    found = await lake.contracts.get([1, 3, 99])
    assert found == {1: first, 3: details(clock, 3)}
    assert await lake.contracts.get([]) == {}


AT = datetime(2026, 1, 2, 15, tzinfo=UTC)


def missing(conid=1, expected=2.0):
    return Discrepancy(
        type=DiscrepancyType.MISSING,
        account="DUSIM1",
        conid=conid,
        symbol="SPY",
        expected=expected,
        actual=None,
        detail="held at the broker, no row",
    )


async def test_a_break_is_opened_confirmed_and_resolved(lake):
    opened = await lake.breaks.record(LOGIN, [missing()], AT, "download-1", "run-1")
    assert opened == BreakCounts(opened=1)
    [one] = await lake.breaks.open_breaks()
    assert (one.state, one.opened_at, one.snapshot_id) == (BreakState.OPENED, AT, "download-1")
    later = AT + timedelta(minutes=5)
    assert await lake.breaks.record(LOGIN, [missing()], later) == BreakCounts(confirmed=1)
    [one] = await lake.breaks.open_breaks()
    assert (one.state, one.confirmed_at) == (BreakState.CONFIRMED, later)
    assert await lake.breaks.record(LOGIN, [], later) == BreakCounts(resolved=1)
    assert await lake.breaks.open_breaks() == []
    [gone] = await lake.breaks.closed_breaks()
    assert (gone.break_id, gone.state) == (one.break_id, BreakState.RESOLVED)
    assert gone.resolved_at == later


async def test_a_reconciliation_that_changes_nothing_commits_nothing(lake):
    await lake.breaks.record(LOGIN, [], AT)
    assert lake.breaks.table.version() == 0
    for _ in range(2):
        await lake.breaks.record(LOGIN, [missing()], AT)
    version = lake.breaks.table.version()
    assert await lake.breaks.record(LOGIN, [missing()], AT) == BreakCounts()
    assert lake.breaks.table.version() == version


async def test_a_break_whose_quantities_change_remains_the_same_break(lake):
    for expected in (2.0, 3.0, 4.0):
        await lake.breaks.record(LOGIN, [missing(expected=expected)], AT)
    [one] = await lake.breaks.open_breaks()
    assert (one.expected, one.state, one.opened_at) == (4.0, BreakState.CONFIRMED, AT)


async def test_an_accepted_break_remains_accepted_until_it_is_gone(lake, clock):
    await lake.breaks.record(LOGIN, [missing()], AT)
    [one] = await lake.breaks.open_breaks()
    accepted = await lake.breaks.accept(one.break_id, by="eva", note="assigned over night")
    assert (accepted.accepted_by, accepted.accepted_at) == ("eva", clock.now)
    assert await lake.breaks.record(LOGIN, [missing()], AT) == BreakCounts()
    assert [b.state for b in await lake.breaks.open_breaks()] == [BreakState.ACCEPTED]
    await lake.breaks.record(LOGIN, [], AT)
    [gone] = await lake.breaks.closed_breaks()
    assert (gone.state, gone.resolved_at) == (BreakState.ACCEPTED, AT)
    with pytest.raises(UnknownRequestError):
        await lake.breaks.accept(one.break_id, by="eva")


async def test_the_breaks_of_one_gateway_do_not_end_those_of_another(lake):
    await lake.breaks.record(LOGIN, [missing()], AT)
    await lake.breaks.record("b:1", [replace(missing(), conid=2)], AT)
    await lake.breaks.record("b:1", [], AT)
    assert [b.gateway_id for b in await lake.breaks.open_breaks()] == [LOGIN]
    assert await lake.breaks.open_breaks("b:1") == []
