"""A refresh and the drains behind it: one short connection, then values from the tables."""

import asyncio
import json
from contextlib import nullcontext
from datetime import timedelta
from functools import partial

import pytest

from position_sync_dagster.domain.broker_position import Completeness
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.domain.update import QueueStatus
from position_sync_dagster.errors import (
    BrokerUnavailableError,
    LakeNotWritableError,
    LeaseLostError,
)
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.sync.drain.refresh import drain, refresh
from position_sync_dagster.sync.owner import publisher
from position_sync_dagster.sync.owner.publisher import Publisher
from position_sync_dagster.sync.reports.reconciliation import ReconciliationService
from position_sync_dagster.sync.reports.status import read_status
from position_sync_dagster.sync.stream.service import stream

A, B = "DUSIM0001", "DUSIM0002"
CALL, PUT, UNHELD = 921000001, 921000002, 921000007


async def killed(*_args, **_more):
    """Stand for a process that is killed between the positions and the requests."""
    raise RuntimeError("killed")


async def test_a_refresh_without_a_stream_is_one_short_connection(
    simulate, lake, settings_for, eventually
):
    async with simulate() as sim:
        settings = settings_for(sim)
        report = await refresh(lake, settings, run_id="run-1")
        assert (report.connected, report.accounts, report.positions) == (True, 2, 9)
        assert report.enqueued == 9
        assert report.incomplete_accounts == ()
        await eventually(lambda: sim.stats()["connections"]["now"] == 0)
        session = lake.sessions.current(settings.gateway_id)
        assert (session.state, session.owner, session.run_id) == (
            SessionState.ENDED, "DRAIN", "run-1",
        )  # fmt: skip

        done = await drain(lake, settings, run_id="run-2")
        assert (done.claimed, done.succeeded, done.rows, done.reason) == (9, 9, 9, None)
        assert sim.stats()["connections"]["total"] == 1
        rows = await lake.updates.latest_updates()
        assert {(r.run_id, r.source) for r in rows} == {("run-2", "QUEUE")}
        assert all(r.market_value is not None for r in rows)


async def test_a_drain_before_the_first_download_leaves_the_requests(simulate, lake, settings_for):
    async with simulate() as sim:
        await lake.queue.insert(CALL, "AAPL")
        done = await drain(lake, settings_for(sim))
        assert (done.claimed, done.pending_after) == (0, 1)
        assert "have not been downloaded" in done.reason
        assert sim.stats()["connections"]["total"] == 0


async def test_a_refresh_that_stands_still_past_its_lease_stores_no_change_of_a_quantity(
    simulate, lake, settings_for, monkeypatch
):
    table, stood_s = lake.position_changes.table, [0.0]
    transact = table.transact

    def later(step):
        stood_s[0] = 3600.0
        return transact(step)

    monkeypatch.setattr(table, "transact", later)
    async with simulate() as sim:
        settings = settings_for(sim)
        await refresh(lake, settings)
        sim.fill(A, CALL, 1)
        with pytest.raises(LeaseLostError):
            await refresh(lake, settings, clock=lambda: utc_now() + timedelta(seconds=stood_s[0]))
    assert stood_s == [3600.0]
    assert lake.position_changes.records() == []


async def test_a_refresh_that_fails_does_not_make_old_values_current(simulate, lake, settings_for):
    async with simulate() as sim:
        settings = settings_for(sim)
        await refresh(lake, settings)
    with pytest.raises(Exception, match="Nothing listens"):
        await refresh(lake, settings)
    await lake.queue.insert(UNHELD, "AAPL")
    age_s = settings.refresh_interval_s + settings.drain_time_limit_s + 1
    done = await drain(lake, settings, clock=lambda: utc_now() + timedelta(seconds=age_s))
    assert done.claimed == 0
    assert "last downloaded" in done.reason


async def test_a_position_closed_between_two_refreshes_gets_its_zero_row(
    simulate, lake, settings_for
):
    async with simulate() as sim:
        settings = settings_for(sim)
        await refresh(lake, settings)
        await drain(lake, settings)
        sim.close_position(A, PUT)
        await refresh(lake, settings, run_id="run-2")
        assert [one.run_id for one in lake.position_changes.records()] == ["run-2"]
        await drain(lake, settings)
        rows = {(u.account, u.conid): u for u in await lake.updates.latest_updates()}
        assert rows[(A, PUT)].position == 0.0
        assert rows[(A, PUT)].market_value == 0.0
        assert rows[(A, CALL)].position == 5.0


async def test_a_table_of_causes_that_fails_keeps_no_holding_from_being_queued(
    simulate, lake, settings_for, monkeypatch
):
    def fail(*_):
        raise LakeNotWritableError("The disk is full.", remedy="Make room.")

    async with simulate() as sim:
        settings = settings_for(sim)
        await refresh(lake, settings)
        await drain(lake, settings)
        sim.close_position(A, PUT)
        with monkeypatch.context() as broken:
            broken.setattr(lake.closures, "current_rows", fail)
            assert (await refresh(lake, settings)).enqueued == 9
            assert (await drain(lake, settings)).succeeded == 9
        await refresh(lake, settings)
        assert [one.conid for one in lake.closures.current()] == [PUT]


async def test_a_close_whose_request_had_a_row_before_a_kill_gets_its_zero_row(
    simulate, lake, settings_for, monkeypatch, eventually
):
    """The request of the killed drain is still live, so that the close makes no other."""
    async with simulate() as sim:
        settings = settings_for(sim, lease_s=1.0, drain_time_limit_s=0.9)
        await refresh(lake, settings)
        with monkeypatch.context() as broken:
            broken.setattr(lake.queue, "mark_success", killed)
            with pytest.raises(RuntimeError, match="killed"):
                await drain(lake, settings)
        sim.close_position(A, PUT)
        await refresh(lake, settings)

        async def is_closed():
            await drain(lake, settings)
            rows = {(u.account, u.conid): u for u in await lake.updates.latest_updates()}
            return rows[A, PUT].position == 0.0

        await eventually(is_closed)


@pytest.mark.parametrize("lost", [False, True])
async def test_a_close_before_a_pause_of_days_gets_its_zero_row_after_it(
    simulate, lake, settings_for, monkeypatch, lost
):
    async with simulate() as sim:
        settings = settings_for(sim)
        await refresh(lake, settings)
        await drain(lake, settings)
        sim.close_position(A, PUT)
        with monkeypatch.context() as broken:  # nothing drains until after the pause
            if lost:
                broken.setattr(Publisher, "enqueue_all", killed)
            with pytest.raises(RuntimeError) if lost else nullcontext():
                await refresh(lake, settings)
        monkeypatch.setattr(publisher, "CLOSED_KEPT", timedelta(0))  # days have passed
        for _ in range(2):
            await refresh(lake, settings)
            await drain(lake, settings)
            rows = {(u.account, u.conid): u.position for u in await lake.updates.latest_updates()}
            assert (rows[A, PUT], rows[A, CALL]) == (0.0, 5.0)
        assert (await lake.queue.counts())[QueueStatus.FAILED] == 0
        held = lake.broker_positions.read(settings.gateway_id)
        assert (A, PUT) not in {holding.key for holding in held}


async def test_a_position_that_closes_when_its_type_is_no_longer_followed_gets_its_zero_row(
    simulate, lake, settings_for
):
    async with simulate() as sim:
        await refresh(lake, settings_for(sim))
        await drain(lake, settings_for(sim))
        settings = settings_for(sim, sec_types=("STK",))
        followed = (await refresh(lake, settings)).enqueued
        sim.close_position(A, PUT)
        assert (await refresh(lake, settings)).enqueued == followed + 1
        await drain(lake, settings)
        rows = {(u.account, u.conid): u.position for u in await lake.updates.latest_updates()}
        assert (rows[A, PUT], rows[A, CALL]) == (0.0, 5.0)
        assert (await refresh(lake, settings)).enqueued == followed


async def test_the_lost_request_of_such_a_close_is_made_by_the_next_refresh(
    simulate, lake, settings_for, monkeypatch
):
    async with simulate() as sim:
        await refresh(lake, settings_for(sim))
        await drain(lake, settings_for(sim))
        settings = settings_for(sim, sec_types=("STK",))
        sim.close_position(A, PUT)
        with monkeypatch.context() as broken:
            broken.setattr(Publisher, "enqueue_all", killed)
            with pytest.raises(RuntimeError, match="killed"):
                await refresh(lake, settings)
        await refresh(lake, settings)
        await drain(lake, settings)
        rows = {(u.account, u.conid): u.position for u in await lake.updates.latest_updates()}
        assert (rows[A, PUT], rows[A, CALL]) == (0.0, 5.0)


async def test_a_position_of_a_type_that_was_never_followed_has_no_row_when_it_closes(
    simulate, lake, settings_for
):
    async with simulate() as sim:
        settings = settings_for(sim, sec_types=("STK",))
        await refresh(lake, settings)
        sim.close_position(A, PUT)
        for _ in range(2):
            await refresh(lake, settings)
            await drain(lake, settings)
        assert {u.sec_type for u in await lake.updates.latest_updates()} == {"STK"}


async def test_a_refresh_refuses_what_a_gateway_without_ib_has_cached(simulate, lake, settings_for):
    async with simulate() as sim:
        settings = settings_for(sim)
        sim.connectivity("lost", "cached")
        with pytest.raises(BrokerUnavailableError, match="broken"):
            await refresh(lake, settings)
        assert lake.broker_positions.read(settings.gateway_id) == []
        assert sum((await lake.queue.counts()).values()) == 0
        sim.connectivity("restored_data_kept")
        assert (await refresh(lake, settings)).enqueued == 9


async def test_what_a_second_refresh_finds_unchanged_has_no_second_row_and_is_current(
    simulate, lake, settings_for
):
    async with simulate(autostep=False) as sim:
        settings = settings_for(sim)
        await refresh(lake, settings)
        assert (await drain(lake, settings)).rows == 9
        sim.fill(A, CALL, 1)
        await refresh(lake, settings)
        # another process, long after the first rows
        later = Lake(lake.path, clock=lambda: utc_now() + timedelta(minutes=2))
        done = await drain(later, settings)
        assert (done.succeeded, done.rows, done.unchanged) == (9, 1, 8)
        rows = {(u.account, u.conid): u for u in await lake.updates.latest_updates()}
        answers = await lake.queue.get_batch(priority=None, status=QueueStatus.SUCCESS)
        assert len(answers) == 18
        ids = {u.update_id for u in rows.values()}
        assert sum(r.update_id in ids for r in answers) == 17  # the filled leg's first row is old
        status = read_status(lake, settings, utc_now())
        assert (status.legs_queued, status.legs_streamed) == (9, 0)
        assert status.last_drained_at is not None


async def refreshed(lake, settings, after_s=0.0):
    """Refresh and drain so many seconds later; return the report and the holdings that are zero."""
    clock = partial(later, after_s)
    at = Lake(lake.path, clock=clock)
    report = await refresh(at, settings, clock=clock)
    await drain(at, settings, clock=clock)
    rows = await lake.updates.latest_updates()
    return report, {(row.account, row.conid) for row in rows if row.position == 0}


def _rows_of(lake, account):
    return lake.updates.table.rows(columns=["account"]).filter(account=account).height


def later(seconds):
    return utc_now() + timedelta(seconds=seconds)


async def test_a_refresh_closes_an_emptied_account_only_if_the_one_before_saw_the_same(
    simulate, lake, settings_for
):
    async with simulate() as sim:
        settings = settings_for(sim)
        await refreshed(lake, settings)
        sim.empty_lists(A)
        for after_s in (10, 30):  # the second list comes too early
            report, zero = await refreshed(lake, settings, after_s)
            assert (report.positions, report.incomplete_accounts, zero) == (9, (A,), set())
            session = lake.sessions.current(settings.gateway_id)
            assert session.detail.startswith(f"account {A} has none of its holdings in the list")
            assert session.detail in read_status(lake, settings, utc_now()).session_detail
        report, zero = await refreshed(lake, settings, 90)
        assert (report.positions, report.incomplete_accounts) == (4, ())
        assert {account for account, _conid in zero} == {A}
        assert len(zero) == 5


async def test_a_refresh_between_two_empty_lists_that_names_the_holdings_takes_the_first_back(
    simulate, lake, settings_for
):
    async with simulate() as sim:
        settings = settings_for(sim)
        await refreshed(lake, settings)
        for after_s, empty in ((60, True), (120, False), (180, True)):
            sim.empty_lists(A, empty=empty)
            report, zero = await refreshed(lake, settings, after_s)
            assert (report.incomplete_accounts, zero) == ((A,) if empty else (), set())
        held = lake.broker_positions.read(settings.gateway_id)
        assert sum(row.position != 0 for row in held) == 9


async def test_what_a_stream_saw_before_is_no_first_list_of_a_refresh(
    simulate, lake, settings_for, eventually
):
    async with simulate() as sim:
        settings = settings_for(sim, second_list_s=3600.0)
        await refreshed(lake, settings)
        sim.empty_lists(A)
        stop = asyncio.Event()
        streaming = asyncio.create_task(stream(lake, settings, stop=stop, report=lambda _: None))

        async def is_named():
            session = lake.sessions.current(settings.gateway_id)
            return f"account {A} has none" in (session.detail or "")

        await eventually(is_named)
        stop.set()
        await streaming
        settings = settings_for(sim)
        _, zero = await refreshed(lake, settings, 60)
        assert zero == set()
        _, zero = await refreshed(lake, settings, 120)
        assert len(zero) == 5


async def test_accounts_of_another_login_are_kept_by_a_refresh_until_a_file_leaves_them_out(
    simulate, lake, settings_for, tmp_path
):
    async with simulate() as sim:
        settings = settings_for(sim)
        await refreshed(lake, settings)
        sim.log_in_as([B])
        for _ in range(2):
            report, zero = await refreshed(lake, settings)
            assert (report.accounts, report.positions, zero) == (1, 4, set())
            session = lake.sessions.current(settings.gateway_id)
            assert session.detail == (
                f"account {A} is not managed by this login now: its 5 holdings are unknown"
            )
            held = lake.broker_positions.read(settings.gateway_id)
            assert sum(row.account == A and row.position != 0 for row in held) == 5
            rated = {row.completeness for row in held if row.account == A}
            assert rated == {Completeness.UNKNOWN}
        rows = _rows_of(lake, A)

        file = tmp_path / "gateways.yaml"
        named = {"name": settings.gateway_id, "port": sim.port, "accounts": [B]}
        file.write_text(json.dumps({"gateways": [named]}))
        (login,) = settings_for(sim, gateways_file=file).logins
        assert login.gateway_id == settings.gateway_id
        report, zero = await refreshed(lake, login)
        assert (report.incomplete_accounts, zero) == ((), set())
        held = lake.broker_positions.read(settings.gateway_id)
        assert {row.account for row in held} == {B}
        session = lake.sessions.current(settings.gateway_id)
        assert session.detail is None
        whole = settings_for(sim, gateways_file=file)
        assert read_status(lake, whole, utc_now()).positions == 4
        assert (await ReconciliationService(lake, whole).run()).ok
        assert _rows_of(lake, A) == rows
