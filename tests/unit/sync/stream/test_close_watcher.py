"""When the gateway is asked why holdings closed: after a change, and after a start."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from position_sync_dagster.errors import LakeNotWritableError
from position_sync_dagster.gateway.connection import DayExecutions
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.explain_closes import changes_between
from position_sync_dagster.sync.stream.ownership import OwnerContext
from position_sync_dagster.sync.stream.publisher import LOOKS_S, CloseWatcher
from tests.support.holdings import make_holding


class Gateway:
    """A connection that counts the requests for executions."""

    accounts = ("DU1",)
    answer = None

    def __init__(self):
        self.requests = 0

    async def executions(self):
        self.requests += 1
        return self.answer


class Explainer:
    """An explainer that finds nothing."""

    def explain(self, executions, asked):
        return None


async def requests_of_a_start(*, answer=None, later_s=()):
    gateway, now_s = Gateway(), 50.0
    gateway.answer = answer
    context = OwnerContext(settings=Settings(), monotonic=lambda: now_s)
    watcher = CloseWatcher(context, Explainer())
    for delay_s in (0.0, 1.0, *LOOKS_S[1:], *later_s):
        now_s = 50.0 + delay_s
        await watcher.look_if_due(gateway)
    return gateway.requests


async def test_what_a_process_left_without_a_cause_is_looked_at_after_the_next_start():
    assert await requests_of_a_start() == len(LOOKS_S)


async def test_a_close_is_looked_at_although_its_table_did_not_confirm_it():
    gateway, explainer = Gateway(), Explainer()
    watcher = CloseWatcher(OwnerContext(settings=Settings(), monotonic=lambda: 50.0), explainer)
    closed = replace(OPENED, position=0.0, position_time=NOW)

    def fail(_changes):
        raise LakeNotWritableError("The disk did not confirm it.", remedy="Check it.")

    explainer.record = fail
    with pytest.raises(LakeNotWritableError):
        await watcher.record(changes_between({OPENED.key: OPENED}, {closed.key: closed}, {}))
    await watcher.look_if_due(gateway)
    assert gateway.requests == 1


NOW = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)
OPENED = make_holding(1, NOW, position=2.0)


def test_the_first_holding_of_an_account_that_the_broker_confirmed_as_flat_is_a_change():
    (change,) = changes_between({}, {OPENED.key: OPENED}, {"A": NOW})
    assert (change.before, change.after, change.since) == (0.0, 2.0, NOW)


def test_the_first_holding_of_an_account_that_was_never_confirmed_is_no_change():
    assert changes_between({}, {OPENED.key: OPENED}, {"A": None}) == []
    assert changes_between({}, {OPENED.key: OPENED}, {}) == []


def test_a_confirmation_from_before_the_clock_was_set_back_is_not_that_of_the_quantity_before():
    ahead, closed_at = NOW + timedelta(hours=1), NOW + timedelta(minutes=5)
    closed = make_holding(1, closed_at, position=0.0)
    (change,) = changes_between({OPENED.key: OPENED}, {closed.key: closed}, {"A": ahead})
    assert change.since == NOW
    before = make_holding(1, ahead, position=2.0)
    (change,) = changes_between({before.key: before}, {closed.key: closed}, {"A": ahead})
    assert (change.since, change.seen_at) == (None, closed_at)


async def test_without_an_answer_to_the_last_request_the_gateway_is_asked_until_it_answers():
    later_s = (2 * LOOKS_S[-1], 3 * LOOKS_S[-1])
    answered = DayExecutions([], NOW, NOW)
    assert await requests_of_a_start(later_s=later_s) == len(LOOKS_S) + 2
    assert await requests_of_a_start(answer=answered, later_s=later_s) == len(LOOKS_S)


@pytest.mark.parametrize("price", [4.0, 0.04], ids=["in cents", "in dollars"])
def test_the_price_before_a_change_is_in_dollars_however_the_broker_quotes_it(price):
    value = -1 * 0.04 * 5000
    held = make_holding(1, NOW, position=-1.0, market_price=price, market_value=value)
    held = replace(held, instrument=replace(held.instrument, multiplier=5000.0))
    closed = replace(held, position=0.0)
    (change,) = changes_between({held.key: held}, {closed.key: closed}, {})
    assert change.market_price == pytest.approx(0.04)
    unknown = replace(held, market_value=None)
    (change,) = changes_between({held.key: unknown}, {closed.key: closed}, {})
    assert change.market_price is None
