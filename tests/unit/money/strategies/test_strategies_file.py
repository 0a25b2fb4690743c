"""The strategies file with its limits: what is right is read, what is wrong is named."""

import os
import re
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.errors import StrategiesFileError
from position_sync_dagster.money.strategies import strategies_file
from position_sync_dagster.money.strategies.limits import Bound, Measure
from position_sync_dagster.money.strategies.proposals import KINDS, SINGLES
from position_sync_dagster.money.strategies.rules import HoldingSide
from position_sync_dagster.money.strategies.strategies_file import (
    RuledFile,
    as_strategies_file,
    load_strategies,
    saved_limits,
)

NOW = datetime(2026, 1, 2, tzinfo=UTC)
GOOD = """\
# two strategies that share a leg
strategies:
  - strategy_id: ic-1
    legs:
      - {conid: 700001, symbol: SPY, right: C, strike: 450, expiry: 20260220, quantity: 1}
      - conid: 700002
        symbol: SPY
        right: put
        strike: 440.5
        expiry: 2026-02-20
        account: DU1234567
        quantity: -1.0
        priority: 3
  - strategy_id: 42
    priority: 2
    legs:
      - {conid: 700001, symbol: SPY, right: CALL, strike: 450, expiry: "20260220", quantity: ~}
"""


def read(tmp_path, text):
    file = tmp_path / "strategies.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_strategies(file, lambda: NOW)


@pytest.mark.skipif(sys.platform != "linux", reason="this file, which nobody can read, is of Linux")
@pytest.mark.parametrize("read_part", [load_strategies, saved_limits, strategies_file.saved_file])
def test_a_file_that_cannot_be_read_is_named(read_part):
    """Else the definitions could not be loaded beside it."""
    with pytest.raises(StrategiesFileError, match="/proc/self/mem: it cannot be read"):
        read_part(Path("/proc/self/mem"))


def test_legs_are_read_in_the_order_of_the_file(tmp_path):
    first, second, third = read(tmp_path, GOOD)
    assert first.strategy_id == "ic-1"
    assert first.conid == 700001
    assert first.quantity == 1.0
    assert first.account is None
    assert second.right == Right.PUT
    assert second.strike == 440.5

    assert second.expiry == date(2026, 2, 20)
    assert second.account == "DU1234567"
    assert second.quantity == (-1.0)
    assert second.priority == 3
    assert third.strategy_id == "42"
    assert third.quantity is None
    assert third.priority == 2
    assert {leg.added_at for leg in (first, second, third)} == {NOW}


def leg(**changes):
    fields = {
        "conid": "1", "symbol": "SPY", "right": "C", "strike": "450", "expiry": "20260220"
    } | changes  # fmt: skip
    lines = "\n        ".join(f"{k}: {v}" for k, v in fields.items() if v is not None)
    return f"strategies:\n  - strategy_id: a\n    legs:\n      - {lines}\n"


def strategy(name):
    return f"strategies:\n  - {{strategy_id: {name}, legs: []}}\n"


MISTAKES_OF_FILES = [
    ("strategies: [\n", "line 2, column 1", "not YAML"),
    ("strategies:\n\t- a\n", "line 2, column 1", "not YAML"),
    ("&a [*a]", "line 1, column 1", "aliases in it repeat what is around them"),
    ("- a\n", "line 1, column 1", "fields are expected"),
    ("strategy: []\n", "line 1, column 1", "'strategy' is not known"),
    ("strategies: 5\n", "line 1, column 13", "must be a list"),
    ("strategies:\n  - legs: []\n", "line 2, column 5", "'strategy_id' is missing"),
    (strategy(""), "line 2, column", "has no value"),
    (strategy("' unattributed '"), "column 19", "no strategy has"),
    ("strategies:\n  - {strategy_id: a, legs: {}}\n", "line 2, column 28", "must be a list"),
]
MISTAKES_OF_LEGS = [
    (leg(conid="abc"), "line 4, column 16", "'abc' is no contract id"),
    (leg(right="X"), "line 6, column 16", "right 'X' is not known"),
    (leg(expiry="20260230"), "line 8, column 17", "'20260230' is no day"),
    (leg(symbol="''"), "line 5, column 17", "A leg has no symbol"),
    (leg(symbol=None), "line 4, column 9", "'symbol' is missing"),
    (leg(right=None), "line 4, column 9", "only a part"),
    (leg(quantity="many"), "line 9, column 19", "quantity 'many' is no number"),
    (leg(priority="0"), "line 9, column 19", "priority '0'"),
    (leg(since="soon"), "line 9, column 16", "'soon' is no day"),
    ("strategies:\n  - {strategy_id: a, since: soon, legs: []}\n", "column 29", "no day"),
    (leg(strikes="1"), "line 9, column 9", "'strikes' is not known"),
    (
        leg() + leg()[12:],
        "line 11, column 9",
        "leg SPY 450C 20Feb26 (conid 1) already, in line 4",
    ),
    (leg() + leg()[12:].replace("id: a", "id: b"), "column 9", "both hold the whole"),
]
MISTAKES_OF_RULES = [
    ("strategies:\n- {rule: a, match: 5}\n", "line 2, column 20", "fields are expected"),
    ("strategies:\n- {rule: a, match: {days: 9-0}}\n", "line 2, column 27", "no span of days"),
    ("strategies:\n- {rule: a, match: {side: up}}\n", "line 2, column 27", "side 'up'"),
    ("strategies:\n- {rule: a, match: {}, limit: 0}\n", "line 2, column 31", "limit '0'"),
    (strategy("a") + "  - {rule: a, match: {}}\n", "line 3, column 5", "name 'a' is taken"),
    ("strategies:\n  - strategy_id: a\n    strategy_id: b\n    legs: []\n", "line 3", "twice"),
]


def one(limits: str) -> str:
    return f"strategies:\n  - strategy_id: a\n    legs: []\n    limits: {limits}\n"


def accounts(*given):
    return "strategies: []\naccounts:\n" + "".join(f"  - {limit}\n" for limit in given)


def kinds(*given: str) -> str:
    entries = [f"  - {{kinds: {kind}, limits: {{reached: {{max: 0.5}}}}}}\n" for kind in given]
    return "strategies:\n" + "".join(entries)


LEGS = "{account: A, limits: {missing_legs: {max: 1}}}"


MISTAKES_OF_LIMITS = [
    (one("{vegas: {max: 1}}"), "line 4, column 14", "the field 'vegas' is not known"),
    (one("{value_age_s: {maximum: 1}}"), "line 4, column 28", "'maximum' is not known"),
    (one("{value_age_s: {max: nan}}"), "line 4, column 33", "max 'nan' cannot be used"),
    (one("{value_age_s: {max: much}}"), "line 4, column 33", "max 'much' cannot be used"),
    (one("{value_age_s: 5}"), "line 4, column 27", "fields are expected here"),
    (one("{value_age_s: {}}"), "line 4, column 27", "it has neither min nor max"),
    (one("{value_age_s: {min: 2, max: 1}}"), "line 4, column 27", "min is greater than max"),
    (one("{vega: {max: 1}}"), "line 4, column 20", "have no currency"),
    (one("{currency: Dollar}"), "line 4, column 24", "currency 'Dollar' cannot be used"),
    (one("7"), "line 4, column 13", "fields are expected here"),
    (accounts("{account: A, limits: {vega: 1}}"), "line 3, column 33", "fields are expected"),
    (accounts("{limits: {}}"), "line 3, column 5", "'account' is missing"),
    (accounts("{account: A, limits: {reached: {max: 1}}}"), "line 3, column 36", "no account has"),
]
MISTAKES_OF_LIMITS += [
    (kinds("[single, condo]"), "line 2, column 13", "there is no kind 'condo'"),
    (kinds("[condor]", "[box, condor]"), "line 3, column 36", "kind condor has limits already, in"),
    (accounts(*[LEGS] * 2), "line 4, column 26", "account A has limits already, in line 3"),
]
MISTAKES = [*MISTAKES_OF_FILES, *MISTAKES_OF_LEGS, *MISTAKES_OF_RULES, *MISTAKES_OF_LIMITS]


@pytest.mark.parametrize(
    ("read_part", "text", "place", "cause"),
    [(load_strategies, *mistake) for mistake in MISTAKES]
    + [(saved_limits, *mistake) for mistake in MISTAKES_OF_LIMITS],
)
def test_a_mistake_is_named_with_file_line_and_column_by_every_reader(
    tmp_path, read_part, text, place, cause
):
    (tmp_path / "strategies.yaml").write_text(text)
    with pytest.raises(StrategiesFileError) as caught:
        read_part(tmp_path / "strategies.yaml")
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'strategies.yaml'}, line ")
    assert re.search(rf"{place}\b", said)
    assert cause in said
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (b"", "empty"),
        (b"# nothing\n", "empty"),
        (b"strategies: \xff\n", "UTF-8"),
        (b"strategies:\n - a\x07b\n", "control characters"),
    ],
)
def test_a_file_without_a_place_for_the_mistake_is_named(tmp_path, text, cause):
    with pytest.raises(StrategiesFileError, match=cause):
        read(tmp_path, text)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(StrategiesFileError, match=r"nope.yaml: there is no such file"):
        load_strategies(tmp_path / "nope.yaml")


def test_rules_are_read_in_the_order_of_the_file(tmp_path):
    file = tmp_path / "strategies.yaml"
    file.write_text(
        "strategies:\n"
        "- rule: hedges\n"
        "  match: {underlying: [spx, ES], right: P, days: 0-60, side: short, account: DU1}\n"
        "  priority: 2\n"
        "  limit: 20\n"
        "- {rule: rest, match: {underlying: SPX}}\n"
    )
    hedges, rest = RuledFile(file).rules
    assert hedges.name == "hedges"
    assert hedges.limit == 20
    assert hedges.priority == 2
    match = hedges.match.model_dump()
    assert match.pop("underlyings") == {"SPX", "ES"}
    assert match.pop("right") == Right.PUT
    assert match.pop("days") == (0, 60)
    assert match.pop("side") == HoldingSide.SHORT
    assert match.pop("accounts") == {"DU1"}
    assert match == {}
    assert rest.name == "rest"
    assert rest.limit is None
    assert rest.priority == 1
    given = rest.match.model_dump(exclude_none=True)
    assert given == {"underlyings": {"SPX"}}
    assert load_strategies(file) == []
    assert RuledFile(file).following_rolls == frozenset()


def test_a_strategy_says_whether_it_follows_rolls(tmp_path):
    file = tmp_path / "strategies.yaml"
    file.write_text(GOOD)
    assert RuledFile(file).following_rolls == frozenset()
    file.write_text(GOOD.replace("priority: 2", "follow_rolls: true"))
    assert RuledFile(file).following_rolls == {"42"}
    assert len(load_strategies(file)) == 3
    file.write_text(GOOD.replace("priority: 2", "follow_rolls: perhaps"))
    with pytest.raises(StrategiesFileError, match="follow_rolls"):
        load_strategies(file)


def test_a_strategy_says_since_when_trades_belong_to_it_unless_a_leg_does(tmp_path):
    legs = read(
        tmp_path,
        "strategies:\n"
        "- {strategy_id: a, since: 2026-09-01, legs: [{conid: 1, symbol: SPY}]}\n"
        "- strategy_id: b\n"
        '  since: "20260902"\n'
        "  legs: [{conid: 2, symbol: SPY}, {conid: 3, symbol: SPY, since: '2026-09-03'}]\n"
        "- {strategy_id: c, legs: [{conid: 4, symbol: SPY}]}\n",
    )
    days = [date(2026, 9, 1), date(2026, 9, 2), date(2026, 9, 3), None]
    assert [leg.since for leg in legs] == days
    assert read(tmp_path, as_strategies_file(legs)) == legs


def test_an_aliased_leg_has_the_priority_of_each_strategy_unless_it_has_its_own(tmp_path):
    (tmp_path / "s.yaml").write_text(
        "strategies:\n"
        "- strategy_id: a\n"
        "  priority: 3\n"
        "  legs: &legs\n"
        "  - {conid: 1, symbol: SPY, quantity: 1}\n"
        "  - {conid: 2, symbol: SPY, quantity: 1, priority: 7}\n"
        "- {strategy_id: b, priority: 2, legs: *legs}\n"
    )
    legs = load_strategies(tmp_path / "s.yaml")
    assert [leg.strategy_id for leg in legs] == ["a", "a", "b", "b"]
    assert [leg.conid for leg in legs] == [1, 2, 1, 2]
    assert [leg.priority for leg in legs] == [3, 7, 2, 7]


def test_a_file_that_is_too_large_is_refused(tmp_path):
    with (tmp_path / "s.yaml").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(StrategiesFileError, match="more than 4 MB"):
        load_strategies(tmp_path / "s.yaml")


def test_an_alias_of_what_is_around_it_is_refused(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("strategies: &all\n  - {strategy_id: a, legs: *all}\n")
    with pytest.raises(StrategiesFileError, match=r"line 2, column \d+"):
        load_strategies(path)


def test_aliases_that_repeat_more_than_a_file_may_hold_are_refused_with_their_line(tmp_path):
    legs = ", ".join("*legs" for _ in range(1000))
    many = ", ".join("*many" for _ in range(1000))
    path = tmp_path / "s.yaml"
    path.write_text(
        "strategies:\n"
        "- {strategy_id: a, legs: &legs [{conid: 1, symbol: SPY}]}\n"
        f"- {{strategy_id: b, legs: &many [{legs}]}}\n"
        f"- {{strategy_id: c, legs: [{many}]}}\n"
    )
    with pytest.raises(StrategiesFileError, match=r"line 4, .* aliases in it .* over 500,000"):
        load_strategies(path)


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(StrategiesFileError, match="not a regular file"):
            load_strategies(path)


LIMITS = """\
strategies:
  - strategy_id: condor
    limits:
      currency: USD
      unrealized_pnl: {min: -1500}
      dollar_delta:
        min: -5e4
        max: 50000
      days_to_expiry: {min: 7}
    legs:
      - {conid: 700001, symbol: SPY}
  - strategy_id: other
    legs: []
    limits: ~
accounts:
  - account: DU1234567
    limits: {missing_legs: {max: 0}}
"""


def limits_of(tmp_path, text):
    read(tmp_path, text)
    return saved_limits(tmp_path / "strategies.yaml")


def test_limits_are_read_in_the_order_of_the_file(tmp_path):
    limits = limits_of(tmp_path, LIMITS)
    *of_condor, of_account = limits
    assert [limit.strategy_id for limit in of_condor] == ["condor"] * 4
    assert [limit.account for limit in of_condor] == [None] * 4
    measures = [limit.measure for limit in of_condor]
    assert measures == ["unrealized_pnl", "dollar_delta", "dollar_delta", "days_to_expiry"]
    assert [limit.bound for limit in of_condor] == [Bound.MIN, Bound.MIN, Bound.MAX, Bound.MIN]
    assert [limit.value for limit in of_condor] == [-1500.0, -50000.0, 50000.0, 7.0]

    assert of_account.strategy_id is None
    assert of_account.account == "DU1234567"
    assert of_account.measure == Measure.MISSING_LEGS
    assert of_account.bound == Bound.MAX
    assert of_account.value == 0.0
    assert [limit.currency for limit in limits] == ["USD", "USD", "USD", None, None]
    assert len(load_strategies(tmp_path / "strategies.yaml")) == 1


OF_KINDS = """\
strategies:
  - strategy_id: condor
    limits: {reached: {max: 0.8}}
    legs: []
  - rule: weeklies
    match: {side: short}
  - kinds: [iron-condor, single]
    limits: {reached: {max: 0.5}, days_to_expiry: {min: 21}}
"""


def test_the_limits_of_kinds_are_those_of_each_strategy_that_says_nothing_else(tmp_path):
    limits = limits_of(tmp_path, OF_KINDS)
    assert [limit.strategy_id for limit in limits] == ["condor"] * 2 + ["weeklies"] * 2
    measures = [limit.measure for limit in limits]
    assert measures == ["reached", "days_to_expiry", "days_to_expiry", "reached"]
    assert [limit.value for limit in limits] == [0.8, 21.0, 21.0, 0.5]
    assert limits[0].kinds == frozenset()
    assert limits[1].kinds == {"iron-condor", *SINGLES}


def test_a_file_may_have_no_strategies_and_no_limits(tmp_path):
    assert read(tmp_path, "strategies: []\n") == []
    assert limits_of(tmp_path, "strategies: []\n") == []


def test_the_examples_of_the_page_are_read(tmp_path):
    page = Path(__file__).parents[4] / "docs" / "limits.md"
    (example,) = re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
    limits = limits_of(tmp_path, example)
    assert {limit.measure for limit in limits} == set(Measure), "it shows every measure"
    for measure in Measure:
        assert f"| `{measure}` |" in page.read_text()


def test_the_whole_file_of_the_page_is_read(tmp_path):
    page = Path(__file__).parents[4] / "docs" / "strategies.md"
    (example,) = re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
    assert [kind for kind in KINDS if f"`{kind}`" not in page.read_text()] == []
    file = tmp_path / "strategies.yaml"
    file.write_text(example)
    whole = RuledFile(file)
    assert [leg.strategy_id for leg in whole.legs(NOW)] == ["qqq-spread"] * 2
    assert [rule.name for rule in whole.rules] == ["hedges"]
    limited = {limit.account or limit.strategy_id for limit in whole.limits()}
    assert limited == {"qqq-spread", "hedges", "DU1234567"}
    assert whole.wanted.messages.quiet is not None
    assert set(whole.wanted.of_strategies) == {"qqq-spread"}
