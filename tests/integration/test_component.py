"""The component in a Dagster project of somebody else, on an instance with Dagster's launcher."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from click.testing import CliRunner
from dagster_dg_cli.cli import create_dg_cli

from position_sync_dagster.component import PositionSyncComponent
from position_sync_dagster.domain.queue_request import QueueStatus
from position_sync_dagster.errors import SettingsError
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.settings import load_settings
from tests.integration.defs.test_definitions import PARENTS
from tests.support.short_owner import refresh
from tests.unit.money.past import test_causes as cases

# Dagster's own loader of a project uses what it calls a preview, and what Pydantic deprecates.
pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.PreviewWarning"),
    pytest.mark.filterwarnings("ignore:`parse_obj_as` is deprecated"),
]

TYPE = "position_sync_dagster.PositionSyncComponent"
NAME = "project_of_somebody"
PROJECT = f"""
[project]
name = "{NAME}"
[tool.dg]
directory_type = "project"
[tool.dg.project]
root_module = "{NAME}"
"""


Project = Callable[..., dg.RepositoryDefinition]


def component(**attributes: Any) -> dict[str, Any]:
    """Return a document of a `defs.yaml`."""
    return {"type": TYPE, "attributes": attributes}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return the root of a project without definitions."""
    defs = tmp_path / NAME / "defs"
    defs.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    for package in (defs.parent, defs):
        (package / "__init__.py").touch()
    return tmp_path


@pytest.fixture
def project(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Write the files of a project and load it as Dagster does."""
    monkeypatch.syspath_prepend(root)

    def load(*documents: dict[str, Any], code: str = "") -> dg.RepositoryDefinition:
        defs = root / NAME / "defs"
        (defs / "own.py").write_text(code)
        for number, document in enumerate(documents):
            folder = defs / f"component_{number}"
            folder.mkdir()
            (folder / "defs.yaml").write_text(yaml.safe_dump(document))
        return dg.ComponentTree.for_project(root).build_defs().get_repository_def()

    yield load
    for module in [module for module in sys.modules if module.split(".")[0] == NAME]:
        del sys.modules[module]


OF_HOST = {
    "key_prefix": "ibkr/options", "group": "trading", "owners": ["team:desk"],
    "tags": {"book": "vol"}, "pages_url": "http://127.0.0.1:3001",
}  # fmt: skip


async def test_a_project_values_an_account_under_its_prefix_with_its_owners(
    project, root, tmp_path, simulate
):
    (tmp_path / "home").mkdir()
    async with simulate() as simulator:
        repository = project(component(gateway_port=simulator.port, lake="tables", **OF_HOST))
        settings = load_settings(lake=str(root / "tables"), gateway_port=simulator.port)
        lake = MoneyLake(settings.lake)
        await lake.initialize()
        await refresh(lake, settings)
        drain = repository.get_sensor_def("drain_queue")
        with (
            dg.instance_for_test(temp_dir=str(tmp_path / "home")) as instance,
            dg.build_sensor_context(instance=instance) as context,
        ):
            ticked = await asyncio.to_thread(drain.evaluate_tick, context)

    graph = repository.asset_graph
    keys = {asset_event.asset_key for asset_event in ticked.asset_events}
    assert dg.AssetKey(["ibkr", "options", "position_updates"]) in keys
    assert {tuple(key.path[:-1]) for key in keys} == {("ibkr", "options")}
    assert keys <= graph.get_all_asset_keys()  # none is of no asset

    checks = [e for e in ticked.asset_events if isinstance(e, dg.AssetCheckEvaluation)]
    assert {e.asset_check_key for e in checks} <= set(graph.asset_check_keys)
    assert checks
    requests = lake.queue.sync.counts()
    assert requests.pop(QueueStatus.SUCCESS) > 0
    assert not any(requests.values())
    assert lake.updates.table.rows()["source"].unique().to_list() == ["QUEUE"]


def test_all_that_is_in_a_catalog_has_the_prefix_the_group_the_owners_and_the_tags(project):
    """Keys, edges, column lineage, checks, jobs and the assets that a sensor writes."""
    repository = project(component(**OF_HOST))
    graph = repository.asset_graph
    nodes = [graph.get(key) for key in graph.get_all_asset_keys()]
    assert len(nodes) == len(PARENTS)

    for node in nodes:
        assert node.key.path[:-1] == ["ibkr", "options"]
        assert node.group_name == "trading"
        assert node.owners == ["team:desk"]
        assert node.tags["book"] == "vol"
        assert "domain" not in node.tags
        lineage = node.metadata.get("dagster/column_lineage")
        for deps in lineage.deps_by_column.values() if lineage else ():
            assert {dep.asset_key for dep in deps} <= node.parent_keys
    names = {node.key.path[-1]: {key.path[-1] for key in node.parent_keys} for node in nodes}
    assert names == PARENTS
    assert {key.asset_key.path[0] for key in graph.asset_check_keys} == {"ibkr"}

    exposure = graph.get(dg.AssetKey(["ibkr", "options", "strategy_exposure"]))
    assert exposure.metadata["page"].url == "http://127.0.0.1:3001/money"

    automation = [*repository.sensor_defs, *repository.schedule_defs]
    assert [owned.default_status.value for owned in automation] == ["RUNNING"] * 8
    for owned in automation:
        assert owned.owners == ["team:desk"]
        assert owned.description

    closing = repository.get_job("close_day").asset_layer
    assert {key.path[-1] for key in closing.selected_asset_keys} == {
        "daily_positions", "profit_explained", "books", "closed_campaigns",
    }  # fmt: skip
    assert len(closing.asset_graph.asset_check_keys) >= 3


def test_attributes_count_before_the_environment_and_paths_begin_at_the_project(
    project: Project, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY", "4001")
    monkeypatch.setenv("POSITION_SYNC_GATEWAY_PORT", "4002")
    monkeypatch.setenv("POSITION_SYNC_MAX_LINES", "60")
    files = {"lake": "s3://bucket/lake", "strategies_file": "legs.yaml"}
    others = {"settings": {"flex_folder": "statements"}, "batch_size": 70}
    others |= {"drain_interval_s": 30, "history_days": 7, "automation": False}
    others |= {"alert_urls": "json://one json://two", "gateway_port": "{{ env.GATEWAY }}"}
    repository = project(component(**files, **others))
    resource = repository.get_job("maintain_lake").resource_defs["position_sync"]
    with dg.build_resources({"position_sync": resource}) as made:
        settings_read = made.position_sync.settings

    assert settings_read.gateway_id == "127.0.0.1:4001"
    assert settings_read.lake == "s3://bucket/lake"
    assert settings_read.strategies_file == root / "legs.yaml"
    assert settings_read.flex_folder == root / "statements"
    assert len(settings_read.alert_urls) == 2
    assert settings_read.batch_size == 70
    assert settings_read.max_lines == 60

    automation = [*repository.sensor_defs, *repository.schedule_defs]
    assert {definition.default_status.value for definition in automation} == {"STOPPED"}  # type: ignore[attr-defined]
    gateway = repository.asset_graph.get(dg.AssetKey("gateway"))
    assert gateway.metadata["dagster/uri"] == "tcp://127.0.0.1:4001"
    numbers = {"batch_size": "70", "drain_interval_s": 30.0, "history_days": 7}
    shown = resource.config_schema.default_value
    assert shown.items() >= {"gateway_host": "127.0.0.1", "gateway_port": 4001, **numbers}.items()


OWN = """
import dagster as dg

@dg.asset(deps=["strategy_exposure"])
def own(): ...

defs = dg.Definitions(assets=[own], executor=dg.multiprocess_executor)
"""


PAGE = Path(__file__).parents[2] / "docs/do/dagster.md"
NOW = datetime(2026, 3, 9, 15, 30, tzinfo=UTC)


def shown(words: str) -> str:
    """Return the program of the page that has these words."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (block,) = [each for each in blocks if words in each]
    return str(block)


def test_an_asset_of_the_project_names_ours_by_the_prefix_as_the_page_shows(project) -> None:
    code = f"{shown('ibkr')}\n\ndefs = dg.Definitions(assets=[holdings])\n"
    graph = project(component(key_prefix="ibkr"), code=code).asset_graph
    ours = dg.AssetKey(["ibkr", "latest_positions"])
    assert graph.get(dg.AssetKey("holdings")).parent_keys == {ours}
    assert graph.get(ours).is_materializable
    assert f"gets {len(graph.get_all_asset_keys()) - 1} assets" in PAGE.read_text()


def test_a_daily_asset_of_the_project_follows_ours_day_by_day_as_the_page_shows(
    project, monkeypatch
) -> None:
    """Friday, January 9, 2026, a weekend, and Monday, the 12th; the 19th is a holiday."""
    monkeypatch.setenv("POSITION_SYNC_DAILY_START", "2026-01-02")
    code = shown("exchange_partitions").replace("2026, 12, 1", "2026, 1, 5")
    graph = project(component(), code=f"{code}\n\ndefs = dg.Definitions([held_at_the_close])\n")
    node = graph.asset_graph.get(dg.AssetKey("held_at_the_close"))
    ours = graph.asset_graph.get(dg.AssetKey("daily_positions")).partitions_def
    theirs = node.partitions_def

    after_the_close = datetime(2026, 1, 20, 22, tzinfo=UTC)
    mapping = dg.TimeWindowPartitionMapping()  # that of Dagster, where none is given
    assert dict(node.partition_mappings) == {}
    with dg.partition_loading_context(effective_dt=after_the_close):
        days = theirs.get_partition_keys()
        assert days == ["2026-01-05", "2026-01-06", "2026-01-07", "2026-01-08", "2026-01-09",
                        "2026-01-12", "2026-01-13", "2026-01-14", "2026-01-15", "2026-01-16",
                        "2026-01-20"]  # fmt: skip
        for day in days:
            followed = mapping.get_upstream_mapped_partitions_result_for_partitions(
                theirs.empty_subset().with_partition_keys([day]), theirs, ours
            )
            follows = mapping.get_downstream_partitions_for_partitions(
                ours.empty_subset().with_partition_keys([day]), ours, theirs
            )
            assert [*followed.partitions_subset.get_partition_keys()] == [day]
            assert [*follows.get_partition_keys()] == [day]


def test_a_project_without_the_component_looks_for_changed_quantities_as_the_page_shows(
    tmp_path,
) -> None:
    names: dict[str, Any] = {}
    exec(shown("position_changes"), names)  # noqa: S102
    assert Path(names["CHANGES"]).is_absolute(), "a relative path begins in the folder of Dagster"
    names["CHANGES"] = str(tmp_path / "data/lake/position_changes")
    assert names["when_a_position_changes"].default_status is dg.DefaultSensorStatus.RUNNING
    lake = MoneyLake(tmp_path / "data/lake", fsync=False)
    lake.initialize_sync()
    requested, cursor = [], None
    for number, at in enumerate((NOW, None, NOW + timedelta(seconds=1), None)):
        if at is not None:
            change = cases.change(1, 0.0, 5.0, at, change_id=f"change-{number}")
            lake.position_changes.add([change])
        with dg.build_sensor_context(cursor=cursor) as context:
            ticked = names["when_a_position_changes"].evaluate_tick(context)
        requested.append(len(ticked.run_requests))
        cursor = ticked.cursor
    assert requested == [0, 0, 1, 0]


def test_a_second_component_in_one_project_is_refused(project: Project) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - Dagster's error is private
        project(component(), component(key_prefix="second"))
    refusal = caught.value.__cause__
    assert isinstance(refusal, SettingsError)
    assert refusal.what.startswith("This project has 2 components of Position Sync:")
    assert "gateways_file" in refusal.remedy


def test_the_component_can_be_built_without_a_project(monkeypatch, tmp_path) -> None:
    (tmp_path / "other.py").touch()
    monkeypatch.chdir(tmp_path)
    definitions = dg.build_defs_for_component(PositionSyncComponent(money=False))
    assert definitions.get_repository_def().has_sensor_def("drain_queue")


def test_the_project_keeps_its_executor_and_gives_our_assets_a_group_of_its_own(project) -> None:
    reports = 'tag:"position-sync/part"="position_reports"'
    group = {"target": reports, "attributes": {"group_name": "trading"}}
    repository = project(component() | {"post_processing": {"assets": [group]}}, code=OWN)
    graph = repository.asset_graph
    assert graph.get(dg.AssetKey("strategy_exposure")).group_name == "trading"
    assert graph.get(dg.AssetKey("own")).parent_keys == {dg.AssetKey("strategy_exposure")}
    executors = {name: repository.get_job(name).executor_def.name for name in repository.job_names}
    of_project = {"__ASSET_JOB", "__anonymous_asset_job_drain_queue"}
    assert {executors.pop(name) for name in of_project} == {"multiprocess"}
    assert set(executors.values()) == {"in_process"}


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"gateway_port": 99999}, ["GATEWAY_PORT=99999", "less than or equal to 65535", "defs"]),
        ({"settings": {"max_line": 1}}, ["settings.max_line", "is not a setting"]),
        ({"settings": {"lake": "x"}}, ["settings.lake", "beside"]),
        ({"key": "x"}, ["key"]),
        *(
            ({"key_prefix": prefix}, ["key_prefix", f"'{prefix}'", "ibkr/options"])
            for prefix in ("ibkr/", "/ibkr", "ibkr//options", "my desk", "größe")
        ),
    ],
)
def test_a_wrong_attribute_is_named_with_its_remedy(project, attributes, words) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - Dagster's errors are private
        project(component(**attributes))
    text = f"{caught.value} {caught.value.__cause__}"
    assert [word for word in words if word not in text] == []


LOAD = """
import sys
from pathlib import Path
import dagster as dg
found = dg.load_from_defs_folder(path_within_project=Path("{root}"))
lake = found.resources["position_sync"].read_settings().lake
print(len(found.sensors), lake, *({heavy} & sys.modules.keys()))
"""


def test_a_scaffolded_component_loads_and_imports_nothing_that_it_does_not_need(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run of a project loads its definitions, and looks at all registered components."""
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(root)
    scaffolded = CliRunner().invoke(create_dg_cli(), ["scaffold", "defs", TYPE, "position_sync"])
    assert scaffolded.exit_code == 0, scaffolded.output
    heavy = {"exchange_calendars", "typer"}
    program = [sys.executable, "-c", LOAD.format(root=root, heavy=heavy)]
    own_modules = os.environ | {"PYTHONPATH": str(root)}
    printed = subprocess.run(program, env=own_modules, check=True, capture_output=True, text=True)
    assert printed.stdout.split() == ["4", str(root / "data" / "lake")]
