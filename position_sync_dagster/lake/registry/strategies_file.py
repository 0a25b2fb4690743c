"""The YAML file of strategies: rules for legs and limits, with line and column of each mistake.

A membership is one leg in one strategy, from the time it is added until it is removed. At most one
strategy in an account holds the whole of a leg.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, create_model, model_validator
from pydantic_core import PydanticCustomError

from position_sync_dagster import errors
from position_sync_dagster.domain import instrument
from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.leg import (
    SUMS_OF_MONEY,
    ActiveContract,
    Bound,
    Leg,
    Limit,
    Measure,
    Terms,
    UnresolvedLeg,
    make_leg,
    strategy_name,
)
from position_sync_dagster.yaml_file import Part, Place, Text, YamlFile, saved_state


class WholeHolders:
    """The strategies that hold the whole of a leg, by conid and account.

    A leg of one account is compared with two holders at most, so that reading n legs takes about n
    comparisons.
    """

    def __init__(self) -> None:
        self._by_conid: dict[int, dict[str | None, ActiveContract]] = {}

    def add(self, leg: Leg) -> ActiveContract | None:
        """Add a leg; return an earlier one that holds the whole of the same leg, if there is one.

        A leg without an account applies to every account. A leg with a quantity holds a part, and
        conflicts with no other; neither does one whose contract is not known.
        """
        if isinstance(leg, UnresolvedLeg) or leg.quantity is not None:
            return None
        holders = self._by_conid.setdefault(leg.conid, {})
        accounts = holders if leg.account is None else (leg.account, None)
        for account in accounts:
            other = holders.get(account)
            if other is not None and other.strategy_id != leg.strategy_id:
                return other
        holders.setdefault(leg.account, leg)
        return None


LegKey = tuple[str, str | None, int | Terms]
"""The key of a leg: with its conid, or with the terms that describe its contract."""


class LegIndex:
    """The active legs by conid, and separately those whose contract is not known."""

    def __init__(self, legs: Iterable[Leg] = ()) -> None:
        listed = list(legs)
        known = [leg for leg in listed if isinstance(leg, ActiveContract)]
        known.sort(key=lambda leg: (leg.conid, leg.account or "", leg.strategy_id))
        described = [leg for leg in listed if isinstance(leg, UnresolvedLeg)]
        described.sort(key=lambda leg: (leg.strategy_id, leg.described, leg.account or ""))
        self.legs, self.unresolved = tuple(known), tuple(described)
        self._accounts: dict[int, set[str | None]] = {}
        for leg in self.legs:
            self._accounts.setdefault(leg.conid, set()).add(leg.account)

    def is_active(self, conid: int, account: str | None = None) -> bool:
        """Return whether a strategy has the leg; without an account, in any account."""
        accounts = self._accounts.get(conid)
        if accounts is None:
            return False
        return account is None or account in accounts or None in accounts


def is_unchanged(before: Leg | None, leg: Leg) -> bool:
    """Return whether a leg equals the active membership.

    The time at which it was added, the result of the search for its contract and its rolls are not
    compared.
    """
    if isinstance(before, ActiveContract) and isinstance(leg, ActiveContract):
        same = replace(leg, added_at=before.added_at, resolved_at=before.resolved_at)
        return replace(same, rolled_from=before.rolled_from) == before
    if isinstance(before, UnresolvedLeg) and isinstance(leg, UnresolvedLeg):
        return replace(leg, added_at=before.added_at, problem=before.problem) == before
    return False


def with_known_contracts(legs: Iterable[Leg], before: Iterable[Leg]) -> list[Leg]:
    """Return the legs, with the conids that were found before for the same descriptions.

    A conid is used only for the strategy and account for which it was found. Reading the same file
    again therefore changes nothing.
    """
    found = {
        (leg.strategy_id, leg.account, leg.terms): leg
        for leg in before
        if isinstance(leg, ActiveContract) and leg.resolved_at is not None
    }
    return [
        leg.resolved(known.conid, known.resolved_at)
        if isinstance(leg, UnresolvedLeg) and (known := found.get(leg.key)) is not None
        else leg
        for leg in legs
    ]


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
    became = {
        (leg.strategy_id, leg.account, conid): leg
        for leg in active
        if isinstance(leg, ActiveContract) and leg.strategy_id in following
        for conid in leg.replaced
    }
    listed = with_known_contracts(legs, (leg for leg in ended if leg.key in became))
    named = {leg.key for leg in listed}
    return [
        replace(new, quantity=leg.quantity, priority=leg.priority, added_at=leg.added_at)
        if isinstance(leg, ActiveContract)
        and (new := became.get(leg.key)) is not None
        and new.key not in named
        else leg
        for leg in listed
    ]


def settled(
    legs: Mapping[LegKey, Leg], leg: UnresolvedLeg, finding: int | str, at: datetime
) -> dict[LegKey, Leg]:
    """Return the legs after the search for the contract of one of them.

    If the strategy already has the contract, or another strategy holds the whole of it, the leg
    stays unresolved and records that as its problem.

    Args:
        legs: The active legs by key.
        leg: The leg whose contract was searched; ignored if it is no longer among them.
        finding: Its conid, or the problem in words.
        at: When it was found.
    """
    after = dict(legs)
    present = after.get(leg.key)
    if not isinstance(present, UnresolvedLeg):
        return after
    if isinstance(finding, str):
        problem = finding
    elif (found := present.resolved(finding, at)).key in after:
        problem = f"The strategy has its contract already, as the leg {finding}."
    else:
        del after[leg.key]
        after[found.key] = found
        try:
            refuse_two_whole_holders(after.values())
        except errors.InvalidLegError as error:
            problem = str(error)
        else:
            return after
    return dict(legs) | {leg.key: replace(present, problem=problem)}


def distinct_legs(legs: Iterable[Leg]) -> list[Leg]:
    """Return the legs without repeats.

    Raises:
        InvalidLegError: A strategy has one leg twice, with different values, or a reserved name.
    """
    distinct: dict[LegKey, Leg] = {}
    for leg in legs:
        strategy_name(leg.strategy_id)
        if leg.key in distinct and not is_unchanged(distinct[leg.key], leg):
            raise errors.InvalidLegError(
                f"The strategy {leg.strategy_id!r} names the leg {name_of(leg)} twice, with "
                "different values.",
                remedy="Keep one of them.",
            )
        distinct.setdefault(leg.key, leg)
    return list(distinct.values())


def name_of(leg: Leg) -> str:
    """Return the conid of a leg, or its description."""
    return str(leg.conid) if isinstance(leg, ActiveContract) else leg.described


def refuse_two_whole_holders(legs: Iterable[Leg]) -> None:
    """Check that no two strategies each hold the whole of a leg in one account.

    Raises:
        InvalidLegError: Two strategies do; the message names them.
    """
    holders = WholeHolders()
    for leg in legs:
        other = holders.add(leg)
        if other is not None:
            raise errors.InvalidLegError(
                f"The strategies {other.strategy_id!r} and {leg.strategy_id!r} would both "
                f"hold the whole of leg {leg.conid} in "
                f"{other.account or leg.account or 'any account'}.",
                remedy="Set the quantity (signed contracts) that each has of the leg.",
            )


ANY = "any"
"""The account, as a person names it, of a leg that is in any account."""


def find_membership(
    legs: Iterable[Leg],
    conid: int | None,
    strategy_id: int | str | None,
    account: str | None,
    described: Mapping[str, object] | None = None,
) -> Leg:
    """Return the one membership that matches; None matches every strategy, account or contract.

    Args:
        account: `ANY` for a leg that names no account.
        described: Fields of a leg and their values, such as symbol and strike.

    Raises:
        UnknownLegError: None matches.
        AmbiguousRemovalError: Several match; the message names them.
    """
    wanted = {name: value for name, value in (described or {}).items() if value is not None}
    found = [
        leg
        for leg in legs
        if (conid is None or (isinstance(leg, ActiveContract) and leg.conid == conid))
        and (strategy_id is None or leg.strategy_id == str(strategy_id))
        and (account is None or (leg.account or ANY) == account)
        and all(getattr(leg, name) == value for name, value in wanted.items())
    ]
    if not found:
        of = "" if strategy_id is None else f" of strategy {str(strategy_id)!r}"
        what = " ".join(f"{name} {value}" for name, value in wanted.items())
        if conid is not None:
            what = f"the conid {conid} {what}".rstrip()
        raise errors.UnknownLegError(
            f"No active leg{of} has {what}" + (f" in account {account!r}." if account else "."),
            remedy="List the active legs and take conid, strategy and account from there.",
        )
    if len(found) > 1:
        names = ", ".join(
            sorted(
                f"{leg.strategy_id!r} ({leg.account or 'any account'})"
                if conid is not None
                else f"{name_of(leg)} of {leg.strategy_id!r}"
                for leg in found
            )
        )
        raise errors.AmbiguousRemovalError(
            f"The leg {'as described' if conid is None else conid} has several holders: {names}.",
            remedy="Name its strategy, and its account if needed: "
            f"{ANY!r} for a leg in any account.",
        )
    return found[0]


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


class CurrencyPart(Part):
    """The currency of some limits."""

    currency: str | None = Field(
        None, pattern=r"^[A-Z]{3}$", description="Write its three letters, as USD"
    )


_MEASURES: dict[str, Any] = dict.fromkeys(Measure, (Any, None))
LimitsPart = create_model("LimitsPart", __base__=CurrencyPart, **_MEASURES)
"""The limits of one strategy or account: the field of each measure, and their currency."""


def limits_at(file: YamlFile, at: Place, value: object, subject: Mapping[str, str]) -> list[Limit]:
    """Return the limits of one strategy or account, in the order of the measures.

    Args:
        file: The strategies file.
        at: The place of `limits` in it.
        value: The content of that place; None is no limit.
        subject: The strategy or the account that has the limits, by the field of `Limit`.

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
                **subject,
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


NAMED_BY = "POSITION_SYNC_STRATEGIES_FILE"
"""The setting that holds the path of the file."""

MOST_LEGS = 500_000
"""Maximum number of memberships in a file; YAML aliases give a small file very many."""


def _refused_by(parse: Callable[[str], object]) -> Callable[[str], object]:
    """Return a parser of the domain, with its errors as those of a field."""

    def read(text: str) -> object:
        try:
            return parse(text)
        except errors.InvalidLegError as error:
            raise PydanticCustomError(
                "leg", "{what}", {"what": error.what, "remedy": error.remedy}
            ) from None

    return read


def _by(parse: Callable[[str], object]) -> BeforeValidator:
    """Return a field validator that calls a parser of the domain."""
    return BeforeValidator(_refused_by(parse))


def _not_zero(quantity: float) -> float:
    if quantity == 0:
        raise ValueError("zero")
    return quantity


Quantity = Annotated[float, AfterValidator(_not_zero)]
Priority = Annotated[int, Field(ge=1, lt=2**31)]


class LegPart(Part):
    """A leg as the file describes it."""

    symbol: Text
    conid: Annotated[int, _by(instrument.parse_conid)] | None = None
    right: Annotated[instrument.Right, _by(instrument.parse_right)] | None = None
    strike: Annotated[float, _by(instrument.parse_strike)] | None = None
    expiry: Annotated[date, _by(instrument.parse_expiry)] | None = None
    sec_type: Text | None = None
    trading_class: Text | None = None
    multiplier: Annotated[float, _by(instrument.parse_multiplier)] | None = None
    exchange: Text | None = None
    currency: Text | None = None
    account: Text | None = None
    quantity: Quantity | None = Field(
        None, description="Write it with its sign, as -1; leave it out for the whole holding"
    )
    priority: Priority | None = None


class StrategyPart(Part):
    """A strategy as the file has it."""

    strategy_id: Annotated[str, AfterValidator(_refused_by(strategy_name))] = Field(
        pattern=r".*\S", description="Write its name or number"
    )
    legs: list[Any]
    priority: Priority | None = None
    limits: Any = None
    follow_rolls: bool = Field(default=False, description="Write true or false")


class AccountPart(Part):
    """An account that has limits."""

    account: Text
    limits: Any = None


class StrategiesPart(Part):
    """The whole file."""

    strategies: list[Any]
    accounts: list[Any] = Field(default_factory=list)


def load_strategies(
    path: str | Path, clock: Clock = utc_now, *, named_by: str = NAMED_BY
) -> list[Leg]:
    """Read the legs of a strategies file, in the order of the file.

    Example of a file::

        strategies:
          - strategy_id: ic-1
            priority: 1          # optional
            follow_rolls: true   # optional; `following_rolls`
            limits: {currency: USD, unrealized_pnl: {min: -1500}}     # optional; `load_limits`
            legs:
              - {conid: 700001, symbol: SPY, right: C, strike: 450, expiry: 20260220}
              - {conid: 700002, symbol: SPY, right: P, strike: 440, expiry: 2026-02-20,
                 account: DU1234567, quantity: -1}
              - {conid: 756733, symbol: SPY, quantity: 100}     # a stock as a hedge
              # without a conid: the owner of the gateway finds the one contract that fits
              - {symbol: SPX, right: P, strike: 5000, expiry: 20260220, trading_class: SPXW}

    Args:
        named_by: The setting that holds the path, named in the error when there is no such file.

    Raises:
        StrategiesFileError: The file is missing, is not a regular file, is too large or nested too
            deeply, names too many legs, or has a mistake. The message names file, line, column,
            cause and remedy.
    """
    file = _opened(Path(path), named_by)
    now = clock()
    read: dict[int, tuple[Leg, int | None]] = {}  # an alias is the same object each time
    places: dict[LegKey, Place] = {}
    holders = WholeHolders()
    legs: list[Leg] = []
    list(_limits(file))  # a mistake in a limit makes the whole file wrong
    for of_strategy, strategy in _strategies(file):
        for place, value in enumerate(strategy.legs):
            at = (*of_strategy, "legs", place)
            if id(value) not in read:
                part = file.parse(LegPart, value, at)
                read[id(value)] = _leg(file, part, at, strategy.strategy_id, now), part.priority
            leg, own = read[id(value)]
            priority = own or strategy.priority or 1
            if (leg.strategy_id, leg.priority) != (strategy.strategy_id, priority):
                leg = replace(leg, strategy_id=strategy.strategy_id, priority=priority)
            if leg.key in places:
                file.fail(
                    at,
                    f"the strategy {leg.strategy_id!r} has the leg {name_of(leg)} already, "
                    f"in line {file.line(places[leg.key])}",
                    "Keep one of them",
                )
            if len(legs) == MOST_LEGS:
                file.fail(at, f"it names more than {MOST_LEGS:,} legs", "Name each leg only once")
            other = holders.add(leg)
            if other is not None:
                file.fail(
                    at,
                    f"the strategies {other.strategy_id!r} and {leg.strategy_id!r} both hold the "
                    f"whole of leg {leg.conid}",
                    "Set the quantity that each has of the leg",
                )
            places[leg.key] = at
            legs.append(leg)
    return legs


def as_strategies_file(legs: Iterable[Leg]) -> str:
    """Return legs as the text of a strategies file, from which `load_strategies` reads the same."""
    return _as_text({"strategies": _entries(legs)})


def add_to_file(path: Path, legs: Iterable[Leg]) -> None:
    """Add strategies at the end of those of a strategies file; the rest of its text stays.

    Raises:
        StrategiesFileError: It cannot be read or written, or its strategies are no list with
            dashes.
    """
    file, path = _opened(path), path.resolve()
    is_empty = not file.parse(StrategiesPart, file.data).strategies
    line, column, in_brackets = file.end_of_list(("strategies",))
    if in_brackets and not is_empty:
        file.fail(("strategies",), "the strategies stand in brackets", "Begin each with a dash")
    text = path.read_text(encoding="utf-8").splitlines()
    if is_empty:
        text[line - 1], column = text[line - 1].replace("[]", "", 1).rstrip(), 2
    added = _as_text(_entries(legs)).splitlines()
    text[line:line] = [" " * column + one for one in added]
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_text("\n".join(text) + "\n", encoding="utf-8")
        load_strategies(new)
        new.replace(path)
    except OSError as error:
        raise errors.StrategiesFileError(
            f"The file {path} cannot be written: {error.strerror}.",
            remedy="Correct its rights, or add what `strategies propose --yaml` prints.",
        ) from error
    finally:
        new.unlink(missing_ok=True)


def _as_text(value: object) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=200)
    return text


def _entries(legs: Iterable[Leg]) -> list[dict[str, object]]:
    """Return the strategies of legs as a strategies file has them."""
    found: dict[str, list[dict[str, object]]] = {}
    for leg in legs:
        values = {name: getattr(leg, name) for name in LegPart.model_fields}
        values["right"] = leg.right and leg.right.value
        if leg.priority == 1:
            del values["priority"]
        known = {name: value for name, value in values.items() if value is not None}
        found.setdefault(str(leg.strategy_id), []).append(known)
    return [{"strategy_id": name, "legs": found[name]} for name in sorted(found)]


def _leg(file: YamlFile, part: LegPart, at: Place, strategy_id: str, now: datetime) -> Leg:
    try:
        return make_leg(
            **part.model_dump(exclude={"priority"}), strategy_id=strategy_id, added_at=now
        )
    except errors.InvalidLegError as error:
        file.fail(at, error.what, error.remedy)


def load_limits(path: str | Path) -> list[Limit]:
    """Read the limits of a strategies file: of each strategy, then of each account.

    A file that does not contain the word `limits` is not parsed, since it may name many legs.

    Example of a file::

        strategies:
          - strategy_id: ic-1
            limits: {currency: USD, unrealized_pnl: {min: -1500}, days_to_expiry: {min: 7}}
            legs: []
        accounts:
          - account: DU1234567
            limits: {currency: USD, dollar_delta: {min: -50000, max: 50000}}

    Raises:
        StrategiesFileError: The file cannot be read, or a limit has a mistake.
    """
    path = Path(path)
    if _lacks(path, b"limits"):
        return []
    return list(_limits(_opened(path)))


def saved_limits(path: Path | None) -> list[Limit]:
    """Read the limits as `load_limits`, once for each time that the file is saved; none without."""
    return [] if path is None else list(_saved_limits(path, saved_state(path)))


@lru_cache(maxsize=1)
def _saved_limits(path: Path, _saved: tuple[int, int, int]) -> tuple[Limit, ...]:
    return tuple(load_limits(path))


def following_rolls(path: str | Path, *, named_by: str = NAMED_BY) -> frozenset[str]:
    """Read which strategies of a strategies file follow rolls (`follow_rolls: true`).

    A file that does not contain these words is not parsed, since it may name many legs.

    Raises:
        StrategiesFileError: The file cannot be read.
    """
    path = Path(path)
    if _lacks(path, b"follow_rolls"):
        return frozenset()
    file = _opened(path, named_by)
    return frozenset(one.strategy_id for _, one in _strategies(file) if one.follow_rolls)


def _lacks(path: Path, word: bytes) -> bool:
    """Return whether a file can be read and lacks a word."""
    try:
        return path.is_file() and word not in path.read_bytes()
    except OSError:
        return False


def _opened(path: Path, named_by: str = NAMED_BY) -> YamlFile:
    return YamlFile(path, named_by=named_by, holds="strategies", error=errors.StrategiesFileError)


def _strategies(file: YamlFile) -> Iterator[tuple[Place, StrategyPart]]:
    """Yield the strategies with their places."""
    for number, entry in enumerate(file.parse(StrategiesPart, file.data).strategies):
        at = ("strategies", number)
        yield at, file.parse(StrategyPart, entry, at)


def _limits(file: YamlFile) -> Iterator[Limit]:
    """Yield the limits; a strategy or an account has them at one place only."""
    given: list[tuple[Place, object, dict[str, str]]] = [
        ((*at, "limits"), one.limits, {"strategy_id": one.strategy_id})
        for at, one in _strategies(file)
    ]
    for number, entry in enumerate(file.parse(StrategiesPart, file.data).accounts):
        account = file.parse(AccountPart, entry, ("accounts", number))
        given.append((("accounts", number, "limits"), account.limits, {"account": account.account}))
    places: dict[str, Place] = {}
    for at, value, subject in given:
        found = limits_at(file, at, value, subject)
        if not found:
            continue
        name = found[0].subject
        if name in places:
            file.fail(
                at,
                f"the {name} has limits already, in line {file.line(places[name])}",
                "Write them at one place",
            )
        places[name] = at
        yield from found
