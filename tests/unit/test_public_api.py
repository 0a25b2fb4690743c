"""The public names are a promise to other people's code: signatures, fields, members, and more."""

import ast
import asyncio
import inspect
import re
from datetime import date
from difflib import unified_diff
from pathlib import Path

import pytest

import position_sync_dagster as ps
from position_sync_dagster.domain.clock import utc_now
from tests.support.public_api import public_api

PROMISED = Path(__file__).with_name("public_api.txt")


async def test_the_public_names_and_their_signatures_are_as_promised():
    # In an event loop, since eventkit (under ib_async) wants one when it is first imported.
    promised = PROMISED.read_text(encoding="utf-8").splitlines()
    splitlines = public_api().splitlines()
    changes = "\n".join(unified_diff(promised, splitlines, "promised", "found", lineterm=""))
    assert not changes, (
        f"The public API changed:\n{changes}\nIf that is meant, write it into the changelog and "
        f"run: python -m tests.support.public_api > {PROMISED}"
    )


def test_type_checkers_read_the_same_names():
    text = Path(ps.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    assert sorted(re.findall(r" as (\w+),?$", text, re.MULTILINE)) == ps.__all__  # type: ignore[attr-defined]


ROOT = PROMISED.parents[2]
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))


def imports_of(text: str) -> set[tuple[str, str]]:
    """Return the names that a program imports of the package, with the modules it names."""
    imported = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    return {
        (node.module, alias.name)
        for node in imported
        if node.module and node.module.partition(".")[0] == ps.__name__
        for alias in node.names
    }


@pytest.mark.parametrize("path", [*DOCUMENTS, *EXAMPLES], ids=lambda path: path.name)
def test_documents_and_examples_import_public_names_alone(path):
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    programs = [text] if path.suffix == ".py" else [block for block in blocks if "import" in block]
    named = {name for program in programs for name in imports_of(program)}
    assert named <= {(ps.__name__, name) for name in ps.__all__}  # type: ignore[attr-defined]


def test_each_error_can_be_imported_also_one_that_only_a_document_names():
    errors = {
        name for name, value in vars(ps.errors).items()
        if inspect.isclass(value) and issubclass(value, ps.PositionSyncError)
    }  # fmt: skip
    in_documents = {
        name
        for path in DOCUMENTS
        if "decisions" not in path.parts
        for name in re.findall(r"\b[A-Z]\w+Error\b", path.read_text(encoding="utf-8"))
    }
    built_in = {"ConnectionError", "TypeError"}
    assert errors | in_documents - built_in <= set(ps.__all__)  # type: ignore[attr-defined]
    assert all(issubclass(getattr(ps, name), ps.PositionSyncError) for name in errors)


TO_CONNECT = (
    ps.errors.GatewayRefusedError,
    ps.errors.GatewayTimeoutError,
    ps.errors.NotAGatewayError,
    ps.errors.ClientIdInUseError,
    ps.errors.GatewayLostError,
    ps.errors.TooManyAccountsError,
)


@pytest.mark.parametrize("error", TO_CONNECT)
def test_a_failure_to_connect_is_a_connection_error_with_its_remedy(error):
    with pytest.raises(ConnectionError) as caught:
        raise error("Nothing answers.", remedy="Start it.")
    assert caught.value.what == "Nothing answers."  # type: ignore[attr-defined]
    assert caught.value.remedy == "Start it."  # type: ignore[attr-defined]


def test_a_streamer_without_a_queue_has_that_of_the_default_path():
    queue = ps.IBPositionStreamer(settings=ps.Settings(_env_file=None)).queue
    default = inspect.signature(ps.PositionQueue).parameters["delta_lake_path"].default
    assert queue.delta_lake_path.endswith(default)


def test_the_arguments_of_a_constructor_can_be_read():
    queue = ps.PositionQueue("some/queue")
    worker = ps.QueueWorker(queue, interval=2.0, batch_size=7, settings=ps.Settings(_env_file=None))
    assert worker.queue == queue
    assert worker.interval == 2.0
    assert worker.batch_size == 7
    for one in (queue, ps.StrategyRegistry("some/legs"), ps.DeltaLakePositionWriter("some/rows")):
        assert "some/" in one.delta_lake_path


def test_a_leg_that_is_made_without_a_time_was_added_now():
    before = utc_now()
    leg = ps.ActiveContract(1, "SPY", "PUT", 500.0, date(2027, 1, 15), strategy_id=1)
    assert before <= leg.added_at <= utc_now()


async def test_reconciliation_runs_once_per_interval_and_through_an_outage_until_it_is_stopped(
    tmp_path,
):
    service = ps.ReconciliationService(
        ps.Lake(tmp_path), ps.Settings(_env_file=None), interval=0.001
    )
    ran: list[int] = []
    thrice = asyncio.Event()

    async def run():
        ran.append(len(ran))
        if len(ran) == 3:
            thrice.set()
        raise ps.errors.BrokerUnavailableError("No stream is alive.", remedy="Wait.")

    service.run = run  # type: ignore[method-assign]
    await service.start()
    await thrice.wait()
    await service.stop()
    count = len(ran)
    await service.stop()
    assert count == len(ran) >= 3
