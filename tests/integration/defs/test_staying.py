"""A drain in an object store that stays: what it does, what it leaves behind, and when it ends."""

import os
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest

from position_sync_dagster import definitions
from position_sync_dagster.definitions import defs
from position_sync_dagster.defs import staying
from position_sync_dagster.defs.drain import MAX_RUNTIME_S, drain_queue, observe, quiet_of
from position_sync_dagster.defs.runs import DRAIN_JOB, cached_lake
from position_sync_dagster.domain.broker_position import Completeness
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.domain.update import QueueStatus
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.queue.operations import SyncQueue
from position_sync_dagster.lake.sessions import GatewaySessions
from position_sync_dagster.settings import Settings, load_settings
from position_sync_dagster.sync.audit import verify
from position_sync_dagster.sync.drain_plan import DrainCursor
from tests.support.object_store import ObjectStore

Action = Callable[[], object]

CLOSURES = dg.AssetMaterialization("closures")


@pytest.fixture
def settings(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Return settings that name a lake in the store."""
    monkeypatch.setenv("POSITION_SYNC_LAKE", store.lake())
    monkeypatch.setenv("POSITION_SYNC_GATEWAY_PORT", "1")
    definitions._loaded.cache_clear()  # those of another test have its port
    yield load_settings()
    definitions._loaded.cache_clear()


@pytest.fixture
def request_of_sensor(instance, lake: Lake) -> Callable[..., dg.RunRequest]:
    """Return the run that the sensor requests, with the registry already recorded by default."""

    def request(recorded: int | None = None) -> dg.RunRequest:
        cached_lake.cache_clear()
        version = lake.registry.table.version() if recorded is None else recorded
        cursor = DrainCursor(registry_version=version).to_text()
        with dg.build_sensor_context(instance=instance, cursor=cursor) as context:
            (found,) = drain_queue(context).run_requests
        return found

    return request


@pytest.fixture
def drain(instance, request_of_sensor, monkeypatch) -> Callable[..., dg.ExecuteInProcessResult]:
    """Run what the sensor requests; before each look for work, the next action happens.

    After the last action the run is interrupted.
    """

    def run(
        *actions: Action, closures: bool = True, recorded: int | None = None
    ) -> dg.ExecuteInProcessResult:
        left: Iterator[Action] = iter(actions)

        def wait(is_interrupted: Callable[[], bool], *_: object) -> bool:
            next(left, interrupt)()
            return not is_interrupted()

        monkeypatch.setattr(staying, "waited", wait)
        if closures:
            instance.report_runless_asset_event(CLOSURES)
        request = request_of_sensor(recorded)
        return (
            defs()
            .resolve_job_def(DRAIN_JOB)
            .execute_in_process(
                instance=instance,
                asset_selection=request.asset_selection,
                tags=request.tags,
                raise_on_error=False,
            )
        )

    return run


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def nothing() -> None:
    pass


def rows_of_events(instance: dg.DagsterInstance) -> list[int]:
    found = instance.fetch_materializations(dg.AssetKey("position_updates"), limit=10).records
    return [one.asset_materialization.metadata["drain/rows"].value for one in reversed(found)]


def test_requests_that_come_later_are_drained_by_the_same_run_each_time_with_an_event(
    drain, instance, lake: Lake, own_login, write_holdings, enqueue
) -> None:
    write_holdings(own_login(), 1, 2, 3, 4)
    enqueue(1)
    result = drain(lambda: enqueue(2, 3), nothing, lambda: enqueue(4))
    assert result.success, "an interrupt between two drains ends the run cleanly"
    assert rows_of_events(instance) == [1, 2, 1]
    assert lake.queue.sync.counts()[QueueStatus.SUCCESS] == 4
    for name in ("latest_positions", "strategy_exposure"):
        found = instance.fetch_materializations(dg.AssetKey(name), limit=10).records
        assert len(found) == 3
    assert lake.derived_tables[0].count() == 4


def test_requests_that_came_during_a_drain_are_drained_before_tables_are_derived(
    drain, instance, lake: Lake, own_login, write_holdings, enqueue, monkeypatch
) -> None:
    write_holdings(own_login(), 1, 2, 3)
    enqueue(1)
    mark, more = SyncQueue.mark_success, [2, 3]

    def mark_and_enqueue(*args, **options):
        mark(*args, **options)
        if lake.updates.sync.count() > 1 and more:
            enqueue(more.pop())

    monkeypatch.setattr(SyncQueue, "mark_success", mark_and_enqueue)
    assert drain(lambda: enqueue(more.pop())).success
    assert rows_of_events(instance) == [1, 1, 1]
    derived = instance.fetch_materializations(dg.AssetKey("latest_positions"), limit=10).records
    assert len(derived) == 2
    assert lake.derived_tables[0].count() == 3


def test_while_a_drain_stays_the_sensor_does_not_look_at_the_queue(
    drain, instance, lake: Lake, store: ObjectStore, own_login, write_holdings, enqueue
) -> None:
    write_holdings(own_login(), 1)
    enqueue(1)
    said, asked = [], []

    def tick() -> None:
        cursor = DrainCursor(registry_version=7).to_text()
        with dg.build_sensor_context(instance=instance, cursor=cursor) as context:
            drain_queue(context)  # it opens the tables
            store.proxy.change()
            said.append(drain_queue(context))
        asked.extend(one.path for one in store.proxy.change())

    result = drain(tick)
    assert f"{result.run_id[:8]} is in progress" in said[0].skip_reason.skip_message
    assert "pending" not in said[0].skip_reason.skip_message
    assert DrainCursor.from_text(said[0].cursor).registry_version == 7
    assert [one for one in asked if "position_queue" in one or "active_strategies" in one] == []


def test_the_run_opens_no_table_again_and_says_what_it_wrote_in_all(
    drain, store: ObjectStore, lake: Lake, own_login, write_holdings, enqueue
) -> None:
    write_holdings(own_login(), 1, 2, 3)
    enqueue(1)

    def more() -> None:
        enqueue(2, 3)
        store.proxy.change()

    asked = []
    result = drain(more, lambda: asked.extend(store.proxy.change()))
    # To open a table takes one of these; so does the look at the requests of another process.
    opened = [one.path.split("/")[-3] for one in asked if "_last_checkpoint" in one.path]
    assert opened == ["position_queue"]
    assert any(one.kind == "PUT" and "position_updates" in one.path for one in asked)
    records = {one.step: one for one in lake.runs.get(result.run_id)}
    drained = records["position_updates"]
    assert (drained.rows, drained.commits, drained.claimed, drained.succeeded) == (3, 2, 3, 3)
    assert drained.version_to - drained.version_from == 2
    assert records["strategy_exposure"].version_to == lake.derived_tables[1].version()
    now = datetime.now(UTC) + timedelta(hours=1)
    assert verify(lake, None, since=now.date(), now=now, grace=timedelta(0)).findings == ()


def test_what_a_run_recorded_is_written_before_it_waits(
    drain, lake: Lake, own_login, write_holdings, enqueue
) -> None:
    """A process that is killed while it waits leaves nothing to mend."""
    write_holdings(own_login(), 1)
    enqueue(1)
    found = []

    def look() -> None:
        found.extend(lake.runs.since(datetime.now(UTC).date()))

    drain(look)
    assert {(one.step, one.rows) for one in found} >= {("position_updates", 1)}


def test_an_interrupt_during_a_later_drain_ends_the_run_after_the_event_of_its_rows(
    drain, instance, lake: Lake, own_login, write_holdings, enqueue, monkeypatch
) -> None:
    write_holdings(own_login(), 1, 2)
    enqueue(1)
    claim = SyncQueue.claim_batch

    def claim_and_interrupt(*args, **more):
        found = claim(*args, **more)
        if lake.updates.sync.count():
            interrupt()
        return found

    monkeypatch.setattr(SyncQueue, "claim_batch", claim_and_interrupt)
    assert not drain(lambda: enqueue(2)).success
    assert rows_of_events(instance) == [1, 1]


@pytest.mark.parametrize(
    "due", ["the registry changed", "a derivation is due", "a setting changed", "time is over"]
)
def test_it_ends_when_something_else_is_due(
    drain, instance, lake: Lake, own_login, write_holdings, enqueue, monkeypatch, due
) -> None:
    write_holdings(own_login(), 1)
    enqueue(1)
    becomes_due: dict[str, Action] = {
        "the registry changed": lambda: lake.registry.sync.add_active(
            conid=1, symbol="SPY", strategy_id="a", expiry=date(2028, 12, 15)
        ),
        "a derivation is due": lambda: instance.report_runless_asset_event(
            dg.AssetMaterialization("position_updates")
        ),
        "a setting changed": lambda: monkeypatch.setenv("POSITION_SYNC_BATCH_SIZE", "7"),
        "time is over": lambda: monkeypatch.setattr(staying, "LONGEST_S", 0.0),
    }

    def never() -> None:
        raise AssertionError("it has looked again")

    assert drain(nothing, becomes_due[due], never).success


def test_requests_wait_while_the_owner_is_not_connected(
    drain, instance, lake: Lake, own_login, write_holdings, enqueue, settings
) -> None:
    session = own_login()
    write_holdings(session, 1, 2)
    enqueue(1)

    def loses_the_broker() -> None:
        lake.sessions.renew(session, lease_s=60.0, state=SessionState.BLIND)
        enqueue(2)

    assert drain(loses_the_broker, nothing).success
    assert rows_of_events(instance) == [1]
    assert lake.queue.sync.counts()[QueueStatus.PENDING] == 1


def test_a_drain_that_released_requests_leaves_the_next_one_to_the_sensor(
    drain, own_login, write_holdings, enqueue
) -> None:
    write_holdings(own_login(), 1, completeness=Completeness.PARTIAL)
    enqueue(1, 2)

    def never() -> None:
        raise AssertionError("it has stayed")

    assert drain(never).success


def test_the_newest_rows_are_derived_although_nothing_was_drained(
    drain, instance, lake: Lake, own_login, write_holdings, enqueue, append_row, monkeypatch
) -> None:
    write_holdings(own_login(), 1, 2)
    enqueue(1)
    monkeypatch.setattr(staying, "LATEST_S", 0.0)
    drain(lambda: append_row(2, datetime.now(UTC)))
    assert sorted(lake.derived_tables[0].rows()["conid"]) == [1, 2]
    assert rows_of_events(instance) == [1]


def test_a_run_that_stays_counts_as_in_progress_while_it_shows_life(
    drain, instance, lake: Lake, settings: Settings, own_login, write_holdings, enqueue
) -> None:
    write_holdings(own_login(), 1)
    enqueue(1)
    seen = []

    def look() -> None:
        run = instance.get_run_records(dg.RunsFilter(job_name=DRAIN_JOB), limit=1)[0]
        began = datetime.fromtimestamp(run.start_time, UTC)
        last = run.update_timestamp
        limit = timedelta(seconds=MAX_RUNTIME_S)
        assert last > began
        ats = (began + limit, last + limit)
        seen.extend(observe(instance, lake, settings, now=at).drain_in_progress for at in ats)

    result = drain(look)
    assert seen == [result.run_id, None]


def test_a_run_that_recorded_the_registry_stays_for_what_the_stream_queues(
    drain, instance, lake: Lake, own_login, write_holdings, enqueue
) -> None:
    """The stream is starting: nothing waits yet, and no login could give values."""
    lake.registry.sync.add_active(conid=9, symbol="SPY", strategy_id="a", expiry=date(2028, 12, 15))

    def starts() -> None:
        write_holdings(own_login(), 1, 2)
        enqueue(1, 2)

    assert drain(nothing, starts, nothing, recorded=0).success
    assert rows_of_events(instance) == [2]
    assert lake.derived_tables[0].count() == 2


@pytest.fixture
def wakes(monkeypatch) -> list[int]:
    """Return how often requests were counted, as a process with Postgres sees it."""
    counted = [1]
    monkeypatch.setattr(GatewaySessions, "wakes", lambda _: counted[0])
    return counted


def test_the_queue_is_looked_at_when_requests_were_counted_and_otherwise_twice_a_minute(
    drain, instance, store: ObjectStore, own_login, write_holdings, enqueue, wakes, monkeypatch
) -> None:
    write_holdings(own_login(), 1, 2, 3)
    enqueue(1)
    asked = []

    def quietly(*conids: int) -> None:
        enqueue(*conids)
        store.proxy.change()

    def looked() -> None:
        tables = {one.path.split("/")[-3] for one in store.proxy.change() if "lake/" in one.path}
        asked.append((rows_of_events(instance), tables & {"position_queue", "active_strategies"}))
        wakes[0] += 1

    def is_lost() -> None:
        monkeypatch.setattr("position_sync_dagster.defs.drain.UNSEEN_S", 0.0)
        wakes[0] += 1

    drain(nothing, lambda: quietly(2), looked, is_lost, nothing, lambda: enqueue(3), nothing)
    assert asked == [([1], set())]
    assert rows_of_events(instance) == [1, 1, 1]


def test_a_run_waits_no_longer_than_until_requests_come(lake: Lake, wakes) -> None:
    quiet = quiet_of(lake)
    assert not quiet.is_over()
    quiet.looked(1, waits=False)
    assert quiet.lasts(1)
    assert not quiet.is_over()
    wakes[0] = 2
    assert quiet.is_over()
    quiet.looked(2, waits=True)
    assert not quiet.lasts(2), "a request that waits is looked for each time"
