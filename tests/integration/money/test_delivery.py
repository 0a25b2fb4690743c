"""Delivery through the real apprise, to a receiver on this machine."""

import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr

from position_sync_dagster.money.reports.alerts import (
    SENT_WITHIN,
    AlertCursor,
    Deliveries,
    Delivery,
    Message,
    not_understood,
)
from tests.support.ports import free_port
from tests.support.receiver import PASSWORD, running_receiver, trickling_receiver

pytestmark = pytest.mark.extra

NOW = datetime(2026, 3, 9, 15, 0, tzinfo=UTC)
# Only a program that hangs reaches it.
LONG_S = 120.0


def deliver(url: SecretStr, place: int, *, title: str, body: str) -> bool | None:
    """Deliver one message, and wait for the end."""
    delivery = Delivery(url, place, (Message(title=title, body=body),), NOW)
    delivery.wait(LONG_S)
    return delivery.is_accepted(NOW)


@pytest.fixture(autouse=True)
def _all_lines(caplog):
    caplog.set_level(logging.DEBUG)


def test_a_message_arrives_as_it_is(caplog) -> None:
    with running_receiver() as receiver:
        url = SecretStr(f"{receiver.url}{PASSWORD}/")
        assert deliver(url, 0, title="WARN: x", body="a\nb <c> *d*")
    assert receiver.taken() == [("WARN: x", "a\nb <c> *d*")]
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        f"json://me:{PASSWORD}@127.0.0.1:{{port}}/{PASSWORD}",
        f"nonsense://{PASSWORD}",
        PASSWORD,
        f"slack://{PASSWORD}",
        f"mailto://me:{PASSWORD}@127.0.0.1:{{port}}?smtp=127.0.0.1&mode=insecure",
    ],
)
def test_a_receiver_that_cannot_be_reached_is_logged_by_its_place(url, caplog, capfd) -> None:
    assert not deliver(SecretStr(url.format(port=free_port())), 1, title="t", body="b")
    assert "receiver 2 cannot be reached" in caplog.text
    assert PASSWORD not in caplog.text
    assert PASSWORD not in "".join(capfd.readouterr())


def test_other_loggers_write_again_after_urls_were_examined(caplog) -> None:
    assert not_understood([SecretStr("json://localhost")]) == []
    for name in ("apprise", "urllib3"):
        logging.getLogger(name).warning("%s writes", name)
        assert f"{name} writes" in caplog.text


@pytest.fixture
def trickling() -> Iterator[tuple[str, list[bytes], threading.Event]]:
    with trickling_receiver() as receiver:
        yield receiver


def test_a_receiver_that_never_ends_its_answer_holds_up_no_tick_and_gets_the_message_once(
    trickling, caplog, monkeypatch
) -> None:
    url, asked, is_asked = trickling
    cursor = AlertCursor(outbox={0: (Message(title="WARN: x", body="b"),)})
    deliveries = Deliveries()
    cursor, sent = deliveries.send_due(cursor, [SecretStr(url)], lambda: NOW)
    assert sent == 0, "it is on its way"
    assert len(cursor.outbox[0]) == 1, "it is on its way"
    assert is_asked.wait(LONG_S)
    cursor, sent = deliveries.send_due(cursor, [SecretStr(url)], lambda: NOW + SENT_WITHIN)
    assert sent == 0, "it may still be accepted"
    assert len(cursor.outbox[0]) == 1, "it may still be accepted"

    later = NOW + 2 * SENT_WITHIN
    cursor, sent = deliveries.send_due(cursor, [SecretStr(url)], lambda: later)
    assert sent == 1
    assert cursor.outbox == {}
    assert "receiver 1 did not end its answer within 30 s" in caplog.text
    deliveries.send_due(cursor, [SecretStr(url)], lambda: later)
    assert len(asked) == 1
