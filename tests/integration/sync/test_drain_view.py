"""The broker's view of the tables: the holdings of some contracts, and whether they are current."""

from dataclasses import replace
from datetime import timedelta

import pytest

from position_sync_dagster.domain.broker_position import Completeness
from position_sync_dagster.errors import BrokerUnavailableError
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.drain import TIME_LIMIT_S, LakeValues
from tests.support.clock import HandClock
from tests.support.holdings import make_holding


def held(settings, clock, conid, *, confirmed_at=None):
    return make_holding(
        conid, clock.now, gateway_id=settings.gateway_id, completeness=Completeness.COMPLETE,
        confirmed_at=confirmed_at or clock.now,
    )  # fmt: skip


async def test_a_view_has_the_contracts_that_are_asked_for_and_covers_all(lake):
    settings, clock = Settings(), HandClock()
    values = LakeValues(lake, settings, clock=clock)
    first = [held(settings, clock, conid) for conid in (1, 2)]
    lake.broker_positions.replace(settings.gateway_id, first)
    view = await values.view()
    assert set(view.holdings.values()) == set(first)
    assert view.complete
    assert set((await values.view([2, 9])).holdings.values()) == set(first[1:])
    second = [*first, replace(held(settings, clock, 3), completeness=Completeness.PARTIAL)]
    lake.broker_positions.replace(settings.gateway_id, second)
    assert set((await values.view()).holdings.values()) == set(second)
    assert not (await values.view([1])).complete


async def test_ages_are_those_of_the_moment_and_not_of_the_first_look(lake):
    settings, clock = Settings(), HandClock()
    values = LakeValues(lake, settings, clock=clock)
    span = timedelta(
        seconds=2 * max(settings.refresh_interval_s, settings.account_interval_s) + TIME_LIMIT_S
    )
    old = held(settings, clock, 1, confirmed_at=clock.now - span + timedelta(seconds=10))
    new = held(settings, clock, 2)
    lake.broker_positions.replace(settings.gateway_id, [old, new])
    assert (await values.view()).unconfirmed == frozenset()
    clock.now += timedelta(seconds=20)
    assert (await values.view()).unconfirmed == {old.key}
    clock.now += timedelta(hours=1)
    with pytest.raises(BrokerUnavailableError, match="were last downloaded"):
        await values.view()
    clock.now -= timedelta(hours=3)
    with pytest.raises(BrokerUnavailableError):
        await values.view()
