"""The resource of a run: its settings and its tables."""

from typing import Any

import dagster as dg
import pytest

from position_sync_dagster.defs.resources import PositionSyncResource, dagster_failures
from position_sync_dagster.errors import UnknownLegError
from position_sync_dagster.money.lake import MoneyLake


@pytest.fixture
def steps_of_a_run(instance: dg.DagsterInstance):
    """Run two assets and return what each of them read from the resource."""

    def run(resource: PositionSyncResource, read) -> list[Any]:
        steps: list[Any] = []

        @dg.asset
        def first(position_sync: PositionSyncResource) -> None:
            steps.append(read(position_sync))

        @dg.asset
        def second(position_sync: PositionSyncResource) -> None:
            steps.append(read(position_sync))

        resources = {"position_sync": resource}
        dg.materialize([first, second], resources=resources, instance=instance)
        return steps

    return run


def test_the_path_of_the_resource_wins_over_the_environment(steps_of_a_run, settings):
    found, _ = steps_of_a_run(PositionSyncResource(path="elsewhere"), lambda given: given.settings)
    assert found.lake == "elsewhere"
    assert found.gateway_id == settings.gateway_id


def test_the_numbers_of_the_resource_win_over_the_environment(steps_of_a_run, settings):
    resource = PositionSyncResource(
        gateway_host="10.0.0.1", gateway_port=4001, batch_size="70", drain_interval_s=30,
        history_days=7,
    )  # fmt: skip
    found, _ = steps_of_a_run(resource, lambda given: given.settings)
    assert found.gateway_address == "10.0.0.1:4001"
    assert found.batch_size == 70
    assert found.drain_interval_s == 30
    assert found.history_days == 7


def test_every_run_reads_the_settings_anew_and_once(steps_of_a_run, monkeypatch, tmp_path):
    resource = PositionSyncResource()
    for folder in ("monday", "tuesday"):
        monkeypatch.setenv("POSITION_SYNC_LAKE", str(tmp_path / folder))
        first, second = steps_of_a_run(resource, lambda given: given.settings)
        assert first is second
        assert first.lake == str(tmp_path / folder)


def test_the_tables_are_initialized_once_for_all_assets_of_a_run(
    steps_of_a_run, composition, monkeypatch
):
    initialized = []
    initialize = MoneyLake.initialize_sync

    def count(lake: MoneyLake) -> None:
        initialized.append(lake)
        initialize(lake)

    monkeypatch.setattr(MoneyLake, "initialize_sync", count)
    read = steps_of_a_run(composition.resource(), lambda given: given.lake_of(MoneyLake))
    assert read == initialized * 2
    assert len(initialized) == 1


def test_an_error_of_the_package_becomes_a_failure_with_cause_and_remedy():
    @dagster_failures()
    def fail() -> None:
        raise UnknownLegError("Nobody holds it.", remedy="List the legs.")

    with pytest.raises(dg.Failure) as caught:
        fail()
    value_of = {name: value.value for name, value in caught.value.metadata.items()}
    assert value_of == {
        "error": "UnknownLegError", "what": "Nobody holds it.", "remedy": "List the legs.",
    }  # fmt: skip
