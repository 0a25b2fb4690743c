"""People are told of an outage by the process that watches, once, and of its end."""

from collections.abc import Iterator

import pytest

from position_sync_dagster.dagster_host import services
from position_sync_dagster.dagster_host.services import OutageAlerts
from tests.support.demo_program import wait_for
from tests.support.receiver import PASSWORD, Receiver, running_receiver

TROUBLE = "The daemon (process 7) was killed by signal 9 (SIGKILL)"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setattr(services, "ALERTS_LOOK_S", 0.02)
    with running_receiver() as found:
        monkeypatch.setenv("POSITION_SYNC_ALERT_URLS", found.url)
        monkeypatch.setenv("POSITION_SYNC_ALERT_AFTER_S", "0")
        yield found


@pytest.fixture
def alerts(receiver: Receiver) -> Iterator[OutageAlerts]:
    found = OutageAlerts()
    found.start()
    yield found
    found.end("")


def test_an_outage_is_told_once_and_its_end_once(receiver, alerts):
    alerts.states = {"daemon": TROUBLE, "webserver": ""}
    wait_for("the outage is told", lambda: receiver.messages)
    alerts.states = {"daemon": "", "webserver": ""}
    wait_for("its end is told", lambda: len(receiver.messages) == 2)
    alerts.end("")
    (begun, text), (ended, _) = receiver.taken()
    assert begun == "ERROR: Dagster's daemon"
    assert TROUBLE in text
    assert "position-sync doctor" in text
    assert ended == "Passes again: Dagster's daemon"


def test_what_is_mended_before_people_would_be_told_is_not_told(receiver, alerts, monkeypatch):
    monkeypatch.setenv("POSITION_SYNC_ALERT_AFTER_S", "3600")
    alerts.states = {"daemon": TROUBLE}
    wait_for("it is followed", lambda: alerts._cursor.breaks)
    alerts.states = {"daemon": ""}
    wait_for("it has ended", lambda: not alerts._cursor.breaks)
    alerts.end("")
    assert receiver.asked == 0


def test_that_everything_ends_is_told_at_once(receiver, alerts, monkeypatch):
    monkeypatch.setenv("POSITION_SYNC_ALERT_AFTER_S", "3600")
    alerts.end(f"{TROUBLE}, the 6th time in a row.")
    ((title, text),) = receiver.taken()
    assert title == "ERROR: Dagster"
    assert TROUBLE in text


def test_settings_that_cannot_be_read_are_said_once(alerts, monkeypatch, caplog):
    monkeypatch.setenv("POSITION_SYNC_ALERT_AFTER_S", "soon")
    alerts.states = {"daemon": TROUBLE}
    wait_for("it is said", lambda: caplog.records)
    alerts.end("it ends")
    assert ["No message can be sent" in one.message for one in caplog.records] == [True]
    assert PASSWORD not in caplog.text
