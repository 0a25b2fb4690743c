"""Each flow over the tables of money inside each other one, before each step of it.

The outcome is that of one of the two orders. With `-s` the table of all pairs is printed.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from pathlib import Path

import pytest

from conftest import lake_in
from tests.support import forced_pairs
from tests.support.forced_pairs import FLOWS, Outcome, Scene

# How often each pair of flows ended as which of the two orders.
RESULTS: dict[tuple[str, str], Counter[str]] = {}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Return a lake with recorded days, which each test copies."""
    return forced_pairs.make_scene(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="module", autouse=True)
def _print_results() -> Iterator[None]:
    yield
    for (first, second), ends in RESULTS.items():
        print(f"{second} inside {first}: {dict(sorted(ends.items()))}")


Copy = Callable[[], Scene]


@pytest.fixture
def copy(template: Scene, tmp_path: Path) -> Copy:
    numbers = count()
    return lambda: forced_pairs.copy_of(template, tmp_path / f"{next(numbers)}")


@pytest.fixture
def copy_in_store(template: Scene, tmp_path: Path, request: pytest.FixtureRequest) -> Copy:
    numbers = count()
    return lambda: forced_pairs.copy_of(template, tmp_path / f"{next(numbers)}", lake_in(request))


def orders(copy: Copy, first: str, second: str) -> Callable[[Outcome], str]:
    """Return what names the order that an outcome is of, or in what it differs from both."""

    @cache
    def ordered(*names: str) -> Outcome:
        return forced_pairs.in_order(copy(), *(FLOWS[name] for name in names))

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
PAIRS = (
    ("fill", "daily_positions", "revert"),
    ("explain", "profit_explained", "correct"),
    ("books", "books", "correct"),
    ("campaigns", "closed_campaigns", "revert"),
    ("import", "movements", "import"),
    ("executions", "movements", "import"),
    ("judge", "closures", "executions"),
    ("market", "latest_positions", "market"),
    ("merge", "statement_events", "import"),
    ("maintain", "statement_events", "correct"),
)


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


def force(copy: Copy, first: str, second: str) -> None:
    """Do a flow inside another one, before each of its steps."""
    order_of = orders(copy, first, second)
    steps = forced_pairs.steps_of(copy(), FLOWS[first])
    ends = []
    for number in range(1, len(steps) + 1):
        outcome = forced_pairs.inside(
            copy(), FLOWS[first], FLOWS[second], lambda done, number=number: len(done) == number
        )
        ends.append(order_of(outcome))
    note(first, second, ends)


@pytest.mark.parametrize("second", FLOWS)
@pytest.mark.parametrize("first", FLOWS)
def test_every_pair_of_flows_leaves_one_of_the_two_orders(copy, first, second):
    force(copy, first, second)


@pytest.mark.parametrize(("first", "_written", "second"), PAIRS)
@pytest.mark.parametrize("_place", ["store"])
def test_a_pair_of_flows_in_a_store_leaves_one_of_the_two_orders(
    copy_in_store, first, _written, second, _place
):
    force(copy_in_store, first, second)
