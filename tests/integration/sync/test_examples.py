"""The examples of `examples/library` prove what they print, against the simulator's book."""

import asyncio
import inspect
import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import dagster as dg
import pytest

import position_sync_dagster as ps
from tests.support.streams import simulate

# What an example prints by a part that the program calls, and not the example.
PRINTS = {"extension": "changes are stored"}

EXAMPLES = sorted((Path(__file__).parents[3] / "examples" / "library").glob("*.py"))


def loaded(path: Path) -> ModuleType:
    spec = spec_from_file_location(path.stem, path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
async def test_an_example_proves_what_it_prints(path, monkeypatch, capsys):
    monkeypatch.setenv("POSITION_SYNC_FSYNC", "false")
    example = loaded(path)
    if hasattr(example, "WITHIN_S"):
        monkeypatch.setattr(example, "WITHIN_S", 120.0)  # beside other tests
    async with simulate("demo", tick_interval_s=2.0) as sim:
        monkeypatch.setenv("POSITION_SYNC_GATEWAY_PORT", str(sim.port))
        if inspect.iscoroutinefunction(example.main):
            await example.main()
        else:
            await asyncio.to_thread(example.main)
    printed = capsys.readouterr().out
    assert printed
    assert PRINTS.get(path.stem, "") in printed


def test_conditions_of_an_own_project_are_watched_without_a_person_who_starts_a_sensor():
    """Dagster's own sensor for them is stopped, and is there where no other one watches them."""
    example = loaded(EXAMPLES[0].with_name("own_assets.py"))
    component = ps.PositionSyncComponent().definitions(ps.load_settings(), {})
    project = dg.Definitions.merge(component, example.OWN)

    sensors = project.get_repository_def().sensor_defs
    watching = {
        sensor.name: sensor.default_status
        for sensor in sensors
        if isinstance(sensor, dg.AutomationConditionSensorDefinition)
    }
    assert watching == {"at_each_event": dg.DefaultSensorStatus.RUNNING}


def test_each_public_class_has_an_example():
    text = "\n".join(path.read_text(encoding="utf-8") for path in EXAMPLES)
    missing = [name for name in ps.__all__ if not re.search(rf"\b{name}\b", text)]  # type: ignore[attr-defined]
    assert [name for name in missing if not name.endswith("Error")] == []
