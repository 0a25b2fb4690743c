"""The component in a Dagster project of somebody else."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from position_sync_dagster.defs.resources import set_component_settings
from position_sync_dagster.domain.request import QueueStatus
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.sync.drain_plan import Step

# Dagster's own loader of a project uses what it calls a preview, and what Pydantic deprecates.
pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.PreviewWarning"),
    pytest.mark.filterwarnings("ignore:`parse_obj_as` is deprecated"),
]

TYPE = "position_sync_dagster.PositionSyncComponent"
PROJECT = """
[project]
name = "{name}"
[tool.dg]
directory_type = "project"
[tool.dg.project]
root_module = "{name}"
"""

Project = Callable[..., dg.Definitions]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Make a project with a component, and load it as Dagster does."""
    name = f"project_{tmp_path.name}"
    root = tmp_path / name

    def load(attributes: dict[str, Any], **files: str) -> dg.Definitions:
        folder = root / name / "defs" / "position_sync"
        folder.mkdir(parents=True)
        (root / "pyproject.toml").write_text(PROJECT.format(name=name))
        for package in (folder.parent.parent, folder.parent):
            (package / "__init__.py").touch()
        for file, text in files.items():
            (folder.parent / f"{file}.py").write_text(text)
        (folder / "defs.yaml").write_text(yaml.safe_dump({"type": TYPE, "attributes": attributes}))
        monkeypatch.syspath_prepend(root)  # a folder that is there: Python remembers missing ones
        return dg.ComponentTree.for_project(root).build_defs()

    yield load
    set_component_settings({})
    for module in [module for module in sys.modules if module.split(".")[0] == name]:
        del sys.modules[module]


async def test_a_project_with_the_component_drains_an_account(
    project: Project, tmp_path: Path, simulate
) -> None:
    async with simulate() as simulator:
        defs = project({"gateway_port": simulator.port, "lake": "tables"})
        job = defs.get_repository_def().get_job("drain_positions")
        with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
            drained = await asyncio.to_thread(
                job.execute_in_process,
                instance=instance,
                asset_selection=[dg.AssetKey(Step.REFRESH.value), dg.AssetKey(Step.DRAIN.value)],
            )
    assert drained.success
    (tables,) = tmp_path.glob("project_*/tables")
    requests = Lake(str(tables)).queue.sync.counts()
    assert requests.pop(QueueStatus.SUCCESS) > 0
    assert not any(requests.values())
    assert Lake(str(tables)).updates.table.rows()["source"].unique().to_list() == ["QUEUE"]
