"""The field `limits:` of the strategies file; errors name the line and column of the mistake."""

from typing import Any

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from position_sync_dagster.domain.limit import SUMS_OF_MONEY, Bound, Limit, Measure
from position_sync_dagster.yaml_file import Part, Place, YamlFile


class BoundsPart(Part):
    """The numbers between which a measure may be."""

    min: float | None = Field(None, description="Write a number")
    max: float | None = Field(None, description="Write a number")

    @model_validator(mode="after")
    def _check_order(self) -> "BoundsPart":
        if self.min is None and self.max is None:
            raise _mistake("it has neither min nor max", "Write {min: -1500}, {max: 2} or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise _mistake("min is greater than max", "Exchange them")
        return self


def _mistake(what: str, remedy: str) -> PydanticCustomError:
    return PydanticCustomError("leg", "{what}", {"what": what, "remedy": remedy})


class LimitsPart(Part):
    """The limits of one strategy or account: the field of each measure, and their currency."""

    currency: str | None = Field(
        None, pattern=r"^[A-Z]{3}$", description="Write its three letters, as USD"
    )
    unrealized_pnl: Any = None
    daily_pnl: Any = None
    dollar_delta: Any = None
    theta: Any = None
    vega: Any = None
    days_to_expiry: Any = None
    short_in_money: Any = None
    value_age_s: Any = None
    missing_legs: Any = None


def limits_at(
    file: YamlFile, at: Place, value: object, *, strategy_id: str | None = None, account: str = ""
) -> list[Limit]:
    """Return the limits of one strategy or account, in the order of the measures.

    Args:
        file: The strategies file.
        at: The place of `limits` in it.
        value: The content of that place; None is no limit.
        strategy_id: The strategy that has the limits.
        account: The account that has them, if no strategy has.

    Raises:
        StrategiesFileError: There is a mistake.
    """
    if value is None:
        return []
    part = file.parse(LimitsPart, value, at)
    limits: list[Limit] = []
    for measure in Measure:
        given = getattr(part, measure)
        if given is None:
            continue
        place = (*at, measure.value)
        bounds = file.parse(BoundsPart, given, place)
        is_money = measure in SUMS_OF_MONEY
        if is_money and part.currency is None:
            file.fail(
                place,
                f"{measure} is a sum of money, and these limits have no currency",
                "Add the field currency beside it, as `currency: USD`",
            )
        limits += [
            Limit(
                strategy_id=strategy_id,
                account=account or None,
                measure=measure,
                bound=bound,
                value=number,
                currency=part.currency if is_money else None,
                place=file.named_place(place),
            )
            for bound in Bound
            if (number := getattr(bounds, bound)) is not None
        ]
    return limits
