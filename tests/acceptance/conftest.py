"""Demos that end with their test, and those that tests share as long as they run."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from filelock import FileLock

from tests.support.demo_program import Demo, wait_for
from tests.support.scheduling import CHAINS

Begin = Callable[..., Demo]
Homes = dict[str, "SharedHome"]


@pytest.fixture(scope="session")
def begin(tmp_path_factory: pytest.TempPathFactory) -> Begin:
    """Start a demo in a home.

    One at a time: a new home's simulator takes the first free port, which another demo must not
    take between the look and the start. (With pytest-xdist each worker has a folder of its own
    in the one that is locked here.)
    """
    lock = FileLock(tmp_path_factory.getbasetemp().parent / "demo-starts.lock")

    def start(home: Path, *arguments: str, terminal: int | None = None) -> Demo:
        with lock:
            demo = Demo(home, *arguments, terminal=terminal)

            def listens() -> bool:
                with suppress(httpx.TransportError):
                    return bool(demo.stats())
                return demo.process.poll() is not None  # its test finds out why

            wait_for("the simulator answers", listens)
        return demo

    return start


@pytest.fixture
def start(tmp_path: Path, begin: Begin) -> Iterator[Begin]:
    """Start demos that end with the test, in homes of their own."""
    demos: list[Demo] = []

    def run(*arguments: str) -> Demo:
        demos.append(begin(tmp_path / f"home-{len(demos)}", *arguments))
        return demos[-1]

    yield run
    for demo in demos:
        demo.close()


class SharedHome:
    """A home whose demo runs on from test to test until one of them ends it."""

    def __init__(self, path: Path, begin: Begin) -> None:
        self.path = path
        self._begin = begin
        self._demo: Demo | None = None

    def running(self) -> Demo:
        """Return the demo that runs here; start one if none does."""
        if self._demo is None or self._demo.process.poll() is not None:
            return self.start()
        return self._demo

    def start(self, *arguments: str, terminal: int | None = None) -> Demo:
        """Start a demo here, which carries on from the tables of the one before."""
        self.end()
        self._demo = self._begin(self.path, *arguments, terminal=terminal)
        return self._demo

    def end(self) -> None:
        """End the demo that runs here."""
        if self._demo is not None:
            self._demo.close()
            self._demo = None


@pytest.fixture(scope="session")
def _homes(tmp_path_factory: pytest.TempPathFactory, begin: Begin) -> Iterator[Homes]:
    homes: Homes = {}
    for chain in sorted(set(CHAINS.values())):
        homes[chain] = SharedHome(tmp_path_factory.mktemp(chain) / "home", begin)
    yield homes
    for home in homes.values():
        home.end()


@pytest.fixture(scope="module")
def chain_home(_homes: Homes, request: pytest.FixtureRequest) -> Iterator[SharedHome]:
    """Return the home that the modules of a chain share; what failed leaves no demo in it."""
    home, failed = _homes[CHAINS[request.path.name]], request.session.testsfailed
    yield home
    if request.session.testsfailed > failed:
        home.end()


@pytest.fixture
def home(chain_home: SharedHome, request: pytest.FixtureRequest) -> Iterator[SharedHome]:
    """Return the shared home; a test that fails leaves no demo behind in it."""
    failed = request.session.testsfailed
    yield chain_home
    if request.session.testsfailed > failed:
        chain_home.end()
