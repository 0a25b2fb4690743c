"""The file `scenarios.yaml`: scenarios by name, and betas."""

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.risk.scenarios import Point

SCENARIOS_FILE = "scenarios.yaml"

LARGEST_BYTES = 2**20

STANDARD = tuple(
    Point(spot=spot, vol=vol, name=f"{spot:+g} %" + (f", volatility {vol:+g}" if vol else ""))
    for spot, vol in (
        (-20.0, 0.0), (-10.0, 0.0), (-5.0, 0.0), (5.0, 0.0), (10.0, 0.0), (20.0, 0.0),
        (-10.0, 10.0), (0.0, 5.0), (0.0, -5.0),
    )
)  # fmt: skip
"""The scenarios that are recorded without a file."""


class ScenariosFileError(PositionSyncError):
    """The file of scenarios has a mistake."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Scenario(_Part):
    name: Annotated[str, Field(min_length=1, max_length=60)]
    spot: Annotated[float, Field(gt=-100, le=1000)] = 0.0
    underlying: str | None = None
    vol: Annotated[float, Field(ge=-500, le=500)] = 0.0
    days: Annotated[float, Field(ge=0, le=3650)] = 0.0
    rate: Annotated[float, Field(ge=-100, le=100)] = 0.0
    largest_loss: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)


class _File(_Part):
    betas: dict[str, float] = Field(default_factory=dict)
    scenarios: list[_Scenario] = Field(default_factory=list)
    early_assignment: bool = False


class OwnScenarios(BaseModel):
    """The content of the file.

    Attributes:
        betas: By how much each underlying moves when the index moves by 1.
        points: The scenarios, by name.
        largest_losses: For some scenarios and strategies the largest allowed loss.
        early_assignment: Whether a short option that may be assigned early is beyond a limit.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    betas: dict[str, float]
    points: dict[str, Point]
    largest_losses: dict[tuple[str, str], float]
    early_assignment: bool = False

    @property
    def recorded(self) -> list[Point]:
        """The scenarios that are recorded: the standard ones and those of the file."""
        return [*(one for one in STANDARD if one.name not in self.points), *self.points.values()]


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
    try:
        with path.open("rb") as file:
            content = yaml.safe_load(file.read(LARGEST_BYTES))
        found = _File.model_validate(content or {})
    except FileNotFoundError:
        found = _File()
    except (OSError, yaml.YAMLError, ValidationError, UnicodeDecodeError) as error:
        cause = " ".join(str(error).split())[:300]
        raise ScenariosFileError(
            f"{path} cannot be used: {cause}.",
            remedy="Correct it; docs/what-if.md shows an example.",
        ) from None
    points = {
        one.name: Point(
            name=one.name,
            spot=one.spot,
            underlying=one.underlying,
            vol=one.vol,
            days=one.days,
            rate=one.rate,
        )
        for one in found.scenarios
    }
    losses = {
        (one.name, strategy): loss
        for one in found.scenarios
        for strategy, loss in one.largest_loss.items()
    }
    return OwnScenarios(
        betas=found.betas,
        points=points,
        largest_losses=losses,
        early_assignment=found.early_assignment,
    )


def folder_of(strategies_file: Path | None) -> Path:
    """Return where the file is: beside the strategies file, else in the working directory."""
    return strategies_file.parent if strategies_file is not None else Path()
