"""What people may be told of, and which of it they want, as the strategies file says it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, time
from enum import StrEnum
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field

from position_sync_dagster.domain.exchange_time import NEW_YORK
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


Happenings = Annotated[frozenset[Happened], BeforeValidator(as_list)]
_ABOUT = Field(frozenset(Happened), description=f"Write some of {', '.join(Happened)}")


class QuietPart(Part):
    """The hours of each day in which no message is sent."""

    begin: time = Field(alias="from", description='Write a time, as "22:00"')
    end: time = Field(alias="to", description='Write a time, as "07:00"')
    timezone: ZoneInfo = Field(NEW_YORK, description="Write a time zone, as Europe/Berlin")


class MessagesPart(Part):
    """The messages that people want.

    Attributes:
        about: What they are about.
        quiet: When none is sent.
    """

    about: Happenings = _ABOUT
    quiet: QuietPart | None = None


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
        quiet = self.messages.quiet
        if quiet is None:
            return False

        at = now.astimezone(quiet.timezone).time()
        if quiet.begin <= quiet.end:
            return quiet.begin <= at < quiet.end
        return at >= quiet.begin or at < quiet.end
