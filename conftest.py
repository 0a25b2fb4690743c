"""What every test may need: settings of its own, a deadline for conditions, a simulator.

It is for the tests of both packages: `tests`, and `ib_gateway_simulator/tests`.
"""

import gc
import os
import re
import signal
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import hypothesis
import psutil
import pytest
from hypothesis.internal.conjecture import providers

from ib_gateway_simulator.recording.proxy import Proxy
from ib_gateway_simulator.recording.recorder import Recorder
from position_sync_dagster.cli import THREAD_COUNTS
from position_sync_dagster.settings import Settings
from tests.support import (
    command_line,
    constants,
    object_store,
    option_trees,
    streams,
    tiers,
    waiting,
)
from tests.support.extent import examples
from tests.support.object_store import ObjectStore
from tests.support.scheduling import Scheduling, mixed

# No test asserts how long something takes.
hypothesis.settings.register_profile("short", deadline=None, max_examples=examples(100))
hypothesis.settings.load_profile("short")
# It would read all of our modules for constants, in each process: two seconds, and what a test
# tries would depend on what else is imported.
providers._get_local_constants = lambda: providers._local_constants


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the recorded day run on another recording."""
    parser.addoption("--recording", metavar="FILE", help="what test_recorded_day.py plays")


# The texts of tests that skip without a program that CI has to have.
NEEDED_IN_CI = re.compile("apt install (chromium|jq|postgresql)")

MEMORY = Path("/dev/shm")  # noqa: S108 - each test has a folder of its own in it
# Free bytes, several times what all tests write.
MEMORY_NEEDED = 4 * 1024**3


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Run the same, whatever the shell that started it ignores, with temporary files in memory.

    Polars and Delta Lake have one thread each, as in `make dev`: with more, a seventh of the
    processor time of tests on tables is overhead between them. Whole programs have the default.
    """
    # A program inherits ignored signals (SIGHUP from `nohup`, SIGINT in a background job), and no
    # handlers: with one that does nothing, child processes answer to them.
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    for name in THREAD_COUNTS:
        os.environ.setdefault(name, "1")
    if "TMPDIR" not in os.environ and _is_roomy(MEMORY):
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


def _is_roomy(folder: Path) -> bool:
    """Return whether all files of the tests, and programs among them, can be in a folder."""
    if not folder.is_dir() or psutil.virtual_memory().available < 2 * MEMORY_NEEDED:
        return False
    file_system = os.statvfs(folder)
    return (
        file_system.f_bavail * file_system.f_frsize >= MEMORY_NEEDED
        and not file_system.f_flag & os.ST_NOEXEC
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection() -> None:
    """Look for no garbage while the tests are collected: it takes a quarter of the time."""
    gc.disable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the second tier, and order the tests for several processes.

    In one process, those of a module follow each other.
    """
    tiers.mark(items)
    if hasattr(config, "workerinput"):
        place = {nodeid: place for place, nodeid in enumerate(mixed(item.nodeid for item in items))}
        items.sort(key=lambda test: place[test.nodeid])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Fail in the workflow what a missing browser, Postgres or jq lets skip elsewhere."""
    report = yield
    if (
        "GITHUB_ACTIONS" in os.environ
        and report.skipped
        and NEEDED_IN_CI.search(str(report.longrepr))
    ):
        report.outcome = "failed"
    return report


def pytest_collection_finish() -> None:
    """Collect garbage again, but look for none among the tests."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Share the tests out to the workers of pytest-xdist (`-n 4`)."""
    return Scheduling(config, log) if config.getvalue("dist") == "load" else None


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch, tmp_path):
    """Keep a developer's own settings out of the tests."""
    for name in list(os.environ):
        if name.startswith(("POSITION_SYNC_", "AWS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "no-dagster-home"))
    monkeypatch.delenv("COLUMNS", raising=False)  # xdist sets it: tables would have that width
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _own_constants():
    """Set constants back that a test has replaced."""
    yield
    constants.restore()


@pytest.fixture(autouse=True)
def _own_signals():
    """Undo what a command of the package blocks in this process: children inherit it."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@pytest.fixture(scope="session", autouse=True)
def _commands_are_built_once() -> None:
    """Build the command line once: a third of what a command in this process costs."""
    command_line.keep_commands()


@pytest.fixture(scope="session", autouse=True)
def _trees_are_made_once() -> None:
    """Make each tree of the simulator's options once: a tenth of what a simulated gateway costs."""
    option_trees.keep_trees()


@pytest.fixture(scope="session")
def running_store() -> Iterator[ObjectStore]:
    """Run an S3 store for all tests of this process that ask for one."""
    with object_store.running_store() as store:
        yield store


@pytest.fixture
def store(running_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """Return an S3 store without faults, which the environment of the test names."""
    running_store.proxy.reset()
    for name, value in running_store.environment.items():
        monkeypatch.setenv(name, value)
    yield running_store
    running_store.proxy.reset()


@pytest.fixture(params=["disk", "store"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Return the place of a lake: a folder, and an object store."""
    return tmp_path / "lake" if request.param == "disk" else lake_in(request)


def lake_in(request: pytest.FixtureRequest) -> str:
    """Return the URI of a new lake in the store."""
    store: ObjectStore = request.getfixturevalue("store")
    return store.lake()


@pytest.fixture
def eventually() -> Callable[..., Awaitable[Any]]:
    """Wait until a condition (plain or async) holds, and return its result."""
    return waiting.eventually


@pytest.fixture
def refuse(capsys) -> Callable[..., tuple[int, str]]:
    """Run a command line that ends with an error and prints nothing else."""

    def run(*arguments: str) -> tuple[int, str]:
        code = command_line.ended(*arguments)
        printed = capsys.readouterr()
        assert printed.out == ""
        return code, printed.err

    return run


@pytest.fixture
def simulate() -> Callable[..., Any]:
    """Run a simulator; at its end no order message may have reached it."""
    return streams.simulate


@pytest.fixture
def settings_for() -> Callable[..., Settings]:
    """Return settings for a simulator, with short intervals."""
    return streams.settings_for


@pytest.fixture
def recorded(tmp_path):
    """Run a recorder in front of a simulator, and give the test its port and its file."""

    @asynccontextmanager
    async def run(port, name="session.ibrec", **options):
        path = tmp_path / name
        with Recorder(path, random=Random(5), **options) as recorder:
            async with Proxy(recorder, ("127.0.0.1", port)) as proxy:
                proxy.path, proxy.recorder = path, recorder
                yield proxy

    return run
