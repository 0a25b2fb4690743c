"""Sends messages to the receivers of the setting, through apprise."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import SecretStr

logger = logging.getLogger(__name__)


def deliver(url: SecretStr, place: int, *, title: str, body: str) -> bool:
    """Send one message to one receiver, and return whether it took it.

    Apprise and what it uses name the URL in their logs, tokens and passwords with it. So they are
    silent meanwhile, and an error is logged by the receiver's place in the setting.

    Args:
        url: As apprise understands it.
        place: Of the URL in POSITION_SYNC_ALERT_URLS, from 0.
        title: Of the message.
        body: Of the message, as plain text.
    """
    why = "it did not take the message"
    with _silent("apprise", "requests", "urllib3"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its plugins import what later Pythons drop
        try:
            import apprise

            sender = apprise.Apprise()
            if not sender.add(url.get_secret_value()):
                why = "apprise does not understand it"
            elif sender.notify(title=title, body=body, body_format=apprise.NotifyFormat.TEXT):
                return True
        except Exception as error:  # noqa: BLE001 - any service; its text may hold the URL
            why = type(error).__name__
    logger.error("POSITION_SYNC_ALERT_URLS: receiver %d cannot be reached: %s", place + 1, why)
    return False


@contextmanager
def _silent(*names: str) -> Iterator[None]:
    """Silence these loggers and those below them, which follow their level."""
    loggers = [logging.getLogger(name) for name in names]
    before = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for one, level in zip(loggers, before, strict=True):
            one.setLevel(level)
