"""The asset `closures`: its page, its check, and the break that asks a person."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import count
from unittest.mock import patch

import pytest
from deltalake import DeltaTable

from position_sync_dagster.money.as_of import Past
from position_sync_dagster.money.campaigns.closes_of_strategies import read_closes
from position_sync_dagster.money.defs.statements import closures
from position_sync_dagster.money.past.explain_closes import BREAKS, CloseExplainer
from position_sync_dagster.money.reports.book import read_book
from position_sync_dagster.settings import Settings
from tests.support import money_rows
from tests.support.facts import store_statement
from tests.support.holdings import make_holding
from tests.support.legs import leg
from tests.support.open_breaks import open_breaks_of
from tests.unit.money.past import test_causes as cases
from tests.unit.money.past.test_causes import (
    ACCOUNT,
    ASKED,
    CALL,
    CHARGED,
    END,
    OTHER,
    booked,
    change,
    fill,
)

AT = datetime.now(UTC) - timedelta(minutes=10)


def test_a_close_whose_cause_is_looked_for_fails_no_check_yet(world, lake):
    lake.position_changes.add([change(OTHER, 1, 0, datetime.now(UTC))])
    (check,) = world.derive(closures).checks.values()
    assert check.passed
    assert [closure.cause for closure in lake.closures.current()] == ["UNEXPLAINED"]


def test_the_log_of_the_table_names_the_run_of_each_commit(lake):
    lake.position_changes.add([change(OTHER, 1, 0, AT)])
    CloseExplainer(lake, run_id="run-1").explain()
    (commit,) = DeltaTable(lake.closures.table.path).history(1)
    assert commit["run_id"] == "run-1"


def test_before_the_first_change_nothing_is_realised_since_the_first_session(world, lake):
    assert read_closes(lake).realized(None, None, "USD") is None
    session = world.own()
    assert read_closes(lake).realized(None, None, "USD") == {
        "realized_pnl": 0, "closes": 0, "closes_without_profit": 0,
        "realized_since": session.started_at,
    }  # fmt: skip
    before = Past(at=session.started_at - timedelta(seconds=1))
    assert read_closes(lake, before).realized(None, None, "USD") is None


def test_the_page_shows_the_closes_and_what_is_unexplained_asks_a_person(world, lake):
    lake.registry.sync.add_active(
        conid=CALL, symbol="SPY", right="CALL", strike=575.0, expiry="20260320", strategy_id="ic"
    )
    at = datetime.now(UTC) + timedelta(minutes=10)
    lake.position_changes.add([change(CALL, 2, 0, at), change(OTHER, 1, 0, AT)])
    lake.executions.add([fill(CALL, -2, at, realized_pnl=74.7, **CHARGED)])
    result = world.materialize(closures)
    assert result.success
    causes = {closure.name: closure.cause for closure in lake.closures.current()}
    assert causes == {"SPY 575C 20Mar26": "TRADED", "SPY 580C 20Mar26": "UNEXPLAINED"}

    closes = read_closes(lake)
    of_strategy = closes.realized("ic", None, "USD")["realized_pnl"]
    assert of_strategy == pytest.approx(300 - 1.3 - 2 * 112), "as the broker states it"
    assert closes.realized("UNATTRIBUTED", None, "USD")["realized_pnl"] is None
    (check,) = result.get_asset_check_evaluations()
    assert not check.passed
    assert "+1 SPY 580C 20Mar26 of DU1" in check.description
    (asked,) = open_breaks_of(lake.breaks, BREAKS)
    assert asked.account == ACCOUNT
    assert asked.conid == OTHER
    assert asked.actual == 1.0

    store_statement(lake, [booked(OTHER, -1, "A;C", AT, stated_at=AT)])
    (check,) = world.derive(closures).checks.values()
    assert check.passed
    assert not open_breaks_of(lake.breaks, BREAKS)
    rows = [
        (judged_close.cause, judged_close.stage)
        for judged_close in lake.closures.records()
        if judged_close.conid == OTHER
    ]
    assert rows == [("UNEXPLAINED", "PROVISIONAL"), ("ASSIGNED", "STATED")]

    counted = [closure.cause for closure in lake.closures.current() if closure.conid == OTHER]
    assert counted == ["ASSIGNED"], "the cause that was judged last"
    first = min(closure.judged_at for closure in lake.closures.records() if closure.conid == OTHER)
    closes = read_closes(lake, Past(at=first))
    assert {*closes.rows["cause"]} == {"TRADED", "UNEXPLAINED"}
    version = lake.closures.table.version()
    world.derive(closures)
    assert lake.closures.table.version() == version


@pytest.mark.parametrize("sec_type", ["BILL", "BOND", "CASH"])
def test_a_bill_that_matured_asks_nobody(world, lake, sec_type):
    lake.position_changes.add([change(cases.SHARES, 5, 0, AT, sec_type=sec_type)])
    (check,) = world.derive(closures).checks.values()
    assert check.passed
    assert not open_breaks_of(lake.breaks, BREAKS)
    assert [closure.cause for closure in lake.closures.current()] == ["UNEXPLAINED"]


@pytest.mark.parametrize(
    ("quantities", "elsewhere", "profit"),
    [
        ([-10.0], 0.0, -381.3),
        ([-10.0], -5.0, -254.2),  # 6.7 of the account
        ([-15.0], -5.0, -381.3),
        ([-4.0, -11.0], -5.0, -381.3),
    ],
)
def test_a_quantity_in_any_account_is_claimed_of_all_of_them(lake, quantities, elsewhere, profit):
    accounts = zip(quantities, (None, ACCOUNT), strict=False)
    legs = [leg(CALL, "ic", quantity=quantity, account=account) for quantity, account in accounts]
    lake.registry.sync.add_many(legs)
    published = make_holding(CALL, AT, account="DU2", position=elsewhere)
    lake.broker_positions.replace("g", [published])
    explainer = CloseExplainer(lake)
    lake.position_changes.add([change(CALL, -10, 0, datetime.now(UTC))])
    explainer.explain([fill(CALL, 10, datetime.now(UTC), realized_pnl=-381.3, **CHARGED)])
    assert read_closes(lake).realized("ic", None, "USD")["realized_pnl"] == pytest.approx(profit)


def test_a_judgement_of_another_process_that_knew_less_and_ended_later_does_not_last(lake):
    """As a derivation that read the executions before the stream stored those of the close."""
    slow = CloseExplainer(lake)
    lake.position_changes.add([change(CALL, 2, 0, AT)])
    judged = []

    def add(ones, run_id) -> int:
        judged.extend(ones)
        return 0

    with patch.object(lake.closures, "add", add):
        slow.explain()
    stream = CloseExplainer(lake)
    stream.explain([fill(CALL, -2, AT)])
    lake.closures.add([replace(one, judged_at=datetime.now(UTC)) for one in judged])
    assert [closure.cause for closure in lake.closures.current()] == ["UNEXPLAINED"]
    assert stream.explain().unexplained == ()
    assert [judged_close.cause for judged_close in lake.closures.current()] == ["TRADED"]


def test_a_cause_that_is_judged_after_the_clock_was_set_back_counts(lake):
    ahead = CloseExplainer(lake, clock=lambda: AT + timedelta(days=1))
    lake.position_changes.add([change(OTHER, 1, 0, AT)])
    ahead.explain()
    store_statement(lake, [booked(OTHER, -1, "A;C", AT, stated_at=AT)])
    assert not CloseExplainer(lake).explain().unexplained
    (counted,) = lake.closures.current()
    assert counted.cause == "ASSIGNED"
    assert counted.stage == "STATED"


def test_a_person_is_asked_about_a_close_also_after_the_clock_was_set_back(lake):
    lake.position_changes.add([change(OTHER, 1, 0, AT)])
    CloseExplainer(lake).explain()
    (asked,) = open_breaks_of(lake.breaks, BREAKS)
    lake.breaks.accept(asked.break_id, by="somebody")
    CloseExplainer(lake, clock=lambda: AT - timedelta(hours=1)).explain()
    (accepted,) = open_breaks_of(lake.breaks, BREAKS)
    assert accepted.break_id == asked.break_id
    assert accepted.state == "ACCEPTED"


def test_a_fact_of_weeks_ago_is_looked_at_although_all_closes_of_its_days_were_settled(lake):
    now = [AT + timedelta(days=20)]
    explainer = CloseExplainer(lake, clock=lambda: now[0])
    lake.position_changes.add([change(CALL, 2, 0, AT)])
    explainer.explain([fill(CALL, -2, AT)])
    assert explainer.explain().rows == 0
    lake.position_changes.add([change(OTHER, 1, 0, AT)])
    assert explainer.explain().rows == 1
    now[0] += timedelta(days=1)
    store_statement(lake, [booked(OTHER, -1, "A;C", AT, stated_at=now[0])])
    assert explainer.explain().rows == 1
    causes = {closure.conid: closure.cause for closure in lake.closures.current()}
    assert causes == {CALL: "TRADED", OTHER: "ASSIGNED"}


def test_an_unexplained_close_of_long_ago_stays_open_until_a_person_accepts_it(lake):
    lake.position_changes.add([change(OTHER, 1, 0, AT)])
    CloseExplainer(lake).explain()
    later = AT + timedelta(days=61)
    explainer = CloseExplainer(lake, clock=lambda: later)
    lake.position_changes.add([change(CALL, 1, 0, later - timedelta(minutes=5))])
    assert [row.conid for row in explainer.explain().unexplained] == [CALL]
    assert {open_break.conid for open_break in open_breaks_of(lake.breaks, BREAKS)} == {OTHER, CALL}


def test_the_price_at_the_end_of_an_index_option_is_that_of_the_greeks_in_the_ledger(lake):
    on_index = cases.details(9, under_conid=cases.INDEX)
    lake.contracts.put([cases.CONTRACTS[cases.INDEX_CALL], on_index])
    passed = count()
    night = cases.NIGHT
    explainer = CloseExplainer(lake, clock=lambda: night + timedelta(microseconds=next(passed)))
    lake.position_changes.add([cases.gone(cases.INDEX_CALL, 1)])

    def cause() -> str:
        explainer.explain(asked=ASKED)
        (closure,) = lake.closures.current()
        return closure.cause

    before = END - timedelta(minutes=1)
    old = {"underlying_price": 5000.0, "greeks_time": END - timedelta(hours=2)}
    row = money_rows.row(9, symbol="SPX", timestamp=before, account=ACCOUNT, **old)
    assert cause() == "UNEXPLAINED"
    lake.updates.sync.append([row])
    assert cause() == "UNEXPLAINED", "the price is old"
    at = before + timedelta(seconds=1)
    lake.updates.sync.append([replace(row, timestamp=at, underlying_price=5700.0, greeks_time=at)])
    assert cause() == "EXPIRED_WORTHLESS"


def test_a_cause_stays_that_another_process_found_while_this_one_judged_without_it(
    lake, monkeypatch
):
    lake.position_changes.add([change(CALL, 2, 0, AT)])
    began = datetime.now(UTC)
    explainer = CloseExplainer(lake, clock=lambda: began)
    facts = explainer._facts

    def facts_after_another(*args):  # which closes are due is read, and none is judged yet
        close_explainer = CloseExplainer(lake, clock=lambda: began - timedelta(seconds=1))
        close_explainer.explain([fill(CALL, -2, AT)])
        return facts(*args)

    monkeypatch.setattr(explainer, "_facts", facts_after_another)
    explainer.explain()
    assert [closure.cause for closure in lake.closures.current()] == ["TRADED"]


def test_what_closed_is_realised_by_underlying_and_by_expiry(lake):
    """A call was closed with a profit; once a close of the same day is unexplained, the sum is."""
    at = datetime.now(UTC)
    lake.position_changes.add([change(CALL, 2, 0, at)])
    CloseExplainer(lake).explain([fill(CALL, -2, at, realized_pnl=40.0)])
    held = dict(symbol="SPY", currency="USD", account=ACCOUNT, market_value=-300.0)
    march, april = date(2026, 3, 20), date(2026, 4, 17)
    rows = [
        money_rows.row(11, **held, expiry=march),
        money_rows.row(12, **held, expiry=april),
        money_rows.row(13, **held | {"symbol": "QQQ"}, expiry=april),
    ]
    lake.updates.sync.append(rows)
    book = read_book(lake, Settings(lake=str(lake.path)), at)
    realized = {sums.name: (sums.realized_pnl, sums.closes) for sums in book.underlyings}
    assert realized == {"SPY": (40.0, 1), "QQQ": (0.0, 0)}
    assert {sums.name: sums.realized_pnl for sums in book.expiries} == {
        "2026-03-20": 40.0, "2026-04-17": 0.0,
    }  # fmt: skip

    lake.position_changes.add([change(OTHER, 1, 0, AT)])
    CloseExplainer(lake).explain()
    book = read_book(lake, Settings(lake=str(lake.path)), datetime.now(UTC))
    assert [sums.realized_pnl for sums in book.underlyings if sums.name == "SPY"] == [None]
