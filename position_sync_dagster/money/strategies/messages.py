"""What people may be told of, and which of it they want, as the strategies file says it."""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, time
from enum import StrEnum
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator, Field

from position_sync_dagster.domain.exchange_time import NEW_YORK
from position_sync_dagster.errors import InvalidLegError, shown
from position_sync_dagster.money.strategies.rules import as_list
from position_sync_dagster.yaml_file import Part


class Happened(StrEnum):
    """What people may be told of, by the name that the file has for it."""

    ASSIGNED = "assigned"
    EXERCISED = "exercised"
    EXPIRED = "expired"
    CLOSED = "closed"
    FILLED = "filled"
    ROLLED = "rolled"
    LIMIT = "limit"
    LOGIN = "login"


def _hours(text: object) -> tuple[time, time]:
    """Read when quiet hours begin and end, such as "22:00-07:00"."""
    match = re.fullmatch(r"(\d\d:\d\d)\s*-\s*(\d\d:\d\d)", str(text).strip())
    if match is not None:
        with suppress(ValueError):
            first, last = map(time.fromisoformat, match.groups())
            return first, last
    raise InvalidLegError(f"{shown(text)} are no hours", remedy='Write them as "22:00-07:00"')


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, ZoneInfoNotFoundError):
        raise InvalidLegError(
            f"there is no time zone {shown(name)}", remedy="Write it as Europe/Berlin"
        ) from None


Happenings = Annotated[frozenset[Happened], BeforeValidator(as_list)]
_ABOUT = Field(frozenset(Happened), description=f"Write some of {', '.join(Happened)}")


class MessagesPart(Part, arbitrary_types_allowed=True):
    """The messages that people want.

    Attributes:
        about: What they are about.
        quiet: When quiet hours begin and end.
        timezone: Where these hours are.
    """

    about: Happenings = _ABOUT
    quiet: Annotated[tuple[time, time], BeforeValidator(_hours)] | None = None
    timezone: Annotated[ZoneInfo, BeforeValidator(_zone)] = NEW_YORK


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which messages people want about what happened, and when none are sent.

    Attributes:
        of_strategies: What they are about of the strategies that say it themselves.
    """

    messages: MessagesPart = field(default_factory=MessagesPart)
    of_strategies: Mapping[str, frozenset[Happened]] = field(default_factory=dict)

    def has(self, what: Happened, strategies: Iterable[str] = ()) -> bool:
        """Return whether a message about one of some strategies is wanted; none: about others."""
        about = self.messages.about
        return any(what in self.of_strategies.get(name, about) for name in [*strategies] or [""])

    def is_quiet(self, now: datetime) -> bool:
        """Return whether nothing is sent now."""
        if self.messages.quiet is None:
            return False

        first, last = self.messages.quiet
        at = now.astimezone(self.messages.timezone).time()
        if first <= last:
            return first <= at < last
        return at >= first or at < last
