"""When a login on which nothing ticks is probed, and what a probe shows."""

import pytest

from position_sync_dagster.domain.login_lines import MANY_TICKS, SilentLogin, missed
from position_sync_dagster.domain.quote import Quote


@pytest.fixture
def login():
    login = SilentLogin(silence_s=60.0)
    login.heard(1, 0.0)
    return login


def test_a_login_that_never_ticked_is_not_probed():
    assert not SilentLogin(silence_s=60.0).is_due(1e9)


def test_each_probe_of_a_quiet_book_waits_longer_even_if_a_few_lines_tick(login):
    now_s, waits = 0.0, []
    for _ in range(6):
        began_s = now_s
        while not login.is_due(now_s):
            now_s += 1
        waits.append(now_s - began_s)
        login.probed(now_s)
        login.heard(3, now_s)
    assert waits == [60, 120, 240, 480, 900, 900]


def test_the_next_silence_of_a_lively_login_is_probed_soon(login):
    for now_s in (60.0, 180.0):
        login.probed(now_s)
    login.heard(MANY_TICKS, 200.0)
    assert not login.is_due(259.0)
    assert login.is_due(260.0)


def test_while_nothing_could_tick_no_silence_is_counted(login):
    login.probed(60.0)
    login.rested(1000.0)
    assert not login.is_due(1059.0)
    assert login.is_due(1060.0)


@pytest.mark.parametrize(
    ("opened", "expected"),
    [
        (None, None),
        ({}, None),
        ({"bid": 1.0}, None),
        ({"bid": 1.0, "mark": 1.1}, False),
        ({"bid": 1.0, "ask": 1.2, "mark": 1.1}, False),
        ({"bid": 1.0, "mark": 1.2}, True),
        ({"mark": 1.2}, True),
    ],
)
def test_a_probe_shows_missed_ticks_by_another_price(opened, expected):
    before = Quote(conid=1, bid=1.0, mark=1.1)
    after = None if opened is None else Quote(conid=1, **opened)
    assert missed(before, after) is expected
