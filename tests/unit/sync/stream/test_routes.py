"""Changes of route: what each requires of the stream and of the queue, and how it is logged."""

import logging

import pytest

from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.sync.stream.router import MAX_LINES_LOGGED, Routes

STREAMED, OVERFLOW, MONITORED, CLOSED = (
    LegState.STREAMED, LegState.OVERFLOW, LegState.MONITORED, LegState.CLOSED,
)  # fmt: skip
KEY = ("A", 1)


@pytest.mark.parametrize(
    ("before", "after", "streamed", "closed", "unqueued"),
    [
        (None, STREAMED, True, False, False),
        (OVERFLOW, STREAMED, True, False, False),
        (STREAMED, STREAMED, False, False, False),
        (STREAMED, CLOSED, False, True, False),
        (STREAMED, OVERFLOW, False, False, True),
        (STREAMED, MONITORED, False, False, True),
        (MONITORED, OVERFLOW, False, False, True),
        (OVERFLOW, MONITORED, False, False, False),
        (OVERFLOW, CLOSED, False, False, False),
        (None, OVERFLOW, False, False, False),
        (None, CLOSED, False, False, False),
    ],
)
def test_a_change_of_route_is_for_the_stream_or_for_the_queue(
    before, after, streamed, closed, unqueued
):
    routes = Routes()
    if before is not None:
        routes.update({KEY: before})
        routes.unqueued.clear()
    changes = routes.update({KEY: after})
    assert (KEY in changes.streamed, KEY in changes.closed) == (streamed, closed)
    assert (KEY in routes.unqueued) == unqueued
    assert routes.states == {KEY: after}


def test_a_holding_that_was_not_queued_stays_due_until_it_is_streamed_again():
    routes = Routes()
    routes.update({KEY: STREAMED})
    routes.update({KEY: MONITORED})
    routes.update({KEY: MONITORED})
    assert routes.unqueued == {KEY}
    routes.update({KEY: STREAMED})
    assert routes.unqueued == set()


def test_each_change_is_logged_with_its_reason_also_across_a_reconnect(caplog):
    caplog.set_level(logging.INFO)
    routes = Routes()
    for state in (OVERFLOW, STREAMED, STREAMED, OVERFLOW):
        routes.update({KEY: state})
        routes.log(lambda _conid: " (a reason)")
        routes.clear()
    assert [r.getMessage() for r in caplog.records] == [
        "1 of A: OVERFLOW → STREAMED (a reason)",
        "1 of A: STREAMED → OVERFLOW (a reason)",
    ]


def test_many_changes_at_once_are_summed_up_in_one_line(caplog):
    caplog.set_level(logging.INFO)
    routes = Routes()
    keys = [("A", conid) for conid in range(MAX_LINES_LOGGED + 1)]
    for state in (MONITORED, STREAMED):
        routes.update(dict.fromkeys(keys, state))
        routes.log(lambda _conid: "")
    lines = [r.getMessage() for r in caplog.records]
    assert len(lines) == MAX_LINES_LOGGED + 1
    assert lines[-1] == f"{len(keys)} routes changed: {len(keys)} MONITORED → STREAMED"
