"""Alert messages about failed checks: pure functions decide which are due, `Deliveries` sends them.

One message is sent when a check fails, and another when it passes again. A message is kept until
it is sent. apprise sends it to the receivers in the settings, in a program beside the ticks: this
module. It reads the message from its input, since the URL is a secret, and others can read
arguments. What it prints is dropped: apprise and its libraries log the URL.
"""

import fcntl
import json
import logging
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from tempfile import TemporaryFile

from pydantic import AwareDatetime, SecretStr

from position_sync_dagster.dagster_files import dagster_home
from position_sync_dagster.domain.clock import NEVER, Clock, elapsed
from position_sync_dagster.errors import MissingExtraError

# How long a receiver that could not be reached is left alone; the others are not.
RETRY_AFTER = timedelta(minutes=1)

# How long a delivery may take.
SENT_WITHIN = timedelta(seconds=30)

# Seconds for which a tick waits for the deliveries that it began: most end within them.
WAIT_S = 1.0

# The program that sends one message.
SENDER = "position_sync_dagster.money.reports.alerts"

# Maximum length of a description in a message, in characters; the check's page shows all of it.
LONGEST_MESSAGE = 600

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

    @property
    def digest(self) -> str:
        """The hash of its text, which no other message has: it says when something was."""
        return sha256(f"{self.title}\n{self.body}".encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What people were told of what happened (`happenings.py`).

    Attributes:
        keys: Of what was told, as far as it is looked at still; None: nothing was looked at yet.
        versions: Those of the tables at the last look; none while something is left to tell.
    """

    keys: tuple[str, ...] | None = None
    versions: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertCursor:
    """The state that one evaluation keeps for the next one.

    Attributes:
        breaks: The checks that do not pass, by name.
        outbox: The messages still to be sent, oldest first, by the index of their receiver in
            POSITION_SYNC_ALERT_URLS; the URLs are secrets and are never stored.
        told: What happened, and was told.
    """

    breaks: dict[str, FailedCheck] = field(default_factory=dict)
    outbox: dict[int, tuple[Message, ...]] = field(default_factory=dict)
    told: Told = field(default_factory=Told)


def follow(
    cursor: AlertCursor,
    states: Iterable[CheckState],
    *,
    now: datetime,
    after: timedelta,
    severities: Collection[str],
    receivers: int,
    news: Sequence[Message] = (),
) -> AlertCursor:
    """Return the cursor after the newest results, with the messages that they require.

    Args:
        cursor: The cursor of the last evaluation.
        states: The newest result of each check that has one.
        now: The current time.
        after: How long a check must have failed before a message is sent.
        severities: The severities for which messages are sent.
        receivers: The number of receivers.
        news: Messages about what happened.
    """
    newest = {state.name: state for state in states}
    breaks = {name: failed for name, failed in cursor.breaks.items() if name in newest}
    messages = [*news]

    for name, state in newest.items():
        failed = breaks.get(name) or FailedCheck(since=state.at)
        if state.passed:
            if failed.told:
                messages.append(_message(state, failed.since))
            breaks.pop(name, None)
        elif state.passed is False:
            is_wanted = state.severity in severities and not failed.told
            if is_wanted and elapsed(failed.since, now) >= after:
                messages.append(_message(state, failed.since))
                failed = replace(failed, told=True)
            breaks[name] = failed

    outbox = {}
    for receiver in range(receivers):
        waiting = (*cursor.outbox.get(receiver, ()), *messages)
        if waiting:
            outbox[receiver] = waiting[-MOST_KEPT:]
    return AlertCursor(breaks=breaks, outbox=outbox, told=cursor.told)


def together(messages: Collection[Message]) -> tuple[str, str]:
    """Combine messages into one; return its title and body."""
    if len(messages) == 1:
        (only,) = messages
        return only.title, only.body

    bodies = [f"{message.title}\n{message.body}" for message in messages]
    return f"Position Sync: {len(messages)} messages", "\n\n".join(bodies)


def _message(state: CheckState, since: datetime) -> Message:
    """Return the message about a check that fails, or that passes again."""
    if state.passed:
        title = f"Passes again: {state.name}"
        what_to_do = ""
        when = f"It did not pass from {since:{SECONDS}} to {state.at:{SECONDS}} UTC."
    else:
        title = f"{state.severity}: {state.name}"
        what_to_do = state.what_to_do
        when = f"Since: {since:{SECONDS}} UTC"

    step = what_to_do and f"What to do: {_short(what_to_do)}"
    lines = [_short(state.description.removesuffix(what_to_do)), when, step, state.link]
    return Message(title=title, body="\n".join(filter(None, lines)))


def _short(text: str) -> str:
    text = text.strip()
    if len(text) <= LONGEST_MESSAGE:
        return text
    return f"{text[:LONGEST_MESSAGE]}…"


logger = logging.getLogger(__name__)


def not_understood(urls: Iterable[SecretStr]) -> list[int]:
    """Return the receivers that apprise does not understand, by their number from 1.

    Raises:
        MissingExtraError: The extra `alerts` is not installed.
    """
    with _silent_apprise():
        try:
            import apprise
        except ImportError as error:
            raise MissingExtraError("apprise", "alerts") from error

        return [
            number
            for number, url in enumerate(urls, 1)
            if not apprise.Apprise().add(url.get_secret_value())
        ]


class Delivery:
    """One message on its way to one receiver, by a program of its own.

    Args:
        url: The receiver, as apprise understands it.
        place: The index of the URL in POSITION_SYNC_ALERT_URLS, from 0: logs name it by that.
        messages: What is sent, together.
        now: The current time.
    """

    def __init__(
        self, url: SecretStr, place: int, messages: tuple[Message, ...], now: datetime
    ) -> None:
        self.url = url
        self.place = place
        self.messages = messages
        self._begun_at = now
        with TemporaryFile("w+") as given:  # others could read arguments
            texts = [(message.title, message.body) for message in messages]
            json.dump({"url": url.get_secret_value(), "place": place, "texts": texts}, given)
            given.seek(0)
            self._program = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", SENDER],
                stdin=given,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )

    def wait(self, seconds: float) -> None:
        """Wait until it has ended, for a time at most."""
        with suppress(subprocess.TimeoutExpired):
            self._program.wait(seconds)

    def is_accepted(self, now: datetime) -> bool | None:
        """Return whether the receiver accepted the message; None while it is on its way.

        A receiver that does not end its answer has the message: after `SENT_WITHIN` the program is
        ended, and the message counts as sent. Sent again, it would arrive again and again.
        """
        code = self._program.poll()
        if code is None and elapsed(self._begun_at, now) <= SENT_WITHIN:
            return None

        if code is None:
            self._program.kill()
            self._program.wait()
            logger.error(
                "POSITION_SYNC_ALERT_URLS: receiver %d did not end its answer within %d s: the "
                "message counts as sent",
                self.place + 1,
                SENT_WITHIN.seconds,
            )
            return True

        if code != 0:
            logger.error(
                "POSITION_SYNC_ALERT_URLS: receiver %d cannot be reached, or did not accept the "
                "message; `position-sync doctor` examines how it is written",
                self.place + 1,
            )
        return code == 0


class Deliveries:
    """The deliveries of this process that have not ended, at most one for each receiver."""

    def __init__(self) -> None:
        self._on_their_way: dict[int, Delivery] = {}
        # When receivers could not be reached.
        self._failed_at: dict[int, datetime] = {}

    def send_due(
        self,
        cursor: AlertCursor,
        urls: Sequence[SecretStr],
        clock: Clock,
        *,
        is_quiet: bool = False,
    ) -> tuple[AlertCursor, int]:
        """Begin to send each receiver the messages that wait for it, all in one.

        Deliveries go on beside the tick; messages stay in the outbox until theirs has ended.

        Args:
            is_quiet: Whether none is begun.

        Returns:
            The cursor after the deliveries that ended, and how many receivers accepted theirs.
        """
        cursor, sent = self._ended(cursor, urls, clock())
        for place, messages in cursor.outbox.items():
            if is_quiet or place in self._on_their_way or place >= len(urls):
                continue

            now = clock()
            if elapsed(self._failed_at.get(place, NEVER), now) >= RETRY_AFTER:
                self._on_their_way[place] = Delivery(urls[place], place, messages, now)

        until = time.monotonic() + WAIT_S
        for delivery in self._on_their_way.values():
            delivery.wait(max(until - time.monotonic(), 0.0))
        cursor, more = self._ended(cursor, urls, clock())
        return cursor, sent + more

    def _ended(
        self, cursor: AlertCursor, urls: Sequence[SecretStr], now: datetime
    ) -> tuple[AlertCursor, int]:
        """Return the cursor without the messages that were sent, and how many receivers have."""
        outbox = dict(cursor.outbox)
        sent = 0
        for place, delivery in list(self._on_their_way.items()):
            accepted = delivery.is_accepted(now)
            if accepted is None:
                continue

            del self._on_their_way[place]
            if place >= len(urls) or urls[place] != delivery.url:
                continue  # the setting names another receiver since
            if not accepted:
                self._failed_at[place] = now
                continue

            sent += 1
            self._failed_at.pop(place, None)
            waiting = outbox.pop(place, ())
            left = tuple(message for message in waiting if message not in delivery.messages)
            if left:
                outbox[place] = left
        return replace(cursor, outbox=outbox), sent


@contextmanager
def _silent_apprise() -> Iterator[None]:
    """Silence apprise, and the warnings of the modules that it imports."""
    apprise_logger = logging.getLogger("apprise")
    apprise_logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        apprise_logger.disabled = False


# The folder in Dagster's home with what each receiver accepted, a file for each.
ACCEPTED = "accepted_messages"


def main() -> int:
    """Send the messages of standard input, as plain text; return 0 if they were accepted.

    What its receiver has accepted is not sent again. Who began this program may have been killed
    since, and begins another one: that waits for this one.
    """
    given = json.load(sys.stdin)
    messages = [Message(title=title, body=body) for title, body in given["texts"]]
    file = dagster_home() / ACCEPTED / f"receiver {given['place'] + 1}"
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with file.open("a+") as accepted:
        fcntl.flock(accepted, fcntl.LOCK_EX)
        accepted.seek(0)
        before = accepted.read().split()
        unsent = [message for message in messages if message.digest not in before]
        if unsent and not _is_sent(given["url"], unsent):
            return 1

        digests = [*before, *(message.digest for message in unsent)]
        accepted.truncate(0)
        accepted.write("\n".join(digests[-2 * MOST_KEPT :]))
        accepted.flush()
        os.fsync(accepted.fileno())
    return 0


def _is_sent(url: str, messages: Collection[Message]) -> bool:
    import apprise

    sender = apprise.Apprise()
    if not sender.add(url):
        return False

    title, body = together(messages)
    sent = sender.notify(title=title, body=body, body_format=apprise.NotifyFormat.TEXT)
    return bool(sent)


if __name__ == "__main__":
    sys.exit(main())
