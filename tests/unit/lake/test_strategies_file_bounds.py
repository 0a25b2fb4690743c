"""A strategies file that no person wrote: it is read in linear time, or refused with a reason."""

import os
from pathlib import Path

import pytest

from position_sync_dagster.domain.leg import make_leg
from position_sync_dagster.errors import StrategiesFileError
from position_sync_dagster.lake.strategies_file import load_strategies


def aliased(legs: int, strategies: int, *, quantity: str = "quantity: 1") -> str:
    """Return a file in which all strategies share one list of legs."""
    lines = ["strategies:", "- strategy_id: s0", "  legs: &legs"]
    lines += [
        f"  - {{conid: {700_000 + i}, symbol: SPY, right: C, strike: 450, expiry: 20260220, "
        f"{quantity}}}"
        for i in range(legs)
    ]
    lines += [f"- {{strategy_id: s{k}, legs: *legs}}" for k in range(1, strategies)]
    return "\n".join(lines)


def test_legs_that_many_strategies_share_are_read_in_linear_time(tmp_path, monkeypatch):
    """Counted, not timed: each node is read once, and each leg is compared with one holder."""
    from position_sync_dagster.lake import strategies_file

    made = []

    def counted(**fields: object) -> object:
        made.append(fields)
        return make_leg(**fields)

    monkeypatch.setattr(strategies_file, "make_leg", counted)
    (tmp_path / "s.yaml").write_text(aliased(200, 100))
    legs = load_strategies(tmp_path / "s.yaml")
    assert len(legs) == 20_000
    assert {leg.strategy_id for leg in legs} == {f"s{k}" for k in range(100)}
    assert len(made) < 20 * 200


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
    found = [
        (leg.strategy_id, leg.conid, leg.priority) for leg in load_strategies(tmp_path / "s.yaml")
    ]
    assert found == [("a", 1, 3), ("a", 2, 7), ("b", 1, 2), ("b", 2, 7)]


def test_more_legs_than_anybody_needs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("position_sync_dagster.lake.strategies_file.MOST_LEGS", 20)
    (tmp_path / "s.yaml").write_text(aliased(10, 3))
    with pytest.raises(StrategiesFileError, match=r"line 4, .*more than 20 legs"):
        load_strategies(tmp_path / "s.yaml")


@pytest.mark.parametrize(
    "text", ["strategies: " + "[" * 200_000, "- " * 5000, "&a [*a]", "? " * 900]
)
def test_deep_nesting_is_refused_at_its_place(tmp_path, text):
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(StrategiesFileError, match="line 1, column"):
        load_strategies(tmp_path / "s.yaml")


def test_a_file_that_is_too_large_is_refused(tmp_path):
    with (tmp_path / "s.yaml").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(StrategiesFileError, match="more than 4 MB"):
        load_strategies(tmp_path / "s.yaml")


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(StrategiesFileError, match="not a regular file"):
            load_strategies(path)
