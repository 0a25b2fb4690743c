"""The plan of a claimed batch."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from position_sync_dagster.domain.holding import (
    Answer,
    PriceKind,
    QueuedPosition,
    QueueStatus,
    Source,
    ValueOrigin,
)
from position_sync_dagster.domain.valuation import Provenance
from position_sync_dagster.sync.drain import BrokerView, match_holdings, own_ids, plan_batch
from tests.support.holdings import make_holding

NOW = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)


def holding(account, conid, position=1.0):
    return make_holding(
        conid, NOW, account=account, position=position, market_price=2.0, market_value=200.0,
        value_source=ValueOrigin.PORTFOLIO,
    )  # fmt: skip


def request(conid, account=None, request_id=None):
    return QueuedPosition(
        request_id or f"r{conid}", conid, "SPY", 2, QueueStatus.PROCESSING, NOW, NOW,
        account=account,
    )  # fmt: skip


HOLDINGS = [holding("A", 1), holding("B", 1), holding("A", 2, 0.0)]
COMPLETE = BrokerView(holdings={h.key: h for h in HOLDINGS}, complete=True)
PARTIAL = replace(COMPLETE, complete=False)


def test_a_request_without_an_account_is_answered_by_each_account_that_holds():
    assert [h.account for h in match_holdings(request(1), COMPLETE)] == ["A", "B"]
    assert [h.account for h in match_holdings(request(1, "B"), COMPLETE)] == ["B"]


def test_an_absent_holding_is_not_held_only_if_the_view_is_complete():
    assert match_holdings(request(9), COMPLETE) == ()
    assert match_holdings(request(9), PARTIAL) is None
    assert match_holdings(request(1, "C"), PARTIAL) is None


def plan(batch, view=COMPLETE, newest=None, now=NOW, written=()):
    return plan_batch(
        batch, view, newest or {}, now=now, written=written,
        provenance=Provenance(run_id="run"), keep=timedelta(minutes=57),
    )  # fmt: skip


def test_a_batch_becomes_rows_and_marks():
    done = plan([request(1), request(2), request(9)])
    assert (tuple(done.answers), done.not_held, done.not_covered) == (("r1", "r2"), ["r9"], [])
    assert [(r.account, r.conid, r.request_id) for r in done.rows] == [
        ("A", 1, "r1"), ("B", 1, "r1"), ("A", 2, "r2"),
    ]  # fmt: skip
    assert {(r.run_id, r.source) for r in done.rows} == {("run", "QUEUE")}
    assert done.rows[2].market_value == 0.0


def test_a_batch_written_again_has_the_same_update_ids_and_no_two_are_alike():
    first, again = (plan([request(1), request(2)]) for _ in range(2))
    assert [r.update_id for r in first.rows] == [r.update_id for r in again.rows]
    assert len({r.update_id for r in first.rows}) == 3
    assert plan([request(1, request_id="other")]).rows[0].update_id != first.rows[0].update_id


def test_rows_written_later_have_later_ids():
    earlier = plan([replace(request(1), created_at=NOW - timedelta(seconds=1))])
    assert earlier.rows[0].update_id < plan([request(1)]).rows[0].update_id


def test_a_holding_whose_value_is_too_old_is_not_covered():
    old = replace(COMPLETE, unconfirmed=frozenset({("A", 1), ("A", 2)}))
    assert match_holdings(request(1), old) is None
    assert match_holdings(request(1, "B"), old)
    assert match_holdings(request(2), old)  # closed: its value is zero


def known(**changes):
    """Return the row that a drain wrote of the first holding two minutes ago."""
    (row,) = plan([request(1, "A", "before")], now=NOW - timedelta(minutes=2)).rows
    return {("A", 1): replace(row, **changes)}


def confirmed(**changes):
    """Return a view in which the broker has just confirmed the first holding."""
    first = replace(HOLDINGS[0], confirmed_at=NOW, **changes)
    return replace(COMPLETE, holdings=COMPLETE.holdings | {("A", 1): first})


def test_a_row_that_says_the_same_answers_the_request_and_the_broker_has_confirmed_it():
    done = plan([request(1, "A")], confirmed(), newest=known(update_id="u"))
    assert (done.rows, tuple(done.answers)) == ([], ("r1",))
    assert done.answers == {"r1": Answer(update_id="u", confirmed_at=NOW)}


@pytest.mark.parametrize(
    "change",
    [
        {"position": 2.0},
        {"market_value": 200.01},
        {"market_value": None},
        {"average_cost": 1.0},
        {"realized_pnl": 0.0},
        {"daily_pnl": 1.0},
        {"value_source": ValueOrigin.PNL_SINGLE},
        {"gateway_id": "another"},
    ],
)
def test_whatever_a_reader_could_use_makes_a_row(change):
    done = plan([request(1, "A")], confirmed(**change), newest=known())
    (row,) = done.rows
    assert done.answers["r1"].update_id == row.update_id != known()[("A", 1)].update_id


@pytest.mark.parametrize(
    "change",
    [
        {"source": Source.STREAM},
        {"bid": 1.9},
        {"price_kind": PriceKind.MARK},
        {"timestamp": NOW - timedelta(minutes=58)},
        {"timestamp": NOW + timedelta(hours=1)},
    ],
)
def test_a_row_of_a_line_an_old_one_and_one_of_a_wrong_clock_answer_nothing(change):
    assert len(plan([request(1, "A")], confirmed(), newest=known(**change)).rows) == 1


def test_each_account_of_a_request_has_its_own_answer():
    done = plan([request(1)], confirmed(), newest=known(update_id="u"))
    assert [row.account for row in done.rows] == ["B"]
    assert done.answers["r1"].update_id == "u"


def test_a_row_that_the_stream_wrote_after_it_published_answers_the_request():
    view = replace(confirmed(), captured={"s": NOW - timedelta(minutes=3)})
    row = known(source=Source.STREAM, session_id="s", market_value=1.0, update_id="u")
    assert plan([request(1, "A")], view, newest=row).answers["r1"].update_id == "u"
    later = replace(view, captured={"s": NOW - timedelta(minutes=1)})
    another = replace(view, captured={"another": NOW - timedelta(minutes=3)})
    assert len(plan([request(1, "A")], later, newest=row).rows) == 1
    assert len(plan([request(1, "A")], another, newest=row).rows) == 1


def test_two_requests_of_one_holding_in_a_batch_need_one_row():
    done = plan([request(1, "A", "first"), request(1, "A", "second")])
    assert [row.request_id for row in done.rows] == ["first"]
    assert tuple(done.answers) == ("first", "second")
    assert done.answers["first"] == done.answers["second"]


def test_the_row_that_a_killed_worker_wrote_answers_its_request_also_after_a_newer_row():
    (own,) = plan([request(1, "A")], confirmed()).rows
    newest = known(update_id="of another", market_value=1.0)
    for view in (confirmed(), confirmed(market_value=1.0)):
        done = plan([request(1, "A")], view, newest=newest, written={own.update_id})
        assert (done.rows, tuple(done.answers)) == ([], ("r1",))
        assert done.answers == {"r1": Answer(update_id=own.update_id, confirmed_at=None)}


def test_the_row_that_a_killed_worker_wrote_is_confirmed_while_it_is_the_newest():
    (own,) = plan([request(1, "A")], confirmed(), now=NOW - timedelta(minutes=1)).rows
    done = plan(
        [request(1, "A")], confirmed(), newest={("A", 1): own}, written={own.update_id}
    )  # fmt: skip
    assert done.answers == {"r1": Answer(update_id=own.update_id, confirmed_at=NOW)}


@pytest.mark.parametrize("newest", [{}, "own"])
def test_a_holding_that_closed_after_the_row_of_a_killed_worker_gets_its_zero_row(newest):
    """The request of the close is the same one: it was still live."""
    (own,) = plan([request(1, "A")]).rows
    newest = newest and {("A", 1): own}
    closed = replace(COMPLETE, holdings={("A", 1): replace(HOLDINGS[0], position=0.0)})
    later = NOW + timedelta(minutes=1)
    done = plan([request(1, "A")], closed, newest, later, {own.update_id})
    assert [(row.position, row.request_id) for row in done.rows] == [(0.0, "r1")]
    assert done.answers == {"r1": Answer(update_id=own.update_id, confirmed_at=None)}
    # Of a second kill too, the row is found.
    known = {("A", 1): done.rows[0]}
    assert plan([request(1, "A")], closed, known, later, {own.update_id}).rows == []


def test_only_a_request_that_is_older_than_the_newest_row_may_have_a_row_of_its_own():
    since = NOW - timedelta(hours=1)
    before, after = (
        {("A", 1): replace(known()[("A", 1)], timestamp=request(1).created_at + age)}
        for age in (timedelta(minutes=-6), timedelta(seconds=1))
    )
    assert own_ids([request(1, "A")], COMPLETE, before, since) == []
    assert own_ids([request(1, "A")], COMPLETE, {}, since) == []
    assert own_ids([request(1, "A")], COMPLETE, after, since) == [
        plan([request(1, "A")]).rows[0].update_id
    ]
    of_yesterday = replace(request(1, "A"), created_at=NOW - timedelta(days=1))
    assert len(own_ids([of_yesterday], COMPLETE, {}, since)) == 1
