"""Rules choose legs from what is held."""

from datetime import UTC, datetime, timedelta

import pytest

from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.lake.given_leg import make_leg
from position_sync_dagster.money.strategies.rules import Rule, legs_of_rules
from tests.support.legs import leg
from tests.support.option_books import book, contract, holding

NOW = datetime(2028, 12, 1, 15, tzinfo=UTC)  # 14 days before the near expiry
HELD = {"90P": -1.0, "95P": 2.0, "105C": -3.0, "90P+": -1.0, "stock": 100.0}


NEAR = ("90P", "95P", "105C")


def rule(name: str = "r", limit: int | None = None, priority: int = 1, **match: object) -> Rule:
    fields = {"rule": name, "limit": limit, "priority": priority, "match": match}
    return Rule.model_validate(fields)


RULE = rule()


def chosen(*rules: Rule, listed: tuple = (), held: dict[str, float] | None = None) -> list[tuple]:
    names = {contract(name).conid: name for name in HELD}
    legs = legs_of_rules(rules, book(HELD if held is None else held), listed, NOW)
    return [(leg.strategy_id, names[leg.conid]) for leg in legs]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (RULE, ["90P", "95P", "105C", "90P+", "stock"]),
        (rule(right="P", side="short"), ["90P", "90P+"]),
        (rule(days="0-14"), ["90P", "95P", "105C"]),
        (rule(days="15-60"), ["90P+"]),
        (rule(side="long"), ["95P", "stock"]),
        (rule(underlying=["ES", "SPX"]), []),
        (rule(underlying="SPY", right="C"), ["105C"]),
        (rule(account="B"), []),
    ],
)
def test_a_rule_takes_what_meets_each_of_its_conditions(given: Rule, names: list[str]) -> None:
    assert {name for _rule, name in chosen(given)} == set(names)


def test_days_are_those_of_the_exchange_of_the_calendar() -> None:
    """In the evening of New York the next day has begun in Tokyo: 13 days are left, not 14."""
    evening = NOW + timedelta(hours=5)
    near = [rule(days="13-13")]
    assert legs_of_rules(near, book(HELD), [], evening) == []
    of_tokyo = legs_of_rules(near, book(HELD), [], evening, calendar="XTKS")
    assert {leg.conid for leg in of_tokyo} == {contract(name).conid for name in NEAR}


def test_the_first_rule_takes_a_leg_up_to_its_limit_and_the_next_one_takes_the_rest() -> None:
    puts = rule("puts", right="PUT", limit=2)
    chosen_legs = chosen(puts, rule("rest", days="0-365"))
    assert [name for rule, name in chosen_legs if rule == "rest"] == ["105C", "90P+"]
    assert {name for rule, name in chosen_legs if rule == "puts"} == {"90P", "95P"}


def test_no_rule_takes_a_leg_that_the_file_lists_by_conid_or_by_description() -> None:
    by_conid = leg(contract("90P").conid, "mine")
    described = make_leg(
        symbol="SPY", right="P", strike=95, expiry="20281215", strategy_id="x", added_at=NOW
    )
    elsewhere = leg(contract("105C").conid, "mine", account="B")
    chosen_legs = chosen(RULE, listed=(by_conid, described, elsewhere))
    assert {name for _rule, name in chosen_legs} == {"105C", "90P+", "stock"}


def test_a_leg_has_the_name_and_the_priority_of_its_rule() -> None:
    [leg] = legs_of_rules([rule("hedges", priority=3)], [holding("90P", -1)], [], NOW)
    assert leg.strategy_id == "hedges"
    assert leg.priority == 3
    assert leg.account == "A"
    assert leg.quantity is None
    assert leg.symbol == "SPY"
    assert leg.right == Right.PUT
    assert leg.strike == 90.0
