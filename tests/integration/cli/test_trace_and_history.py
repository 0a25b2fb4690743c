"""The commands `trace` and `history`, on real tables."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from position_sync_dagster.domain.position_update import Source
from position_sync_dagster.domain.queue_request import Answer, QueueRequest
from position_sync_dagster.lake.schema import content_id, new_ids
from tests.support.command_line import call, json_of, run
from tests.support.holdings import make_row
from tests.support.sessions import own

ACCOUNT = "DUSIM0001"
RUN = "0f4d2a5e-5a1b-4c55-9d1c-6f2d6f0f1a11"
NOW = datetime.now(UTC)
GATEWAY = "127.0.0.1:7497"
MONEY = {"position": -2.0, "market_value": -300.0, "unrealized_pnl": -100.0}
ROW = make_row(7, NOW, ACCOUNT, source=Source.QUEUE, gateway_id=GATEWAY, **MONEY)


@pytest.fixture
def drained(lake):
    """Write what a drain of one request leaves; return the ids of request, row and batch."""
    (request_id,) = lake.queue.sync.insert_many([QueueRequest(7, "SPY", 2, ACCOUNT)])
    session = own(lake, GATEWAY)
    (batch_id,) = new_ids(NOW, 1)
    ids = {"request_id": request_id, "update_id": content_id(NOW, request_id)}
    row = replace(ROW, session_id=session.session_id, run_id=RUN, **ids)
    lake.updates.sync.append([row], batch_id=batch_id)
    lake.queue.sync.mark_success([request_id])
    return {"REQUEST": request_id, "UPDATE": row.update_id, "BATCH": batch_id, "RUN": RUN}


@pytest.mark.parametrize("kind", ["BATCH", "UPDATE", "REQUEST"])
def test_from_any_id_of_a_row_the_others_are_found(drained, kind):
    answer = json_of("trace", drained[kind])
    (row,) = answer["rows"]
    assert row["update_id"] == drained["UPDATE"]
    assert row["batch_id"] == drained["BATCH"]
    assert row["request_id"] == drained["REQUEST"]
    assert row["run_id"] == RUN
    assert [session["session_id"] for session in answer["sessions"]] == [row["session_id"]]
    assert [request["request_id"] for request in answer["requests"]] == [drained["REQUEST"]]
    assert answer["requests"][0]["status"] == "SUCCESS"
    text = run("trace", drained[kind])
    assert all(drained[one] in text for one in ("BATCH", "UPDATE", "REQUEST", "RUN"))


def test_a_request_whose_id_no_row_has_is_shown_without_rows(lake):
    (request_id,) = lake.queue.sync.insert_many([QueueRequest(7, "SPY", 2, ACCOUNT)])
    answer = json_of("trace", request_id)
    assert [request["request_id"] for request in answer["requests"]] == [request_id]
    assert answer["rows"] == []


def test_a_request_that_an_older_row_answers_shows_it_and_when_the_broker_confirmed_it(
    lake, drained
):
    (request_id,) = lake.queue.sync.insert_many([QueueRequest(7, "SPY", 2, ACCOUNT)])
    confirmed = NOW + timedelta(minutes=50)
    answer = Answer(update_id=drained["UPDATE"], confirmed_at=confirmed)
    lake.queue.sync.mark_success([request_id], answers={request_id: answer})
    reply = json_of("trace", request_id)
    assert [row["update_id"] for row in reply["rows"]] == [drained["UPDATE"]]
    (request,) = reply["requests"]
    assert request["request_id"] == request_id
    assert request["update_id"] == drained["UPDATE"]
    text = run("trace", request_id)
    (line,) = [line for line in text.splitlines() if line.startswith(request_id)]
    assert f"{drained['UPDATE']}  {confirmed:%Y-%m-%d %H:%M:%S}" in line


@pytest.mark.parametrize("text", ["no-such-id", "x' OR '1'='1", "%", ""])
def test_an_unknown_id_is_an_error_that_names_it(drained, refuse, text):
    code, message = refuse("trace", text)
    assert code == 2
    assert f"has the id {text!r}" in message


def test_a_batch_has_all_its_rows(lake):
    rows = [replace(ROW, conid=n, update_id=f"row-{n:03}") for n in range(1, 31)]
    lake.updates.sync.append(rows, batch_id="batch-1")
    assert len(json_of("trace", "batch-1")["rows"]) == 30
    assert "rows: 30" in run("trace", "batch-1")


def test_a_history_shows_each_value_and_where_it_came_from(drained):
    (row,) = json_of("history", f"{ACCOUNT}:7")["values"]
    assert row["run_id"] == RUN
    assert row["request_id"] == drained["REQUEST"]
    text = run("history", f"{ACCOUNT}:7")
    assert all(drained[one] in text for one in ("BATCH", "UPDATE", "REQUEST", "RUN"))
    (line,) = [line for line in text.splitlines() if " QUEUE " in line]
    assert line.split()[2:8] == ["-2", "1.50", "-300", "USD", "QUEUE", "NONE"]


def test_a_history_is_bounded_by_its_limit_and_by_a_day(lake):
    times = [NOW - timedelta(days=n) for n in range(3)]
    for at in times:
        lake.updates.sync.append([replace(ROW, timestamp=at)])
    answer = json_of("history", f"{ACCOUNT}:7", "--limit", "2")
    assert answer["more"]
    shown = [datetime.fromisoformat(row["timestamp"]) for row in answer["values"]]
    assert shown == [times[1], times[0]]
    day = times[2].date().isoformat()
    (only,) = json_of("history", f"{ACCOUNT}:7", "--day", day)["values"]
    assert only["date"] == day


def test_a_holding_without_rows_is_an_error_that_names_it(drained, refuse):
    code, message = refuse("history", f"{ACCOUNT}:8")
    assert code == 2
    assert f"{ACCOUNT}:8" in message
    assert call("history", "nonsense").exit_code == 2
