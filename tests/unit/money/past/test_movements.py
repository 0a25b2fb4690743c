"""Which movements count: one rule for statements, the gateway, and what follows from closes."""

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from position_sync_dagster.money.past.movements import (
    Movement,
    MovementKind,
    MovementSource,
    Section,
    StatedSection,
    counting_movements,
)

MONDAY = date(2026, 3, 2)
TUESDAY = date(2026, 3, 3)
WEDNESDAY = date(2026, 3, 4)


def stated_at(day: int) -> datetime:
    return datetime(2026, 3, day, 6, tzinfo=UTC)


def stated(name: str, day: date = MONDAY, *, file: str, made: int, **fields: object) -> Movement:
    usual = {
        "movement_id": f"{file}:{name}", "kind": MovementKind.TRADE, "section": Section.TRADES,
        "account": "U1", "conid": 1, "quantity": 1.0, "transaction_id": name,
        "source": MovementSource.STATEMENT,
    }  # fmt: skip
    at = {"day": day, "session_date": day, "statement": file, "stated_at": stated_at(made)}
    at |= {"stated_first": day, "stated_last": day}
    return Movement(**(usual | at | fields))  # type: ignore[arg-type]


def of_gateway(execution_id: str, day: date = MONDAY) -> Movement:
    movement = stated("", day, file="", made=1, execution_id=execution_id, transaction_id=None)
    source = MovementSource.API
    return replace(movement, movement_id=execution_id, source=source, statement=None)


def covered(
    file: str, made: int, first: date = MONDAY, last: date | None = None, **fields: object
) -> StatedSection:
    usual = {"account": "U1", "section": Section.TRADES, "first": first, "last": last or first}
    at = {"statement": file, "stated_at": stated_at(made)}
    return StatedSection(**(usual | at | fields))  # type: ignore[arg-type]


def names(movements: list[Movement]) -> list[str]:
    return [movement.movement_id for movement in movements]


def test_what_judges_closes_and_keeps_movements_loads_no_parser_of_statements() -> None:
    code = (
        "import sys, position_sync_dagster.money.past.explain_closes as _; "
        "print([name for name in sys.modules if 'money.past.flex' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_the_newest_statement_of_a_day_names_no_more_is_gone() -> None:
    old = [stated("a", file="old", made=3), stated("b", file="old", made=3)]
    new = [stated("a", file="new", made=4, quantity=2.0)]
    counting = counting_movements([*old, *new], [covered("old", 3), covered("new", 4)])
    assert names(counting) == ["new:a"]
    assert counting_movements(old, [covered("old", 3), covered("new", 4)]) == []


def test_a_section_that_the_newest_statement_lacks_says_nothing() -> None:
    old = stated("a", file="old", made=3)
    cash = covered("new", 4, section=Section.CASH)
    assert counting_movements([old], [covered("old", 3), cash]) == [old]


def test_a_statement_of_another_day_or_account_says_nothing() -> None:
    old = stated("a", file="old", made=3)
    others = [covered("new", 4, TUESDAY), covered("new", 4, account="U2")]
    assert counting_movements([old], [covered("old", 3), *others]) == [old]


def test_equal_rows_of_one_statement_are_several_bookings() -> None:
    fee = stated("", file="f", made=3, transaction_id=None, event_id="hash")
    twice = [fee, replace(fee, movement_id="second")]
    assert len(counting_movements(twice, [covered("f", 3)])) == 2


def test_an_execution_counts_that_was_made_after_the_statement_of_its_day() -> None:
    during_the_day = covered("f", 2)
    before = replace(of_gateway("a"), at=stated_at(2) - timedelta(minutes=1))
    after = replace(of_gateway("b"), at=stated_at(2) + timedelta(minutes=1))
    assert counting_movements([before, after], [during_the_day]) == [after]
    inferred = replace(after, source=MovementSource.INFERRED)
    assert counting_movements([inferred, of_gateway("c")], [during_the_day]) == []


def test_the_gateway_counts_until_a_statement_covers_the_day() -> None:
    movement = of_gateway("0000e1.01")
    assert counting_movements([movement], [covered("f", 4, TUESDAY)]) == [movement]
    assert counting_movements([movement], [covered("f", 4)]) == []


def test_a_trade_of_the_evening_counts_once_under_the_day_of_the_statement() -> None:
    evening = of_gateway("0000e1.01", MONDAY)
    booked = stated("t", TUESDAY, file="f", made=4, execution_id="0000e1.02")
    counting = counting_movements([evening, booked], [covered("f", 4, TUESDAY)])
    assert counting == [booked]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([("0001.01.01", 1, None), ("0001.01.02", 1, None)], "0001.01.02"),
        ([("0001.01.10", 1, None), ("0001.01.9", 2, None)], "0001.01.10"),
        ([("0001.01", 1, -1.3), ("0001.01", 2, None)], -1.3),
        ([("0001.01", 2, -2.0), ("0001.01", 1, -1.3)], -2.0),
    ],
)
def test_of_several_answers_of_the_gateway_the_newest_revision_with_a_fee_counts(
    answers, expected
) -> None:
    movements = [
        replace(of_gateway(name), stated_at=stated_at(made), fee=fee) for name, made, fee in answers
    ]
    for rows in (movements, movements[::-1]):
        [movement] = counting_movements(rows, [])
        assert expected in (movement.execution_id, movement.fee)


def test_parts_of_an_allocated_order_with_one_id_count_in_each_account() -> None:
    parts = [replace(of_gateway("0001.01.01"), account=account) for account in ("U1", "U2")]
    assert len(counting_movements([*parts, of_gateway("77"), of_gateway("78")], [])) == 4


def test_what_was_booked_late_counts_once_in_its_newest_wording() -> None:
    first = stated("t", MONDAY, file="tuesday", made=4)
    again = stated("t", MONDAY, file="week", made=5, quantity=3.0)
    days = [covered("tuesday", 4, TUESDAY), covered("week", 5, TUESDAY, WEDNESDAY)]
    assert counting_movements([first, again], days) == [again]


def test_what_was_booked_late_is_gone_if_a_newer_statement_of_its_day_does_not_name_it() -> None:
    late = stated("t", MONDAY, file="tuesday", made=4)
    before = covered("monday", 3)
    after = covered("again", 5)
    assert counting_movements([late], [before, covered("tuesday", 4, TUESDAY)]) == [late]
    assert counting_movements([late], [before, covered("tuesday", 4, TUESDAY), after]) == []


def test_the_end_of_an_option_in_two_sections_counts_once() -> None:
    trade = stated("t", file="f", made=3, kind=MovementKind.ASSIGNMENT)
    event = stated(
        "e", file="f", made=3, kind=MovementKind.ASSIGNMENT, section=Section.OPTION_EVENTS,
        quantity=-1.0,
    )  # fmt: skip
    days = [covered("f", 3), covered("f", 3, section=Section.OPTION_EVENTS)]
    assert counting_movements([event, trade], days) == [trade]
    other = replace(event, conid=2)
    assert counting_movements([other, trade], days) == [other, trade]


@pytest.mark.parametrize("is_bought_back", [True, False])
@pytest.mark.parametrize("accounts", [("U1",), ("U1", "U2")])
@pytest.mark.parametrize("has_trade", [True, False])
def test_an_assignment_counts_once_beside_another_end_of_as_many_two_days_before(
    is_bought_back, accounts, has_trade
) -> None:
    """Of two contracts short, one is bought back or assigned on Monday, one assigned later."""
    monday: list[Movement] = []
    wednesday: list[Movement] = []
    first = MovementKind.TRADE if is_bought_back else MovementKind.ASSIGNMENT
    for account in accounts:
        usual = {"account": account, "made": 3, "file": "m"}
        monday.append(stated("m", kind=first, **usual))
        event = {"section": Section.OPTION_EVENTS, "kind": MovementKind.ASSIGNMENT}
        if not is_bought_back:
            monday.append(stated("me", **usual | event))
        usual |= {"day": WEDNESDAY, "made": 5, "file": "w"}
        wednesday.append(stated("we", **usual | event))
        if has_trade:
            wednesday.append(stated("w", **usual | {"kind": MovementKind.ASSIGNMENT}))

    sections = [
        covered("m", 3, account=account, section=section)
        for account in accounts
        for section in (Section.TRADES, Section.OPTION_EVENTS)
    ]
    sections += [
        covered("w", 5, WEDNESDAY, account=account, section=section)
        for account in accounts
        for section in (Section.TRADES, Section.OPTION_EVENTS)
        if has_trade or section is Section.OPTION_EVENTS
    ]

    def ends(movements: list[Movement]) -> list[str]:
        return sorted(movement.account + movement.movement_id for movement in movements)

    wanted = sorted(
        account + name for account in accounts for name in ("m:m", "w:w" if has_trade else "w:we")
    )
    at_once = counting_movements([*monday, *wednesday], sections)
    assert ends(at_once) == wanted
    assert ends(counting_movements(at_once, sections)) == wanted
    of_monday = counting_movements(monday, sections)
    in_turn = counting_movements([*of_monday, *wednesday], sections)
    assert ends(in_turn) == wanted
    assert ends(counting_movements(in_turn, sections)) == wanted


def test_what_follows_from_a_close_counts_until_a_statement_names_trades_or_events() -> None:
    inferred = replace(
        of_gateway("", MONDAY), movement_id="i", execution_id=None, source=MovementSource.INFERRED,
        section=Section.OPTION_EVENTS,
    )  # fmt: skip
    assert counting_movements([inferred], []) == [inferred]
    assert counting_movements([inferred], [covered("f", 3)]) == []
    events = covered("f", 3, section=Section.OPTION_EVENTS)
    assert counting_movements([inferred], [events]) == []
