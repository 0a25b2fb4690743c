"""The webserver: the guard stands before every route of it."""

from ib_gateway_simulator.loopback_guard import LoopbackGuard
from position_sync_dagster.webserver import GuardedWebserver


def test_the_guard_is_the_first_to_see_a_request():
    first, *_others = object.__new__(GuardedWebserver).build_middleware()
    assert first.cls is LoopbackGuard
