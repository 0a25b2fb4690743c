"""The rules and limits of a strategies file, and the text of one; see `lake.strategies_file`."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, Field, create_model, model_validator

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.domain.leg import ActiveContract, Leg
from position_sync_dagster.errors import InvalidLegError, StrategiesFileError
from position_sync_dagster.lake.given_leg import GivenLeg
from position_sync_dagster.lake.strategies_file import StrategiesFile, StrategiesPart, StrategyPart
from position_sync_dagster.lake.strategy_registry import (
    LegKey,
    Legs,
    SyncRegistry,
    with_known_contracts,
)
from position_sync_dagster.money.strategies.limits import (
    OF_ACCOUNTS,
    OF_STRATEGIES,
    SUMS_OF_MONEY,
    Bound,
    Limit,
    Measure,
)
from position_sync_dagster.money.strategies.messages import Happenings, MessagesPart, Wanted
from position_sync_dagster.money.strategies.proposals import KINDS, SINGLE, SINGLES
from position_sync_dagster.money.strategies.rules import Rule, Texts
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


def _known_kinds(names: frozenset[str]) -> frozenset[str]:
    """Return the kinds that a file names; `single` is each option alone."""
    if SINGLE in names:
        names = names - {SINGLE} | SINGLES
    unknown = sorted(names - KINDS)
    if unknown:
        kinds = ", ".join(sorted(KINDS))
        raise InvalidLegError(f"there is no kind {unknown[0]!r}", remedy=f"The kinds are {kinds}")
    return names


class KindsPart(Part):
    """Kinds of structures whose strategies have limits."""

    kinds: Annotated[Texts, AfterValidator(_known_kinds)]
    limits: Any = None


class AccountPart(Part):
    """An account that has limits."""

    account: Text
    limits: Any = None


class RuledStrategy(StrategyPart, extra="forbid"):
    """A strategy with what it has beside its legs."""

    limits: Any = None
    follow_rolls: bool = Field(default=False, description="Write true or false")
    messages: Happenings | None = None


class RuledStrategies(StrategiesPart, extra="forbid"):
    """The whole file; its entries are strategies, rules, and limits of kinds of strategies."""

    accounts: list[Any] = Field(default_factory=list)
    messages: Any = None


class RuledFile(StrategiesFile):
    """A strategies file with its rules and limits, which are checked as they are read.

    Example of what it has beside the legs::

        strategies:
          - strategy_id: ic-1
            follow_rolls: true   # optional
            limits: {currency: USD, unrealized_pnl: {min: -1500}, days_to_expiry: {min: 7}}
            legs: []
          - rule: hedges         # its legs are what is held and matches
            match: {underlying: [SPX, ES], right: PUT, days: "0-60", side: short}
            priority: 2          # optional
            limit: 20            # optional
          - kinds: [iron-condor, short-put]   # of each strategy that began as one of these
            limits: {reached: {max: 0.5}, days_to_expiry: {min: 21}}
        accounts:
          - account: DU1234567
            limits: {currency: USD, dollar_delta: {min: -50000, max: 50000}}
        messages: {about: [assigned, limit], quiet: {from: "22:00", to: "07:00"}}   # optional
    """

    whole_part = RuledStrategies
    strategy_part = RuledStrategy
    whole: RuledStrategies
    strategies: Sequence[tuple[Place, RuledStrategy]]

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._limits: list[tuple[Place, Any, dict[str, Any]]] = []
        messages_of = {}
        for place, strategy in self.strategies:
            self._parse_limits(place, strategy.limits, strategy_id=strategy.strategy_id)
            if strategy.messages is not None:
                messages_of[strategy.strategy_id] = strategy.messages

        for place, other in self.others:
            if isinstance(other, KindsPart):
                self._parse_limits(place, other.limits, kinds=other.kinds)
        for number, entry in enumerate(self.whole.accounts):
            account = self.yaml.parse(AccountPart, entry, ("accounts", number))
            self._parse_limits(("accounts", number), account.limits, account=account.account)

        messages = self.yaml.parse(MessagesPart, self.whole.messages or {}, ("messages",))
        self.wanted = Wanted(messages, messages_of)

    def _parse_limits(self, place: Place, limits: Any, **subject: Any) -> None:
        """Parse the limits of a strategy or an account, if it has any."""
        if limits is not None:
            at = (*place, "limits")
            self._limits.append((at, self.yaml.parse(LimitsPart, limits, at), subject))

    def is_strategy(self, entry: Any) -> bool:
        """Return whether an entry is a strategy: neither a rule nor the limits of kinds."""
        return not isinstance(entry, dict) or {"rule", "kinds"}.isdisjoint(entry)

    def part_of_other(self, entry: Any) -> type[Part]:
        """Return the fields of a rule, or of the limits of kinds."""
        return Rule if "rule" in entry else KindsPart

    def legs(self, added_at: datetime) -> list[Leg]:
        """Return the legs that are listed; see `StrategiesFile`."""
        _ = self.rules, self.limits()  # a mistake there makes the whole file wrong
        return super().legs(added_at)

    def apply(self, registry: SyncRegistry) -> tuple[int, int]:
        """Make the active legs equal to those of the file; see `StrategiesFile`.

        What the legs of strategies that follow rolls became stays, and so do the legs of rules, as
        the owner of the login chose them.
        """
        listed = self.legs(registry.clock())
        rules = {rule.name for rule in self.rules}
        following = self.following_rolls

        def step(before: Legs, ended: Callable[[], list[Leg]]) -> list[Leg]:
            resolved = with_known_contracts(listed, before.values())
            if following:
                # A description that was rolled is found among the legs that ended.
                contracts = [leg for leg in ended() if isinstance(leg, ActiveContract)]
                resolved = with_rolls(resolved, before.values(), contracts, following)

            of_rules = [leg for leg in before.values() if leg.strategy_id in rules]
            return [*resolved, *without_listed(of_rules, resolved)]

        return registry.replace(step)

    @property
    def following_rolls(self) -> frozenset[str]:
        """The strategies that follow rolls."""
        return frozenset(part.strategy_id for _, part in self.strategies if part.follow_rolls)

    @property
    def rules(self) -> list[Rule]:
        """The rules, in the order of the file.

        Raises:
            StrategiesFileError: One has a mistake, or the name of another one or of a strategy.
        """
        names = {part.strategy_id for _, part in self.strategies}
        rules = []
        for at, rule in self.others:
            if not isinstance(rule, Rule):
                continue

            if rule.name in names:
                self.yaml.fail(at, f"the name {rule.name!r} is taken", "Give the rule another name")
            names.add(rule.name)
            rules.append(rule)
        return rules

    def limits(self) -> list[Limit]:
        """Return the limits of strategies and accounts; those of kinds are of each strategy.

        What a strategy says itself comes before what its kind says.

        Raises:
            StrategiesFileError: One has a mistake, or a strategy, a kind or an account has limits
                at two places.
        """
        written = []
        of_kinds = []
        places: dict[str, Place] = {}
        for at, part, subject in self._limits:
            of_subject = self._limits_of(part, at, subject)
            if not of_subject:
                continue

            kinds = sorted(of_subject[0].kinds)
            if kinds:
                of_kinds.extend(of_subject)
            else:
                written.extend(of_subject)
            for name in [f"kind {kind}" for kind in kinds] or [of_subject[0].subject]:
                if name in places:
                    line = self.yaml.line(places[name])
                    self.yaml.fail(
                        at,
                        f"the {name} has limits already, in line {line}",
                        "Write them at one place",
                    )
                places[name] = at

        names = {limit.name for limit in written}
        strategies = [part.strategy_id for _, part in self.strategies]
        strategies += [rule.name for rule in self.rules]
        for limit in of_kinds:
            for strategy in dict.fromkeys(strategies):
                of_strategy = replace(limit, strategy_id=strategy)
                if of_strategy.name not in names:
                    written.append(of_strategy)
        return written

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
            if measure in OF_STRATEGIES and "account" in subject:
                self.yaml.fail(
                    place, f"no account has {measure}", "Move it to the limits of a strategy"
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


def with_rolls(
    legs: Iterable[Leg],
    active: Iterable[Leg],
    ended: Iterable[ActiveContract],
    following: Collection[str],
) -> list[Leg]:
    """Return the legs of a file; those that were rolled since are replaced by what they became.

    A file names the legs as they were when it was written. A leg that was rolled keeps the
    quantity and the priority of the file. The file's own leg returns if the strategy does not
    follow rolls any more, or if the file names the new contract as well.

    Args:
        legs: The legs of the file.
        active: The active legs.
        ended: Legs that were active before: they have the contracts of descriptions.
        following: The strategies that follow rolls.
    """
    became: dict[LegKey, ActiveContract] = {}
    for leg in active:
        if not isinstance(leg, ActiveContract) or leg.strategy_id not in following:
            continue

        for conid in leg.replaced:
            became[leg.strategy_id, leg.account, conid] = leg
    listed = with_known_contracts(legs, [leg for leg in ended if leg.key in became])
    named = {leg.key for leg in listed}
    rolled: list[Leg] = []
    for leg in listed:
        new = became.get(leg.key)
        if new is not None and new.key not in named:
            leg = replace(
                new,
                quantity=leg.quantity,
                priority=leg.priority,
                added_at=leg.added_at,
                since=leg.since,
            )
        rolled.append(leg)
    return rolled


def without_listed(of_rules: Iterable[Leg], listed: Iterable[Leg]) -> list[Leg]:
    """Return the legs of rules whose contracts no listed leg has in their account."""
    contracts = {(leg.account, leg.conid) for leg in listed}
    free = []
    for leg in of_rules:
        ways_to_list = [(leg.account, leg.conid), (None, leg.conid)]
        if contracts.isdisjoint(ways_to_list):
            free.append(leg)
    return free


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
    return saved_file(path).following_rolls if path else frozenset()


def saved_limits(path: Path | None) -> list[Limit]:
    """Read the limits of a strategies file; none without one."""
    return saved_file(path).limits() if path else []


def saved_messages(path: Path | None) -> Wanted:
    """Read which messages are wanted; all without a file, and while it has a mistake."""
    try:
        return saved_file(path).wanted if path else Wanted()
    except StrategiesFileError:
        return Wanted()


def as_strategies_file(legs: Iterable[Leg]) -> str:
    """Return legs as the text of a strategies file, from which `load_strategies` reads the same."""
    legs_of = grouped(lambda leg: str(leg.strategy_id), legs)
    strategies = []
    for name in sorted(legs_of):
        written = [*map(_written, legs_of[name])]
        strategies.append({"strategy_id": name, "legs": written})
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
