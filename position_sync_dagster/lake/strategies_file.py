"""The YAML file of strategies: legs, rules and limits, with line and column of each mistake."""

import re
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from textwrap import indent
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, create_model, model_validator

from position_sync_dagster.domain import instrument
from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.leg import Leg, strategy_name
from position_sync_dagster.errors import InvalidLegError, StrategiesFileError, shown
from position_sync_dagster.lake import strategy_registry
from position_sync_dagster.lake.given_leg import GivenLeg, Since, read_priority
from position_sync_dagster.money.strategies.limits import (
    OF_ACCOUNTS,
    SUMS_OF_MONEY,
    Bound,
    Limit,
    Measure,
)
from position_sync_dagster.money.strategies.rules import HoldingSide, Rule
from position_sync_dagster.yaml_file import Part, Place, Text, YamlFile, saved_state


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


Priority = Annotated[int, BeforeValidator(read_priority)]
Right = Annotated[instrument.Right, BeforeValidator(instrument.parse_right)]


class StrategyPart(Part):
    """A strategy as the file has it."""

    strategy_id: Annotated[str, AfterValidator(strategy_name)] = Field(
        pattern=r".*\S", description="Write its name or number"
    )
    legs: list[Any]
    priority: Priority | None = None
    limits: LimitsPart | None = None  # type: ignore[valid-type]
    follow_rolls: bool = Field(default=False, description="Write true or false")
    since: Since = None


class AccountPart(Part):
    """An account that has limits."""

    account: Text
    limits: LimitsPart | None = None  # type: ignore[valid-type]


class StrategiesPart(Part):
    """The whole file; its entries are strategies and rules."""

    strategies: list[Any]
    accounts: list[AccountPart] = Field(default_factory=list)


def _days(text: object) -> tuple[int, int]:
    """Read a span of days, such as "0-60"."""
    match = re.fullmatch(r"(\d{1,5})\s*-\s*(\d{1,5})", str(text).strip())
    if match is not None:
        first, last = map(int, match.groups())
        if first <= last:
            return first, last

    raise InvalidLegError(f"days {shown(text)} is no span of days", remedy='Write it as "0-60"')


def _as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _in_capitals(names: frozenset[str]) -> frozenset[str]:
    return frozenset(map(str.upper, names))


Texts = Annotated[frozenset[Text], BeforeValidator(_as_list)]
Symbols = Annotated[Texts, AfterValidator(_in_capitals)]


class MatchPart(Part):
    """The conditions of a rule, of which a holding meets each one: fields of `Rule`."""

    underlyings: Symbols | None = Field(None, alias="underlying")
    right: Right | None = None
    days: Annotated[tuple[int, int], BeforeValidator(_days)] | None = None
    side: HoldingSide | None = Field(None, description="Write long or short")
    accounts: Texts | None = Field(None, alias="account")


class RulePart(Part):
    """A rule, whose legs are what is held and matches."""

    rule: Annotated[str, AfterValidator(strategy_name)] = Field(
        pattern=r".*\S", description="Write its name"
    )
    match: MatchPart
    priority: Priority = 1
    limit: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Write the most contracts that it takes"
    )


class StrategiesFile:
    """A strategies file that was opened: its legs, limits and rules are checked as they are read.

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

    Raises:
        StrategiesFileError: The file is missing, is not a regular file, is too large, or has a
            mistake. The message names file, line, column, cause and remedy.
    """

    def __init__(self, path: str | Path) -> None:
        self._file = YamlFile(Path(path), holds="strategies", error=StrategiesFileError)
        whole = self._file.parse(StrategiesPart, self._file.data)
        self._accounts: list[tuple[Place, AccountPart]] = []
        for number, account in enumerate(whole.accounts):
            self._accounts.append((("accounts", number), account))

        self._strategies: list[tuple[Place, StrategyPart]] = []
        self._rules: list[tuple[Place, RulePart]] = []
        for number, entry in enumerate(whole.strategies):
            at = ("strategies", number)
            if isinstance(entry, dict) and "rule" in entry:
                rule = self._file.parse(RulePart, entry, at)
                self._rules.append((at, rule))
            else:
                strategy = self._file.parse(StrategyPart, entry, at)
                self._strategies.append((at, strategy))

    @property
    def following_rolls(self) -> frozenset[str]:
        """The strategies that follow rolls."""
        return frozenset(part.strategy_id for _, part in self._strategies if part.follow_rolls)

    @property
    def rules(self) -> list[Rule]:
        """The rules, in the order of the file.

        Raises:
            StrategiesFileError: One has a mistake, or the name of another one or of a strategy.
        """
        names = {part.strategy_id for _, part in self._strategies}
        rules = []
        for at, part in self._rules:
            if part.rule in names:
                self._file.fail(
                    at, f"the name {part.rule!r} is taken", "Give the rule another name"
                )
            names.add(part.rule)
            conditions = part.match.model_dump()
            rule = Rule(name=part.rule, limit=part.limit, priority=part.priority, **conditions)
            rules.append(rule)
        return rules

    def legs(self, added_at: datetime) -> list[Leg]:
        """Return the legs that are listed, in the order of the file.

        Raises:
            StrategiesFileError: The file has a mistake anywhere.
        """
        file = self._file
        places: dict[strategy_registry.LegKey, Place] = {}
        legs: list[Leg] = []
        _ = self.limits(), self.rules  # a mistake there makes the whole file wrong

        for of_strategy, strategy in self._strategies:
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
        written = self._file.parse(GivenLeg, value, at)
        priority = written.priority or strategy.priority
        since = written.since or strategy.since
        leg = written.model_copy(update={"priority": priority, "since": since})
        try:
            return leg.in_strategy(strategy.strategy_id, added_at)
        except InvalidLegError as error:
            self._file.fail(at, error.what, error.remedy)

    def limits(self) -> list[Limit]:
        """Return the limits of each strategy, then of each account.

        Raises:
            StrategiesFileError: One has a mistake, or a strategy or an account has limits at two
                places.
        """
        subjects: list[tuple[Place, Any, dict[str, Any]]] = []
        for at, strategy in self._strategies:
            subjects.append((at, strategy.limits, {"strategy_id": strategy.strategy_id}))
        for at, account in self._accounts:
            subjects.append((at, account.limits, {"account": account.account}))

        limits: list[Limit] = []
        places: dict[str, Place] = {}
        for part_at, part, subject in subjects:
            if part is None:
                continue

            at = (*part_at, "limits")
            of_subject = self._limits_of(part, at, subject)
            if not of_subject:
                continue

            name = of_subject[0].subject
            if name in places:
                line = self._file.line(places[name])
                self._file.fail(
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
                self._file.fail(
                    place, f"only an account has {measure}", "Move it to the limits of an account"
                )

            is_money = measure in SUMS_OF_MONEY
            if is_money and part.currency is None:
                self._file.fail(
                    place,
                    f"{measure} is a sum of money, and these limits have no currency",
                    "Add the field currency beside it, as `currency: USD`",
                )

            named = dict(subject)
            named["currency"] = part.currency if is_money else None
            named["place"] = self._file.named_place(place)
            for bound in Bound:
                number = getattr(bounds, bound)
                if number is not None:
                    limit = Limit(**named, measure=measure, bound=bound, value=number)
                    limits.append(limit)

        return limits

    def add(self, legs: Iterable[Leg]) -> None:
        """Add strategies before those of the file; the rest of its text stays.

        Raises:
            StrategiesFileError: It cannot be written, or its strategies are no list with dashes.
        """
        path = self._file.path.resolve()
        line, column = self._file.list_below("strategies")
        text = path.read_text(encoding="utf-8").splitlines()

        if column is None and (self._strategies or self._rules):
            self._file.fail(
                ("strategies",), "the strategies stand in brackets", "Begin each with a dash"
            )
        if column is None:
            heading = text[line - 1]
            text[line - 1] = heading.replace("[]", "", 1).rstrip()
            column = 2

        entries = _entries(legs)
        added = indent(_as_text(entries), " " * column)
        text[line:line] = added.splitlines()

        new = path.with_name(f".{path.name}.new")
        try:
            lines = "\n".join(text)
            new.write_text(f"{lines}\n", encoding="utf-8")
            load_strategies(new)
            new.replace(path)
        except OSError as error:
            raise StrategiesFileError(
                f"The file {path} cannot be written: {error.strerror}.",
                remedy="Correct the rights of the file and its folder.",
            ) from error
        finally:
            new.unlink(missing_ok=True)


def load_strategies(path: str | Path, clock: Clock = utc_now) -> list[Leg]:
    """Read the legs that a strategies file lists; see `StrategiesFile`."""
    return StrategiesFile(path).legs(clock())


def follow_file(registry: strategy_registry.SyncRegistry, path: str | Path) -> tuple[int, int]:
    """Make the active legs equal to those of a strategies file, in one commit.

    The legs of its rules stay as the owner of the login chose them.

    Returns:
        How many legs joined, and how many left.

    Raises:
        StrategiesFileError: The file cannot be read, or has a mistake.
    """
    file = StrategiesFile(path)
    now = registry.clock()
    legs = file.legs(now)
    rules = {rule.name for rule in file.rules}
    return registry.replace_all(legs, following=file.following_rolls, rules=rules)


def saved_file(path: Path) -> StrategiesFile:
    """Return a strategies file, which is read once for each time that it is saved."""
    return _saved_file(path, saved_state(path))


@lru_cache(maxsize=1)
def _saved_file(path: Path, _saved: tuple[int, int, int]) -> StrategiesFile:
    return StrategiesFile(path)


def following_rolls(path: Path | None) -> frozenset[str]:
    """Return the strategies of a file that follow rolls; none without a file."""
    return frozenset() if path is None else saved_file(path).following_rolls


def saved_limits(path: Path | None) -> list[Limit]:
    """Read the limits of a strategies file; none without one."""
    return [] if path is None else saved_file(path).limits()


def as_strategies_file(legs: Iterable[Leg]) -> str:
    """Return legs as the text of a strategies file, from which `load_strategies` reads the same."""
    return _as_text({"strategies": _entries(legs)})


def _as_text(value: object) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=200)
    return text


def _entries(legs: Iterable[Leg]) -> list[dict[str, object]]:
    """Return the strategies of legs as a strategies file has them."""
    legs_of: dict[str, list[dict[str, object]]] = {}
    for leg in legs:
        written: dict[str, object] = {}
        for name in GivenLeg.model_fields:
            value = getattr(leg, name)
            if value is not None:
                written[name] = value

        if leg.right is not None:
            written["right"] = leg.right.value
        if leg.priority == 1:
            del written["priority"]

        of_strategy = legs_of.setdefault(str(leg.strategy_id), [])
        of_strategy.append(written)

    return [{"strategy_id": name, "legs": legs_of[name]} for name in sorted(legs_of)]
