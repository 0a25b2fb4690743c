"""What of expiries and assignments has room beside a book."""

from typing import Any

from position_sync_dagster.web.expiry_answers import MOST_LISTED, most_urgent


def expiring(leg: str, **known: object) -> dict[str, Any]:
    usual = {"is_uncovered": False, "is_pinned": False, "units": 0.0, "cash": 0.0}
    return usual | known | {"leg": leg}


def answer(**lists: list[dict[str, Any]]) -> dict[str, Any]:
    nothing: dict[str, Any] = {"expiries": [], "early_assignments": [], "not_judged": []}
    return nothing | lists


def test_the_most_urgent_comes_first():
    rows = [
        expiring("worthless"),
        expiring("delivered", units=-100.0, cash=57_500.0),
        expiring("pinned", is_pinned=True),
        expiring("not known", is_uncovered=None, is_pinned=None, units=None, cash=None),
        expiring("uncovered", is_uncovered=True, units=-100.0),
    ]
    listed = most_urgent(answer(expiries=rows))["expiries"]
    assert [row["leg"] for row in listed] == [
        "uncovered", "not known", "pinned", "delivered", "worthless",
    ]  # fmt: skip


def test_an_uncovered_leg_is_listed_where_many_others_are_left_out_and_counted():
    rows = [expiring(f"leg {n}", units=100.0) for n in range(MOST_LISTED + 5)]
    rows.append(expiring("uncovered", is_uncovered=True))
    found = most_urgent(answer(expiries=rows, early_assignments=rows, not_judged=[]))
    assert found["expiries"][0]["leg"] == "uncovered"
    assert len(found["expiries"]) == MOST_LISTED
    assert (found["more_expiries"], found["more_early_assignments"]) == (6, 6)


def test_an_option_out_of_the_money_that_was_not_judged_is_no_doubt():
    rows: list[dict[str, Any]] = []
    for leg, in_the_money in (("out", False), ("in", True), ("not known", None)):
        rows.append({"leg": leg, "in_the_money": in_the_money})
    found = most_urgent(answer(not_judged=rows))
    assert [row["leg"] for row in found["not_judged"]] == ["in", "not known"]
    assert found["more_not_judged"] == 0
