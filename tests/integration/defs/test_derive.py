"""The sensor that requests the derivation, over real events and runs."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from position_sync_dagster.defs.checks.evaluation import KEYS
from position_sync_dagster.defs.drain import due_checks, refresh_derived
from position_sync_dagster.defs.runs import DERIVE_JOB, DRAIN_JOB

pytestmark = pytest.mark.usefixtures("settings", "lake")

Tick = Callable[[], dg.RunRequest | dg.SkipReason]


@pytest.fixture
def tick(instance: dg.DagsterInstance) -> Tick:
    def evaluate() -> dg.RunRequest | dg.SkipReason:
        with dg.build_sensor_context(instance=instance) as context:
            return refresh_derived(context)

    return evaluate


@pytest.fixture
def materialized(instance: dg.DagsterInstance) -> Callable[..., None]:
    def report(*names: str) -> None:
        for name in names:
            instance.report_runless_asset_event(dg.AssetMaterialization(name))

    return report


def test_nothing_is_derived_before_the_ledger_was_materialized(tick: Tick) -> None:
    assert "never materialized" in tick().skip_message


def test_derived_tables_follow_the_first_materialization_of_the_ledger(
    tick: Tick, materialized
) -> None:
    materialized("position_updates")
    request = tick()
    assert isinstance(request, dg.RunRequest)
    assert request.tags["position_sync/reason"] == "never_derived"


def test_dagster_launches_what_the_sensor_requests(tick: Tick, materialized) -> None:
    from position_sync_dagster.definitions import defs

    materialized("position_updates")
    request = tick()
    assert isinstance(request, dg.RunRequest)
    job = (
        defs()
        .get_repository_def()
        .get_maybe_subset_job_def(
            DERIVE_JOB,
            asset_selection=frozenset(request.asset_selection or ()),
            asset_check_selection=frozenset(request.asset_check_keys or ()),
        )
    )
    assert {key.to_user_string() for key in job.asset_layer.selected_asset_keys} == {
        "latest_positions",
        "strategy_exposure",
        "closures",
    }


@pytest.mark.parametrize("source", ["position_updates", "active_strategies"])
def test_a_source_that_is_newer_is_followed(tick: Tick, materialized, source) -> None:
    materialized("position_updates", "latest_positions", "strategy_exposure", "closures")
    assert "up to date" in tick().skip_message
    materialized(source)
    assert isinstance(tick(), dg.RunRequest)


def planned(request: dg.RunRequest | dg.SkipReason) -> list[str]:
    assert isinstance(request, dg.RunRequest)
    return [key.name for key in request.asset_check_keys or ()]


def test_only_a_check_whose_result_does_not_stand_is_planned(
    tick: Tick, materialized, instance
) -> None:
    """A stream and a drain evaluate all; a check that is planned shows no result meanwhile."""

    def evaluated(*names: str, passed: bool) -> None:
        for key in KEYS:
            if key.name in names:
                instance.report_runless_asset_event(
                    dg.AssetCheckEvaluation(
                        asset_key=key.asset_key, check_name=key.name, passed=passed
                    )
                )

    every = [key.name for key in KEYS]
    of_ledger = [key.name for key in KEYS if key.asset_key == dg.AssetKey("position_updates")]

    def due() -> list[str]:
        later = datetime.now(UTC) + timedelta(minutes=1)
        return [key.name for key in due_checks(instance, later)]

    materialized("position_updates")
    assert due() == every
    assert not set(of_ledger) & set(planned(tick())), "the stream is evaluating them"
    evaluated("a_stream_watches", "agrees_with_the_broker", passed=False)
    evaluated(*set(every) - {"a_stream_watches", "agrees_with_the_broker"}, passed=True)
    assert due() == ["agrees_with_the_broker"]
    evaluated("agrees_with_the_broker", passed=True)
    assert due() == []
    materialized("position_updates")
    assert due() == of_ledger
    materialized("position_queue")
    assert {"requests_are_answered", "requests_end_once"} < set(due())


def test_after_the_clock_was_set_back_no_earlier_result_of_a_check_stands(
    materialized, instance
) -> None:
    materialized("position_updates")
    for key in KEYS:
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(asset_key=key.asset_key, check_name=key.name, passed=True)
        )
    assert due_checks(instance, datetime.now(UTC)) == []
    assert due_checks(instance, datetime.now(UTC) - timedelta(hours=1)) == list(KEYS)


def test_a_check_whose_run_failed_is_planned_again(instance, settings, lake, monkeypatch) -> None:
    from position_sync_dagster.definitions import defs

    job = defs().resolve_job_def(DERIVE_JOB)
    monkeypatch.setenv("POSITION_SYNC_BATCH_SIZE", "many")
    job.execute_in_process(instance=instance, raise_on_error=False)
    assert due_checks(instance, datetime.now(UTC)) == list(KEYS)


def test_an_observation_of_the_ledger_asks_for_nothing(tick: Tick, materialized, instance) -> None:
    materialized("position_updates", "latest_positions", "strategy_exposure", "closures")
    instance.report_runless_asset_event(dg.AssetObservation("position_updates"))
    assert "up to date" in tick().skip_message


@pytest.mark.parametrize("job", [DERIVE_JOB, DRAIN_JOB])
def test_a_run_that_derives_already_is_waited_for(tick: Tick, materialized, instance, job) -> None:
    materialized("position_updates")
    instance.add_run(dg.DagsterRun(job_name=job, status=dg.DagsterRunStatus.STARTED))
    assert "in progress" in tick().skip_message


def test_a_job_that_derives_shows_everything_fresh_and_checked(instance, settings, lake) -> None:
    """As the UI computes it, over the real definitions."""
    from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
    from dagster._core.loader import LoadingContextForTest

    from position_sync_dagster.definitions import defs

    def streamed(version: int) -> None:
        event = dg.AssetMaterialization(
            "position_updates", tags={"dagster/data_version": str(version)}
        )
        instance.report_runless_asset_event(event)

    streamed(1)
    definitions = defs()
    result = definitions.resolve_job_def(DERIVE_JOB).execute_in_process(instance=instance)
    assert result.success
    names = ("latest_positions", "strategy_exposure")
    graph = definitions.resolve_asset_graph()

    def stale() -> set[StaleStatus]:
        context = LoadingContextForTest(instance)
        resolver = CachingStaleStatusResolver(instance, graph, context)
        return {resolver.get_status(dg.AssetKey(name)) for name in names}

    assert stale() == {StaleStatus.FRESH}
    instance.report_runless_asset_event(dg.AssetObservation("position_updates"))
    assert stale() == {StaleStatus.FRESH}
    streamed(2)
    assert stale() == {StaleStatus.STALE}
