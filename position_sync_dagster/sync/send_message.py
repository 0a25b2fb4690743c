"""Send one message through apprise: a program of its own, which its caller ends when it is late.

Run as `python -m position_sync_dagster.sync.send_message`, with `{"url", "title", "body"}` as JSON
on standard input; the URL is a secret, and arguments can be read by others. The exit code is one of
`Outcome`. Its caller drops what it prints: apprise and its libraries log the URL.
"""

import json
import sys
from enum import IntEnum


class Outcome(IntEnum):
    """How a delivery ended."""

    ACCEPTED = 0
    REFUSED = 3
    NOT_UNDERSTOOD = 4
    NO_APPRISE = 5
    FAILED = 6


def send(url: str, title: str, body: str) -> Outcome:
    """Send a message, its body as plain text; return how that ended."""
    try:
        import apprise
    except ImportError:
        return Outcome.NO_APPRISE

    sender = apprise.Apprise()
    if not sender.add(url):
        return Outcome.NOT_UNDERSTOOD
    accepted = sender.notify(title=title, body=body, body_format=apprise.NotifyFormat.TEXT)
    return Outcome.ACCEPTED if accepted else Outcome.REFUSED


def main() -> int:
    """Send the message of standard input; return the exit code."""
    message = json.load(sys.stdin)
    try:
        return send(message["url"], message["title"], message["body"])
    except Exception:  # noqa: BLE001 - of any service; its text may contain the URL
        return Outcome.FAILED


if __name__ == "__main__":
    sys.exit(main())
