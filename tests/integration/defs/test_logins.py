"""Several logins in one lake: the sensors, the drain and the checks, over real runs and leases."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from position_sync_dagster.defs.assets.queue_and_ledger import position_updates
from position_sync_dagster.defs.checks import tables
from position_sync_dagster.defs.drain import drain_queue
from position_sync_dagster.defs.resources import LOGINS, sensor
from position_sync_dagster.defs.stream import LOOK_S, stream_definitions, stream_job
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import GatewaySession, SessionState
from position_sync_dagster.domain.holding import Completeness
from position_sync_dagster.domain.position_update import Source
from position_sync_dagster.domain.queue_request import QueueRequest, QueueStatus
from position_sync_dagster.domain.valuation import Provenance, from_portfolio
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports.status import read_status
from position_sync_dagster.settings import Settings, load_settings
from position_sync_dagster.sync.reconciliation import WITHOUT_LOGIN
from position_sync_dagster.sync.stream import streamer
from position_sync_dagster.sync.stream.ownership import StreamCounts
from tests.support.open_breaks import open_breaks_of

ACCOUNTS = {"east": "DUSIM0001", "west": "DUSIM0002"}


def write_file(path: Path, *names: str) -> None:
    lines = []
    for port, name in enumerate(names, 1):
        account = ACCOUNTS.get(name, f"DUSIM9{port}")
        lines += [f"  - name: {name}", f"    port: {port}", f"    accounts: [{account}]"]

    path.write_text("\n".join(["gateways:", *lines, ""]))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_file(tmp_path / "gateways.yaml", "east", "west")
    return tmp_path / "gateways.yaml"


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: Path) -> Settings:
    """Return the settings that the definitions read from the environment."""
    monkeypatch.setenv("POSITION_SYNC_LAKE", str(tmp_path / "lake"))
    monkeypatch.setenv("POSITION_SYNC_GATEWAYS_FILE", str(file))
    return load_settings()


@pytest.fixture
def own(world) -> Callable[..., GatewaySession]:
    """Acquire a login, and publish a snapshot of holdings."""

    def take(name: str, *conids: int, **values: Any) -> GatewaySession:
        account = ACCOUNTS.get(name, "DUSIM9000")
        return world.hold(*conids, session=world.own(name=name, **values), account=account)

    return take


def started(tick_result: dg.SensorResult) -> list[str | None]:
    return [request.partition_key for request in tick_result.run_requests or ()]


def said(tick_result: dg.SensorResult) -> str:
    assert tick_result.skip_reason is not None
    return tick_result.skip_reason.skip_message or ""


def test_each_login_has_a_stream_of_its_own(world, own):
    assert started(world.supervise()) == ["east", "west"]
    own("east", run_id=world.begin("east"))
    assert started(world.supervise()) == ["west"]
    own("west", run_id=world.begin("west"))
    requests = world.supervise()
    assert started(requests) == []
    for name in ACCOUNTS:
        assert re.search(f"{name}: run .*its lease holds", said(requests))


def test_the_streams_of_many_logins_start_two_at_a_time(world, file):
    """Forty at once would not reach their leases before they are given up."""
    names = ("east", "west", "north", "south", "fifth", "sixth")
    write_file(file, *names)
    for first in (0, 2, 4):
        assert started(world.supervise()) == [*names[first : first + 2]]
        for name in names[first : first + 2]:
            world.begin(name)


def test_the_run_of_a_stream_carries_the_tags_of_its_login(world, file):
    """Dagster's Kubernetes launcher reads `dagster-k8s/config`: a login is pinned to a node."""
    pin = '{"pod_spec_config": {"node_selector": {"kubernetes.io/hostname": "node-a"}}}'
    with file.open("a") as text:
        text.write(f"    tags: {{team: options, dagster-k8s/config: '{pin}'}}\n")
    tags = {request.partition_key: request.tags for request in world.supervise().run_requests}
    assert tags["west"]["dagster-k8s/config"] == pin
    assert tags["west"]["team"] == "options"
    own = {name: text for name, text in tags["east"].items() if not name.startswith("dagster/")}
    assert own == {"position-sync/launched_by": "supervise_stream"}
    assert set(tags["west"]) - set(tags["east"]) == {"team", "dagster-k8s/config"}


def test_a_pause_and_a_dead_lease_concern_their_login_alone(world, instance, own, lake):
    runs = {name: world.begin(name) for name in ACCOUNTS}
    sessions = {name: own(name, run_id=run_id) for name, run_id in runs.items()}
    world.supervise()
    lake.sessions.end(sessions["east"])
    instance.report_run_canceled(instance.get_run_by_id(runs["east"]))
    requests = world.supervise()
    assert started(requests) == []
    assert "east: paused by a person" in said(requests)
    lake.sessions.renew(sessions["west"], lease_s=0.001)
    for _ in range(2):  # of a run that was killed Dagster believes for ever that it goes on
        assert started(world.supervise()) == ["west"]
        assert instance.get_run_by_id(runs["west"]).status is dg.DagsterRunStatus.FAILURE


def test_a_new_login_waits_until_the_stream_of_a_removed_one_has_ended(
    world, instance, own, lake, file
):
    """It may be the same gateway under another name."""
    run_id = world.begin("west")
    session = own("west", run_id=run_id)
    world.supervise()
    write_file(file, "east", "new")
    assert started(world.supervise()) == ["east"]
    assert set(instance.get_dynamic_partitions(LOGINS.name)) == {"east", "west"}
    lake.sessions.end(session)
    instance.report_run_failed(instance.get_run_by_id(run_id))
    assert started(world.supervise()) == ["east", "new"]
    assert set(instance.get_dynamic_partitions(LOGINS.name)) == {"east", "new"}


def test_a_file_with_a_mistake_fails_the_tick_and_ends_nothing(world, instance, own, file):
    run_id = world.begin("east")
    own("east", run_id=run_id)
    world.supervise()
    file.write_text("gateways:\n  - {name: east, port: x, accounts: [DUSIM0001]}\n")
    with pytest.raises(Exception, match=r"line 2, column .*port 'x'"):
        world.supervise()
    assert instance.get_run_by_id(run_id).status is dg.DagsterRunStatus.STARTED


@pytest.fixture
def drain_tick(composition, lake: MoneyLake, instance) -> Callable[..., Any]:
    """Evaluate the tick that drains."""

    def tick() -> Any:
        with dg.build_sensor_context(instance=instance) as context:
            return sensor(drain_queue, composition)(context)

    return tick


def insert(lake: MoneyLake, *positions: tuple[int, str]) -> list[str]:
    return lake.queue.sync.insert_many(
        [QueueRequest(conid, "SPY", 2, account) for conid, account in positions]
    )


def blind(lake, **values):
    """Let the owner of the west see its gateway no more."""
    session = lake.sessions.current("west")
    lake.sessions.renew(session, lease_s=60, state=SessionState.BLIND, **values)


compared = tables.agrees_with_the_broker.evaluate


def test_requests_of_a_login_that_is_down_wait_and_delay_no_other(world, own, lake, drain_tick):
    own("east", 1, 2)
    own("west", 1, 2, state=SessionState.BLIND)
    ids = insert(lake, (1, "DUSIM0002"), (2, "DUSIM0002"), (1, "DUSIM0001"), (2, "DUSIM0001"))
    world.derive(position_updates)
    assert set(lake.updates.sync.latest()["account"]) == {"DUSIM0001"}
    waiting = lake.queue.sync.get_batch(None)
    assert {request.request_id for request in waiting} == set(ids[:2])
    assert {request.attempts for request in waiting} == {0}
    assert {request.updated_at - request.created_at for request in waiting} == {timedelta()}
    assert "0 claimed" in drain_tick().skip_reason.skip_message


def test_a_leg_in_two_logins_is_two_holdings(world, own, lake):
    own("east", 1)
    own("west", 1)
    (anywhere,) = lake.queue.sync.insert_many([QueueRequest(1, "SPY", 2)])
    world.derive(position_updates)
    rows = lake.updates.sync.latest()
    assert dict(rows.select("gateway_id", "account").iter_rows()) == ACCOUNTS
    assert set(rows["request_id"]) == {anywhere}


def test_an_absent_holding_is_not_held_once_its_own_login_says_so(world, own, lake):
    own("east", 1)
    own("west", 1, state=SessionState.BLIND)
    insert(lake, (9, "DUSIM0001"), (9, "DUSIM0002"), (9, "DUSIM0077"))
    lake.queue.sync.insert_many([QueueRequest(8, "SPY", 2)])  # any account: west is not known
    world.derive(position_updates)
    failed = lake.queue.sync.get_batch(None, status=QueueStatus.FAILED)
    assert {request.account for request in failed} == {"DUSIM0001", "DUSIM0077"}
    waiting = lake.queue.sync.get_batch(None)
    assert {(request.conid, request.account) for request in waiting} == {
        (9, "DUSIM0002"),
        (8, None),
    }


def test_the_checks_and_the_status_name_the_login_that_is_down(world, own, lake, settings):
    own("east", 1)
    own("west", 1)
    insert(lake, (1, "DUSIM0001"), (1, "DUSIM0002"))
    world.derive(position_updates)
    assert compared(lake, settings).passed
    watched = tables.a_stream_watches.evaluate
    assert watched(lake, settings).passed

    blind(lake, detail="no socket")
    watched_legs = watched(lake, settings)
    assert not watched_legs.passed
    assert watched_legs.description.startswith("west: The stream has not seen the gateway since")
    assert watched_legs.metadata["west/note"].text == "no socket"
    assert not [name for name in watched_legs.metadata if name.startswith("east/")]
    status = read_status(lake, settings, utc_now())
    assert {login.gateway_id: login.session_state for login in status.logins} == {
        "east": "LIVE",
        "west": "BLIND",
    }
    assert status.gateway_id == "west"
    assert status.session_detail == "no socket"
    assert status.positions == 2


@pytest.mark.usefixtures("confirmed_at_once")
def test_breaks_of_a_login_without_data_stay_as_they_are(world, own, lake, settings):
    own("east", 1)
    own("west", 1, 2)
    insert(lake, (1, "DUSIM0001"), (1, "DUSIM0002"))
    world.derive(position_updates)
    found = compared(lake, settings)
    assert not found.passed
    breaks = lake.breaks
    assert [open_break.conid for open_break in open_breaks_of(breaks, "west")] == [2]
    blind(lake)
    compared(lake, settings)
    assert [difference.conid for difference in open_breaks_of(breaks, "west")] == [2]
    assert open_breaks_of(breaks, "east") == []
    assert open_breaks_of(breaks, WITHOUT_LOGIN) == []


@pytest.mark.usefixtures("confirmed_at_once")
def test_a_break_of_all_accounts_together_stays_as_it_is_while_a_login_has_no_data(
    own, lake, settings
):
    own("east", 1)
    own("west", 1)
    lake.registry.sync.add_active(1, "SPY", strategy_id="s", quantity=3)
    compared(lake, settings)
    (open_break,) = open_breaks_of(lake.breaks, WITHOUT_LOGIN)
    accepted = lake.breaks.accept(open_break.break_id, "me")
    assert accepted.expected == 2.0
    assert accepted.actual == 3.0
    blind(lake)
    compared(lake, settings)
    assert open_breaks_of(lake.breaks, WITHOUT_LOGIN) == [accepted]


@pytest.mark.usefixtures("confirmed_at_once")
def test_a_row_without_a_holding_stays_a_break_while_its_account_is_not_listed_completely(
    own, lake, settings
):
    own("east", 1)
    session = own("west", 1, 2)
    holdings = lake.broker_positions.read("west")
    rows = [
        from_portfolio(holding, source=Source.QUEUE, now=utc_now(), by=Provenance())
        for holding in holdings
    ]
    lake.updates.sync.append(rows)
    lake.broker_positions.replace("west", holdings[:1], session=session)
    compared(lake, settings)
    before = open_breaks_of(lake.breaks, "west")
    assert [(row.type, row.conid) for row in before] == [("SURPLUS", 2)]

    partly = replace(holdings[0], completeness=Completeness.PARTIAL)
    lake.broker_positions.replace("west", [partly], session=session)
    compared(lake, settings)
    assert open_breaks_of(lake.breaks, "west") == before


def test_an_account_that_moved_is_read_from_the_login_that_has_it(
    own, lake, settings, file, monkeypatch
):
    own("east", 1)
    own("west", 1)
    file.write_text(
        "gateways:\n  - {name: east, port: 1, accounts: [DUSIM0008]}\n"
        "  - {name: west, port: 2, accounts: [DUSIM0001, DUSIM0002]}\n"
    )
    assert read_status(lake, settings, utc_now()).positions == 1


@pytest.mark.usefixtures("lake")
@pytest.mark.parametrize("edit", ["removed", "changed"])
def test_the_stream_of_a_login_that_is_removed_or_changed_ends_by_itself(
    monkeypatch, composition, file, instance, edit
):
    served = []

    async def play(_lake, login, *, run_id, stop, **_parts):
        served.append((login.gateway_id, login.gateway_port, run_id))
        text = file.read_text()
        file.write_text("gateways: [")  # being edited: no reason to end
        await asyncio.sleep(LOOK_S)
        before, after = ("east", "north") if edit == "removed" else ("port: 1\n", "port: 77\n")
        file.write_text(text.replace(before, after))
        await stop.wait()
        return StreamCounts()

    monkeypatch.setattr(streamer, "stream", play)
    instance.add_dynamic_partitions(LOGINS.name, list(ACCOUNTS))
    result = stream_job(composition.extension, LOGINS).execute_in_process(
        partition_key="east",
        instance=instance,
        resources={"position_sync": composition.resource()},
    )
    assert result.success
    assert served == [("east", 1, result.run_id)]


def test_the_job_has_partitions_only_where_a_file_names_the_logins(monkeypatch, settings):
    context = dg.ComponentTree.for_test().load_context
    (job,) = stream_definitions(context).jobs
    assert job.partitions_def == LOGINS
    monkeypatch.delenv("POSITION_SYNC_GATEWAYS_FILE")
    (job,) = stream_definitions(context).jobs
    assert job.partitions_def is None
