"""A scenario, those that are always recorded, and the file `scenarios.yaml`.

Without numpy: each process that shows figures reads the betas of the file.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.yaml_file import Part, YamlFile

# The most scenarios of a file: each is computed of the whole book every night. And the
# most names of strategies or underlyings beside one of its fields.
MOST_SCENARIOS = 100
MOST_NAMES = 5_000


# What betas are of: where it moves, each underlying follows by its own beta.
INDEX = "index"


class Point(Part):
    """One scenario.

    Attributes:
        name: The name of a scenario that a person wrote.
        spot: The move of the underlyings, in percent.
        underlying: The only underlying that moves by `spot`; the others follow it by their betas.
            INDEX: all follow the index. None: all move by it.
        vol: The change of each volatility, in points.
        days: Days that have passed.
        largest_loss: For some strategies the largest allowed loss.
    """

    name: str | None = None
    spot: Annotated[float, Field(ge=-100, le=10_000)] = 0.0
    underlying: Annotated[str, Field(max_length=40)] | None = None
    vol: Annotated[float, Field(ge=-500, le=500)] = 0.0
    days: Annotated[float, Field(ge=0, le=3650)] = 0.0
    largest_loss: dict[str, Annotated[float, Field(ge=0, le=1e15)]] = Field(
        default_factory=dict, max_length=MOST_NAMES
    )

    def factor(self, symbol: str, betas: Mapping[str, float]) -> float:
        """Return what the price of an underlying is multiplied by; NaN if that is not known.

        Args:
            symbol: The underlying.
            betas: By how much each underlying moves when the index moves by 1.
        """
        share = self.spot / 100
        if self.underlying in (None, symbol) or not share:
            return 1.0 + share

        beta_of_named = 1.0 if self.underlying == INDEX else betas.get(self.underlying)
        if not beta_of_named:
            return math.nan
        return 1.0 + share * betas.get(symbol, math.nan) / beta_of_named


SCENARIOS_FILE = "scenarios.yaml"

# The scenarios that are recorded without a file: moves, and changes of the volatilities.
STANDARD = (
    Point(name="-20 %", spot=-20),
    Point(name="-10 %", spot=-10),
    Point(name="-5 %", spot=-5),
    Point(name="+5 %", spot=5),
    Point(name="+10 %", spot=10),
    Point(name="+20 %", spot=20),
    Point(name="-10 %, volatility +10", spot=-10, vol=10),
    Point(name="+0 %, volatility +5", vol=5),
    Point(name="+0 %, volatility -5", vol=-5),
)


class ScenariosFileError(PositionSyncError):
    """The file of scenarios has a mistake."""

    page = "docs/what-if.md#own-scenarios"


class Scenario(Point):
    """One scenario of the file."""

    name: Annotated[str, Field(min_length=1, max_length=60)]


class OwnScenarios(Part):
    """The file `scenarios.yaml`.

    Attributes:
        betas: By how much each underlying moves when the index moves by 1.
        early_assignment: Whether a short option that may be assigned early is beyond a limit.
    """

    betas: dict[str, Annotated[float, Field(ge=-100, le=100)]] = Field(
        default_factory=dict, max_length=MOST_NAMES
    )
    scenarios: list[Scenario] = Field(default_factory=list, max_length=MOST_SCENARIOS)
    early_assignment: bool = False

    @property
    def points(self) -> dict[str, Point]:
        """The scenarios of the file, by name."""
        return {scenario.name: scenario for scenario in self.scenarios}

    @property
    def recorded(self) -> list[Point]:
        """The scenarios that are recorded: the standard ones and those of the file."""
        points = {point.name: point for point in STANDARD}
        points.update(self.points)
        return list(points.values())


def read_scenarios(folder: Path) -> OwnScenarios:
    """Read the file of a folder; without one there are no scenarios by name.

    Example:
        betas: {SPY: 1.0, AAPL: 1.3}
        scenarios:
          - {name: crash, underlying: SPY, spot: -8, vol: 12, largest_loss: {condor: 1500}}

    Raises:
        ScenariosFileError: The file cannot be read, or has a mistake.
    """
    path = folder / SCENARIOS_FILE
    if not path.exists():
        return OwnScenarios()
    file = YamlFile(path, holds="scenarios", error=ScenariosFileError)
    return file.parse(OwnScenarios, file.data)


def folder_of(strategies_file: Path | None) -> Path:
    """Return where the file is: beside the strategies file, else in the working directory."""
    if strategies_file is not None:
        return strategies_file.parent
    return Path()
