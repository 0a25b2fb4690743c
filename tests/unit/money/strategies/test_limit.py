"""Limits and readings: what breaks a limit, what keeps it, and what says nothing."""

import pytest

from position_sync_dagster.money.strategies.limits import (
    Bound,
    Limit,
    LimitState,
    Measure,
    Reading,
    judge,
)

HOLDS = LimitState.HOLDS
BROKEN = LimitState.BROKEN
UNKNOWN = LimitState.UNKNOWN


def limit(bound: Bound, value: float = 10.0, **values: str) -> Limit:
    subject = values or {"strategy_id": "a"}
    return Limit(measure=Measure.VEGA, bound=bound, value=value, **subject)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bound", "number", "unknown", "at_least", "outcome"),
    [
        ("max", 9.99, "", False, HOLDS),
        ("max", 10.0, "", False, HOLDS),
        ("max", 10.01, "", False, BROKEN),
        ("min", 10.0, "", False, HOLDS),
        ("min", 9.99, "", False, BROKEN),
        ("min", -1e9, "", False, BROKEN),
        ("max", None, "", False, HOLDS),  # nothing to measure
        ("min", None, "", False, HOLDS),
        ("max", None, "why", False, UNKNOWN),
        ("max", 3.0, "why", False, UNKNOWN),
        ("max", 11.0, "why", False, UNKNOWN),
        ("max", 3.0, "why", True, UNKNOWN),
        ("max", 11.0, "why", True, BROKEN),  # the rest only adds to it
        ("min", 3.0, "why", True, UNKNOWN),
        ("max", None, "why", True, UNKNOWN),
    ],
)
def test_only_what_is_known_breaks_or_keeps_a_limit(bound, number, unknown, at_least, outcome):
    reading = Reading(number=number, unknown=unknown, at_least=at_least)
    assert judge(limit(Bound(bound)), reading) is outcome


def test_no_two_limits_have_a_check_of_one_name() -> None:
    limits = [
        limit(bound, strategy_id=name)
        for bound in Bound
        for name in ("a b", "a_b", "a-b", "x" * 200)
    ]
    limits += [limit(Bound.MAX, strategy_id="x" * 201), limit(Bound.MAX, account="a_b")]
    names = {one.name for one in limits}
    assert len(names) == len(limits)
    assert max(map(len, names)) < 140
