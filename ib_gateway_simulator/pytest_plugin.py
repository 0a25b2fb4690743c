"""The pytest plugin: a gateway for each test that asks for one, active without an import.

    def test_positions(ib_gateway):
        ib = IB()
        ib.connect("127.0.0.1", ib_gateway.port, clientId=1)
        assert len(ib.positions()) == 9

`@pytest.mark.ib_book("demo")` chooses the book, and options of the simulator;
`@pytest.mark.ib_recording("session.ibrec")` plays a recording instead. A test in which a client
sent an order fails, and so does one that asked a recording for what it does not have.

Each run of pytest beside this package loads the plugin, which imports the server when it is needed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ib_gateway_simulator.books.book import Book
    from ib_gateway_simulator.in_thread import RunningGateway, RunningReplay

DEFAULT_BOOK = "small"

MARKERS = (
    "ib_book(book, **options): the book of `ib_gateway`: small, demo, a YAML file beside the test, "
    "YAML text, or a Book; and options of SimulatedGateway, such as seed=7",
    "ib_recording(file, **options): `ib_gateway` plays this recording, a file beside the test; "
    "options are those of Replay, such as speed=10",
)

_GATEWAY: pytest.StashKey[RunningGateway | RunningReplay] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


@pytest.fixture
def ib_gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningGateway | RunningReplay]:
    """A gateway that runs during the test, on a free port: `ib_gateway.port`."""
    recording = request.node.get_closest_marker("ib_recording")
    if recording is not None:
        running: RunningGateway | RunningReplay = _replay_of(recording, request.path.parent)
    else:
        running = _gateway_of(request, tmp_path_factory)

    with running:
        request.node.stash[_GATEWAY] = running
        yield running


def _replay_of(marker: pytest.Mark, folder: Path) -> RunningReplay:
    """Return the replay of the recording that a marker names."""
    from ib_gateway_simulator.in_thread import RunningReplay
    from ib_gateway_simulator.recordings.recording import load_recording
    from ib_gateway_simulator.replay.server import Replay

    (file,) = marker.args
    return RunningReplay(Replay(load_recording(folder / file), **marker.kwargs))


def _gateway_of(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> RunningGateway:
    """Return a gateway with the book that a marker names, or with the default one."""
    from ib_gateway_simulator.in_thread import RunningGateway
    from ib_gateway_simulator.server import SimulatedGateway

    marker = request.node.get_closest_marker("ib_book")
    options: dict[str, Any] = {} if marker is None else marker.kwargs
    book: Book | str | Path = DEFAULT_BOOK
    if marker is not None and marker.args:
        (book,) = marker.args

    if isinstance(book, str) and "\n" in book:
        text = book
        book = tmp_path_factory.mktemp("book") / "ib_book.yaml"
        book.write_text(text, encoding="utf-8")
    elif isinstance(book, str) and Path(book).suffix:
        book = request.path.parent / book

    return RunningGateway(SimulatedGateway(book, **options))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail a test in which an order was sent, or a recording was asked for what it has not."""
    result = yield
    gateway = item.stash.get(_GATEWAY, None)
    if gateway is None:
        return result

    gateway.wait_for_sent()
    orders = [
        f"client {order.client_id} sent {order.name}: {', '.join(filter(None, order.fields))}"
        for order in gateway.orders_received
    ]
    if orders:
        pytest.fail("An order was sent. " + "; ".join(orders), pytrace=False)

    missing = getattr(gateway, "unanswered", ())
    if missing:
        pytest.fail("\n".join(missing), pytrace=False)
    return result
