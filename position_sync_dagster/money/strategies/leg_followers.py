"""Legs that change without a person: those that were rolled, and those that rules choose."""

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import datetime, timedelta
from pathlib import Path

from polars import col

from position_sync_dagster import errors
from position_sync_dagster.domain.clock import A_DAY, Clock, utc_now
from position_sync_dagster.domain.holding import BrokerPosition, Key
from position_sync_dagster.domain.instrument import contract_name
from position_sync_dagster.domain.leg import ActiveContract, Leg
from position_sync_dagster.lake.lake import all_broker_rows
from position_sync_dagster.lake.schema import one_of
from position_sync_dagster.lake.strategy_registry import (
    Legs,
    StrategyRegistry,
    SyncRegistry,
    memberships_of,
)
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.explain_closes import BEFORE, IS_CLOSE, WINDOW
from position_sync_dagster.money.strategies.rolled_legs import Roll, rolled_legs
from position_sync_dagster.money.strategies.rules import Rule, leg_of, legs_of_rules
from position_sync_dagster.money.strategies.strategies_file import (
    RuledFile,
    following_rolls,
    saved_file,
    without_listed,
)
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.exchange_days import LISTED, day_of
from position_sync_dagster.yaml_file import saved_state

logger = logging.getLogger(__name__)

# How old the changes of a roll must be before it is followed: those of a combo order arrive one by
# one, and the last of them may make the roll unclear.
SETTLED_AFTER = timedelta(seconds=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class LegChange:
    """A leg that was rolled, and the one that replaces it."""

    roll: Roll
    before: ActiveContract
    after: ActiveContract

    def __str__(self) -> str:
        """Return the change as a line."""
        roll = self.roll
        closed = f"{roll.quantity:+g} {contract_name(self.before)}"
        opened = f"{contract_name(self.after)} (conid {self.after.conid})"
        made_at = f"{roll.at:%Y-%m-%d %H:%M:%S} UTC"
        return f"{self.before.strategy_id}: {closed} → {opened}, {made_at}"


def apply(lake: MoneyLake, changes: Sequence[LegChange]) -> list[LegChange]:
    """Replace the rolled legs in one commit; return those that were replaced.

    A leg that was changed or removed meanwhile is left alone.
    """

    def step(before: Legs, _: object) -> Legs:
        legs = dict(before)
        for change in changes:
            if legs.get(change.before.key) == change.before and change.after.key not in legs:
                del legs[change.before.key]
                legs[change.after.key] = change.after
        return legs

    _before, after = lake.registry.sync.change(step, "roll")
    return [change for change in changes if after.get(change.after.key) is change.after]


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """The rolls of the strategies that follow them.

    Attributes:
        due: The legs to replace.
        refused: The rolls that are left to a person, each with the reason.
    """

    due: tuple[LegChange, ...] = ()
    refused: tuple[str, ...] = ()


def rolls_to_follow(lake: MoneyLake, settings: Settings, now: datetime) -> Followed:
    """Return what to do about the rolls of strategies with `follow_rolls: true`; blocks.

    Args:
        settings: They name the strategies file; without one, no strategy follows rolls.

    Raises:
        LakeError: A table cannot be used.
        StrategiesFileError: The strategies file cannot be read.
    """
    following = following_rolls(settings.strategies_file)
    if not following:
        return Followed()

    legs = lake.registry.sync.get_all_active()
    legs_that_follow = [leg for leg in legs if leg.strategy_id in following]
    rolls = _rolls(lake, legs_that_follow, now)
    if not rolls:
        return Followed()

    rows = all_broker_rows(lake, settings).filter(col.position != 0)
    held = set(rows.select("account", "conid").iter_rows())
    due: list[LegChange] = []
    refused: list[str] = []

    for leg in legs_that_follow:
        name = f"{leg.strategy_id}: {contract_name(leg)}"
        clear = []
        for roll in rolls:
            if not _concerns(leg, roll):
                continue
            if roll.is_clear:
                clear.append(roll)
            else:
                refused.append(f"{name}: {roll}")

        if not clear or now - max(roll.opened[0].seen_at for roll in clear) < SETTLED_AFTER:
            continue

        change = _change(leg, clear[-1], now)
        new_name = contract_name(change.after)
        reason = _why_not(change, clear, legs, held)
        if reason is None:
            due.append(change)
        else:
            refused.append(f"{name} was rolled to {new_name}, but {reason}")
    return Followed(due=tuple(due), refused=tuple(refused))


@dataclass(eq=False, repr=False)
class RollFollower:
    """Replaces the legs of strategies that follow rolls; blocks.

    A roll that is left to a person is logged once.
    """

    lake: MoneyLake
    settings: Settings
    _: KW_ONLY
    clock: Clock = utc_now

    def __post_init__(self) -> None:
        self._logged: set[str] = set()

    def follow(self) -> Followed:
        """Apply the rolls that are clear, all in one commit; return what was done.

        Raises:
            LakeError: A table cannot be used.
        """
        try:
            rolls = rolls_to_follow(self.lake, self.settings, self.clock())
            replaced = apply(self.lake, rolls.due) if rolls.due else []
        except (errors.StrategiesFileError, errors.InvalidLegError) as error:
            rolls = Followed(refused=(f"no roll is followed: {error}",))
            replaced = []

        for change in replaced:
            logger.warning("the strategy follows a roll: %s", change)
        for text in rolls.refused:
            if text not in self._logged:
                logger.warning("a roll is not followed: %s. Change the strategies file.", text)
        self._logged = set(rolls.refused)
        return Followed(due=tuple(replaced), refused=rolls.refused)

    def follow_changes(self, *_of_gateway: object) -> Followed:
        """Follow the rolls among the changes; what the gateway named is in the tables."""
        return self.follow()


def _rolls(lake: MoneyLake, legs: Iterable[ActiveContract], now: datetime) -> list[Roll]:
    """Return the rolls of legs, by all changes of their underlyings since the first leg closed."""
    table = lake.position_changes
    of_legs = one_of("conid", [leg.conid for leg in legs])
    closed = table.rows(now - WINDOW, IS_CLOSE & of_legs, ("symbol", "seen_at"))
    if closed.is_empty():
        return []

    first: datetime = closed.select(col.seen_at.min()).item() - A_DAY
    changes = table.records(first, one_of("symbol", closed["symbol"].unique()))
    conids = {change.conid for change in changes}
    since = first - BEFORE
    closures = lake.closures.current(since=since)
    movements = lake.movements.records(since.date(), one_of("conid", conids))
    return rolled_legs(closures, changes, movements)


def _concerns(leg: ActiveContract, roll: Roll) -> bool:
    """Return whether a leg had what a roll closed."""
    for change in roll.closed:
        is_in_account = leg.account in (None, change.account)
        if leg.conid == change.conid and is_in_account and leg.added_at <= change.seen_at:
            return True
    return False


# What of a leg its new contract keeps.
_KEPT = ("quantity", "account", "priority", "since")


def _change(leg: ActiveContract, roll: Roll, now: datetime) -> LegChange:
    [opened] = roll.opened
    kept = {name: getattr(leg, name) for name in _KEPT}
    earlier_conids = map(str, [*leg.replaced, leg.conid])
    rolled_from = ",".join(earlier_conids)
    after = leg_of(opened, leg.strategy_id, now, **kept, rolled_from=rolled_from)
    return LegChange(roll=roll, before=leg, after=after)


def _why_not(
    change: LegChange, rolls: Sequence[Roll], legs: Iterable[ActiveContract], held: set[Key]
) -> str | None:
    """Return why a person must decide about the roll of a leg; None if it is clear."""
    leg = change.before
    new_leg = change.after
    roll = change.roll
    is_whole = roll.is_complete and leg.quantity in (None, roll.quantity)
    if len(rolls) > 1 or not is_whole:
        return "only a part of it at a time"

    accounts = sorted(account for account, conid in held if conid == leg.conid)
    if accounts and leg.account in (None, *accounts):
        return f"it is still held in {', '.join(accounts)}"
    if (roll.closed[0].account, new_leg.conid) not in held:
        return "the new contract is not held any more"

    for active_leg in legs:
        accounts_of_both = {leg.account, active_leg.account}
        is_elsewhere = None not in accounts_of_both and len(accounts_of_both) > 1
        if is_elsewhere or active_leg.key == leg.key:
            continue
        if active_leg.conid == leg.conid:
            return f"the strategy {active_leg.strategy_id} has it too"
        if active_leg.conid == new_leg.conid:
            return f"the strategy {active_leg.strategy_id} has the new contract already"
    return None


@dataclass(eq=False, repr=False)
class RuleFollower:
    """Evaluates the rules for the owner of a login: it alone knows at once what is held.

    A file that was saved is applied as a whole. While it has a mistake, the legs stay as they were.

    Args:
        calendar: The exchange whose day is today.
    """

    registry: StrategyRegistry
    file: Path
    _: KW_ONLY
    clock: Clock = utc_now
    calendar: str = LISTED

    def __post_init__(self) -> None:
        self._rules: list[Rule] = []
        self._saved: object = None
        self._followed: object = None

    def is_due(self, moves: int, *, first: bool) -> bool:
        """Return whether the file, the day, the registry or what is held changed.

        Args:
            moves: How often holdings opened, closed or turned.
            first: Whether they are those of a new connection.
        """
        if first:
            self._followed = None
        return self._followed != self._inputs(moves)

    def apply(
        self, holdings: Iterable[BrokerPosition], accounts: Collection[str], moves: int
    ) -> None:
        """Apply the file if it was saved, and its rules to what these accounts hold; blocks.

        Args:
            holdings: All holdings of the login.
            accounts: The accounts of the login; what rules chose in others stays.
            moves: As for `is_due`.

        Raises:
            LakeError: The table cannot be used.
        """
        inputs = self._inputs(moves)
        saved = inputs[0]
        if self._saved != saved:
            self._apply_file()
            self._saved = saved
        if self._rules:
            self._apply_rules(holdings, accounts)
        self._followed = inputs

    def _apply_file(self) -> None:
        """Apply what the file lists, and read its rules; a mistake leaves both as they were."""
        try:
            # Also what is listed: an older state of the rules may have been written since.
            RuledFile(self.file).apply(self.registry.sync)
            self._rules = saved_file(self.file).rules
        except (errors.StrategiesFileError, errors.InvalidLegError) as error:
            logger.warning("the legs stay as they were read last: %s", error)

    def _apply_rules(self, holdings: Iterable[BrokerPosition], accounts: Collection[str]) -> None:
        """Replace the legs of the rules by what they choose now."""
        names = {rule.name for rule in self._rules}
        active: tuple[Leg, ...] = (*self.registry.legs, *self.registry.unresolved)
        listed: list[Leg] = [leg for leg in active if leg.strategy_id not in names]
        legs = legs_of_rules(self._rules, holdings, listed, self.clock(), self.calendar)
        try:
            if follow_rules(self.registry.sync, names, accounts, legs):
                logger.info("the rules have %d legs", len(legs))
        except errors.InvalidLegError as error:  # it must not end the stream, which calls this
            logger.warning("the legs of the rules stay as they were: %s", error)

    def _inputs(self, moves: int) -> tuple[object, ...]:
        today = day_of(self.calendar, self.clock())
        return saved_state(self.file), today, self.registry.version, moves


def follow_rules(
    registry: SyncRegistry,
    rules: Collection[str],
    accounts: Collection[str],
    chosen: Collection[ActiveContract],
) -> bool:
    """Make the legs of rules in some accounts equal to these; return whether any changed.

    Args:
        registry: Has the active legs.
        rules: The names of all rules.
        accounts: The accounts of the login whose holdings were read.
        chosen: What the rules choose there; a contract that a strategy has is left to it.
    """

    def step(before: Legs, _: object) -> Legs:
        listed = []
        unaffected = {}
        for key, leg in before.items():
            if leg.strategy_id not in rules:
                listed.append(leg)
            elif leg.account in accounts:
                continue
            unaffected[key] = leg
        return unaffected | memberships_of(without_listed(chosen, listed), before)

    before, after = registry.change(step, "rules")
    return before != after
