"""Each flow over the tables of money inside each other one, before each step of it.

The outcome is that of one of the two orders. With `-s` the table of all pairs is printed.
"""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from conftest import lake_in
from position_sync_dagster.money.tables import BOOKS, CLOSED_CAMPAIGNS
from position_sync_dagster.web.api_answers import NoQuery
from position_sync_dagster.web.results_answers import closed_day
from tests.support import forced_pairs
from tests.support.extent import EVERYTHING
from tests.support.forced_pairs import FLOWS, Outcome, Scene
from tests.support.forked_workers import ForkedWorker

# How often each pair of flows ended as which of the two orders.
RESULTS: dict[tuple[str, str], Counter[str]] = {}


SceneAfter = Callable[[str], Scene]


@pytest.fixture(scope="module")
def scene_after(tmp_path_factory: pytest.TempPathFactory) -> SceneAfter:
    """Return a lake with recorded days, perhaps after a flow, which each test copies."""

    @cache
    def after(flow: str) -> Scene:
        if not flow:
            return forced_pairs.make_scene(tmp_path_factory.mktemp("template"))
        scene = forced_pairs.copy_of(after(""), tmp_path_factory.mktemp(flow))
        FLOWS[flow](scene)
        return scene

    return after


@pytest.fixture(scope="module", autouse=True)
def _print_results() -> Iterator[None]:
    yield
    for (first, second), ends in RESULTS.items():
        print(f"{second} inside {first}: {dict(sorted(ends.items()))}")


Copy = Callable[..., Scene]


@pytest.fixture
def copy(scene_after: SceneAfter, tmp_path: Path) -> Copy:
    numbers = count()

    def copied(after: str = "") -> Scene:
        return forced_pairs.copy_of(scene_after(after), tmp_path / f"{next(numbers)}")

    return copied


@pytest.fixture
def copy_in_store(scene_after: SceneAfter, tmp_path: Path, request: pytest.FixtureRequest) -> Copy:
    numbers = count()

    def copied(after: str = "") -> Scene:
        folder = tmp_path / f"{next(numbers)}"
        return forced_pairs.copy_of(scene_after(after), folder, lake_in(request))

    return copied


def orders(copy: Copy, first: str, second: str) -> Callable[[Outcome], str]:
    """Return what names the order that an outcome is of, or in what it differs from both."""

    @cache
    def ordered(done: str, then: str) -> Outcome:
        return forced_pairs.outcome_of(copy(after=done), FLOWS[then])

    def order_of(outcome: Outcome) -> str:
        differing = []
        for order in ((second, first), (first, second)):
            difference = forced_pairs.difference(outcome, ordered(*order))
            if not difference:
                return "; ".join(order)
            differing.append(difference)
        return f"NEITHER ({differing[0]})"

    return order_of


def note(first: str, second: str, ends: list[str]) -> None:
    counted = RESULTS.setdefault((first, second), Counter())
    counted.update(ends)
    assert not [end for end in ends if end.startswith("NEITHER")], f"{second} inside {first}"


# A pair of each kind: the first flow, the table that it is about to write, the second flow.
LINES = """
    fill        daily_positions   revert
    explain     profit_explained  correct
    books       books             correct
    campaigns   closed_campaigns  revert
    import      movements         import
    executions  movements         import
    judge       closures          executions
    market      latest_positions  market
    merge       statement_events  import
    maintain    statement_events  correct
"""
PAIRS = [tuple(line.split()) for line in LINES.strip().splitlines()]


@pytest.mark.parametrize(("first", "written", "second"), PAIRS)
def test_a_flow_that_has_read_before_another_commits_leaves_one_of_the_two_orders(
    copy, first, written, second
):
    order_of = orders(copy, first, second)
    steps: list[list[str]] = []

    def is_about_to_write(done: list[str]) -> bool:
        steps.append(done)
        return done[-1] == f"write {written}"

    outcome = forced_pairs.inside(copy(), FLOWS[first], FLOWS[second], is_about_to_write)
    assert f"write {written}" in steps[-1], steps[-1]
    note(first, second, [order_of(outcome)])


# The other steps before which a pair is forced; before each commit it always is.
EVERY = 1 if EVERYTHING else 4


def force(copy: Copy, first: str, second: str) -> None:
    """Do a flow inside another one, before its steps."""
    order_of = orders(copy, first, second)
    steps = forced_pairs.steps_of(copy(), FLOWS[first])
    ends = []
    for number, step in enumerate(steps, 1):
        if number % EVERY and not step.startswith("write"):
            continue
        outcome = forced_pairs.inside(
            copy(), FLOWS[first], FLOWS[second], lambda done, number=number: len(done) == number
        )
        ends.append(order_of(outcome))
    note(first, second, ends)


# The last ones are made of the others.
FIRST = [name for name in FLOWS if name not in ("correct", "revert")]
SECOND = [name for name in FLOWS if name not in ("fill", "explain", "books", "campaigns")]


@pytest.mark.parametrize("second", SECOND)
@pytest.mark.parametrize("first", FIRST)
def test_every_pair_of_flows_leaves_one_of_the_two_orders(copy, first, second):
    force(copy, first, second)


@pytest.mark.parametrize(("first", "_written", "second"), PAIRS)
@pytest.mark.parametrize("_place", ["store"])
def test_a_pair_of_flows_in_a_store_leaves_one_of_the_two_orders(
    copy_in_store, first, _written, second, _place
):
    force(copy_in_store, first, second)


@pytest.mark.parametrize(
    ("first", "written"), [(first, written) for first, written, _second in PAIRS[1:4]]
)
async def test_a_process_that_was_stopped_after_it_had_read_takes_no_correction_back(
    copy, eventually, first, written
):
    scene = copy()
    arguments = {"folder": str(scene.folder), "written": written}
    worker = ForkedWorker(forced_pairs.__name__, first, scene.lake_path, arguments).begin()
    await eventually(lambda: psutil.Process(worker.pid).status() == psutil.STATUS_STOPPED)
    FLOWS["correct"](scene)
    os.kill(worker.pid, signal.SIGCONT)
    assert worker.output() == "done\n"

    lake = scene.opened()
    campaigns, books = (lake.derived_table(spec).rows() for spec in (CLOSED_CAMPAIGNS, BOOKS))
    assert campaigns["profit"].to_list() == [500.0]
    assert books["profit"].to_list() == [500.0]
    order_of = orders(copy, first, "correct")
    assert order_of(([], forced_pairs.told(scene))) == f"correct; {first}"


def test_a_reader_between_two_commits_of_one_import_sees_one_of_both_or_that_it_is_being_made(copy):
    """It reads the explained day and the books, which are committed one after the other."""

    def read(scene: Scene) -> dict[str, Any]:
        figures = SimpleNamespace(at=forced_pairs.NOW)
        source = SimpleNamespace(
            lake=scene.opened(), settings=scene.settings, figures=lambda _now: figures
        )
        return closed_day(source, NoQuery(), forced_pairs.NOW)  # type: ignore[arg-type]

    def profits(answer: dict[str, Any]) -> tuple[float, ...]:
        return tuple(sum(row["profit"] for row in answer[name]) for name in ("explained", "books"))

    def make_again(scene: Scene) -> None:
        forced_pairs.explain(scene)
        forced_pairs.book(scene)

    scene = copy()
    steps = forced_pairs.steps_of(scene, read)
    assert profits(read(scene)) == (600.0, 600.0)
    made_again = copy()
    make_again(made_again)
    answers = []
    for number in range(1, len(steps) + 1):
        scene = copy()
        with forced_pairs.before_step(
            lambda done, number=number: len(done) == number,
            lambda scene=scene: forced_pairs.commit_like(scene, made_again),
        ):
            answers.append(read(scene))
    assert {profits(answer) for answer in answers if not answer["books_being_made"]} <= {
        (600.0, 600.0), (550.0, 550.0),
    }  # fmt: skip

    # Where it reads between the two commits, the books are the older.
    scene = copy()
    with forced_pairs.before_step(
        lambda done: done[-1] == "write books", lambda: answers.append(read(scene))
    ):
        make_again(scene)
    assert profits(answers[-1]) == (550.0, 600.0)
    assert answers[-1]["books_being_made"]
