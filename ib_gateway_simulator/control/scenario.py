"""Scenarios: files that list actions and their times."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from ib_gateway_simulator.books.yaml_source import Source
from ib_gateway_simulator.control.actions import Arguments, check, perform
from ib_gateway_simulator.control.faults import Faults
from ib_gateway_simulator.errors import ActionError

log = logging.getLogger(__name__)


class _Entry(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)

    at_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    every_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    do: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One action of a scenario.

    Attributes:
        at_s: Seconds from the start to the action.
        every_s: Seconds from one time to the next; None does it once.
    """

    at_s: float
    do: str
    arguments: Arguments
    every_s: float | None = None


def load_scenario(path: str | Path) -> list[Event]:
    """Read a YAML list of `{at_s: 12, do: fill, …arguments}`, ordered by time.

    With `every_s: 60` an action is done again each minute, until the end.

    Raises:
        BookError: The file has a mistake; it names file, line and column.
    """
    source = Source.read(Path(path))
    entries: list[_Entry] = source.parse(list[_Entry])
    events = []
    for index, entry in enumerate(entries):
        arguments_given: dict[str, Any] = dict(entry.model_extra or {})
        try:
            arguments = check(entry.do, arguments_given)
        except ActionError as error:
            location: tuple[int | str, ...] = (index,)
            if error.field != "body":
                location = (index, error.field)

            raise source.error(
                location, error.cause, "see the actions of the control port"
            ) from None
        events.append(
            Event(at_s=entry.at_s, do=entry.do, arguments=arguments, every_s=entry.every_s)
        )
    return sorted(events, key=lambda event: event.at_s)


async def play(simulator: Faults, events: list[Event]) -> None:
    """Do each event at its time; log one that fails, and continue with the next."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    due = [(event.at_s, place, event) for place, event in enumerate(events)]
    heapify(due)
    while due:
        at_s, place, event = heappop(due)
        await asyncio.sleep(max(0.0, start + at_s - loop.time()))
        try:
            await perform(simulator, event.do, event.arguments)
        except ActionError as error:
            log.warning("scenario: %s at %s s failed: %s", event.do, at_s, error)
        if event.every_s is not None:
            heappush(due, (at_s + event.every_s, place, event))
