"""How long tests wait: until something hangs, however busy the machine is meanwhile."""

from tests.support.waiting import Patience

LIMIT_S = 120.0


def test_a_wait_beside_others_is_not_over_at_once_when_they_end():
    now = [0.0]
    programs = [10.0]
    patience = Patience(lambda: now[0], lambda: programs[0])
    now[0] = 600.0
    assert not patience.is_over(LIMIT_S)

    programs[0] = 1.0
    now[0] = 650.0
    assert not patience.is_over(LIMIT_S)
    now[0] = 670.0
    assert patience.is_over(LIMIT_S)
    assert patience.waited_s == 600 / 10 + 50 + 20


def test_a_wait_goes_on_while_others_that_began_later_are_there():
    now = [0.0]
    programs = [1.0]
    patience = Patience(lambda: now[0], lambda: programs[0])
    now[0] = 100.0
    assert not patience.is_over(LIMIT_S)
    programs[0] = 10.0
    now[0] = 250.0
    assert not patience.is_over(LIMIT_S)
