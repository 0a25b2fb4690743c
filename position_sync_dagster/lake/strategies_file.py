"""The YAML file of strategies: their legs, with line and column of each mistake.

Parts above the core read further sections of it: rules, and limits.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from position_sync_dagster.domain.leg import Leg, strategy_name
from position_sync_dagster.errors import InvalidLegError, StrategiesFileError
from position_sync_dagster.lake import strategy_registry
from position_sync_dagster.lake.given_leg import GivenLeg, Since, read_priority
from position_sync_dagster.yaml_file import Part, Place, YamlFile

Priority = Annotated[int, BeforeValidator(read_priority)]


class StrategyPart(Part):
    """A strategy as the file has it."""

    strategy_id: Annotated[str, AfterValidator(strategy_name)] = Field(
        pattern=r".*\S", description="Write its name or number"
    )
    legs: list[Any]
    priority: Priority | None = None
    limits: Any = None
    follow_rolls: bool = Field(default=False, description="Write true or false")
    since: Since = None


class StrategiesPart(Part):
    """The whole file; its entries are strategies and rules."""

    strategies: list[Any]
    accounts: list[Any] = Field(default_factory=list)


class StrategiesFile:
    """A strategies file that was opened: its legs are checked as they are read.

    Example of a file::

        strategies:
          - strategy_id: ic-1
            priority: 1          # optional
            follow_rolls: true   # optional
            since: 2026-01-02    # optional: trades of its legs from this day on belong to it
            limits: {currency: USD, unrealized_pnl: {min: -1500}, days_to_expiry: {min: 7}}
            legs:
              - {conid: 700001, symbol: SPY, right: C, strike: 450, expiry: 20260220}
              - {conid: 700002, symbol: SPY, right: P, strike: 440, expiry: 2026-02-20,
                 account: DU1234567, quantity: -1}
              - {conid: 756733, symbol: SPY, quantity: 100}     # a stock as a hedge
              # without a conid: the owner of the gateway finds the one contract that fits
              - {symbol: SPX, right: P, strike: 5000, expiry: 20260220, trading_class: SPXW}
          - rule: hedges         # its legs are what is held and matches
            match: {underlying: [SPX, ES], right: PUT, days: "0-60", side: short}
            priority: 2          # optional
            limit: 20            # optional
        accounts:
          - account: DU1234567
            limits: {currency: USD, dollar_delta: {min: -50000, max: 50000}}

    Args:
        path: The file.

    Attributes:
        strategies: The strategies, each with its place; its limits as the file has them.
        rule_entries: The rules, each with its place, as the file has them.
        accounts: The accounts with limits, as the file has them.

    Raises:
        StrategiesFileError: The file is missing, is not a regular file, is too large, or has a
            mistake. The message names file, line, column, cause and remedy.
    """

    def __init__(self, path: str | Path) -> None:
        self.yaml = YamlFile(Path(path), holds="strategies", error=StrategiesFileError)
        whole = self.yaml.parse(StrategiesPart, self.yaml.data)
        self.accounts = whole.accounts
        self.strategies: list[tuple[Place, StrategyPart]] = []
        self.rule_entries: list[tuple[Place, Mapping[str, Any]]] = []
        for number, entry in enumerate(whole.strategies):
            at = ("strategies", number)
            if isinstance(entry, dict) and "rule" in entry:
                self.rule_entries.append((at, entry))
            else:
                self.strategies.append((at, self.yaml.parse(StrategyPart, entry, at)))

    def check_sections(self) -> None:
        """Raise the error of a mistake in the sections that parts above the core read."""

    @property
    def following_rolls(self) -> frozenset[str]:
        """The strategies that follow rolls."""
        return frozenset(part.strategy_id for _, part in self.strategies if part.follow_rolls)

    def legs(self, added_at: datetime) -> list[Leg]:
        """Return the legs that are listed, in the order of the file.

        Raises:
            StrategiesFileError: The file has a mistake anywhere.
        """
        file = self.yaml
        places: dict[strategy_registry.LegKey, Place] = {}
        legs = []
        self.check_sections()  # a mistake there makes the whole file wrong

        for of_strategy, strategy in self.strategies:
            for number, value in enumerate(strategy.legs):
                at = (*of_strategy, "legs", number)
                leg = self._leg(strategy, value, at, added_at)
                if leg.key in places:
                    name = strategy_registry.name_of(leg)
                    line = file.line(places[leg.key])
                    file.fail(
                        at,
                        f"the strategy {leg.strategy_id!r} has the leg {name} already, in line "
                        f"{line}",
                        "Keep one of them",
                    )
                places[leg.key] = at
                legs.append(leg)

        holders = strategy_registry.two_whole_holders(legs)
        if holders is not None:
            holder, leg = holders
            file.fail(
                places[leg.key],
                f"the strategies {holder.strategy_id!r} and {leg.strategy_id!r} both hold the "
                f"whole of leg {leg.conid}",
                "Set the quantity that each has of the leg",
            )

        return legs

    def _leg(self, strategy: StrategyPart, value: object, at: Place, added_at: datetime) -> Leg:
        written = self.yaml.parse(GivenLeg, value, at)
        priority = written.priority or strategy.priority
        since = written.since or strategy.since
        leg = written.model_copy(update={"priority": priority, "since": since})
        try:
            return leg.in_strategy(strategy.strategy_id, added_at)
        except InvalidLegError as error:
            self.yaml.fail(at, error.what, error.remedy)


def follow_file(registry: strategy_registry.SyncRegistry, file: StrategiesFile) -> tuple[int, int]:
    """Make the active legs equal to those of a strategies file, in one commit.

    The legs of its rules stay as the owner of the login chose them.

    Returns:
        How many legs joined, and how many left.

    Raises:
        StrategiesFileError: The file has a mistake.
    """
    legs = file.legs(registry.clock())
    rules = {strategy_name(str(entry["rule"])) for _, entry in file.rule_entries}
    return registry.replace_all(legs, following=file.following_rolls, rules=rules)
