"""Delivery through the real apprise, to a receiver on this machine."""

import logging

import pytest
from pydantic import SecretStr

from position_sync_dagster.sync.alerts import deliver
from tests.support.ports import free_port
from tests.support.receiver import PASSWORD, running_receiver


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


def test_other_loggers_write_again_afterwards(caplog) -> None:
    with running_receiver() as receiver:
        deliver(SecretStr(receiver.url), 0, title="t", body="b")
    for name in ("apprise", "urllib3"):
        logging.getLogger(name).warning("%s writes", name)
        assert f"{name} writes" in caplog.text
