"""How much the tests do: a fixed part of what they could in `make test`, all in `make chaos`."""

import os
from collections.abc import Iterable
from random import Random

EVERYTHING = os.environ.get("TESTS") == "all"


def examples(whole: int) -> int:
    """Return how many examples are tried: a fourth of all, except in `make chaos`."""
    return whole if EVERYTHING else whole // 4


def part_of(names: Iterable[str], wanted: int) -> set[tuple[str, str]]:
    """Return some of the pairs of names, each name as often the first one as the second one.

    Each name is also combined with itself: two writers that do the same are the likeliest pair.

    Args:
        names: What to combine.
        wanted: How many others each of them is combined with at least, itself perhaps among them;
            with TESTS=all each is.
    """
    places = list(names)
    count = len(places)
    wanted = count if EVERYTHING else min(wanted, count)
    steps = {0, *Random(count).sample(range(count), wanted)}
    return {
        (place, places[(at + step) % count]) for at, place in enumerate(places) for step in steps
    }
