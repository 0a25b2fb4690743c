"""The stream as a service: one owner by lease, fenced rows, reports, and its end."""

import asyncio
import threading
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from operator import attrgetter
from typing import Any

import pytest

from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import (
    Owner,
    SessionState,
    UnusableHoldings,
    unusable_holdings_of,
)
from position_sync_dagster.domain.position_update import TradingMode
from position_sync_dagster.domain.streamed_holding import StreamedHolding
from position_sync_dagster.errors import (
    BrokerUnavailableError,
    ForeignTableError,
    LeaseLostError,
    LoginOwnedError,
    NewerTableError,
    TradingModeError,
)
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.position_updates import PositionUpdatesTable
from position_sync_dagster.lake.schema import (
    ACTIVE_STRATEGIES,
    POSITION_UPDATES,
    StoredColumn,
    records_of,
)
from position_sync_dagster.lake.sessions import GatewaySessions
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.sync.drain import drain
from position_sync_dagster.sync.reconciliation import ReconciliationService
from position_sync_dagster.sync.stream import streamer
from position_sync_dagster.sync.stream.ownership import Ownership
from tests.support.booked_legs import CALL, PUT, A, B, leg
from tests.support.open_breaks import open_breaks_of
from tests.support.short_owner import refresh
from tests.support.streams import Service, eventually, published, settings_for, simulate
from tests.support.waiting import DEADLINE_S

LIVE = SessionState.LIVE


async def test_a_stop_ends_a_stream_whose_gateway_never_answers_a_request_for_details(lake):
    async with simulate() as sim:
        sim.contract_details(PUT)
        await lake.registry.add_active(**leg(PUT))
        service = Service(lake, settings_for(sim, gateway_timeout_s=300.0, step_end_s=0.1))
        await eventually(lambda: "reqContractDetails" in str(sim.stats()["requests"]))
        await service.end()
        assert service.session.state is SessionState.ENDED


async def test_what_the_broker_confirmed_before_the_session_is_live_is_current(lake):
    async with simulate() as sim:
        settings = settings_for(sim)
        service = Service(lake, settings)

        def confirmed():
            times = [row.confirmed_at for row in published(lake, settings).values()]
            return len(times) == 9 and all(times) and times

        await eventually(confirmed)
        await service.reaches(LIVE)
        session = service.session
        assert session.started_at <= session.state_since <= min(confirmed())
        await eventually(lambda: _is_queued(lake, 9))
        assert (await drain(lake, settings)).succeeded == 9


async def test_a_stream_owns_the_login_until_its_connection_is_closed(lake, monkeypatch):
    close = streamer.BrokerLink.close
    owners: list[Any] = []

    async def slowly(link):
        owned = service.session
        await eventually(lambda: service.session.heartbeat_at > owned.heartbeat_at)
        owners.append(service.session.is_alive(utc_now()))
        await close(link)

    monkeypatch.setattr(streamer.BrokerLink, "close", slowly)
    async with simulate() as sim:
        service = Service(lake, settings_for(sim, heartbeat_s=0.05))
        await service.reaches(LIVE)
        await service.end()
        ended = service.session
    assert owners == [True]
    assert ended.state == SessionState.ENDED
    assert ended.lines_in_use == 0


async def test_a_stream_owns_the_login_writes_fenced_rows(lake):
    async with simulate() as sim:
        await lake.registry.add_active(**leg(PUT))
        service = Service(lake, settings_for(sim))
        await eventually(lambda: _has_rows(lake, 4))
        await service.reaches(LIVE)
        session = service.session
        assert session.owner == "STREAM"
        assert session.run_id == "run-1"

        await eventually(lambda: service.session.lines_in_use == 1)
        assert service.session.underlying_lines == 0
        assert service.session.greeks is None
        await eventually(lambda: _is_queued(lake, 8))
        assert (await drain(lake, service.settings)).succeeded == 8
        of_accounts = await eventually(
            lambda: records_of(AccountSummary, lake.account_values.latest())
        )
        await service.end()

        rows = await lake.updates.latest_updates()
        streamed = [r for r in rows if r.source == "STREAM"]
        written_by = attrgetter("session_id", "fencing_token", "run_id")
        owner = (session.session_id, session.fencing_token, "run-1")
        assert {*map(written_by, [*streamed, *of_accounts])} == {owner}
        assert service.session.state is SessionState.ENDED
        await eventually(lambda: sim.stats()["connections"]["now"] == 0)
        assert sim.stats()["lines_in_use"] == 0


async def test_the_session_names_the_holdings_and_accounts_that_are_unusable(lake, monkeypatch):
    step = StreamedHolding.step

    def step_or_fail(state, *args):
        if state.key == (A, PUT):
            raise ArithmeticError("no such number")
        return step(state, *args)

    monkeypatch.setattr(StreamedHolding, "step", step_or_fail)
    await lake.registry.add_active(**leg(PUT))

    async with simulate() as sim:
        sim.holding(A, CALL, "nan")
        service = Service(lake, settings_for(sim, heartbeat_s=0.05))

        def set_aside():
            unusable = unusable_holdings_of(service.session)
            rows = unusable.set_aside["first"] if unusable.set_aside else ()
            return {(row["account"], row["conid"]): row["why"] for row in rows}

        await service.reaches(LIVE)
        await eventually(lambda: set_aside().keys() == {(A, CALL), (A, PUT)})
        assert set_aside()[A, PUT] == "it cannot be valued: ArithmeticError: no such number"
        assert unusable_holdings_of(service.session).texts[0] in service.session.detail
        assert service.session.state is LIVE

        sim.log_in_as([B])
        await eventually(lambda: unusable_holdings_of(service.session).unknown_accounts)
        (unknown,) = unusable_holdings_of(service.session).unknown_accounts
        assert unknown.account == A
        assert unknown.reason == "NOT_MANAGED"
        assert unknown.holdings == 4

        await service.end()
        assert unusable_holdings_of(service.session) == UnusableHoldings()


async def test_a_run_initializes_each_table_once(lake, monkeypatch):
    initialized: Counter[Any] = Counter()
    initialize = Table.initialize

    def count(table):
        initialized[table.path] += 1
        initialize(table)

    monkeypatch.setattr(Table, "initialize", count)
    async with simulate() as sim:
        await asyncio.wait_for(
            Service(lake, settings_for(sim, rotate_after_s=0.3)).task, DEADLINE_S
        )
    assert set(initialized.values()) == {1}
    assert len(initialized) == len(lake.all_tables)


async def test_two_streams_of_one_login_never_both_run(lake):
    async with simulate() as sim:
        service = Service(lake, settings_for(sim, login_wait_s=0.3))
        await service.reaches(LIVE)
        with pytest.raises(LoginOwnedError, match="STREAM"):
            await Service(lake, service.settings, run_id="run-2").task
        refreshed = await refresh(lake, service.settings)
        assert not refreshed.connected
        assert "owned by STREAM" in refreshed.reason
        assert sim.stats()["connections"]["peak"] == 1
        await service.end()


async def _has_rows(lake, least):
    return await lake.updates.count() >= least


async def _is_queued(lake, least):
    return sum((await lake.queue.counts()).values()) >= least


async def test_a_stream_whose_lease_was_taken_over_writes_nothing_more(lake, monkeypatch):
    async with simulate() as sim:
        await lake.registry.add_active(**leg(PUT))
        service = Service(lake, settings_for(sim, session_lease_s=3.0, heartbeat_s=0.2))
        await service.reaches(LIVE)
        over = threading.Event()
        renew = GatewaySessions.renew

        def hangs(*args, **more):
            over.wait(60)
            return renew(*args, **more)

        monkeypatch.setattr(GatewaySessions, "renew", hangs)
        await eventually(lambda: not service.session.is_alive(utc_now()))
        session = service.session
        async with Ownership(lake.sessions, service.settings, owner=Owner.STREAM) as own:
            assert own.session.fencing_token == session.fencing_token + 1
            over.set()
            named = f"STREAM .process {own.session.pid} on .* owns it since"
            with pytest.raises(LeaseLostError, match=named):
                await service.task
        newest = max(r.timestamp for r in await lake.updates.latest_updates())
        assert newest <= session.expires_at


async def test_a_stream_that_renews_its_lease_late_goes_on_in_its_session(lake, monkeypatch):
    async with simulate() as sim:
        await lake.registry.add_active(**leg(PUT))
        service = Service(lake, settings_for(sim, session_lease_s=3.0, heartbeat_s=0.2))
        await service.reaches(LIVE)
        session = service.session
        with monkeypatch.context() as patched:
            patched.setattr(Ownership, "_is_over", lambda _own: True)  # as a clock that jumped
            await service.reaches(SessionState.BLIND)
        await service.reaches(LIVE)
        assert service.session.session_id == session.session_id
        await service.end()


async def test_a_stream_whose_lease_is_taken_over_while_it_waits_for_the_gateway_leaves_it(lake):
    async with simulate() as sim:
        sim.pause()
        service = Service(lake, settings_for(sim, heartbeat_s=0.05, gateway_timeout_s=600.0))
        lake.sessions.end(await eventually(lambda: service.session))
        with pytest.raises(LeaseLostError):
            await asyncio.wait_for(service.task, DEADLINE_S)


async def test_a_lease_is_renewed_while_its_process_reads_the_sessions_for_long(lake):
    """As the checks of a stream do, on a store that is slow."""
    may_end = threading.Event()
    async with simulate() as sim:
        service = Service(lake, settings_for(sim, heartbeat_s=0.2))
        await service.reaches(LIVE)
        reading = asyncio.create_task(
            asyncio.to_thread(lake.sessions.table.snapshot, lambda _handle: may_end.wait(60))
        )
        service.lake = Lake(lake.path)
        began = utc_now()
        try:
            await eventually(lambda: service.session.heartbeat_at > began)
            assert not reading.done()
        finally:
            may_end.set()
            await reading


async def test_without_a_gateway_the_stream_is_blind_and_runs_on(lake):
    async with simulate() as sim:
        settings = settings_for(sim)
    service = Service(lake, settings)
    await service.reaches(SessionState.BLIND)
    assert "Nothing listens" in service.session.detail
    done = await drain(lake, settings)
    assert "BLIND" in done.reason
    with pytest.raises(BrokerUnavailableError):
        await ReconciliationService(lake, settings).run()
    assert (await service.end()).rows == 0
    assert await lake.updates.count() == 0


async def test_a_lake_of_another_trading_mode_is_refused(lake):
    async with simulate() as sim:
        lake.sessions.claim_mode(TradingMode.PAPER)
        with pytest.raises(TradingModeError, match="PAPER"):
            await asyncio.wait_for(Service(lake, settings_for(sim)).task, DEADLINE_S)


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
        discrepancies = (await service.look()).discrepancies
        for name in ("its-old-name:7497", login.gateway_id):
            lake.breaks.record({name: discrepancies}, utc_now())

        lake.breaks.record({"closures": [replace(discrepancies[0], type="UNEXPLAINED")]}, utc_now())
        accepted = lake.breaks.accept(lake.breaks.open_breaks()[0].break_id, by="eva")
        assert (await service.run()).accepted == 1

        opened = open_breaks_of(lake.breaks, login.gateway_id)
        assert len(opened) == len(discrepancies)
        assert [
            difference.state for difference in opened if difference.break_id == accepted.break_id
        ] == ["ACCEPTED"]
        await drain(lake, settings)
        assert (await service.run()).ok
        assert [open_break.gateway_id for open_break in lake.breaks.open_breaks()] == ["closures"]


async def test_a_successor_takes_over_and_its_rows_follow_those_of_the_owner_before(lake):
    async with simulate() as sim:
        await lake.registry.add_active(**leg(PUT))
        first = Service(lake, settings_for(sim, rotate_after_s=5.0))
        await first.reaches(LIVE)
        second = Service(lake, settings_for(sim), run_id="run-2")
        await first.task

        async def has_rows():
            return "run-2" in (await lake.updates.latest())["run_id"]

        await eventually(has_rows)
        await second.end()
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
    lake, spec
):
    """Two releases side by side on one lake: the older one writes nothing more."""
    await lake.registry.add_active(**leg(CALL))
    async with simulate() as sim:
        service = Service(lake, settings_for(sim))
        await service.reaches(LIVE)
        columns = {**spec.described, "later": StoredColumn(kind=str, description="New.")}
        newer = Table(
            lake.table_path(spec.name), replace(spec, version=spec.version + 1, described=columns)
        )
        await offload(newer.initialize)
        migrated = newer.version()
        with pytest.raises(NewerTableError, match=f"this release knows {spec.version}"):
            await asyncio.wait_for(service.task, DEADLINE_S)

        assert newer.version() == migrated
        await eventually(lambda: sim.stats()["lines_in_use"] == 0)
    assert service.session.state is SessionState.ENDED


@pytest.mark.parametrize("error", [ForeignTableError, TradingModeError])
async def test_a_stream_whose_ledger_refuses_its_rows_for_good_ends(lake, monkeypatch, error):
    async def refuse(_table, _updates):
        raise error("The ledger is another one.", remedy="Name another folder.")

    monkeypatch.setattr(PositionUpdatesTable, "append", refuse)
    await lake.registry.add_active(**leg(CALL))
    async with simulate() as sim:
        service = Service(lake, settings_for(sim))
        with pytest.raises(error, match="The ledger is another one"):
            await asyncio.wait_for(service.task, DEADLINE_S)
    session = service.session
    assert session.state is SessionState.ENDED
    assert session.detail.startswith(f"{error.__name__}: The ledger is another one.")
