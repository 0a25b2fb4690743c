"""The stream as a service: one owner by lease, fenced rows, reports, and its end."""

import asyncio
import threading
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest

from position_sync_dagster.domain.clock import Backoff, utc_now
from position_sync_dagster.domain.gateway_session import Owner, SessionState
from position_sync_dagster.domain.holding import TradingMode
from position_sync_dagster.errors import (
    BrokerUnavailableError,
    LeaseLostError,
    LoginOwnedError,
    NewerTableError,
    TradingModeError,
)
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.schema import (
    ACTIVE_STRATEGIES,
    POSITION_UPDATES,
    StoredColumn,
)
from position_sync_dagster.lake.sessions import GatewaySessions
from position_sync_dagster.lake.storage.table import Table, offload
from position_sync_dagster.sync.drain import drain
from position_sync_dagster.sync.reports.figures import read_figures
from position_sync_dagster.sync.reports.reconciliation import ReconciliationService
from position_sync_dagster.sync.reports.status import read_status
from position_sync_dagster.sync.stream import streamer
from position_sync_dagster.sync.stream.ownership import Ownership
from position_sync_dagster.sync.stream.streamer import stream
from tests.support.booked_legs import CALL, PUT, A, B, leg
from tests.support.short_owner import refresh
from tests.support.streams import eventually, settings_for, simulate
from tests.support.waiting import DEADLINE_S

LIVE, BLIND = SessionState.LIVE, SessionState.BLIND


@pytest.fixture
def running(lake):
    """Run a stream as a task; return the task and its stop event."""

    def start(settings, run_id="run-1"):
        stop = asyncio.Event()
        return asyncio.create_task(stream(lake, settings, run_id=run_id, stop=stop)), stop

    return start


async def test_a_stop_ends_a_stream_whose_gateway_never_answers_a_request_for_details(
    lake, running, monkeypatch
):
    monkeypatch.setattr(streamer, "STEP_END_S", 0.1)
    async with simulate() as sim:
        sim.contract_details(PUT)
        await lake.registry.add_active(**leg(PUT))
        settings = settings_for(sim, gateway_timeout_s=300.0)
        task, stop = running(settings)
        await eventually(lambda: "reqContractDetails" in str(sim.stats()["requests"]))
        stop.set()
        await eventually(task.done)
        assert task.exception() is None
        assert lake.sessions.current(settings.gateway_id).state is SessionState.ENDED


async def test_what_the_broker_confirmed_before_the_session_is_live_is_current(lake, running):
    async with simulate() as sim:
        settings = settings_for(sim)
        running(settings)

        async def published():
            rows = lake.broker_positions.read(settings.gateway_id)
            return len(rows) == 9 and all(row.confirmed_at for row in rows)

        await eventually(published)
        await eventually(lambda: _is(LIVE, lake, settings))
        session = lake.sessions.current(settings.gateway_id)
        rows = lake.broker_positions.read(settings.gateway_id)
        assert session.started_at <= session.state_since
        assert session.state_since <= min(row.confirmed_at for row in rows)
        assert (await drain(lake, settings)).succeeded == 9
        overview = read_figures(lake, settings, utc_now())
        assert (overview.held, overview.current) == (9, 9)


async def test_a_stream_owns_the_login_until_its_connection_is_closed(lake, running, monkeypatch):
    settings, close = [], streamer.BrokerLink.close
    owners = []

    async def slowly(link):
        login, owned = settings[0].gateway_id, lake.sessions.current(settings[0].gateway_id)
        await eventually(lambda: lake.sessions.current(login).heartbeat_at > owned.heartbeat_at)
        owners.append(lake.sessions.current(login).is_alive(utc_now()))
        await close(link)

    monkeypatch.setattr(streamer.BrokerLink, "close", slowly)
    async with simulate() as sim:
        settings.append(settings_for(sim, heartbeat_s=0.05))
        task, stop = running(settings[0])
        await eventually(lambda: _is(LIVE, lake, settings[0]))
        stop.set()
        await task
        ended = lake.sessions.current(settings[0].gateway_id)
    assert owners == [True]
    assert (ended.state, ended.lines_in_use) == (SessionState.ENDED, 0)


async def test_a_stream_owns_the_login_writes_fenced_rows_and_reports(lake, running):
    async with simulate() as sim:
        await lake.registry.add_active(**leg(PUT))
        settings = settings_for(sim)
        task, stop = running(settings)
        await eventually(lambda: _has_rows(lake, 4))
        session = lake.sessions.current(settings.gateway_id)
        assert (session.state, session.owner, session.run_id) == ("LIVE", "STREAM", "run-1")
        await eventually(lambda: read_status(lake, settings, utc_now()).lines_in_use == 5)
        status = read_status(lake, settings, utc_now())
        assert (status.session_state, status.lines_text) == ("LIVE", "5 of 100 (4 for underlyings)")
        assert (status.lines_in_use, status.underlying_lines, status.blind_since) == (5, 4, None)
        assert "of 5 options without greeks of IB" in status.greeks
        assert (status.active_legs, status.legs_held, status.positions) == (1, 1, 9)
        assert status.trading_mode == "SIMULATED"
        done = await drain(lake, settings)
        assert done.succeeded == 8
        status = read_status(lake, settings, utc_now())
        assert (status.legs_streamed, status.legs_queued) == (1, 8)
        assert status.queue["SUCCESS"] == 8
        assert status.to_dict()["at"] == status.at.isoformat()
        stop.set()
        await task
        rows = await lake.updates.latest_updates()
        streamed = [r for r in rows if r.source == "STREAM"]
        assert {(r.session_id, r.fencing_token, r.run_id) for r in streamed} == {
            (session.session_id, session.fencing_token, "run-1")
        }
        ended = lake.sessions.current(settings.gateway_id)
        assert ended.state is SessionState.ENDED
        await eventually(lambda: sim.stats()["connections"]["now"] == 0)
        assert sim.stats()["lines_in_use"] == 0


async def test_each_row_of_a_close_names_the_run_that_wrote_it(lake, running):
    async with simulate() as sim:
        settings = settings_for(sim)
        running(settings)
        await eventually(lambda: len(lake.broker_positions.read(settings.gateway_id)) == 9)
        sim.close_position(A, PUT)
        named = []
        for table in (lake.position_changes, lake.executions, lake.closures):
            await eventually(lambda table=table: table.records())
            named += [one.run_id for one in table.records()]
        assert set(named) == {"run-1"}


async def test_a_run_initializes_each_table_once(lake, running, monkeypatch):
    initialized = Counter()
    initialize = Table.initialize

    def count(table):
        initialized[table.path] += 1
        initialize(table)

    monkeypatch.setattr(Table, "initialize", count)
    async with simulate() as sim:
        task, _stop = running(settings_for(sim, rotate_after_s=0.3))
        await asyncio.wait_for(task, DEADLINE_S)
    assert set(initialized.values()) == {1}
    assert len(initialized) == len(lake.tables)


async def test_two_streams_of_one_login_never_both_run(lake, running, monkeypatch):
    monkeypatch.setattr(streamer, "LOGIN_WAIT_S", 0.3)
    async with simulate() as sim:
        settings = settings_for(sim)
        task, stop = running(settings)
        await eventually(lambda: _is(LIVE, lake, settings))
        second, _stop2 = running(settings, run_id="run-2")
        with pytest.raises(LoginOwnedError, match="STREAM"):
            await second
        refreshed = await refresh(lake, settings)
        assert not refreshed.connected
        assert "owned by STREAM" in refreshed.reason
        assert sim.stats()["connections"]["peak"] == 1
        stop.set()
        await task


async def _has_rows_of(lake, run_id):
    return run_id in (await lake.updates.latest())["run_id"]


async def _has_rows(lake, least=1):
    return await lake.updates.count() >= least


async def test_a_stream_whose_lease_was_taken_over_writes_nothing_more(lake, running, monkeypatch):
    async with simulate() as sim:
        await lake.registry.add_active(**leg(PUT))
        settings = settings_for(sim, session_lease_s=3.0, heartbeat_s=0.2)
        task, _stop = running(settings)
        await eventually(lambda: _is(LIVE, lake, settings))
        over = threading.Event()
        with monkeypatch.context() as patched:
            patched.setattr(GatewaySessions, "renew", lambda *_args, **_more: over.wait(60))
            with pytest.raises(LeaseLostError):
                await task
        over.set()
        newest = max(r.timestamp for r in await lake.updates.latest_updates())
        session = lake.sessions.current(settings.gateway_id)
        assert newest <= session.expires_at
        assert not session.is_alive(utc_now())
        async with Ownership(lake.sessions, settings, owner=Owner.STREAM) as own:
            assert own.session.fencing_token == session.fencing_token + 1


async def test_a_stream_whose_lease_is_taken_over_while_it_waits_for_the_gateway_leaves_it(
    lake, running
):
    async with simulate() as sim:
        sim.pause()
        settings = settings_for(sim, heartbeat_s=0.05, gateway_timeout_s=600.0)
        task, _stop = running(settings)
        await eventually(lambda: lake.sessions.current(settings.gateway_id))
        lake.sessions.end(lake.sessions.current(settings.gateway_id))
        with pytest.raises(LeaseLostError):
            await asyncio.wait_for(task, DEADLINE_S)


async def test_a_lease_is_renewed_while_its_process_reads_the_sessions_for_long(lake, running):
    """As the checks of a stream do, on a store that is slow."""
    may_end = threading.Event()
    async with simulate() as sim:
        settings = settings_for(sim, heartbeat_s=0.2)
        _task, _stop = running(settings)
        await eventually(lambda: _is(LIVE, lake, settings))
        reading = asyncio.create_task(
            asyncio.to_thread(lake.sessions.table.snapshot, lambda _handle: may_end.wait(60))
        )
        others, began = Lake(lake.path).sessions, utc_now()

        async def renewed():
            return others.current(settings.gateway_id).heartbeat_at > began

        try:
            await eventually(renewed)
            assert not reading.done()
        finally:
            may_end.set()
            await reading


async def test_without_a_gateway_the_stream_is_blind_and_runs_on(lake, running):
    async with simulate() as sim:
        settings = settings_for(sim)
    task, stop = running(settings)
    await eventually(lambda: _is(BLIND, lake, settings))
    status = read_status(lake, settings, utc_now())
    assert status.blind_since is not None
    assert "Nothing listens" in status.session_detail
    done = await drain(lake, settings)
    assert "BLIND" in done.reason
    with pytest.raises(BrokerUnavailableError):
        await ReconciliationService(lake, settings).run()
    stop.set()
    assert (await task).rows == 0
    assert await lake.updates.count() == 0


async def test_a_gateway_that_waited_for_the_weekly_login_is_known_to_be_logged_in_afterwards(
    lake, running, monkeypatch
):
    monkeypatch.setattr(streamer, "RECONNECT", Backoff(first_s=0.1, longest_s=0.1))
    async with simulate() as sim:
        settings = settings_for(sim)
        task, stop = running(settings)
        await eventually(lambda: _is(LIVE, lake, settings))
        before = lake.sessions.current(settings.gateway_id)
        assert before.gateway_running_since is not None
        assert before.gateway_started_at is None, "it may have run for long"
        await sim.restart(down_s=0, needs_login=True)

        async def refused():
            session = lake.sessions.current(settings.gateway_id)
            return "Nothing listens" in (session.detail or "") and session

        assert (await eventually(refused)).gateway_started_at is None
        confirmed_at = utc_now()
        sim.confirm_login()
        await eventually(lambda: _is(LIVE, lake, settings))
        stop.set()
        await task
        after = lake.sessions.current(settings.gateway_id)
        assert after.gateway_started_at == after.gateway_running_since > confirmed_at
        # A successor that connects at once knows that the gateway has run on.
        task, stop = running(settings)
        await eventually(lambda: _is(LIVE, lake, settings))
        stop.set()
        await task
        later = lake.sessions.current(settings.gateway_id)
        assert later.session_id != after.session_id
        assert later.gateway_run == after.gateway_run


async def _is(state, lake, settings):
    session = lake.sessions.current(settings.gateway_id)
    return session is not None and session.state is state


async def test_a_lake_of_another_trading_mode_is_refused(lake, running):
    async with simulate() as sim:
        lake.sessions.claim_mode(TradingMode.PAPER)
        task, _stop = running(settings_for(sim))
        with pytest.raises(TradingModeError, match="PAPER"):
            await asyncio.wait_for(task, DEADLINE_S)


async def test_reconciliation_finds_what_differs_and_nothing_once_all_agrees(lake):
    async with simulate() as sim:
        settings = settings_for(sim)
        await refresh(lake, settings)
        service = ReconciliationService(lake, settings)
        before = await service.run()
        assert {d.type for d in before.discrepancies} == {"MISSING"}
        assert len(before.discrepancies) == 9
        await drain(lake, settings)
        after = await service.run(run_id="run-9")
        assert after.ok
        sim.fill(A, CALL, 1)
        sim.close_position(A, PUT)
        await refresh(lake, settings)
        moved = await service.run()
        assert {(d.conid, d.type) for d in moved.discrepancies} == {
            (CALL, "QUANTITY"), (PUT, "SURPLUS"),
        }  # fmt: skip
        assert len(lake.breaks.open_breaks()) == 2


@pytest.mark.parametrize("in_a_file", [False, True])
async def test_the_breaks_of_a_login_that_was_renamed_go_on_under_its_new_name(
    lake, tmp_path, in_a_file
):
    async with simulate() as sim:
        file = tmp_path / "gateways.yaml"
        file.write_text(f"gateways: [{{name: east, port: {sim.port}, accounts: [{A}, {B}]}}]")
        settings = settings_for(sim, **{"gateways_file": file} if in_a_file else {})
        (login,) = settings.logins
        await refresh(lake, login)
        service = ReconciliationService(lake, settings)
        found = (await service.look()).discrepancies
        for name in ("its-old-name:7497", login.gateway_id):
            lake.breaks.record({name: found}, utc_now())
        lake.breaks.record({"closures": [replace(found[0], type="UNEXPLAINED")]}, utc_now())
        accepted = lake.breaks.accept(lake.breaks.open_breaks()[0].break_id, by="eva")
        assert (await service.run()).accepted == 1
        opened = lake.breaks.open_breaks(login.gateway_id)
        assert len(opened) == len(found)
        assert [one.state for one in opened if one.break_id == accepted.break_id] == ["ACCEPTED"]
        await drain(lake, settings)
        assert (await service.run()).ok
        assert [one.gateway_id for one in lake.breaks.open_breaks()] == ["closures"]


async def test_a_successor_takes_over_and_its_rows_follow_those_of_the_owner_before(lake, running):
    async with simulate() as sim:
        await lake.registry.add_active(**leg(PUT))
        first, _stop = running(settings_for(sim, rotate_after_s=5.0), run_id="run-1")
        await eventually(lambda: _is(LIVE, lake, settings_for(sim)))
        second, stop = running(settings_for(sim), run_id="run-2")
        await first
        await eventually(lambda: _has_rows_of(lake, "run-2"))
        stop.set()
        await second
        rows = await lake.updates.between(utc_now() - timedelta(hours=1), utc_now())
        rows = rows.filter(rows["source"] == "STREAM").sort("timestamp")
        tokens = rows["fencing_token"].to_list()
        assert tokens == sorted(tokens)
        assert sorted(set(rows["run_id"])) == ["run-1", "run-2"]
        last = rows.filter(rows["run_id"] == "run-1")["timestamp"].max()
        begun = rows.filter(rows["run_id"] == "run-2")["timestamp"].min()
        assert begun > last
        assert sim.stats()["connections"]["peak"] == 1


@pytest.mark.parametrize("spec", [POSITION_UPDATES, ACTIVE_STRATEGIES], ids=lambda spec: spec.name)
async def test_a_stream_of_an_older_release_gives_its_login_up_when_a_newer_one_migrates_a_table(
    lake, running, spec
):
    """Two releases side by side on one lake: the older one writes nothing more."""
    await lake.registry.add_active(**leg(CALL))
    async with simulate() as sim:
        settings = settings_for(sim)
        task, _stop = running(settings)
        await eventually(lambda: _is(LIVE, lake, settings))
        columns = {**spec.described, "later": StoredColumn(kind=str, description="New.")}
        newer = Table(
            lake.table_path(spec.name), replace(spec, version=spec.version + 1, described=columns)
        )
        await offload(newer.initialize)
        migrated = newer.version()
        with pytest.raises(NewerTableError, match=f"this release knows {spec.version}"):
            await asyncio.wait_for(task, DEADLINE_S)
        assert newer.version() == migrated
        assert sim.stats()["lines_in_use"] == 0
    session = lake.sessions.current(settings.gateway_id)
    assert session.state is SessionState.ENDED
