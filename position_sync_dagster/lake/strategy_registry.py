"""The registry: the active legs in memory, and the table `active_strategies`.

`StrategyRegistry` is for asyncio; `SyncRegistry` has blocking calls.

A *membership* is the stay of one leg in one strategy: a row of the table. A leg whose contract is
not known yet has no conid, and is described by its terms (`UnresolvedLeg`): the owner of the
gateway finds its contract later. A leg without a quantity *holds the whole* of its contract.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any, Unpack

import polars as pl
from polars import DataFrame

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.instrument import contract_name
from position_sync_dagster.domain.leg import (
    ActiveContract,
    Leg,
    Terms,
    UnresolvedLeg,
    strategy_name,
)
from position_sync_dagster.errors import AmbiguousRemovalError, InvalidLegError, UnknownLegError
from position_sync_dagster.lake.given_leg import ContractTerms, make_leg, read_given
from position_sync_dagster.lake.schema import ACTIVE_STRATEGIES, legs_of
from position_sync_dagster.lake.storage.lifecycle_table import Change, LifecycleTable, Snapshot
from position_sync_dagster.lake.storage.table import Table, TableOptions
from position_sync_dagster.lake.storage.threads import offloaded

logger = logging.getLogger(__name__)

# The key of a leg: with its conid, or with the terms that describe its contract.
LegKey = tuple[str, str | None, int | Terms]

Legs = Mapping[LegKey, Leg]

# Returns the legs in place of the active ones; reads those that ended, if it needs them.
Replacement = Callable[[Legs, Callable[[], list[Leg]]], Iterable[Leg]]

# The bucket of memberships that have ended.
REMOVED = "removed"


def in_order(legs: Collection[Leg]) -> tuple[tuple[ActiveContract, ...], tuple[UnresolvedLeg, ...]]:
    """Return legs by conid, account and strategy, and separately those without a conid."""
    contracts = [leg for leg in legs if isinstance(leg, ActiveContract)]
    described = [leg for leg in legs if isinstance(leg, UnresolvedLeg)]
    contracts.sort(key=lambda leg: (leg.conid, leg.account or "", leg.strategy_id))
    described.sort(key=lambda leg: (leg.strategy_id, leg.described, leg.account or ""))
    return tuple(contracts), tuple(described)


class SyncRegistry:
    """The registry with blocking calls; see `StrategyRegistry`.

    Attributes:
        version: The version of the table that was read last; -1 before the first read.
        legs: The active legs whose contract is known, as last read.
        unresolved: The active legs whose contract is still to be found, as last read.
    """

    def __init__(self, table: Table, clock: Clock) -> None:
        self._memberships = LifecycleTable(table, clock)
        self.clock = clock
        self.version = -1
        self.legs, self.unresolved = in_order(())
        self._accounts: dict[int, set[str | None]] = {}  # by conid; None: a leg of any account
        self._rows: DataFrame | None = None  # of `version`: the same object until they change

    def initialize(self) -> None:
        """Create the table, or check and migrate it, and read the active legs."""
        self._memberships.table.initialize()
        self.refresh()

    def is_active(self, conid: int, account: str | None = None) -> bool:
        """Return, from memory, whether a strategy has the leg; without an account, in any.

        A leg that names no account is in each account.
        """
        accounts = self._accounts.get(conid, set())
        if account is None:
            return bool(accounts)
        return account in accounts or None in accounts

    def refresh(self) -> bool:
        """Read the changes of other processes, and return whether the active legs differ now."""
        snapshot = self._memberships.snapshot()
        if snapshot.live is self._rows:  # the same frame: no commit since the last read
            return False

        before = (self.legs, self.unresolved)
        self.legs, self.unresolved = in_order(legs_of(snapshot.live))

        accounts = defaultdict[int, set[str | None]](set)
        for leg in self.legs:
            accounts[leg.conid].add(leg.account)
        # One assignment, since `is_active` is called from other threads without a lock.
        self._accounts = accounts
        self.version = snapshot.version
        self._rows = snapshot.live

        return before != (self.legs, self.unresolved)

    def get_all_active(self) -> list[ActiveContract]:
        """Read the active legs whose contract is known, by conid, account and strategy."""
        self.refresh()
        return list(self.legs)

    def get_unresolved(self) -> list[UnresolvedLeg]:
        """Read the active legs whose contract is still to be found, by strategy."""
        self.refresh()
        return list(self.unresolved)

    def history(self) -> DataFrame:
        """Return the row of every leg that has a conid, also of those that were removed."""
        return self._memberships.table.rows(pl.col.conid.is_not_null())

    def add_active(
        self,
        /,
        conid: int | None = None,
        symbol: str = "",
        right: str | None = None,
        strike: float | None = None,
        expiry: str | date | None = None,
        strategy_id: int | str = "",
        **more: Any,
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
            more: Other fields of `GivenLeg`: the `quantity` (signed contracts; without it the whole
                holding) and `account` (without it any) that belong to this strategy, the
                `priority`, the first day whose trades belong to it (`since`), and what describes
                the contract further.

        Raises:
            InvalidLegError: A field does not parse, or two strategies would hold the whole.
        """
        terms = {"conid": conid, "symbol": symbol, "right": right, "strike": strike} | more
        leg = make_leg(strategy_id=strategy_id, added_at=self.clock(), expiry=expiry, **terms)
        [membership] = self.add_many([leg])
        return membership

    def add_many(self, legs: Iterable[Leg]) -> list[Leg]:
        """Add many legs in one commit, and return the active membership of each.

        A leg with a conid replaces a leg with the same description and no conid. One that is given
        twice is added, and returned, once.

        Raises:
            InvalidLegError: A strategy has one leg twice, with different values, or two strategies
                would hold the whole.
        """
        wanted = list(legs)
        added: dict[LegKey, Leg] = {}

        def step(before: Legs, _: Snapshot) -> Legs:
            # The active legs after the addition: those before, the added ones in place of the same.
            nonlocal added
            added = memberships_of(with_known_contracts(wanted, before.values()), before)
            after = dict(before)
            for leg in added.values():
                # The key that it would have without a conid: its contract is known now.
                after.pop((leg.strategy_id, leg.account, leg.terms), None)
            return after | added

        self.change(step, "add")
        return list(added.values())

    def remove_active(
        self,
        /,
        conid: int | str | None = None,
        strategy_id: int | str | None = None,
        account: str | None = None,
        **described: Any,
    ) -> Leg:
        """Remove a leg from a strategy, and return the ended membership.

        Its row is kept, with the time of removal.

        Args:
            conid: The contract; None for a leg that is named by its symbol.
            strategy_id: May be left out when only one strategy has the leg.
            account: May be left out likewise; "any" is that of a leg that names no account.
            described: The `symbol`, needed without a conid; other fields of `ContractTerms` narrow
                it.

        Raises:
            InvalidLegError: Neither conid nor symbol is given, or one does not parse.
            UnknownLegError: No strategy has the leg.
            AmbiguousRemovalError: Several memberships match; the message names them.
        """
        terms = read_given(ContractTerms, {"conid": conid, **described})
        wanted = terms.model_dump(exclude_none=True)
        if "conid" not in wanted and not wanted.get("symbol"):
            raise InvalidLegError("A leg has neither conid nor symbol.", remedy="Give one.")

        def step(before: Legs, _: Snapshot) -> Legs:
            # The active legs without the one that is meant.
            leg = find_membership(before.values(), strategy_id, account, wanted)
            after = dict(before)
            del after[leg.key]
            return after

        before, after = self.change(step, "remove")
        [key] = before.keys() - after.keys()
        return before[key].ended(self.clock())

    def replace_all(self, legs: Iterable[Leg]) -> tuple[int, int]:
        """Make the active legs equal to these, in one commit.

        Returns:
            How many legs joined, and how many left.
        """
        listed = list(legs)
        return self.replace(lambda before, _: with_known_contracts(listed, before.values()))

    def replace(self, step: Replacement) -> tuple[int, int]:
        """Make the active legs equal to those that a step returns, in one commit.

        A leg with other values than before counts as one that left and one that joined. The step
        gets the active legs, and a call that reads those that ended: a roll is found among them.

        Returns:
            How many legs joined, and how many left.
        """

        def replaced(before: Legs, snapshot: Snapshot) -> Legs:
            # Legs that the step returns unchanged keep their memberships.
            return memberships_of(step(before, lambda: legs_of(snapshot.finished())), before)

        before, after = self.change(replaced, "replace")
        joined = after.items() - before.items()
        left = before.items() - after.items()
        return len(joined), len(left)

    def settle(self, findings: Iterable[tuple[UnresolvedLeg, int | str]]) -> None:
        """Record in one commit which contracts were found, and why others were not.

        A leg that was changed or removed meanwhile is left alone. A leg keeps the time at which it
        was added: finding its contract begins no new membership.

        Args:
            findings: Legs without a conid, each with its conid or its problem in words.
        """
        listed = list(findings)
        now = self.clock()

        def step(legs: Legs, _: Snapshot) -> Legs:
            # One finding after the other: each is checked against the legs after those before it.
            for leg, finding in listed:
                legs = settled(legs, leg, finding, now)
            return legs

        self.change(step, "settle", ends=False)

    def change(
        self, step: Callable[[Legs, Snapshot], Legs], action: str, *, ends: bool = True
    ) -> tuple[Legs, Legs]:
        """Run a step on the active legs by key, commit those that it returns, and return both.

        It may run again, if another process has changed the legs meanwhile.

        Args:
            step: Returns the legs after it.
            action: Its name in the log.
            ends: Whether the memberships that are gone or differ have ended; their rows are kept.
                False for `settle`: a leg whose contract is found goes on in the same membership.
        """

        def change_rows(snapshot: Snapshot) -> Change[tuple[Legs, Legs]]:
            # All active legs are written again: the table has no key (`Change.live`).
            before: Legs = {leg.key: leg for leg in legs_of(snapshot.live)}
            after = step(before, snapshot)
            if before == after:
                return Change((before, after))

            removed: list[Leg] = []
            # A contract that was found ends no membership, and `settled` has looked whether another
            # strategy holds the whole of it.
            if ends:
                refuse_two_whole_holders(after.values())
                now = self.clock()
                removed = [leg.ended(now) for key, leg in before.items() if after.get(key) != leg]

            return Change((before, after), after.values(), {REMOVED: removed})

        result = self._memberships.change(change_rows, {"action": action})
        self.refresh()
        count = len(self.legs) + len(self.unresolved)
        logger.info("%s: %d legs are active", action, count)
        return result


def memberships_of(legs: Iterable[Leg], before: Legs) -> dict[LegKey, Leg]:
    """Return each leg's membership: the present one if the leg is unchanged, else a new one.

    Args:
        legs: The legs that are wanted; one that is named twice is taken once.
        before: The active legs.

    Raises:
        InvalidLegError: A strategy has one leg twice, with different values, or a reserved name.
    """
    distinct: dict[LegKey, Leg] = {}
    for leg in legs:
        strategy_name(leg.strategy_id)
        first = distinct.setdefault(leg.key, leg)
        if first is not leg and not is_unchanged(first, leg):
            message = (
                f"The strategy {leg.strategy_id!r} names the leg {name_of(leg)} twice, with "
                "different values."
            )
            raise InvalidLegError(message, remedy="Keep one of them.")

    return {
        key: before[key] if is_unchanged(before.get(key), leg) else leg
        for key, leg in distinct.items()
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
    refresh = offloaded(SyncRegistry.refresh)


def is_unchanged(before: Leg | None, leg: Leg) -> bool:
    """Return whether a leg equals the active membership (None: there is none).

    The time at which it was added, the result of the search for its contract and its rolls are not
    compared: they are no word of a person on the leg.
    """
    if type(before) is not type(leg):
        return False

    not_compared = {
        name: getattr(before, name)
        for name in ("added_at", "resolved_at", "rolled_from", "problem")
        if name in leg.__dataclass_fields__
    }
    return replace(leg, **not_compared) == before


def with_known_contracts(legs: Iterable[Leg], before: Iterable[Leg]) -> list[Leg]:
    """Return the legs, with the conids that were found before for the same descriptions.

    A conid is used only for the strategy and account for which it was found (`resolved_at`).
    Reading the same file again, which has the leg without a conid, therefore changes nothing.
    """
    contracts: dict[LegKey, ActiveContract] = {
        (leg.strategy_id, leg.account, leg.terms): leg
        for leg in before
        if isinstance(leg, ActiveContract) and leg.resolved_at is not None
    }

    def with_contract(leg: Leg) -> Leg:
        # The key of a leg without a conid has its terms.
        contract = contracts.get(leg.key)
        if contract is None or isinstance(leg, ActiveContract):
            return leg
        return leg.resolved(contract.conid, contract.resolved_at)

    return list(map(with_contract, legs))


def settled(
    legs: Mapping[LegKey, Leg], leg: UnresolvedLeg, finding: int | str, at: datetime
) -> dict[LegKey, Leg]:
    """Return the legs after the search for the contract of one of them.

    If the strategy already has the contract, or another strategy holds the whole of it, the leg
    stays unresolved and records that as its `problem`, for a person.

    Args:
        legs: The active legs by key.
        leg: The leg whose contract was searched; ignored if it is no longer among them.
        finding: Its conid, or the problem in words.
        at: When it was found.
    """
    present = legs.get(leg.key)
    if not isinstance(present, UnresolvedLeg):
        return dict(legs)

    problem = str(finding)
    if isinstance(finding, int):
        resolved = present.resolved(finding, at)
        after = dict(legs)
        del after[leg.key]
        after[resolved.key] = resolved
        try:
            refuse_two_whole_holders(after.values())
        except InvalidLegError as error:
            problem = str(error)
        else:
            if resolved.key not in legs:
                return after
            problem = f"The strategy has its contract already, as the leg {finding}."

    return {**legs, leg.key: replace(present, problem=problem)}


def name_of(leg: Leg) -> str:
    """Return the contract of a leg as a trader writes it, with its conid, or its description."""
    if isinstance(leg, ActiveContract):
        return f"{contract_name(leg)} (conid {leg.conid})"

    return leg.described


def two_whole_holders(legs: Iterable[Leg]) -> tuple[ActiveContract, ActiveContract] | None:
    """Return two legs of different strategies that each hold the whole of a contract; None: none.

    A leg without an account is in every account. A leg with a quantity holds a part, and conflicts
    with no other; neither does one whose contract is not known.
    """
    of_conid: defaultdict[int, dict[str | None, ActiveContract]] = defaultdict(dict)
    for leg in legs:
        if isinstance(leg, UnresolvedLeg) or leg.quantity is not None:
            continue

        # Holders of the whole by account; None: in each account. This leg meets those of its own
        # account and of each account; one that is in each account itself meets all of them.
        holders = of_conid[leg.conid]
        accounts = list(holders) if leg.account is None else [leg.account, None]
        for account in accounts:
            holder = holders.get(account)
            if holder is not None and holder.strategy_id != leg.strategy_id:
                return holder, leg
        holders.setdefault(leg.account, leg)
    return None


def refuse_two_whole_holders(legs: Iterable[Leg]) -> None:
    """Check that no two strategies each hold the whole of a leg in one account.

    Raises:
        InvalidLegError: Two strategies do; the message names them.
    """
    holders = two_whole_holders(legs)
    if holders is not None:
        holder, leg = holders
        account = holder.account or leg.account or "any account"
        raise InvalidLegError(
            f"The strategies {holder.strategy_id!r} and {leg.strategy_id!r} would both hold the "
            f"whole of leg {name_of(leg)} in {account}.",
            remedy="Set the quantity (signed contracts) that each has of the leg.",
        )


# The account, as a person names it, of a leg that is in any account.
ANY = "any"


def find_membership(
    legs: Iterable[Leg],
    strategy_id: int | str | None,
    account: str | None,
    wanted: Mapping[str, object],
) -> Leg:
    """Return the one membership that matches; None matches every strategy or account.

    Args:
        legs: The active legs.
        account: `ANY` for a leg that names no account.
        wanted: Fields of a leg and their values, such as symbol and strike.

    Raises:
        UnknownLegError: None matches.
        AmbiguousRemovalError: Several match; the message names them.
    """
    memberships = []
    for leg in legs:
        is_of_strategy = strategy_id is None or leg.strategy_id == str(strategy_id)
        is_of_account = account in (None, leg.account or ANY)
        has_terms = all(getattr(leg, name) == value for name, value in wanted.items())
        if is_of_strategy and is_of_account and has_terms:
            memberships.append(leg)

    terms = " ".join(f"{name} {value}" for name, value in wanted.items())
    if not memberships:
        raise UnknownLegError(
            f"No active leg of this strategy and account has the {terms}.",
            remedy="List the active legs and take conid, strategy and account from there.",
        )

    if len(memberships) > 1:
        names = [f"{leg.strategy_id!r} ({leg.account or 'any account'})" for leg in memberships]
        raise AmbiguousRemovalError(
            f"The leg with the {terms} has several holders: {', '.join(sorted(names))}.",
            remedy="Name its strategy, and its account if needed: "
            f"{ANY!r} for a leg in any account.",
        )
    return memberships[0]
