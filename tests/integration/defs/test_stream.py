"""The stream's op: its thread, its events, its clean end."""

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import Mock

import dagster as dg
import pytest

from position_sync_dagster.definitions import defs
from position_sync_dagster.defs import stream as stream_events_module
from position_sync_dagster.defs import stream as stream_job_module
from position_sync_dagster.defs.checks.evaluation import evaluated
from position_sync_dagster.defs.resources import POSITION_SYNC
from position_sync_dagster.defs.runs import DERIVE_JOB
from position_sync_dagster.defs.stream import (
    PatientLog,
    StreamEvents,
    StreamThread,
    run_is_gone,
    stream_positions,
)
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.errors import LeaseLostError, LoginOwnedError, StoreUnavailableError
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports import reconciliation
from position_sync_dagster.sync.counts import StreamReport
from position_sync_dagster.sync.stream import service as stream_module
from tests.support.demo_program import wait_for

NOW = datetime(2026, 3, 9, 15, 0, tzinfo=UTC)

REPORT = StreamReport(
    since=NOW,
    until=NOW,
    rows=120,
    commits=60,
    version_from=10,
    version_to=70,
    enqueued=180,
    queue_version=5,
    lines_in_use=20,
    line_limit=100,
    legs_streamed=20,
    reconnects=0,
    promotions=2,
    demotions=1,
    tick_to_table_p50_s=0.5,
    tick_to_table_p95_s=0.9,
    state="LIVE",
)

Stream = Callable[..., Any]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Stream], None]:
    """Replace the real stream by another function."""
    return lambda stream: monkeypatch.setattr(stream_module, "stream", stream)


@pytest.fixture
def run(settings: Settings, instance: dg.DagsterInstance) -> Callable[[], Any]:
    return lambda: stream_positions.execute_in_process(
        instance=instance,
        resources={"position_sync": POSITION_SYNC},
        raise_on_error=False,
    )


def names(events: Sequence[Any]) -> list[tuple[str, str]]:
    return [(type(e).__name__.removeprefix("Asset"), e.asset_key.to_user_string()) for e in events]


def given_up(instance: dg.DagsterInstance, run_id: str) -> None:
    """Report a run as failed, as the supervisor does if a clock was set during its start."""
    instance.report_run_failed(instance.get_run_by_id(run_id))


@pytest.mark.parametrize("end", [dg.DagsterInstance.delete_run, given_up])
def test_a_stream_whose_run_was_deleted_or_ended_ends_as_if_asked(
    play, run, instance, monkeypatch, end
) -> None:
    """Nobody could terminate it, Dagster would show no stream, and its successors would wait."""
    monkeypatch.setattr(stream_job_module, "RUN_LOOK_S", 0.05)
    ended = []

    async def stream(lake, settings, *, run_id, stop, report):
        end(instance, run_id)
        await asyncio.wait_for(stop.wait(), 60)
        ended.append(run_id)
        return REPORT

    play(stream)
    run()
    assert len(ended) == 1


def test_a_run_that_was_reported_as_failed_is_gone_for_its_stream(instance) -> None:
    """Nobody could terminate it, and each successor would wait for its lease in vain."""
    run = instance.create_run_for_job(stream_positions)
    assert not run_is_gone(instance, run.run_id)
    instance.report_run_failed(run)
    assert run_is_gone(instance, run.run_id)


@pytest.fixture
def stream_events(lake: Lake, settings: Settings, instance) -> StreamEvents:
    return StreamEvents(lake, settings, instance, run_id="the-run")


def later(minutes: float, **values: Any) -> StreamReport:
    return replace(REPORT, until=NOW + timedelta(minutes=minutes), **values)


MATERIALIZED = [
    ("Materialization", "gateway"),
    ("Materialization", "broker_positions"),
    ("Materialization", "contracts"),
    ("Materialization", "gateway_sessions"),
    ("Materialization", "account_values"),
    ("Materialization", "position_changes"),
    ("Materialization", "position_queue"),
    ("Materialization", "position_updates"),
]

OBSERVED = [
    ("Observation", "position_queue"),
    ("Observation", "position_updates"),
]


def test_a_new_state_is_a_materialization_and_a_minute_an_observation(stream_events) -> None:
    assert names(list(stream_events.of(REPORT))) == MATERIALIZED
    assert names(list(stream_events.of(later(1)))) == OBSERVED
    assert names(list(stream_events.of(later(2, state="BLIND")))) == MATERIALIZED
    assert names(list(stream_events.of(later(3, state="BLIND")))) == OBSERVED
    assert names(list(stream_events.of(later(4)))) == MATERIALIZED


def test_the_stream_materializes_each_quarter_of_an_hour(stream_events) -> None:
    list(stream_events.of(REPORT))
    found = [names(list(stream_events.of(later(minute)))) for minute in range(1, 31)]
    assert [at for at, events in enumerate(found, 1) if events == MATERIALIZED] == [15, 30]


def test_after_the_clock_was_set_back_the_stream_materializes_at_once_and_then_as_before(
    stream_events, instance
) -> None:
    list(stream_events.of(REPORT))
    instance.report_runless_asset_event(dg.AssetMaterialization("active_strategies"))
    found = [names(list(stream_events.of(later(minute)))) for minute in range(-60, -42)]
    materialized = [at for at, events in enumerate(found) if events == MATERIALIZED]
    assert materialized == [0, 1, 16], "once for the registry, whose time lies in the future"


def test_the_stream_materializes_after_the_registry_did(stream_events, instance) -> None:
    """Else the queue and the ledger would look older than the legs that they follow."""
    list(stream_events.of(REPORT))
    instance.report_runless_asset_event(dg.AssetMaterialization("active_strategies"))
    assert names(list(stream_events.of(later(1)))) == MATERIALIZED
    after = later((datetime.now(UTC) - NOW).total_seconds() / 60 + 1)
    list(stream_events.of(after))
    soon = replace(after, until=after.until + timedelta(minutes=1))
    assert names(list(stream_events.of(soon))) == OBSERVED


def test_every_report_with_rows_becomes_exactly_one_event_that_counts_them(stream_events) -> None:
    reports = [REPORT, later(1, rows=7), later(2, state="BLIND", rows=1), later(3, state="ENDED")]
    events = [event for report in reports for event in stream_events.of(report)]
    counted = [e.metadata["stream/rows"].value for e in events if "stream/rows" in e.metadata]
    assert counted == [120, 7, 1, 120]


def test_a_materialization_carries_the_delta_version(stream_events, lake: Lake) -> None:
    *_, queue, ledger = stream_events.of(REPORT)
    assert (queue.tags["dagster/data_version"], ledger.tags["dagster/data_version"]) == ("5", "70")
    silent = later(1, state="BLIND", rows=0, version_to=None, enqueued=0, queue_version=None)
    *_, queue, ledger = stream_events.of(silent)
    assert queue.tags["dagster/data_version"] == str(lake.queue.table.version())
    assert ledger.tags["dagster/data_version"] == str(lake.updates.table.version())


AGREES = dg.AssetCheckKey(dg.AssetKey("position_updates"), "agrees_with_the_broker")


def agreement(instance: dg.DagsterInstance) -> dg.AssetCheckEvaluation:
    """Return the newest result of the check, as the UI shows it."""
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key([AGREES])
    return found[AGREES].evaluation


def test_a_difference_that_a_drain_saw_is_evaluated_again_until_it_lasts_or_is_gone(
    stream_events, instance, lake, settings, own_login, write_holdings, append_row, seconds_ago,
    monkeypatch,
) -> None:  # fmt: skip
    """The drain that valued the other holdings in the middle of a fill evaluates nothing more."""
    monkeypatch.setattr(stream_events_module, "AGREE_EVERY", timedelta(0))
    write_holdings(own_login(), 1, 2)
    append_row(1, seconds_ago(1))
    checks = [AGREES]
    [seen] = evaluated(lake, settings, instance, run_id="drain", checks=checks)
    instance.report_runless_asset_event(seen)
    assert agreement(instance).metadata["unconfirmed"].value == 1

    def follows(wanted: bool) -> bool:
        stream_events.evaluate_again()
        found = agreement(instance)
        return found.passed is wanted and "unconfirmed" not in found.metadata

    monkeypatch.setattr(reconciliation, "CONFIRM_AFTER", timedelta(0))
    wait_for("the difference that lasts fails", lambda: follows(wanted=False))
    append_row(2, seconds_ago(1))
    wait_for("the check passes", lambda: follows(wanted=True))


@pytest.mark.parametrize(("logins", "again"), [(1, 5), (10**9, 1)])
def test_the_streams_of_many_logins_evaluate_the_failed_checks_of_their_lake_in_turn(
    lake, settings, instance, monkeypatch, logins, again
) -> None:
    evaluations = []

    def failing(*_: object, checks: Sequence[dg.AssetCheckKey], **__: object) -> list[Any]:
        evaluations.append(checks)
        return [Mock(passed=False, asset_check_key=checks[0])]

    monkeypatch.setattr(stream_events_module, "evaluated", failing)
    monkeypatch.setattr(stream_events_module, "AGAIN_EVERY", timedelta(microseconds=1))
    monkeypatch.setattr(instance, "report_runless_asset_event", Mock())
    events = StreamEvents(lake, settings, instance, run_id="the-run", logins=logins)
    list(events.of(REPORT))
    events.evaluate()
    evaluations.clear()

    def are_evaluated_again() -> bool:
        events.evaluate_again()
        return len(evaluations) >= again

    wait_for("they are evaluated again", are_evaluated_again, poll_s=0.001)
    for _ in range(20):
        events.evaluate_again()
    assert logins == 1 or len(evaluations) == 1


def test_while_a_run_has_only_planned_the_check_it_is_not_evaluated_again(
    stream_events, instance, lake, monkeypatch
) -> None:
    """Until it has run, Dagster's newest record of the check is the plan of `refresh_derived`."""
    job = defs().resolve_job_def(DERIVE_JOB)
    with monkeypatch.context() as broken:
        broken.setenv("POSITION_SYNC_BATCH_SIZE", "many")
        job.execute_in_process(instance=instance, raise_on_error=False)
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key([AGREES])
    assert found[AGREES].status.value == "PLANNED"
    stream_events.evaluate_again()
    again = instance.event_log_storage.get_latest_asset_check_execution_by_key([AGREES])
    assert again[AGREES].status.value == "PLANNED"


def test_an_error_of_a_check_ends_no_stream_and_is_said_once(caplog) -> None:
    events = Mock(spec=StreamEvents)
    events.evaluate_again.side_effect = [AttributeError("no such"), AttributeError("no such"), None]
    patient = PatientLog(events, Mock())
    for _ in range(3):
        patient.deliver()
    assert events.evaluate_again.call_count == 3
    said = "The stream goes on, but its checks could not be evaluated."
    assert [record.message for record in caplog.records] == [said]


def test_events_wait_for_a_table_that_cannot_be_read_and_the_stream_goes_on(
    stream_events, lake, caplog, monkeypatch
) -> None:
    """As in an outage of an object store, which the stream outlives."""
    monkeypatch.setattr(stream_events_module, "RETRY_S", 0.0)
    logged: list[Any] = []
    patient = PatientLog(stream_events, logged.append)
    monkeypatch.setattr(stream_events, "evaluate", Mock())
    with monkeypatch.context() as outage:
        away = Mock(side_effect=StoreUnavailableError("The store is away.", remedy="Wait."))
        outage.setattr(lake.account_values.table, "count", away)
        outage.setattr(lake.updates.table, "version", away)
        patient.add(REPORT)
        patient.add(later(1, rows=7, enqueued=3, version_to=None))
        assert logged == []
    patient.deliver()
    assert names(logged) == [*MATERIALIZED, *OBSERVED]
    counted = [e.metadata["stream/rows"].value for e in logged if "stream/rows" in e.metadata]
    assert counted == [120, 7]
    said = "The stream goes on, but its events wait for a table: The store is away. Wait."
    assert [record.message for record in caplog.records] == [said]


@pytest.mark.usefixtures("confirmed_at_once")
def test_the_ledger_agrees_as_soon_as_it_does_after_the_stream_became_live(
    stream_events, instance, own_login, write_holdings, append_row, seconds_ago
) -> None:
    key = dg.AssetCheckKey(dg.AssetKey("position_updates"), "agrees_with_the_broker")

    def passed() -> bool:
        stream_events.evaluate_again()
        found = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])
        return bool(found[key].evaluation.passed)

    write_holdings(own_login(), 1)
    list(stream_events.of(REPORT))
    stream_events.evaluate()
    assert not passed(), "the holding has no row yet"
    append_row(1, seconds_ago(1))
    wait_for("the ledger agrees", passed)


@pytest.mark.usefixtures("confirmed_at_once")
def test_failed_checks_are_evaluated_again_also_after_the_clock_was_set_back(
    stream_events, instance, own_login, write_holdings, append_row, seconds_ago, monkeypatch
) -> None:
    class SetBack(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) - timedelta(hours=1)

    write_holdings(own_login(), 1)
    list(stream_events.of(REPORT))
    monkeypatch.setattr(stream_events_module, "AGREE_EVERY", timedelta(0))
    stream_events.evaluate()
    stream_events.evaluate_again()
    assert not agreement(instance).passed
    append_row(1, seconds_ago(1))
    monkeypatch.setattr(stream_events_module, "datetime", SetBack)
    assert stream_events.may_evaluate()

    def passed() -> bool:
        stream_events.evaluate_again()
        return agreement(instance).passed

    wait_for("the ledger agrees", passed)


def test_evaluating_again_leaves_most_of_the_time_to_others(stream_events, monkeypatch) -> None:
    """Where tables are slow, the streams of several logins would do nothing else."""
    took_s, begins = 0.5, []

    def slow(*_: object, **__: object) -> list[dg.AssetCheckEvaluation]:
        begins.append(time.monotonic())
        time.sleep(took_s)
        return [
            dg.AssetCheckEvaluation(
                asset_key=dg.AssetKey("position_updates"), check_name="one", passed=False
            )
        ]

    monkeypatch.setattr(stream_events_module, "evaluated", slow)
    monkeypatch.setattr(stream_events_module, "AGAIN_EVERY", timedelta(0))
    list(stream_events.of(REPORT))
    stream_events.evaluate()
    until = time.monotonic() + 3 * took_s
    while time.monotonic() < until:
        stream_events.evaluate_again()
        time.sleep(0.01)
    assert len(begins) == 2, "once, and once again"


def test_a_span_in_which_nothing_happened_makes_no_event(stream_events) -> None:
    list(stream_events.of(REPORT))
    silent = later(1, rows=0, version_from=None, version_to=None, enqueued=0)
    assert list(stream_events.of(silent)) == []


def test_a_run_logs_the_events_of_its_reports(play, run) -> None:
    async def stream(lake, settings, *, run_id, stop, report):
        report(REPORT)
        report(replace(REPORT, enqueued=0, version_from=70, version_to=90))
        return REPORT

    play(stream)
    result = run()
    assert result.success
    events = result.asset_materializations_for_node("stream_legs")
    assert [e.asset_key.to_user_string() for e in events] == [name for _, name in MATERIALIZED]
    observed = [
        e.asset_observation_data.asset_observation.asset_key.to_user_string()
        for e in result.all_events
        if e.event_type is dg.DagsterEventType.ASSET_OBSERVATION
    ]
    assert observed == ["position_updates"]


def passed(instance: dg.DagsterInstance) -> bool | None:
    """Return the newest result of the check, as the UI shows it."""
    key = dg.AssetCheckKey(dg.AssetKey("position_updates"), "a_stream_watches")
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])
    return found[key].evaluation.passed if key in found else None


def test_the_check_follows_the_stream_at_once(play, run, own_login, lake, instance) -> None:
    seen: list[bool | None] = []

    async def stream(lake, settings, *, run_id, stop, report):
        session = own_login(run_id=run_id)
        for state in (SessionState.LIVE, SessionState.BLIND, SessionState.LIVE):
            session = lake.sessions.renew(session, lease_s=60.0, state=state)
            report(replace(REPORT, state=state))
            wanted = state is SessionState.LIVE
            while passed(instance) is not wanted:
                await asyncio.sleep(0.01)
            seen.append(wanted)
        return REPORT

    play(stream)
    assert run().success
    assert seen == [True, False, True]


def test_a_stream_that_fails_leaves_the_check_yellow(play, run, own_login, lake, instance) -> None:
    async def stream(lake, settings, *, run_id, stop, report):
        session = own_login(run_id=run_id)
        report(REPORT)
        lake.sessions.end(session)
        raise LeaseLostError("The lease is over.", remedy="Wait.")

    play(stream)
    assert not run().success
    assert passed(instance) is False


def interrupting(instance: dg.DagsterInstance, *, by_a_person: bool) -> Stream:
    """Return a stream that is interrupted when it streams, with a last report at its end."""

    async def stream(lake, settings, *, run_id, stop, report):
        report(REPORT)
        if by_a_person:
            instance.report_run_canceling(instance.get_run_by_id(run_id))
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(0.01)
        await stop.wait()
        report(replace(REPORT, rows=11, state="ENDED"))
        return REPORT

    return stream


def last_rows(result: dg.ExecuteInProcessResult) -> list[int]:
    return [
        e.asset_observation_data.asset_observation.metadata["stream/rows"].value
        for e in result.all_events
        if e.event_type is dg.DagsterEventType.ASSET_OBSERVATION
        and "stream/rows" in e.asset_observation_data.asset_observation.metadata
    ]


def test_an_interrupt_ends_the_run_as_a_success_with_its_last_rows(play, run, instance) -> None:
    """Ctrl-C, and the end of the demo."""
    play(interrupting(instance, by_a_person=False))
    result = run()
    assert result.success
    assert last_rows(result) == [11]


def test_a_termination_by_a_person_cancels_the_run_after_its_last_rows(play, run, instance) -> None:
    """The supervisor takes a canceled run for a pause."""
    play(interrupting(instance, by_a_person=True))
    run()
    (record,) = instance.get_run_records()
    assert record.dagster_run.status is dg.DagsterRunStatus.CANCELED
    found = instance.fetch_observations(dg.AssetKey("position_updates"), limit=5).records
    assert [r.asset_observation.metadata["stream/rows"].value for r in found] == [11]


@pytest.mark.parametrize("kind", [LoginOwnedError, LeaseLostError])
def test_an_error_of_the_stream_fails_the_run_with_what_and_remedy(play, run, kind) -> None:
    async def stream(lake, settings, *, run_id, stop, report):
        raise kind("The login is taken.", remedy="Wait for it.")

    play(stream)
    result = run()
    assert not result.success
    message = result.failure_data_for_node("stream_legs").error.message
    assert "The login is taken. Wait for it." in message


def test_an_interrupt_in_the_main_thread_lets_the_stream_end_cleanly(
    play, lake: Lake, settings: Settings
) -> None:
    """Dagster terminates a run by raising in its main thread."""
    seen = []

    async def stream(lake, settings, *, run_id, stop, report):
        seen.append(threading.current_thread() is threading.main_thread())
        report(REPORT)
        await stop.wait()
        await asyncio.sleep(0)
        seen.append("ended")
        return REPORT

    play(stream)
    thread = StreamThread(lake, settings, run_id="r")

    def interrupted() -> None:
        with thread.running(grace_s=5):
            for _ in thread.reports():
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert seen == [False, "ended"]
    assert thread.result() == REPORT


def test_the_stream_gets_the_id_of_its_run_so_that_its_rows_carry_it(play, run) -> None:
    run_ids = []

    async def stream(lake, settings, *, run_id, stop, report):
        run_ids.append(run_id)
        return REPORT

    play(stream)
    assert run().run_id == run_ids[0]


def test_a_stream_that_does_not_end_in_time_is_an_error(
    play, lake: Lake, settings: Settings
) -> None:
    release = threading.Event()

    async def stream(lake, settings, *, run_id, stop, report):
        await asyncio.to_thread(release.wait)
        return REPORT

    play(stream)
    thread = StreamThread(lake, settings, run_id="r")
    with thread.running(grace_s=0.01):
        pass
    with pytest.raises(TimeoutError, match="did not end in time"):
        thread.result()
    release.set()
    assert list(thread.reports()) == []


@pytest.mark.parametrize(("other", "evaluates"), [("the-run", True), ("another-run", False)])
def test_of_the_streams_of_several_logins_the_last_to_materialize_evaluates(
    lake: Lake, settings: Settings, instance, monkeypatch, other, evaluates
) -> None:
    called = []
    monkeypatch.setattr(
        stream_events_module, "evaluated", lambda *_, **more: called.append(more) or ()
    )
    newest = Mock(run_id=other)
    monkeypatch.setattr(stream_events_module, "newest_materialization", lambda *_: newest)
    events = StreamEvents(lake, settings, instance, run_id="the-run", logins=3)
    list(events.of(replace(REPORT, state=SessionState.LIVE.value)))
    assert not events.may_evaluate(), "the others may materialize now"
    events.evaluate()
    assert bool(called) is evaluates
    events.evaluate(at_end=True)
    assert len(called) == evaluates + 1, "the other did not see this stream end"
    alone = StreamEvents(lake, settings, instance, run_id="the-run")
    list(alone.of(replace(REPORT, state=SessionState.LIVE.value)))
    assert alone.may_evaluate()
    alone.evaluate()
    assert len(called) == evaluates + 2
