"""The plan of a claimed batch."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from position_sync_dagster.domain.broker_position import BrokerPosition
from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.domain.pricing.valuation import Provenance
from position_sync_dagster.domain.request import QueuedPosition, QueueStatus
from position_sync_dagster.sync.drain.batch_plan import Outcome, match_holdings, plan_batch
from position_sync_dagster.sync.drain.broker_view import BrokerView

NOW = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)


def holding(account, conid, position=1.0):
    return BrokerPosition(
        gateway_id="g", account=account, position=position, received_at=NOW, position_time=NOW,
        snapshot_id="s", market_price=2.0, market_value=200.0,
        instrument=Instrument(conid=conid, symbol="SPY", sec_type="OPT", currency="USD"),
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
    assert [h.account for h in match_holdings(request(1), COMPLETE).holdings] == ["A", "B"]
    assert [h.account for h in match_holdings(request(1, "B"), COMPLETE).holdings] == ["B"]


def test_an_absent_holding_is_not_held_only_if_the_view_is_complete():
    assert match_holdings(request(9), COMPLETE).outcome is Outcome.NOT_HELD
    assert match_holdings(request(9), PARTIAL).outcome is Outcome.NOT_COVERED
    assert match_holdings(request(1, "C"), PARTIAL).outcome is Outcome.NOT_COVERED


def plan(batch, view=COMPLETE, batch_id="b"):
    return plan_batch(batch, view, batch_id=batch_id, now=NOW, provenance=Provenance(run_id="run"))


def test_a_batch_becomes_rows_and_marks():
    done = plan([request(1), request(2), request(9)])
    assert (done.valued, done.not_held, done.not_covered) == (("r1", "r2"), ("r9",), ())
    assert [(r.account, r.conid, r.request_id) for r in done.rows] == [
        ("A", 1, "r1"), ("B", 1, "r1"), ("A", 2, "r2"),
    ]  # fmt: skip
    assert {(r.batch_id, r.run_id, r.source) for r in done.rows} == {("b", "run", "QUEUE")}
    assert done.rows[2].market_value == 0.0


def test_a_batch_written_again_has_the_same_update_ids_and_no_two_are_alike():
    first, again = plan([request(1), request(2)]), plan([request(1), request(2)], batch_id="c")
    assert [r.update_id for r in first.rows] == [r.update_id for r in again.rows]
    assert len({r.update_id for r in first.rows}) == 3
    assert plan([request(1, request_id="other")]).rows[0].update_id != first.rows[0].update_id


def test_rows_written_later_have_later_ids():
    earlier = plan([replace(request(1), created_at=NOW - timedelta(seconds=1))])
    assert earlier.rows[0].update_id < plan([request(1)]).rows[0].update_id


def test_a_holding_whose_value_is_too_old_is_not_covered():
    old = replace(COMPLETE, unconfirmed=frozenset({("A", 1), ("A", 2)}))
    assert match_holdings(request(1), old).outcome is Outcome.NOT_COVERED
    assert match_holdings(request(1, "B"), old).outcome is Outcome.VALUED
    assert match_holdings(request(2), old).outcome is Outcome.VALUED  # closed: its value is zero
