"""Contract details: the newest of each contract that was seen."""

from dataclasses import replace
from datetime import date

import pytest

from tests.support.contracts import contract_details


def details(clock, conid):
    return contract_details(conid, seen_at=clock.now)


@pytest.mark.in_store
async def test_the_newest_details_of_a_contract_are_kept(lake, clock):
    first = details(clock, 1)
    lake.contracts.put([first, first, details(clock, 2)])
    clock.advance(60)
    lake.contracts.put([details(clock, 1), details(clock, 3)])
    found = lake.contracts.get([1, 3, 99])
    assert found == {1: details(clock, 1), 3: details(clock, 3)}
    assert lake.contracts.get([2])[2].seen_at == first.seen_at
    assert lake.contracts.get([]) == {}
    assert len(lake.contracts.get()) == 3


async def test_details_of_new_contracts_are_added_without_a_look_at_the_others(
    lake, clock, files_read
):
    lake.contracts.put([details(clock, conid) for conid in range(1, 501)])
    files_read.clear()
    lake.contracts.put([details(clock, conid) for conid in range(501, 521)])
    assert sum(files_read) == 0
    clock.advance(60)
    lake.contracts.put([details(clock, conid) for conid in (400, *range(600, 700))])
    found = lake.contracts.get(range(1, 1_000))
    assert len(found) == 620
    assert {conid for conid, one in found.items() if one.seen_at == clock.now} == {
        400,
        *range(600, 700),
    }
    assert lake.contracts.get([450, 9_999]) == {450: found[450]}


def test_how_often_a_contract_was_not_given_is_kept_beside_what_is_known_of_it(lake, clock):
    lake.contracts.put([details(clock, 1)])
    lake.contracts.put_not_given({1: (2, clock.now), 7: (10, clock.now)})
    assert lake.contracts.not_given() == {1: (2, clock.now), 7: (10, clock.now)}
    assert lake.contracts.get() == {1: details(clock, 1)}
    assert lake.contracts.get([7]) == {}
    assert lake.contracts.quoted_in_cents() == {}
    lake.contracts.put([details(clock, 1), details(clock, 7)])
    assert lake.contracts.not_given() == {}
    assert lake.contracts.get().keys() == {1, 7}


def test_contracts_that_expired_long_ago_are_read_only_if_they_are_named(lake, clock):
    ends = {1: date(2028, 1, 21), 2: date(2028, 1, 20), 3: None, 4: date(2028, 1, 20)}
    lake.contracts.put(
        [
            replace(details(clock, c), last_trade_date=end, expires_on=None)
            for c, end in ends.items()
        ]
    )
    assert lake.contracts.unexpired(date(2028, 1, 21), {4}).keys() == {1, 3, 4}
