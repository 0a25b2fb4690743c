"""The limits in the strategies file: what is right is read, what is wrong is named."""

import re
from pathlib import Path

import pytest

from position_sync_dagster.domain.leg import Bound, Measure
from position_sync_dagster.errors import StrategiesFileError
from position_sync_dagster.lake.strategies_file import load_strategies, saved_limits

GOOD = """\
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


def read(tmp_path, text):
    file = tmp_path / "strategies.yaml"
    file.write_text(text)
    return saved_limits(file)


def test_limits_are_read_in_the_order_of_the_file(tmp_path):
    found = read(tmp_path, GOOD)
    assert [(one.strategy_id, one.account, one.measure, one.bound, one.value) for one in found] == [
        ("condor", None, Measure.UNREALIZED_PNL, Bound.MIN, -1500.0),
        ("condor", None, Measure.DOLLAR_DELTA, Bound.MIN, -50000.0),
        ("condor", None, Measure.DOLLAR_DELTA, Bound.MAX, 50000.0),
        ("condor", None, Measure.DAYS_TO_EXPIRY, Bound.MIN, 7.0),
        (None, "DU1234567", Measure.MISSING_LEGS, Bound.MAX, 0.0),
    ]
    assert [one.currency for one in found] == ["USD", "USD", "USD", None, None]
    assert found[0].place == f"{tmp_path / 'strategies.yaml'}, line 5, column 23"
    assert len(load_strategies(tmp_path / "strategies.yaml")) == 1


def test_a_file_without_limits_has_none(tmp_path):
    assert read(tmp_path, "strategies: []") == []


def one(limits: str) -> str:
    return f"strategies:\n  - strategy_id: a\n    legs: []\n    limits: {limits}\n"


def accounts(*given):
    return "strategies: []\naccounts:\n" + "".join(f"  - {one}\n" for one in given)


LEGS = "{account: A, limits: {missing_legs: {max: 1}}}"


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
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
        (accounts(*[LEGS] * 2), "line 4, column 26", "account A has limits already, in line 3"),
    ],
)
def test_a_mistake_is_named_with_line_and_column_by_every_reader(tmp_path, text, place, says):
    with pytest.raises(StrategiesFileError) as failed:
        read(tmp_path, text)
    assert f"strategies.yaml, {place}: " in str(failed.value)
    assert says in str(failed.value)
    with pytest.raises(StrategiesFileError, match=place):
        load_strategies(tmp_path / "strategies.yaml")


def test_the_examples_of_the_page_are_read(tmp_path):
    page = Path(__file__).parents[3] / "docs" / "limits.md"
    (example,) = re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
    found = read(tmp_path, example)
    assert {one.measure for one in found} == set(Measure), "it shows every measure"
    for measure in Measure:
        assert f"| `{measure}` |" in page.read_text()
