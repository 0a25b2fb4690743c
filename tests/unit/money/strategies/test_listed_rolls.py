"""The legs of a strategies file, of which some were rolled since it was written."""

from dataclasses import replace
from datetime import date, timedelta

from position_sync_dagster.domain.leg import UnresolvedLeg
from position_sync_dagster.lake.given_leg import make_leg
from position_sync_dagster.money.strategies.strategies_file import with_rolls
from tests.support.legs import ADDED_AT, leg

NEW = leg(3, "condor", strike=590.0, rolled_from="1,2", quantity=-2.0)
LATER = ADDED_AT + timedelta(days=1)


def test_a_leg_that_was_rolled_stays_what_it_became_and_follows_the_quantity_of_the_file():
    since = date(2026, 1, 2)
    rolled = leg(1, "condor", added_at=LATER, quantity=-3.0, since=since)
    file = [rolled, leg(1, "other"), leg(4, "condor")]
    first, *others = with_rolls(file, [NEW, leg(1, "other")], [], {"condor"})
    assert first == replace(NEW, added_at=LATER, quantity=-3.0, since=since)
    assert others == file[1:]


def test_the_file_counts_if_it_names_the_new_contract_too_or_follows_no_rolls():
    both = [leg(1, "condor"), leg(3, "condor", strike=590.0)]
    assert with_rolls(both, [NEW], [], {"condor"}) == both
    assert with_rolls(both[:1], [NEW], [], {"other"}) == both[:1]


def test_a_description_is_the_leg_whose_contract_was_found_for_it_and_rolled():
    described = make_leg(
        symbol="SPY", right="PUT", strike=575.0, expiry="20281215", strategy_id="condor",
        added_at=LATER,
    )  # fmt: skip
    assert isinstance(described, UnresolvedLeg)
    ended = described.resolved(2, ADDED_AT).ended(LATER)
    assert [
        with_roll.conid for with_roll in with_rolls([described], [NEW], [ended], {"condor"})
    ] == [3]
