"""The checks of lines, holdings set aside and legs."""

from datetime import UTC, datetime, timedelta

import pytest

from position_sync_dagster.defs.checks import tables
from position_sync_dagster.defs.checks.strategies import legs_are_resolved
from position_sync_dagster.domain.gateway_session import (
    EMPTIED,
    NOT_MANAGED,
    Owner,
    SessionState,
    WeekState,
)
from position_sync_dagster.domain.holding import Source, TradingMode
from position_sync_dagster.domain.leg import make_leg
from position_sync_dagster.gateway.account_feed import describe_odd_rows
from position_sync_dagster.sync.reports.status import read_status
from position_sync_dagster.terminal.board import describe


@pytest.fixture
def live(own_login, lake):
    """Own the login with a detail and lines."""

    def renew(**values):
        session = lake.sessions.current("127.0.0.1:1") or own_login()
        return lake.sessions.renew(session, lease_s=60.0, state=SessionState.LIVE, **values)

    return renew


def test_holdings_set_aside_and_unknown_accounts_are_named_as_the_feed_says_it(check, live):
    odd = describe_odd_rows({("DU1", 7): "quantity 'nan, or (so)'"})
    others = [
        f"account DU2 {EMPTIED}: all 3 are unknown until a second list or trades confirm it",
        f"account DU3 {NOT_MANAGED}: its 4 holdings are unknown",
    ]
    live(detail="; ".join(["account DU4: its download did not end", *others, odd]))
    result = check(tables.holdings_are_usable)
    assert not result.passed
    problems = [record.data["problem"] for record in result.metadata["rows"].records]
    assert problems == [*others, odd]
    assert all(text in result.description for text in problems)
    assert "conid 7 of DU1" in result.description


def test_a_gateway_without_odd_holdings_passes(check, live):
    live(detail="data farm usopt is broken")
    assert check(tables.holdings_are_usable).passed


def test_without_an_owner_nothing_is_known_of_odd_holdings(check, own_login, lake):
    lake.sessions.end(own_login())
    found = check(tables.holdings_are_usable)
    assert (found.passed, found.metadata["unknown"].value) == (False, True)


def test_a_live_login_that_is_due_is_said_by_check_and_status(check, live, lake, settings):
    now = datetime.now(UTC)
    live(gateway_running_since=now - timedelta(days=8))
    assert check(tables.login_is_made).passed, "the trading mode of the lake is unknown"
    lake.sessions.claim_mode(TradingMode.LIVE)
    found = check(tables.login_is_made)
    assert (found.passed, found.metadata["login"].value) == (False, "DUE")
    assert "Its next restart asks for the second factor" in found.description
    status = read_status(lake, settings, now)
    assert [text for text in status.attention if "the login is due" in text]
    session = lake.sessions.current(settings.gateway_id)
    for mode, notice_h in ((TradingMode.PAPER, 24.0), (TradingMode.LIVE, 0.0)):
        assert session.login_week(now, mode, notice_h) is None, "no second factor"
    live(gateway_running_since=None, gateway_started_at=now)
    week = lake.sessions.current(settings.gateway_id).login_week(now, TradingMode.LIVE, 0.001)
    assert ("login", week.text) in describe(
        read_status(lake, settings.model_copy(update={"login_notice_h": 0.001}), now)
    )


def test_an_owner_that_looked_away_does_not_know_whether_the_gateway_was_restarted(own_login, lake):
    now = datetime.now(UTC)
    eight_days_ago = now - timedelta(days=8)
    session = lake.sessions.renew(own_login(), lease_s=60.0, gateway_running_since=eight_days_ago)
    assert session.login_week(now, TradingMode.LIVE, 1.0).state is WeekState.DUE
    ended = lake.sessions.end(session)
    assert ended.login_week(now, TradingMode.LIVE, 1.0).state is WeekState.UNKNOWN
    refresh = own_login(owner=Owner.REFRESH)
    assert refresh.gateway_running_since is None, "the stream after it cannot know either"


def add_legs(lake, *conids: int) -> None:
    for conid in conids:
        lake.registry.sync.add_active(
            conid=conid, symbol="SPY", right="C", strike=500.0, expiry="20281215", strategy_id="s"
        )


def test_lines_near_the_limit_name_the_holdings_without_one(
    check, shown, live, lake, write_holdings, append_row, seconds_ago
):
    session = live(lines_in_use=8, line_limit=10)
    write_holdings(session, 1, 2, 3)
    add_legs(lake, 1, 2)
    append_row(1, seconds_ago(1))
    append_row(2, seconds_ago(1), source=Source.QUEUE)
    assert check(tables.lines_suffice).passed
    # The lines of five underlyings are free for legs.
    live(lines_in_use=10, line_limit=10, underlying_lines=5)
    assert check(tables.lines_suffice).passed
    live(lines_in_use=9, line_limit=10, underlying_lines=0)
    found = check(tables.lines_suffice)
    assert not found.passed
    assert [row["conid"] for row in shown(found)] == [2]
    append_row(2, seconds_ago(0))
    found = check(tables.lines_suffice)
    assert (found.passed, shown(found)) == (False, [])
    assert "9 of 10 lines" in found.description


def test_a_leg_without_its_contract_is_named_with_the_candidates(check, shown, lake):
    now = datetime.now(UTC)
    terms = dict(symbol="SPX", right="P", strike=5000.0, expiry="20281215", strategy_id="hedge")
    leg = make_leg(**terms, added_at=now)
    lake.registry.sync.add_many([leg])
    assert check(legs_are_resolved).passed, "it was not looked up yet"
    lake.registry.sync.settle([(lake.registry.sync.get_unresolved()[0], "SPX or SPXW")])
    found = check(legs_are_resolved)
    assert not found.passed
    (row,) = shown(found)
    assert (row["strategy_id"], row["problem"]) == ("hedge", "SPX or SPXW")


def test_a_leg_that_nobody_looks_up_is_named_after_a_while(check, lake):
    old = datetime.now(UTC) - timedelta(hours=1)
    terms = dict(symbol="SPX", right="P", strike=5000.0, expiry="20281215", strategy_id="hedge")
    lake.registry.sync.add_many([make_leg(**terms, added_at=old)])
    assert not check(legs_are_resolved).passed
