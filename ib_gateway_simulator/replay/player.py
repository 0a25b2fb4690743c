"""The player: sends a client the messages of one recorded connection, at their times."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ib_gateway_simulator.clients.connection import ClientConnection
from ib_gateway_simulator.protocol import messages
from ib_gateway_simulator.protocol.fields import Fields
from ib_gateway_simulator.protocol.request_places import request_place
from ib_gateway_simulator.protocol.requests import Request
from ib_gateway_simulator.replay.clock_fields import shifted
from ib_gateway_simulator.replay.known import Known
from ib_gateway_simulator.replay.timeline import (
    Asked,
    Ended,
    RecordedConnection,
    Told,
    key_of,
)

# A request that was recorded more than this ahead of the replay, in seconds, is answered at once
# from the values that were played so far, if they are enough: a client does not wait that long.
HORIZON_S = 5.0

# What a gateway answers to a request on which it fails (IB, "Error Codes").
ERROR_PROCESSING_REQUEST = 322


class Player:
    """Plays one recorded connection to one client.

    Recorded time stands still at each recorded request until the client has made a matching one,
    or until `patience_s` is over. What the client requests later than that is answered at once
    with all that it missed.

    Args:
        recorded: The connection; None for a client that has none of its own.
        known: What the gateway has said so far.
        speed: How many recorded seconds a second takes.
        now: The wall clock, in seconds since 1970.
        shift_s: How much later than the recording the replay is, for times in messages.
        patience_s: How long the replay waits for a request, in recorded seconds.
    """

    def __init__(
        self,
        client: ClientConnection,
        recorded: RecordedConnection | None,
        known: Known,
        *,
        speed: float,
        now: Callable[[], float],
        shift_s: float,
        patience_s: float,
    ) -> None:
        self._client = client
        self._known = known
        self._speed = speed
        self._now = now
        self._shift_s = shift_s
        self._patience_s = patience_s
        self._steps: tuple[Asked | Told | Ended, ...] = ()
        self._at_s = 0.0
        if recorded:
            self._steps = recorded.steps
            self._at_s = recorded.started_at_s

        self._next_s = self._at_s
        self._origin = 0.0
        self._asked = [step for step in self._steps if isinstance(step, Asked)]
        self._by_id: dict[int, Asked] = {}
        self._made = asyncio.Event()
        self.unmade = 0

    async def run(self) -> None:
        """Play to the end of the recorded connection."""
        loop = asyncio.get_running_loop()
        self._origin = loop.time() - self._at_s / self._speed
        for step in self._steps:
            self._next_s = step.at_s
            delay_s = self._origin + step.at_s / self._speed - loop.time()
            if isinstance(step, Asked):
                if not await self._until_made(step, max(0.0, delay_s)):
                    self.unmade += 1
                self._origin = max(self._origin, loop.time() - step.at_s / self._speed)
            elif delay_s > 0:
                self._client.flush()
                await asyncio.sleep(delay_s)

            self._at_s = step.at_s
            if isinstance(step, Told):
                self._tell(step)
            elif isinstance(step, Ended):
                self._client.close()
                return
        self._client.flush()

    def _reached_s(self) -> float:
        """Return the recorded time that the replay has come to; it stands still at a request."""
        passed_s = (asyncio.get_running_loop().time() - self._origin) * self._speed
        return max(self._at_s, min(passed_s, self._next_s))

    async def _until_made(self, asked: Asked, delay_s: float) -> bool:
        self._client.flush()
        try:
            async with asyncio.timeout(delay_s + self._patience_s / self._speed):
                while not asked.made:
                    self._made.clear()
                    await self._made.wait()
        except TimeoutError:
            asked.passed = True
            return False
        return True

    def _tell(self, told: Told) -> None:
        fields = shifted(told.fields, self._shift_s)
        asked = told.asked
        self._known.note(fields, asked.request if asked else None)
        if asked is None:
            at = request_place(fields)
            if at is None or int(fields[at]) not in self._by_id:  # of no request
                self._client.send(fields)
            return
        asked.newest[fields[0], _tick_type(fields)] = fields
        if not asked.made:
            asked.missed.append(fields)
        elif not asked.ended or fields[0] == "4":
            self._client.send(_with_id(fields, asked.req_id))

    # -- requests -----------------------------------------------------------------------------

    def handle(self, request: Request) -> bool:
        """Answer a request: from the recording, from what is known, or with a refusal by name.

        Returns:
            Whether there was an answer.
        """
        cancelled = None
        if _is_cancel(request):
            cancelled = self._by_id.pop(request.req_id, None)

        if cancelled is not None:
            cancelled.ended = True
        if request.name == "reqAccountUpdates" and not request.subscribe:
            self._end_account_updates(request.account)
        key = key_of(request, cancelled.request.req_id if cancelled else -1)
        matching = [asked for asked in self._asked if asked.key == key]
        asked = next((candidate for candidate in matching if not candidate.made), None)
        soon_s = self._reached_s() + HORIZON_S
        if asked is not None and (asked.at_s <= soon_s or _is_cancel(request)):
            self._bind(asked, request)
            return True

        answer = self._known.answer(request, self._now())
        if answer is not None:
            for fields in answer:
                self._client.send(fields)
        elif asked is not None:
            self._bind(asked, request)
        elif matching and not _is_cancel(request):
            self._bind_again(matching[-1], request)
        else:
            # Clients take 321 for a warning, and would wait for ever (ib_async, wrapper.py).
            cause = f"Error processing request: the recording has no answer to {request.name}."
            refusal = messages.error(request.req_id, ERROR_PROCESSING_REQUEST, cause)

            self._client.send(refusal)
            return False
        return True

    def _end_account_updates(self, account: str) -> None:
        for asked in self._asked:
            feed = asked.request
            if asked.made and feed.name == "reqAccountUpdates" and feed.subscribe:
                asked.ended |= feed.account == account

    def _bind(self, asked: Asked, request: Request) -> None:
        asked.made = True
        asked.req_id = request.req_id
        if request.req_id != -1 and not _is_cancel(request):
            self._by_id[request.req_id] = asked
        for fields in asked.missed:
            self._client.send(_with_id(fields, asked.req_id))
        asked.missed.clear()
        self._made.set()

    def _bind_again(self, asked: Asked, request: Request) -> None:
        """Go on with a subscription under another id, from its newest values on."""
        self._by_id.pop(asked.req_id, None)
        asked.req_id = request.req_id
        asked.ended = False
        self._by_id[request.req_id] = asked
        for fields in asked.newest.values():
            self._client.send(_with_id(fields, asked.req_id))


def _with_id(fields: Fields, req_id: int) -> Fields:
    at = request_place(fields)
    if at is None:
        return fields

    return (*fields[:at], str(req_id), *fields[at + 1 :])


def _is_cancel(request: Request) -> bool:
    return request.name.startswith("cancel")


def _tick_type(fields: Fields) -> str:
    """Return what tells the messages of one kind and request apart: tick types, tags, venues."""
    place = {"1": 3, "2": 3, "45": 3, "46": 3, "21": 2}.get(fields[0])
    if place is not None and place < len(fields):
        return fields[place]
    if fields[0] in ("58", "81", "94", "95"):
        return ""

    return "\0".join(fields)
