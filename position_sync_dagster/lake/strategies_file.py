"""The YAML file of strategies: their legs, with line and column of each mistake.

What stands above the core reads further fields and entries by a class of its own. Here they are
passed over, and `StrategiesFile.unread` names them: one of them may be mistyped.
"""

from collections.abc import Sequence
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field

from position_sync_dagster.domain.leg import Leg, strategy_name
from position_sync_dagster.errors import InvalidLegError, StrategiesFileError
from position_sync_dagster.lake.given_leg import GivenLeg, Since, read_priority
from position_sync_dagster.lake.strategy_registry import (
    LegKey,
    SyncRegistry,
    name_of,
    two_whole_holders,
)
from position_sync_dagster.yaml_file import FIELD_NAME, Part, Place, YamlFile

Priority = Annotated[int, BeforeValidator(read_priority)]


class StrategyPart(Part, extra="allow"):
    """A strategy as the file has it."""

    strategy_id: Annotated[str, AfterValidator(strategy_name)] = Field(
        pattern=r".*\S", description="Write its name or number"
    )
    legs: list[Any]
    priority: Priority | None = None
    since: Since = None


class OtherPart(Part, extra="allow"):
    """An entry that is no strategy."""


class StrategiesPart(Part, extra="allow"):
    """The whole file."""

    strategies: list[Any]


class UnreadField(NamedTuple):
    """A field that nothing reads.

    Attributes:
        place: Where a person finds it.
        name: The field.
        nearest: The field that may be meant; None if none resembles it.
    """

    place: str
    name: str
    nearest: str | None

    def __str__(self) -> str:
        what = f"{self.place}: nothing that runs here reads the field {self.name!r}"
        return f"{what}; did you mean {self.nearest!r}?" if self.nearest else f"{what}."


class StrategiesFile:
    """A strategies file that was opened: its legs are checked as they are read.

    Example of a file::

        strategies:
          - strategy_id: ic-1
            priority: 1          # optional
            since: 2026-01-02    # optional: trades of its legs from this day on belong to it
            legs:
              - {conid: 700001, symbol: SPY, right: C, strike: 450, expiry: 20260220}
              - {conid: 700002, symbol: SPY, right: P, strike: 440, expiry: 2026-02-20,
                 account: DU1234567, quantity: -1}
              - {conid: 756733, symbol: SPY, quantity: 100}     # a stock as a hedge
              # without a conid: the owner of the gateway finds the one contract that fits
              - {symbol: SPX, right: P, strike: 5000, expiry: 20260220, trading_class: SPXW}

    Args:
        path: The file.

    Attributes:
        strategies, others: What the file lists, each with its place: strategies, and what is none.
        whole_part, strategy_part: The fields of the file, and of its strategies.

    Raises:
        StrategiesFileError: The file is missing, is not a regular file, is too large, or has a
            mistake. The message names file, line, column, cause and remedy.
    """

    whole_part: ClassVar[type[StrategiesPart]] = StrategiesPart
    strategy_part: ClassVar[type[StrategyPart]] = StrategyPart
    strategies: Sequence[tuple[Place, StrategyPart]]
    others: Sequence[tuple[Place, Part]]

    def __init__(self, path: str | Path) -> None:
        self.yaml = YamlFile(Path(path), holds="strategies", error=StrategiesFileError)
        self.whole = self.yaml.parse(self.whole_part, self.yaml.data)
        strategies: list[tuple[Place, StrategyPart]] = []
        others: list[tuple[Place, Part]] = []
        for number, entry in enumerate(self.whole.strategies):
            at = ("strategies", number)
            if self.is_strategy(entry):
                strategies.append((at, self.yaml.parse(self.strategy_part, entry, at)))
            else:
                others.append((at, self.yaml.parse(self.part_of_other(entry), entry, at)))
        self.strategies = strategies
        self.others = others

    def is_strategy(self, entry: Any) -> bool:
        """Return whether an entry is a strategy: what has neither name nor legs is none."""
        return not isinstance(entry, dict) or not {"strategy_id", "legs"}.isdisjoint(entry)

    def part_of_other(self, entry: Any) -> type[Part]:
        """Return the fields of an entry that is no strategy."""
        return OtherPart

    def unread(self) -> list[UnreadField]:
        """Return the fields that neither the core nor what stands above it reads, each name once.

        The parts here allow further fields, and keep them (`model_extra`). In a class whose parts
        forbid them they are mistakes, and none is unread.
        """
        parts = [((), self.whole), *self.strategies, *self.others]
        fields: dict[str, UnreadField] = {}
        for at, part in parts:
            # An entry that is no strategy has no fields: a mistyped strategy may be meant.
            field_names = type(part).model_fields or self.strategy_part.model_fields
            for name in part.model_extra or ():
                line = self.yaml.line((*at, name, FIELD_NAME))  # of the name, not of its value
                nearest = next(iter(get_close_matches(name, field_names)), None)
                place = f"{self.yaml.path}, line {line}"
                fields.setdefault(name, UnreadField(place, name, nearest))
        return list(fields.values())

    def legs(self, added_at: datetime) -> list[Leg]:
        """Return the legs that are listed, in the order of the file.

        Raises:
            StrategiesFileError: The file has a mistake anywhere.
        """
        file = self.yaml
        places: dict[LegKey, Place] = {}
        legs = []

        for of_strategy, strategy in self.strategies:
            for number, value in enumerate(strategy.legs):
                at = (*of_strategy, "legs", number)
                leg = self._leg(strategy, value, at, added_at)
                if leg.key in places:
                    name = name_of(leg)
                    line = file.line(places[leg.key])
                    file.fail(
                        at,
                        f"the strategy {leg.strategy_id!r} has the leg {name} already, in line "
                        f"{line}",
                        "Keep one of them",
                    )
                places[leg.key] = at
                legs.append(leg)

        holders = two_whole_holders(legs)
        if holders is not None:
            holder, leg = holders
            file.fail(
                places[leg.key],
                f"the strategies {holder.strategy_id!r} and {leg.strategy_id!r} both hold the "
                f"whole of leg {name_of(leg)}",
                "Set the quantity that each has of the leg",
            )

        return legs

    def _leg(self, strategy: StrategyPart, value: object, at: Place, added_at: datetime) -> Leg:
        """Read a leg; priority and since that it leaves out are those of its strategy.

        Raises:
            StrategiesFileError: It has a mistake; the message names its place.
        """
        written = self.yaml.parse(GivenLeg, value, at)
        priority = written.priority or strategy.priority
        since = written.since or strategy.since
        leg = written.model_copy(update={"priority": priority, "since": since})
        try:
            return leg.in_strategy(strategy.strategy_id, added_at)
        except InvalidLegError as error:
            self.yaml.fail(at, error.what, error.remedy)

    def apply(self, registry: SyncRegistry) -> tuple[int, int]:
        """Make the active legs equal to those of the file, in one commit.

        Returns:
            How many legs joined, and how many left.

        Raises:
            StrategiesFileError: The file has a mistake.
        """
        return registry.replace_all(self.legs(registry.clock()))
