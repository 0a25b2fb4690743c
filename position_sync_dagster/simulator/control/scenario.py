"""Scenarios: a file of actions and when they happen."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from position_sync_dagster.simulator.books.yaml_source import Source
from position_sync_dagster.simulator.control.actions import Arguments, check, perform
from position_sync_dagster.simulator.errors import ActionError

if TYPE_CHECKING:
    from position_sync_dagster.simulator.server import Simulator

log = logging.getLogger(__name__)


class _Line(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)

    at_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    do: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Hold one action and its time, in seconds after the start."""

    at_s: float
    do: str
    arguments: Arguments


def load_scenario(path: str | Path) -> list[Event]:
    """Read a YAML list of `{at_s: 12, do: fill, …arguments}`, ordered by time.

    Raises BookError with file, line and column.
    """
    source = Source.read(Path(path))
    lines: list[_Line] = source.parse(list[_Line])
    events = []
    for index, line in enumerate(lines):
        given: dict[str, Any] = dict(line.model_extra or {})
        try:
            arguments = check(line.do, given)
        except ActionError as problem:
            location = (index, problem.field) if problem.field != "body" else (index,)
            raise source.error(
                location, problem.cause, "see the actions of the control port"
            ) from None
        events.append(Event(at_s=line.at_s, do=line.do, arguments=arguments))
    return sorted(events, key=lambda event: event.at_s)


async def play(simulator: Simulator, events: list[Event]) -> None:
    """Do each event at its time; one that fails is logged, and the rest goes on."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    for event in events:
        await asyncio.sleep(max(0.0, start + event.at_s - loop.time()))
        try:
            await perform(simulator, event.do, event.arguments)
        except ActionError as problem:
            log.warning("scenario: %s at %s s failed: %s", event.do, event.at_s, problem)
