"""Alert messages about failed checks: pure functions decide which are due, `deliver` sends them.

One message is sent when a check fails, and another when it passes again. A message is kept until
it is sent. apprise sends it to the receivers in the settings.
"""

import logging
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from pydantic import AwareDatetime, SecretStr

from position_sync_dagster.domain.clock import Clock, elapsed, has_come
from position_sync_dagster.errors import MissingExtraError

# How long a receiver that could not be reached is left alone; the others are not.
RETRY = timedelta(minutes=1)

# No delivery begins later in a tick: Dagster ends one after a minute.
BEGUN_WITHIN = timedelta(seconds=25)

# Maximum length of a description in a message, in characters; the check's page shows all of it.
LONGEST_TEXT = 600

SECONDS = "%Y-%m-%d %H:%M:%S"

# Maximum number of messages that wait for their delivery; beyond it the oldest are dropped.
MOST_KEPT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckState:
    """The newest result of one check.

    Attributes:
        name: "asset: check".
        at: When it was evaluated.
        passed: None if nothing could be compared: the check then neither fails nor passes.
        severity: WARN or ERROR.
        what_to_do: "" where the check does not say.
        link: The page of the check.
    """

    name: str
    at: datetime
    passed: bool | None
    severity: str = "WARN"
    description: str = ""
    what_to_do: str = ""
    link: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedCheck:
    """A check that does not pass.

    Attributes:
        since: When it was first seen not to pass.
        told: Whether a message about it was created.
    """

    since: AwareDatetime
    told: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message to people."""

    title: str
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertCursor:
    """The state that one evaluation keeps for the next one.

    Attributes:
        breaks: The checks that do not pass, by name.
        outbox: The messages still to be sent, oldest first, by the index of their receiver in
            POSITION_SYNC_ALERT_URLS; the URLs are secrets and are never stored.
        failing: When to try receivers again that could not be reached, by their index.
    """

    breaks: dict[str, FailedCheck] = field(default_factory=dict)
    outbox: dict[int, tuple[Message, ...]] = field(default_factory=dict)
    failing: dict[int, AwareDatetime] = field(default_factory=dict)


def follow(
    cursor: AlertCursor,
    states: Iterable[CheckState],
    *,
    now: datetime,
    after: timedelta,
    severities: Collection[str],
    receivers: int,
) -> AlertCursor:
    """Return the cursor after the newest results, with the messages that they require.

    Args:
        cursor: The cursor of the last evaluation.
        states: The newest result of each check that has one.
        now: The current time.
        after: How long a check must have failed before a message is sent.
        severities: The severities for which messages are sent.
        receivers: The number of receivers.
    """
    found = {state.name: state for state in states}
    breaks = {name: one for name, one in cursor.breaks.items() if name in found}
    messages: list[Message] = []
    for name, state in found.items():
        known = breaks.get(name) or FailedCheck(since=state.at)
        if state.passed:
            if known.told:
                messages.append(_message(state, known.since))
            breaks.pop(name, None)
        elif state.passed is False:
            lasts = elapsed(known.since, now)
            if not known.told and state.severity in severities and lasts >= after:
                messages.append(_message(state, known.since))
                known = replace(known, told=True)
            breaks[name] = known
    waiting = {n: (*cursor.outbox.get(n, ()), *messages) for n in range(receivers)}
    return AlertCursor(
        breaks=breaks,
        outbox={place: kept[-MOST_KEPT:] for place, kept in waiting.items() if kept},
        failing={place: at for place, at in cursor.failing.items() if place < receivers},
    )


def send_due(
    cursor: AlertCursor, urls: Sequence[SecretStr], clock: Clock
) -> tuple[AlertCursor, int]:
    """Send each receiver the messages that wait for it, all in one.

    Returns:
        The cursor after the deliveries, and how many receivers accepted theirs.
    """
    outbox, failing, sent = dict(cursor.outbox), dict(cursor.failing), 0
    until = clock() + BEGUN_WITHIN
    for place, messages in cursor.outbox.items():
        now = clock()
        if now > until or not has_come(failing.get(place, now), now, RETRY):
            continue
        title, body = together(messages)
        if deliver(urls[place], place, title=title, body=body):
            del outbox[place]
            failing.pop(place, None)
            sent += 1
        else:
            failing[place] = clock() + RETRY
    return replace(cursor, outbox=outbox, failing=failing), sent


def together(messages: Collection[Message]) -> tuple[str, str]:
    """Combine messages into one; return its title and body."""
    if len(messages) == 1:
        (only,) = messages
        return only.title, only.body
    return f"Position Sync: {len(messages)} messages", "\n\n".join(
        f"{message.title}\n{message.body}" for message in messages
    )


def _message(state: CheckState, since: datetime) -> Message:
    """Return the message about a check that fails, or that passes again."""
    if state.passed:
        title, what_to_do = f"Passes again: {state.name}", ""
        when = f"It did not pass from {since:{SECONDS}} to {state.at:{SECONDS}} UTC."
    else:
        title, what_to_do = f"{state.severity}: {state.name}", state.what_to_do
        when = f"Since: {since:{SECONDS}} UTC"
    lines = (
        _short(state.description.removesuffix(what_to_do)),
        when,
        f"What to do: {_short(what_to_do)}" if what_to_do else "",
        state.link,
    )
    return Message(title=title, body="\n".join(filter(None, lines)))


def _short(text: str) -> str:
    text = text.strip()
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"


logger = logging.getLogger(__name__)


def not_understood(urls: Iterable[SecretStr]) -> list[int]:
    """Return the receivers that apprise does not understand, by their number from 1.

    Raises:
        MissingExtraError: The extra `alerts` is not installed.
    """
    with _silent("apprise"):
        try:
            import apprise
        except ImportError as error:
            raise MissingExtraError("apprise", "alerts") from error
        return [
            number
            for number, url in enumerate(urls, 1)
            if not apprise.Apprise().add(url.get_secret_value())
        ]


def deliver(url: SecretStr, place: int, *, title: str, body: str) -> bool:
    """Send one message to one receiver; return whether it was accepted.

    Apprise and its libraries log the URL with its tokens and passwords. Their loggers are silenced
    meanwhile, and an error is logged with the receiver's number in the setting.

    Args:
        url: As apprise understands it.
        place: The index of the URL in POSITION_SYNC_ALERT_URLS, from 0.
        title: The title of the message.
        body: The body of the message, as plain text.
    """
    why = "it did not accept the message"
    with _silent("apprise", "requests", "urllib3"):
        try:
            import apprise

            sender = apprise.Apprise()
            if not sender.add(url.get_secret_value()):
                why = "apprise does not understand it"
            elif sender.notify(title=title, body=body, body_format=apprise.NotifyFormat.TEXT):
                return True
        except ImportError:
            why = str(MissingExtraError("apprise", "alerts"))
        except Exception as error:  # noqa: BLE001 - any service; its text may contain the URL
            why = type(error).__name__
    logger.error("POSITION_SYNC_ALERT_URLS: receiver %d cannot be reached: %s", place + 1, why)
    return False


@contextmanager
def _silent(*names: str) -> Iterator[None]:
    """Silence these loggers and their children, and the warnings of modules that are imported."""
    loggers = [logging.getLogger(name) for name in names]
    before = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, before, strict=True):
            one.setLevel(level)
