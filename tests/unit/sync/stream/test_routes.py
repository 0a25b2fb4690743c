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
    ("before", "after", "unqueued"),
    [
        (None, STREAMED, False),
        (OVERFLOW, STREAMED, False),
        (STREAMED, STREAMED, False),
        (STREAMED, CLOSED, False),
        (STREAMED, OVERFLOW, True),
        (STREAMED, MONITORED, True),
        (MONITORED, OVERFLOW, True),
        (OVERFLOW, MONITORED, False),
        (OVERFLOW, CLOSED, False),
        (None, OVERFLOW, False),
        (None, CLOSED, False),
    ],
)
def test_a_holding_that_lost_its_line_or_became_active_without_one_is_for_the_queue(
    before, after, unqueued
):
    routes = Routes()
    if before is not None:
        routes.update({KEY: before})
        routes.unqueued.clear()
    assert routes.update({KEY: after}) == ({} if before is after else {KEY: before})
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


def test_changes_are_logged_up_to_a_number(caplog):
    caplog.set_level(logging.INFO)
    routes = Routes()
    keys = [("A", conid) for conid in range(MAX_LINES_LOGGED + 2)]
    for state in (MONITORED, STREAMED, STREAMED):
        routes.log(routes.update(dict.fromkeys(keys, state)))
    lines = [r.getMessage() for r in caplog.records]
    assert len(lines) == MAX_LINES_LOGGED + 1
    assert lines[0] == "0 of A: MONITORED → STREAMED"
    assert lines[-1] == "and 2 more routes changed"
