"""When a described leg is looked up again, by a clock that only the test moves."""

from datetime import UTC, datetime

from position_sync_dagster.domain.leg import make_leg
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.stream.contracts import ContractCache, LegResolver
from position_sync_dagster.sync.stream.ownership import OwnerContext

NOW = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)
LEG = make_leg(
    symbol="SPY", right="CALL", strike=575, expiry="20281215", strategy_id="s", added_at=NOW
)


class Registry:
    """A registry with one leg without a conid."""

    def __init__(self):
        self.unresolved = (LEG,)

    async def settle(self, findings):
        """Store nothing."""


class Gateway:
    """A connection that answers what a test has set, and counts the requests."""

    def __init__(self, answer):
        self.answer = answer
        self.requests = 0

    async def candidates(self, _leg, *, like=False):
        self.requests += not like
        return self.answer


async def requests_of_an_hour(answer):
    gateway, now_s = Gateway(answer), 0.0
    context = OwnerContext(settings=Settings(), monotonic=lambda: now_s)
    resolver = LegResolver(context, Registry(), ContractCache(None))
    for minute in range(60):
        now_s = 60.0 * minute
        await resolver.resolve_due(gateway)
    return gateway.requests


async def test_a_leg_that_the_gateway_does_not_know_is_looked_up_less_and_less_often():
    assert await requests_of_an_hour([]) == 6


async def test_without_an_answer_a_leg_waits_no_longer_than_some_minutes():
    assert await requests_of_an_hour(None) == 17
