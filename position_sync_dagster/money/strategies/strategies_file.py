"""The rules and limits of a strategies file, and the text of one; see `lake.strategies_file`."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, create_model, model_validator

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.domain.leg import Leg
from position_sync_dagster.errors import InvalidLegError
from position_sync_dagster.lake.given_leg import GivenLeg
from position_sync_dagster.lake.strategies_file import StrategiesFile
from position_sync_dagster.money.strategies.limits import (
    OF_ACCOUNTS,
    SUMS_OF_MONEY,
    Bound,
    Limit,
    Measure,
)
from position_sync_dagster.money.strategies.rules import Rule
from position_sync_dagster.yaml_file import Part, Place, Text, saved_state


class BoundsPart(Part):
    """The numbers between which a measure may be."""

    min: float | None = Field(None, description="Write a number")
    max: float | None = Field(None, description="Write a number")

    @model_validator(mode="after")
    def _check_order(self) -> "BoundsPart":
        if self.min is None and self.max is None:
            raise InvalidLegError(
                "it has neither min nor max", remedy="Write {min: -1500}, {max: 2} or both"
            )
        if self.min is not None and self.max is not None and self.min > self.max:
            raise InvalidLegError("min is greater than max", remedy="Exchange them")
        return self


_CURRENCY = Field(None, pattern=r"^[A-Z]{3}$", description="Write its three letters, as USD")
_MEASURES: dict[str, Any] = dict.fromkeys(Measure, (BoundsPart | None, None))
# The limits of one strategy or account: the field of each measure, and their currency.
LimitsPart = create_model(
    "LimitsPart", __base__=Part, currency=(str | None, _CURRENCY), **_MEASURES
)


class AccountPart(Part):
    """An account that has limits."""

    account: Text
    limits: Any = None


class RuledFile(StrategiesFile):
    """A strategies file with its rules and limits, which are checked as they are read."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        parse = self.yaml.parse
        self._rules = [(at, parse(Rule, entry, at)) for at, entry in self.rule_entries]

        self._limits: list[tuple[Place, Any, dict[str, Any]]] = []
        for place, strategy in self.strategies:
            self._parse_limits(place, strategy.limits, strategy_id=strategy.strategy_id)
        for number, entry in enumerate(self.accounts):
            account = parse(AccountPart, entry, ("accounts", number))
            self._parse_limits(("accounts", number), account.limits, account=account.account)

    def _parse_limits(self, place: Place, limits: Any, **subject: Any) -> None:
        """Parse the limits of a strategy or an account, if it has any."""
        if limits is not None:
            at = (*place, "limits")
            self._limits.append((at, self.yaml.parse(LimitsPart, limits, at), subject))

    def check_sections(self) -> None:
        """Raise the error of a mistake in a rule or a limit."""
        _ = self.rules, self.limits()

    @property
    def rules(self) -> list[Rule]:
        """The rules, in the order of the file.

        Raises:
            StrategiesFileError: One has a mistake, or the name of another one or of a strategy.
        """
        names = {part.strategy_id for _, part in self.strategies}
        for at, rule in self._rules:
            if rule.name in names:
                self.yaml.fail(at, f"the name {rule.name!r} is taken", "Give the rule another name")
            names.add(rule.name)
        return [rule for _, rule in self._rules]

    def limits(self) -> list[Limit]:
        """Return the limits of each strategy, then of each account.

        Raises:
            StrategiesFileError: One has a mistake, or a strategy or an account has limits at two
                places.
        """
        limits: list[Limit] = []
        places: dict[str, Place] = {}
        for at, part, subject in self._limits:
            of_subject = self._limits_of(part, at, subject)
            if not of_subject:
                continue

            name = of_subject[0].subject
            if name in places:
                line = self.yaml.line(places[name])
                self.yaml.fail(
                    at, f"the {name} has limits already, in line {line}", "Write them at one place"
                )
            places[name] = at
            limits += of_subject
        return limits

    def _limits_of(self, part: Any, at: Place, subject: dict[str, Any]) -> list[Limit]:
        """Return the limits of one strategy or account, in the order of the measures."""
        limits: list[Limit] = []
        for measure in Measure:
            bounds = getattr(part, measure)
            if bounds is None:
                continue

            place = (*at, measure.value)
            if measure in OF_ACCOUNTS and "account" not in subject:
                self.yaml.fail(
                    place, f"only an account has {measure}", "Move it to the limits of an account"
                )

            is_money = measure in SUMS_OF_MONEY
            if is_money and part.currency is None:
                self.yaml.fail(
                    place,
                    f"{measure} is a sum of money, and these limits have no currency",
                    "Add the field currency beside it, as `currency: USD`",
                )

            named = {**subject, "currency": part.currency if is_money else None}
            for bound in Bound:
                number = getattr(bounds, bound)
                if number is not None:
                    limits.append(Limit(**named, measure=measure, bound=bound, value=number))
        return limits


def load_strategies(path: str | Path, clock: Clock = utc_now) -> list[Leg]:
    """Read the legs that a strategies file lists; see `RuledFile`."""
    return RuledFile(path).legs(clock())


def saved_file(path: Path) -> RuledFile:
    """Return a strategies file, which is read once for each time that it is saved."""
    return _saved_file(path, saved_state(path))


@lru_cache(maxsize=1)
def _saved_file(path: Path, _saved: tuple[int, int, int]) -> RuledFile:
    return RuledFile(path)


def following_rolls(path: Path | None) -> frozenset[str]:
    """Return the strategies of a file that follow rolls; none without a file."""
    if path is None:
        return frozenset()
    return saved_file(path).following_rolls


def saved_limits(path: Path | None) -> list[Limit]:
    """Read the limits of a strategies file; none without one."""
    if path is None:
        return []
    return saved_file(path).limits()


def as_strategies_file(legs: Iterable[Leg]) -> str:
    """Return legs as the text of a strategies file, from which `load_strategies` reads the same."""
    legs_of = grouped(lambda leg: str(leg.strategy_id), legs)
    strategies = [
        {"strategy_id": name, "legs": [_written(leg) for leg in legs_of[name]]}
        for name in sorted(legs_of)
    ]
    return str(
        yaml.safe_dump({"strategies": strategies}, sort_keys=False, allow_unicode=True, width=200)
    )


def _written(leg: Leg) -> dict[str, object]:
    """Return what a strategies file has of a leg: the usual priority is left out."""
    values = {name: getattr(leg, name) for name in GivenLeg.model_fields}
    values["right"] = leg.right and leg.right.value
    if leg.priority == 1:
        del values["priority"]
    return {name: value for name, value in values.items() if value is not None}
