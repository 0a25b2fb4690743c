"""A short chaos campaign; `make chaos` runs the full one."""

from random import SystemRandom

from tests.chaos.campaign import VICTIMS, run


def test_random_kills_of_everything_lose_nothing_and_write_nothing_twice(tmp_path):
    result = run(tmp_path / "lake", kills=30, seed=SystemRandom().randrange(10**6))
    print(result)
    assert sum(result.kills.values()) == 30
    assert result.kills.keys() == VICTIMS
    assert 0 < result.acknowledged <= result.requests == result.values + result.unchanged
