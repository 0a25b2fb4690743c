"""The ledger of postings beside a world of its own, whose bookkeeper knows the truth."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ledger_world.bridges import Bridges, sums_of
from tests.support.ledger_world.comparison import (
    all_differences,
    rows_of,
    rows_of_world,
    unknown_rows,
)
from tests.support.ledger_world.mutations import MUTATIONS
from tests.support.ledger_world.product import Played
from tests.support.ledger_world.stories import (
    STORIES,
    UNKNOWN,
    adjusted_commission,
    cancelled,
    mergers_of_one_day,
    moved_to_the_other_account,
    told,
)
from tests.support.ledger_world.values import DAYS

# What the program does not do yet.
AWAITED = (cancelled, mergers_of_one_day, moved_to_the_other_account, adjusted_commission)
DONE = tuple(story for story in STORIES if story not in AWAITED)
KNOWN = tuple(story for story in DONE if story not in UNKNOWN)

SEEDS = [1, 2, *range(4, 40)]


def played_at_once(folder: Path, seed: int, stories: tuple = DONE) -> Played:
    """Return a lake into which all statements are imported together."""
    played = Played(told(seed, stories), folder).begin()
    played.import_files(played.files_of(DAYS))
    return played.finish()


@pytest.mark.parametrize("seed", SEEDS)
def test_postings_edges_lots_campaigns_and_days_are_those_of_the_world(seed, tmp_path):
    assert all_differences(played_at_once(tmp_path, seed)) == []


@pytest.mark.parametrize("story", AWAITED, ids=lambda story: story.__name__)
@pytest.mark.xfail(strict=True, reason="not yet")
def test_what_is_awaited(story, tmp_path):
    assert all_differences(played_at_once(tmp_path, 1, (story,))) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_the_graph_is_the_same_with_executions_first_in_increments_and_after_restarts(
    seed, tmp_path
):
    played = Played(told(seed, DONE), tmp_path).begin()
    for first, last in ((0, 4), (4, 7), (7, 10)):
        for day in DAYS[first:last]:
            played.report_executions(day)
        played.import_files(played.files_of(DAYS[first:last]))
        played = played.again(told(seed, DONE, days=last)).finish()
        assert all_differences(played) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_not_known_is_what_the_world_does_not_know(seed, tmp_path):
    played = played_at_once(tmp_path, seed)
    expected, actual = unknown_rows(rows_of_world(played.world)), unknown_rows(rows_of(played))
    print(f"seed {seed}: {len(expected)} rows are not known")
    assert expected - actual == set()
    assert actual - expected == set()
    kinds = {kind for kind, _name in expected}
    assert {"posting", "edge of an owner", "edge of an account", "day", "campaign"} <= kinds


@pytest.fixture(scope="module")
def known_worlds(tmp_path_factory) -> Iterator[list[Played]]:
    """Return worlds in which all is known."""
    return [
        played_at_once(tmp_path_factory.mktemp("known"), seed, KNOWN) for seed in SEEDS[:3]
    ]


def test_lots_campaigns_days_and_cash_differ_by_what_the_world_says(known_worlds):
    nonzero: set[str] = set()
    named: set[str] = set()
    for played in known_worlds:
        sums, bridges = sums_of(played), Bridges(played.world)
        for first, second, amounts in (
            ("lots", "campaigns", bridges.lots_to_campaigns()),
            ("campaigns", "days", bridges.campaigns_to_days()),
            ("days", "cash", bridges.days_to_cash()),
        ):
            difference = float(sum(amounts.values()))
            assert sums[second] - sums[first] == pytest.approx(difference, abs=0.01)
            named |= amounts.keys()
            nonzero |= {name for name, amount in amounts.items() if amount}
    assert named == nonzero


def test_the_books_of_each_day_close(known_worlds):
    for played in known_worlds:
        assert played.books["difference"].abs().max() == pytest.approx(0.0, abs=1e-6)
        assert played.books.height == 2 * (len(DAYS) - 1)


@pytest.fixture(scope="module")
def mutated_worlds(tmp_path_factory) -> list[Played]:
    return [played_at_once(tmp_path_factory.mktemp("m"), seed) for seed in SEEDS[:2]]


@pytest.mark.parametrize("error", MUTATIONS)
def test_the_world_notices(error, mutated_worlds, monkeypatch):
    assert [all_differences(played.again()) for played in mutated_worlds] == [[], []]
    MUTATIONS[error].plant(monkeypatch)
    for played in mutated_worlds:
        assert all_differences(played.again()) != []
