"""Demos that end with their test, and those that tests share as long as they run."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.demo_program import Demo, SharedHome, Terminal
from tests.support.scheduling import CHAINS

Homes = dict[str, SharedHome]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Start demos that end with the test, in homes of their own."""
    demos: list[Demo] = []

    def run(*arguments: str) -> Demo:
        demos.append(Demo(tmp_path / f"home-{len(demos)}", *arguments))
        return demos[-1]

    yield run
    for demo in demos:
        demo.close()


@pytest.fixture(scope="session")
def _homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homes]:
    homes: Homes = {}
    for chain in sorted(set(CHAINS.values())):
        homes[chain] = SharedHome(tmp_path_factory.mktemp(chain) / "home")
    yield homes
    for home in homes.values():
        home.end()


@pytest.fixture(scope="module")
def chain_home(_homes: Homes, request: pytest.FixtureRequest) -> Iterator[SharedHome]:
    """Return the home that the modules of a chain share; what failed leaves no demo in it."""
    home = _homes[CHAINS[request.path.name]]
    failed = request.session.testsfailed
    yield home
    if request.session.testsfailed > failed:
        home.end()


@pytest.fixture(scope="session")
def terminal(_homes: Homes) -> Iterator[Terminal]:
    """Return a terminal for demos in the home of `looks`, until a test ends them."""
    made = Terminal(_homes["looks"])
    yield made
    _homes["looks"].end()
    made.close()


@pytest.fixture
def home(chain_home: SharedHome, request: pytest.FixtureRequest) -> Iterator[SharedHome]:
    """Return the shared home; a test that fails leaves no demo behind in it."""
    failed = request.session.testsfailed
    yield chain_home
    if request.session.testsfailed > failed:
        chain_home.end()
