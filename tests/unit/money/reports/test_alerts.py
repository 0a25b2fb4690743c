"""What is told of checks, when and how often."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from position_sync_dagster.defs.resources import cursor_of, cursor_text
from position_sync_dagster.money.reports import alerts
from position_sync_dagster.money.reports.alerts import (
    MOST_KEPT,
    RETRY_AFTER,
    AlertCursor,
    CheckState,
    Message,
    follow,
    together,
)

NOW = datetime(2026, 3, 9, 15, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)

BAD = CheckState(
    name="position_queue: requests_are_answered", at=NOW, passed=False,
    description="3 requests are FAILED. Retry them.", what_to_do="Retry them.",
    link="http://ui/check",
)  # fmt: skip
GOOD = replace(BAD, passed=True, description="None failed.", at=NOW + 5 * MINUTE)
UNKNOWN = replace(BAD, passed=None, at=NOW + 4 * MINUTE)


def told(
    cursor: AlertCursor,
    *states: CheckState,
    at: timedelta = timedelta(),
    after: timedelta = timedelta(),
    severities: Sequence[str] = ("WARN", "ERROR"),
    receivers: int = 1,
) -> AlertCursor:
    """Follow results at NOW + `at`, through the text that Dagster stores."""
    cursor = cursor_of(AlertCursor, cursor_text(cursor))
    return follow(
        cursor, states, now=NOW + at, after=after, severities=severities, receivers=receivers
    )


def titles(cursor: AlertCursor) -> list[str]:
    return [message.title for message in waiting(cursor)]


def waiting(cursor: AlertCursor) -> tuple[Message, ...]:
    return cursor.outbox.get(0, ())


def test_a_break_says_what_since_when_what_to_do_and_where() -> None:
    (message,) = waiting(told(AlertCursor(), BAD))
    assert message.title == "WARN: position_queue: requests_are_answered"
    assert message.body.splitlines() == [
        "3 requests are FAILED.",
        "Since: 2026-03-09 15:00:00 UTC",
        "What to do: Retry them.",
        "http://ui/check",
    ]


def test_a_break_is_told_once_however_often_it_is_evaluated() -> None:
    cursor = told(AlertCursor(), BAD)
    again = replace(BAD, at=NOW + MINUTE, description="4 requests are FAILED.")
    assert titles(told(cursor, again, at=MINUTE)) == titles(cursor)


def test_its_end_is_told_once_with_both_times_and_a_new_break_is_told_again() -> None:
    cursor = told(told(AlertCursor(), BAD), GOOD, at=5 * MINUTE)
    assert titles(cursor) == [
        "WARN: position_queue: requests_are_answered",
        "Passes again: position_queue: requests_are_answered",
    ]
    assert "from 2026-03-09 15:00:00 to 2026-03-09 15:05:00 UTC" in waiting(cursor)[1].body
    assert titles(told(cursor, GOOD, at=6 * MINUTE)) == titles(cursor)
    assert len(titles(told(cursor, replace(BAD, at=NOW + 7 * MINUTE), at=7 * MINUTE))) == 3


def test_a_break_that_ends_soon_is_not_told_and_neither_is_its_end() -> None:
    cursor = told(AlertCursor(), BAD, after=MINUTE)
    assert cursor.outbox == {}
    assert told(cursor, GOOD, at=MINUTE / 2, after=MINUTE).outbox == {}
    lasted = told(cursor, replace(BAD, at=NOW + MINUTE), at=MINUTE, after=MINUTE)
    assert "Since: 2026-03-09 15:00:00" in waiting(lasted)[0].body


def test_an_unknown_result_neither_breaks_nor_mends() -> None:
    assert told(AlertCursor(), UNKNOWN).breaks == {}
    cursor = told(AlertCursor(), BAD)
    assert told(cursor, UNKNOWN).breaks == cursor.breaks
    assert len(waiting(told(told(cursor, UNKNOWN), GOOD))) == 2


def test_a_severity_that_is_not_asked_for_is_told_when_it_becomes_one_that_is() -> None:
    cursor = told(AlertCursor(), BAD, severities=["ERROR"])
    assert cursor.outbox == {}
    assert told(cursor, GOOD, severities=["ERROR"]).outbox == {}
    worse = told(cursor, replace(BAD, severity="ERROR"), severities=["ERROR"])
    assert titles(worse) == ["ERROR: position_queue: requests_are_answered"]


def test_a_check_that_is_gone_is_forgotten() -> None:
    assert told(told(AlertCursor(), BAD)).breaks == {}


class Post:
    """Sends messages at NOW + `at`, and records the receiver and the title of each."""

    def __init__(self) -> None:
        self.refusing: set[int] = set()
        self.slow: set[int] = set()
        self.sent: list[tuple[int, str]] = []
        self._deliveries = alerts.Deliveries()

    def begin(
        self, url: SecretStr, place: int, messages: tuple[Message, ...], _now: datetime
    ) -> "Sent":
        self.sent.append((place, together(messages)[0].split(":")[0]))
        return Sent(self, url, place, messages)

    def send(self, cursor: AlertCursor, at: timedelta = timedelta()) -> AlertCursor:
        self.sent.clear()
        urls = [SecretStr("json://example")] * 2
        return self._deliveries.send_due(cursor, urls, lambda: NOW + at)[0]


@dataclass
class Sent:
    """A delivery that the receiver accepts, refuses, or does not end."""

    post: Post
    url: SecretStr
    place: int
    messages: tuple[Message, ...]

    def wait(self, _seconds: float) -> None:
        """Do not wait."""

    def is_accepted(self, _now: datetime) -> bool | None:
        return None if self.place in self.post.slow else self.place not in self.post.refusing


@pytest.fixture
def post(monkeypatch: pytest.MonkeyPatch) -> Post:
    post = Post()
    monkeypatch.setattr(alerts, "Delivery", post.begin)
    return post


def test_what_is_on_its_way_is_not_sent_again_and_what_came_since_follows_it(post: Post) -> None:
    post.slow = {0}
    cursor = post.send(told(AlertCursor(), BAD))
    assert post.sent == [(0, "WARN")]
    cursor = post.send(told(cursor, GOOD, at=MINUTE / 6), MINUTE / 6)
    assert post.sent == []
    assert len(waiting(cursor)) == 2
    post.slow = set()
    cursor = post.send(cursor, MINUTE / 3)
    assert post.sent == [(0, "Passes again")]
    assert cursor.outbox == {}


def test_each_receiver_is_tried_again_by_itself_and_loses_nothing(post: Post) -> None:
    post.refusing = {1}
    cursor = post.send(told(AlertCursor(), BAD, receivers=2))
    assert post.sent == [(0, "WARN"), (1, "WARN")]
    cursor = post.send(told(cursor, GOOD, at=MINUTE / 6, receivers=2), MINUTE / 6)
    assert post.sent == [(0, "Passes again")]
    post.refusing = set()
    cursor = post.send(cursor, RETRY_AFTER)
    assert post.sent == [(1, "Position Sync")], "both messages in one"
    assert cursor.outbox == {}
    post.send(cursor, RETRY_AFTER)
    assert post.sent == []


def test_a_clock_that_was_set_back_holds_up_no_message(post: Post) -> None:
    back = timedelta(hours=-1)
    before = told(AlertCursor(), BAD, after=MINUTE)
    assert before.outbox == {}
    cursor = told(before, BAD, at=back, after=MINUTE)
    assert titles(cursor) == ["WARN: position_queue: requests_are_answered"]
    post.refusing = {0}
    cursor = post.send(post.send(cursor))
    assert post.sent == []
    post.send(cursor, back)
    assert post.sent == [(0, "WARN")]


def test_a_receiver_that_was_removed_is_not_waited_for(post: Post) -> None:
    post.refusing = {0, 1}
    cursor = told(post.send(told(AlertCursor(), BAD, receivers=2)), BAD, receivers=1)
    assert set(cursor.outbox) == {0}
    assert len(waiting(cursor)) == 1


def test_messages_that_cannot_be_sent_are_bounded() -> None:
    cursor = AlertCursor()
    for _ in range(MOST_KEPT):
        cursor = told(told(cursor, BAD), GOOD)
    assert len(waiting(cursor)) == MOST_KEPT


def test_several_messages_are_sent_as_one() -> None:
    outbox = waiting(told(told(AlertCursor(), BAD), GOOD))
    title, body = together(outbox)
    assert title == "Position Sync: 2 messages"
    assert all(message.title in body and message.body in body for message in outbox)


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"breaks": 3}'])
def test_a_cursor_of_another_format_begins_anew(text) -> None:
    assert cursor_of(AlertCursor, text) == AlertCursor()
