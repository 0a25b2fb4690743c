"""Scripts: what the gateway says word for word, in place of its own answers or unasked."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from ib_gateway_simulator.clients.connection import ClientConnection
from ib_gateway_simulator.protocol import wire
from ib_gateway_simulator.protocol.requests import Request


class Cut(Enum):
    """The end of a connection, behind all that was said before."""

    HERE = "cut"


# Fields, of which the first is the id of the message; bytes as they are; or the end.
Message = Sequence[str] | bytes | Cut


class Said(NamedTuple):
    """What a script said, and the request that it answered; None for what nobody requested."""

    request: Request | None
    messages: Sequence[Message]


class Scripts:
    """Answers requests by a script, and records what scripts said.

    Attributes:
        said: What was said, oldest first.
    """

    def __init__(self) -> None:
        self.said: list[Said] = []
        self._answers: dict[tuple[str, str | None], list[Sequence[Message]]] = {}

    def set_answers(
        self, name: str, account: str | None, answers: Sequence[Sequence[Message]] | None
    ) -> None:
        """Set the answers to requests of a name, about one account or any; None ends the script."""
        self._answers.pop((name, account), None)
        if answers is not None:
            self._answers[name, account] = list(answers)

    def answer(self, client: ClientConnection, request: Request) -> bool:
        """Answer a request and return True; return False for one that has no script."""
        if request.name == "reqAccountUpdates" and not request.subscribe:
            return False
        answers = self._answers.get((request.name, request.account))
        if answers is None:
            answers = self._answers.get((request.name, None))
        if answers is None:
            return False

        messages: Sequence[Message] = ()
        if answers:
            messages = answers[0]
            if len(answers) > 1:
                answers.pop(0)

        self.said.append(Said(request, messages))
        _send(client, messages)
        return True

    def say(self, clients: Sequence[ClientConnection], messages: Sequence[Message]) -> None:
        """Send messages that no client requested."""
        self.said.append(Said(None, messages))
        for client in clients:
            _send(client, messages)
            client.flush()


def _send(client: ClientConnection, messages: Sequence[Message]) -> None:
    for message in messages:
        if isinstance(message, Cut):
            client.close()
            return
        client.send_raw(message if isinstance(message, bytes) else wire.frame(message))
