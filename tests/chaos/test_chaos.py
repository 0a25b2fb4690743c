"""Chaos, the short version; `make chaos` runs the whole one."""

from random import SystemRandom

from tests.chaos.campaign import CREW, run


def test_random_kills_of_everything_lose_nothing_and_write_nothing_twice(tmp_path):
    tally = run(tmp_path / "lake", kills=30, seed=SystemRandom().randrange(10**6))
    print(tally)
    assert sum(tally.kills.values()) == 30
    assert tally.kills.keys() == set(CREW)
    assert tally.requests > 100
    assert 0 < tally.acknowledged <= tally.requests == tally.values
