"""All lines of a login: silence says something only while their contracts trade."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from position_sync_dagster.domain.line_allocation import LineLimit
from position_sync_dagster.domain.login_lines import LoginLines
from position_sync_dagster.domain.quote import Quote
from position_sync_dagster.domain.retry import Backoff

START = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)
LIMIT = LineLimit(configured=100, reserve=5, wait=Backoff(first_s=60.0, longest_s=900.0))


class Login:
    """Lines that were requested and ticked at 0 s; `closed` are outside their session."""

    def __init__(self, *conids):
        self.closed: set[Any] = set()
        self.lines = LoginLines(
            session_open=lambda c: c not in self.closed, limit=LIMIT,
            min_hold_s=5.0,
        )  # fmt: skip
        self.now_s = 0.0
        self.bid = 1.0
        for conid in conids:
            self.lines.put(conid, self.lines.line(conid).requested(0.0))
        self.pass_to(0.0, *conids)

    def quote(self, conid):
        at = self.at(self.now_s)
        return Quote(bid=self.bid, ask=2.0, received_at=at, quote_time=at)

    def at(self, now_s):
        return START + timedelta(seconds=now_s)

    def pass_to(self, now_s, *ticked):
        """Pass time; return the lines that are requested again."""
        self.now_s = now_s
        quotes = {conid: self.quote(conid) for conid in ticked}
        self.lines.ticked(quotes, now_s)
        return self.lines.take_due_for_renewal(now_s)

    def renewals(self, first_s, last_s):
        return [(s, c) for s in range(first_s, last_s) for c in self.pass_to(float(s))]


@pytest.fixture
def login():
    return Login(1, 2)


def test_silence_after_a_restore_counts_from_the_opening_of_the_session(login):
    login.lines.happened(lambda line: line.interrupted(1.0, login.at(1.0), "a farm broke"))
    login.closed = {1, 2}
    login.lines.happened(lambda line: line.restored(2.0))
    assert login.renewals(3, 1000) == []
    assert {login.lines.line(c).reason for c in (1, 2)} == {"a farm broke"}
    login.closed = {2}
    assert login.renewals(1000, 1040) == [(1029, 1)]  # it opened right after 999


def test_a_line_that_became_suspect_before_its_session_ended_waits_for_the_next(login):
    login.lines.put(1, login.lines.line(1).doubted(10.0, "why"))
    login.closed = {1, 2}
    assert login.renewals(10, 500) == []
    assert login.lines.suspects() == {"why": [1]}
    login.closed = set()
    assert login.pass_to(500.0) == [1]
