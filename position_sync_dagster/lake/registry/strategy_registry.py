"""The registry: the active legs in memory, and the table `active_strategies`.

`StrategyRegistry` is for asyncio; `SyncRegistry` has blocking calls.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import TypeVar, Unpack

import polars as pl

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.instrument import parse_conid, parse_expiry, parse_right
from position_sync_dagster.domain.leg import ActiveContract, Leg, UnresolvedLeg, make_leg
from position_sync_dagster.errors import InvalidLegError
from position_sync_dagster.lake.registry import memberships
from position_sync_dagster.lake.registry.memberships import LegKey
from position_sync_dagster.lake.registry.strategies_file import NAMED_BY, StrategiesFile
from position_sync_dagster.lake.schema.codec import leg_rows, legs_of
from position_sync_dagster.lake.schema.tables import ACTIVE_STRATEGIES
from position_sync_dagster.lake.storage.lifecycle_table import Change, LifecycleTable, Snapshot
from position_sync_dagster.lake.storage.table import Table, TableOptions
from position_sync_dagster.lake.storage.threads import offloaded

logger = logging.getLogger(__name__)

T = TypeVar("T")
_Legs = Mapping[LegKey, Leg]

REMOVED = "removed"
"""The bucket of memberships that have ended."""


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


class SyncRegistry:
    """The registry with blocking calls; see `StrategyRegistry`."""

    def __init__(self, table: Table, clock: Clock) -> None:
        self._memberships = LifecycleTable(table, clock)
        self._clock = clock
        self._index = LegIndex()
        self._version = -1
        self._rows: pl.DataFrame | None = None

    @property
    def version(self) -> int:
        """The version of the table that was read last; -1 before the first read."""
        return self._version

    @property
    def legs(self) -> tuple[ActiveContract, ...]:
        """The active legs whose contract is known, as last read."""
        return self._index.legs

    @property
    def unresolved(self) -> tuple[UnresolvedLeg, ...]:
        """The active legs whose contract is still to be found, as last read."""
        return self._index.unresolved

    def initialize(self) -> None:
        """Create the table, or check and migrate it, and read the active legs."""
        self._memberships.initialize()
        self.refresh()

    def is_active(self, conid: int, account: str | None = None) -> bool:
        """Return, from memory, whether a strategy has the leg."""
        return self._index.is_active(conid, account)

    def refresh(self) -> bool:
        """Read the changes of other processes, and return whether the active legs differ now."""
        snapshot = self._memberships.snapshot()
        if snapshot.version == self._version and snapshot.live is self._rows:
            return False
        # One assignment, since `is_active` is called from other threads without a lock.
        before, after = self._index, LegIndex(legs_of(snapshot.live))
        self._index, self._version, self._rows = after, snapshot.version, snapshot.live
        return (before.legs, before.unresolved) != (after.legs, after.unresolved)

    def get_all_active(self) -> list[ActiveContract]:
        """Read the active legs whose contract is known, by conid, account and strategy."""
        self.refresh()
        return list(self._index.legs)

    def history(self) -> pl.DataFrame:
        """Return the row of every leg that has a conid, also of those that were removed."""
        return self._memberships.table.rows().filter(pl.col("conid").is_not_null())

    def get_unresolved(self) -> list[UnresolvedLeg]:
        """Read the active legs whose contract is still to be found, by strategy."""
        self.refresh()
        return list(self._index.unresolved)

    def add_active(
        self,
        conid: int | None = None,
        symbol: str = "",
        right: str | None = None,
        strike: float | None = None,
        expiry: str | date | None = None,
        strategy_id: int | str = "",
        *,
        quantity: float | None = None,
        account: str | None = None,
        priority: int = 1,
        sec_type: str | None = None,
        trading_class: str | None = None,
        multiplier: float | None = None,
        exchange: str | None = None,
        currency: str | None = None,
    ) -> Leg:
        """Add a leg to a strategy; the same leg again changes nothing.

        A leg with other values ends the present membership and begins a new one. Strategies share
        a leg by quantities: at most one may hold the whole (`quantity` None) of a conid in an
        account.

        Args:
            conid: The contract; None: the owner of the gateway finds it by the other fields. Until
                then the leg is an `UnresolvedLeg`.
            symbol: The symbol of the underlying; required.
            right: CALL or PUT; C and P are accepted too. None for a stock, a future or another
                hedge, which has no strike either.
            expiry: As IB writes it, "20260220", or a date; None where there is none.
            strategy_id: The strategy; required.
            quantity: Signed contracts that belong to this strategy; None for the whole holding.
            account: The account; None for any account.
            sec_type: IB's security type, where right and expiry do not show it (FOP, IND, CASH).
            trading_class: Distinguishes contracts with equal terms, such as SPX and SPXW.
            multiplier, exchange, currency: Describe the contract further.

        Raises:
            InvalidLegError: A field does not parse, or two strategies would hold the whole.
        """
        leg = make_leg(
            conid=conid,
            symbol=symbol,
            right=right,
            strike=strike,
            expiry=expiry,
            strategy_id=strategy_id,
            added_at=self._clock(),
            quantity=quantity,
            account=account,
            priority=priority,
            sec_type=sec_type,
            trading_class=trading_class,
            multiplier=multiplier,
            exchange=exchange,
            currency=currency,
        )
        return self.add_many([leg])[0]

    def add_many(self, legs: Iterable[Leg]) -> list[Leg]:
        """Add many legs in one commit, and return the active membership of each.

        A leg with a conid replaces a leg with the same description and no conid.
        """
        wanted = list(legs)

        def step(before: _Legs, _: Snapshot) -> Change[list[Leg]]:
            added = memberships.distinct_legs(
                memberships.with_known_contracts(wanted, before.values())
            )
            replaced = {(leg.strategy_id, leg.account, leg.terms) for leg in added}
            kept = {key: leg for key, leg in before.items() if key not in replaced}
            after = kept | _memberships_of(added, before)
            result = [after[leg.key] for leg in added]
            return self._replace(before, after, result)

        return self._change(step, "add")

    def remove_active(
        self,
        conid: int | None = None,
        strategy_id: int | str | None = None,
        account: str | None = None,
        *,
        symbol: str | None = None,
        right: str | None = None,
        strike: float | None = None,
        expiry: str | date | None = None,
        trading_class: str | None = None,
    ) -> Leg:
        """Remove a leg from a strategy, and return the ended membership.

        Its row is kept, with the time of removal.

        Args:
            conid: The contract; None for a leg that is named by its symbol.
            strategy_id: May be left out when only one strategy has the leg.
            account: May be left out likewise; "any" is that of a leg that names no account.
            symbol: Needed without a conid; right, strike, expiry and trading class narrow it.

        Raises:
            InvalidLegError: Neither conid nor symbol is given, or one does not parse.
            UnknownLegError: No strategy has the leg.
            AmbiguousRemovalError: Several memberships match; the message names them.
        """
        if conid is None and not symbol:
            raise InvalidLegError("The leg has neither conid nor symbol.", remedy="Give one.")
        described = {
            "symbol": symbol,
            "right": None if right is None else parse_right(right),
            "strike": strike,
            "expiry": None if expiry is None else parse_expiry(expiry),
            "trading_class": trading_class,
        }
        number = None if conid is None else parse_conid(conid)

        def step(before: _Legs, _: Snapshot) -> Change[Leg]:
            leg = memberships.find_membership(
                before.values(), number, strategy_id, account, described
            )
            after = {key: other for key, other in before.items() if key != leg.key}
            return self._replace(before, after, leg.ended(self._clock()))

        return self._change(step, "remove")

    def replace_all(
        self,
        legs: Iterable[Leg],
        *,
        following: Collection[str] = (),
        rules: Collection[str] = (),
    ) -> tuple[int, int]:
        """Make the active legs equal to these, in one commit.

        Args:
            legs: The legs of a file.
            following: The strategies that follow rolls: what their legs became stays.
            rules: The names of rules: their legs stay, apart from those that a strategy has now.

        Returns:
            How many legs joined, and how many left.
        """
        given = list(legs)

        def step(before: _Legs, snapshot: Snapshot) -> Change[tuple[int, int]]:
            known = memberships.with_known_contracts(given, before.values())
            if following:
                # A description that was rolled is found among the legs that ended.
                rows = legs_of(snapshot.finished("conid IS NOT NULL", None))
                ended = [leg for leg in rows if isinstance(leg, ActiveContract)]
                known = memberships.with_rolls(known, before.values(), ended, following)
            of_rules = [leg for leg in before.values() if leg.strategy_id in rules]
            wanted = memberships.distinct_legs(
                [*known, *memberships.without_listed(of_rules, known)]
            )
            after = _memberships_of(wanted, before)
            joined = sum(before.get(key) != leg for key, leg in after.items())
            left = sum(after.get(key) != leg for key, leg in before.items())
            return self._replace(before, after, (joined, left))

        return self._change(step, "replace")

    def follow(self, path: str | Path, *, named_by: str = NAMED_BY) -> tuple[int, int]:
        """Make the active legs equal to those of a strategies file, in one commit.

        The legs of its rules stay as the owner of the login chose them.

        Returns:
            How many legs joined, and how many left.

        Raises:
            StrategiesFileError: The file cannot be read, or has a mistake.
        """
        file = StrategiesFile(path, named_by=named_by)
        return self.replace_all(
            file.legs(self._clock()),
            following=file.following_rolls,
            rules={rule.name for rule in file.rules},
        )

    def follow_rules(
        self, rules: Collection[str], accounts: Collection[str], legs: Iterable[ActiveContract]
    ) -> bool:
        """Make the legs of rules in some accounts equal to these; return whether any changed.

        Args:
            rules: The names of all rules.
            accounts: The accounts of the login whose holdings were read.
            legs: What the rules choose there; a contract that a strategy has is left to it.
        """
        chosen = list(legs)

        def step(before: _Legs, _: Snapshot) -> Change[bool]:
            listed = [leg for leg in before.values() if leg.strategy_id not in rules]
            kept = {
                leg.key: leg
                for leg in before.values()
                if leg.strategy_id not in rules or leg.account not in accounts
            }
            own = memberships.without_listed(chosen, listed)
            after = kept | _memberships_of(own, before)
            return self._replace(before, after, dict(before) != after)

        return self._change(step, "rules")

    def exchange(
        self, pairs: Iterable[tuple[ActiveContract, ActiveContract]]
    ) -> list[ActiveContract]:
        """Replace legs by others in one commit; return the new ones.

        A leg that was changed or removed meanwhile is left alone.
        """
        wanted = list(pairs)

        def step(before: _Legs, _: Snapshot) -> Change[list[ActiveContract]]:
            after, new_legs = dict(before), list[ActiveContract]()
            for old, new in wanted:
                if after.get(old.key) == old and new.key not in after:
                    del after[old.key]
                    after[new.key] = new
                    new_legs.append(new)
            return self._replace(before, after, new_legs)

        return self._change(step, "roll")

    def settle(self, findings: Iterable[tuple[UnresolvedLeg, int | str]]) -> None:
        """Record in one commit which contracts were found, and why others were not.

        A leg that was changed or removed meanwhile is left alone. A leg keeps the time at which it
        was added: finding its contract begins no new membership.

        Args:
            findings: Legs without a conid, each with its conid or its problem in words.
        """
        found, now = list(findings), self._clock()

        def step(before: _Legs, _: Snapshot) -> Change[None]:
            after = before
            for leg, finding in found:
                after = memberships.settled(after, leg, finding, now)
            return Change(None, None if after == before else leg_rows(after.values()))

        self._change(step, "settle")

    def _replace(self, before: _Legs, after: _Legs, result: T) -> Change[T]:
        memberships.refuse_two_whole_holders(after.values())
        if before == after:
            return Change(result)
        now = self._clock()
        left = [leg.ended(now) for key, leg in before.items() if after.get(key) != leg]
        ended = leg_rows(left).with_columns(bucket=pl.lit(REMOVED))
        return Change(result, leg_rows(after.values()), ended)

    def _change(self, step: Callable[[_Legs, Snapshot], Change[T]], action: str) -> T:
        """Run a step on the active legs by key, and commit its decision."""

        def of_rows(snapshot: Snapshot) -> Change[T]:
            return step({leg.key: leg for leg in legs_of(snapshot.live)}, snapshot)

        result = self._memberships.change(of_rows, {"action": action})
        self.refresh()
        logger.info("%s: %d legs are active", action, len(self.legs) + len(self.unresolved))
        return result


def _memberships_of(legs: Iterable[Leg], before: _Legs) -> dict[LegKey, Leg]:
    """Return each leg's membership: the present one if the leg is unchanged, else a new one."""
    return {
        leg.key: before[leg.key] if memberships.is_unchanged(before.get(leg.key), leg) else leg
        for leg in legs
    }


class StrategyRegistry:
    """The legs of active strategies, shared by any number of processes.

    `is_active` answers from memory. `refresh` reads the changes of other processes; it takes less
    than a millisecond when there are none. Ended memberships are stored apart and never read again.

    Args:
        delta_lake_path: Folder or `s3://` URI of the table.

    Attributes:
        sync: The same registry with blocking calls.

    >>> registry = StrategyRegistry("data/lake/active_strategies")  # doctest: +SKIP
    >>> await registry.initialize()                                 # doctest: +SKIP
    >>> await registry.add_active(conid=700001, symbol="SPY", right="C", strike=450.0,
    ...                           expiry="20260220", strategy_id="ic-1")  # doctest: +SKIP
    >>> registry.is_active(700001)                                  # doctest: +SKIP
    True
    """

    def __init__(
        self,
        delta_lake_path: str | Path = "data/lake/active_strategies",
        *,
        clock: Clock = utc_now,
        **options: Unpack[TableOptions],
    ) -> None:
        self.table = Table(delta_lake_path, ACTIVE_STRATEGIES, **options)
        self.sync = SyncRegistry(self.table, clock)

    @property
    def delta_lake_path(self) -> str:
        """Return the folder or URI of the table."""
        return self.table.path

    @property
    def version(self) -> int:
        """The version of the table that was read last; -1 before the first read."""
        return self.sync.version

    @property
    def legs(self) -> tuple[ActiveContract, ...]:
        """The active legs whose contract is known, as last read, from memory."""
        return self.sync.legs

    @property
    def unresolved(self) -> tuple[UnresolvedLeg, ...]:
        """The active legs whose contract is still to be found, as last read, from memory."""
        return self.sync.unresolved

    initialize = offloaded(SyncRegistry.initialize)

    def is_active(self, conid: int, account: str | None = None) -> bool:
        """Return, from memory, whether a strategy has the leg; without an account, in any."""
        return self.sync.is_active(conid, account)

    add_active = offloaded(SyncRegistry.add_active)
    add_many = offloaded(SyncRegistry.add_many)
    remove_active = offloaded(SyncRegistry.remove_active)
    replace_all = offloaded(SyncRegistry.replace_all)
    get_all_active = offloaded(SyncRegistry.get_all_active)
    get_unresolved = offloaded(SyncRegistry.get_unresolved)
    settle = offloaded(SyncRegistry.settle)
    refresh = offloaded(SyncRegistry.refresh)
