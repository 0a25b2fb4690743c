"""Whose holdings and movements are, in columns: what `attributed` says of the tables."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

from polars import Boolean, DataFrame, Float64, Int64, String, coalesce, col, concat, lit

from position_sync_dagster.domain.clock import NEVER
from position_sync_dagster.domain.contract_match import contract_mismatch
from position_sync_dagster.domain.holding import KEY, QUANTITY_ROUNDING, grouped
from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.domain.leg import UNATTRIBUTED, ActiveContract
from position_sync_dagster.lake.schema import moment, one_of, records_of
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.attribution import attributed, unexplained_parts
from position_sync_dagster.money.past.connected import connected_contracts
from position_sync_dagster.money.past.movement_book import movements_with_inferred
from position_sync_dagster.money.past.movements import (
    Movement,
    moment_in,
)
from position_sync_dagster.money.past.opening import openings_in, openings_of, read_seen
from position_sync_dagster.money.past.postings import Posting
from position_sync_dagster.money.past.unexplained import held_in, held_of

# The part of a holding that belongs to one owner.
OWNED = (*KEY, "strategy_id")

# By how much a part changed what its owner has, and which part of the movement's money is its.
PART_COLUMNS = {
    "movement_id": String, "account": String, "conid": Int64, "strategy_id": String,
    "by": Float64, "fraction": Float64, "is_prior": Boolean,
}  # fmt: skip
_PART = attrgetter(
    "movement.movement_id", "movement.account", "conid", "owner", "quantity", "fraction", "is_prior"
)


@dataclass(eq=False, repr=False)
class PostingBook:
    """The movements and the legs of a lake, as they are now or were at a moment; blocks.

    Args:
        until: The moment; what is later is not known yet.

    Example:
        postings = PostingBook(lake).postings()
    """

    lake: MoneyLake
    until: datetime | None = None

    @cached_property
    def legs(self) -> list[ActiveContract]:
        """The legs of strategies that claim something, also those that were removed."""
        details = self.lake.contracts.get(self._memberships["conid"])
        return _claiming(self._memberships, details)

    @cached_property
    def _memberships(self) -> DataFrame:
        """The rows of the legs of strategies whose contract is known."""
        return self.lake.registry.sync.history()

    @cached_property
    def _contracts(self) -> DataFrame:
        """What is known of their contracts."""
        return self.lake.contracts.rows(one_of("conid", self._memberships["conid"].unique()))

    @cached_property
    def movements(self) -> DataFrame:
        """The rows of `movements`, with what follows from causes of closes."""
        movements = movements_with_inferred(self.lake)
        if self.until is None:
            return movements
        return movements.filter(moment_in() <= moment(self.until))

    @cached_property
    def closures(self) -> DataFrame:
        """The causes of closes that count, the oldest first."""
        if self.until is None:
            return self.lake.closures.current_rows()
        are_known = coalesce("judged_at", "closed_at") <= moment(self.until)
        return self.lake.closures.current_rows(are_known)

    @cached_property
    def _groups(self) -> DataFrame:
        """The contracts that are attributed together."""
        return connected_contracts(self.movements, self._memberships)

    def _connected(self, conids: Iterable[int]) -> DataFrame:
        """Return the groups of contracts that have one of these."""
        chosen = self._groups.filter(one_of("conid", conids))
        return self._groups.join(chosen, on="group", how="semi")

    @property
    def of_strategies(self) -> set[int]:
        """The contracts that strategies can have: those that are connected with a leg."""
        return set(self._connected(self._memberships["conid"])["conid"])

    def postings(self, conids: Collection[int] | None = None) -> list[Posting]:
        """Return whose the movements are, in order of time.

        Only those are made again of which something has changed since they were made last: a trade
        in a book of thousands of legs changes those of a strategy.

        Args:
            conids: Only what decides whose these contracts are; None: all.
        """
        groups = self._groups if conids is None else self._connected(conids)
        sources = self._sources(groups)
        contents = sources.contents(groups)
        remembered = _remembered(self.lake)
        unchanged = {}
        for name, (content, postings_before) in [*remembered.items()]:
            if content == contents.get(name):
                unchanged[name] = postings_before

        changed = groups.filter(~one_of("group", unchanged))
        group_of = dict(changed.iter_rows())
        details = self.lake.contracts.get(group_of)
        postings = sources.of(changed).postings(details)
        parts_of = grouped(lambda part: group_of[part.conid], postings)
        parts_of |= unchanged
        if self.until is None:
            remembered |= {name: (content, parts_of[name]) for name, content in contents.items()}
            # A group that was joined with another one is none any more.
            for gone in remembered.keys() - {*self._groups["group"]}:
                remembered.pop(gone, None)

        of_groups = [parts_of[name] for name in sorted(parts_of)]
        return sorted(chain.from_iterable(of_groups), key=attrgetter("at"))

    def _sources(self, contracts: DataFrame) -> "_Sources":
        """Return what the postings of some contracts follow from."""
        movements = _of(contracts, self.movements)
        legs = _of(contracts, self._memberships)
        seen = read_seen(self.lake, {*movements["conid"].drop_nulls(), *legs["conid"]}, self.until)
        return _Sources(
            movements=movements,
            legs=legs,
            contracts=_of(contracts, self._contracts),
            openings=openings_of(movements, seen),
            held=held_of(movements, seen),
        )


class _Sources(NamedTuple):
    """What postings follow from: rows with the `conid` of a contract."""

    movements: DataFrame
    legs: DataFrame
    contracts: DataFrame
    openings: DataFrame
    held: DataFrame

    def of(self, contracts: DataFrame) -> "_Sources":
        """Return those of some contracts."""
        return _Sources(*(_of(contracts, rows) for rows in self))

    def contents(self, groups: DataFrame) -> dict[int, int]:
        """Return a number of each group of contracts that differs if one of its rows does."""
        hashes = [
            rows.select("conid", content=rows.hash_rows(number)) for number, rows in enumerate(self)
        ]
        of_groups = concat(hashes).join(groups, on="conid").group_by("group")
        return dict(of_groups.agg(col.content.sum()).iter_rows())

    def postings(self, details: Mapping[int, ContractDetails]) -> list[Posting]:
        """Return whose the movements are, by the details of the contracts."""
        return attributed(
            records_of(Movement, self.movements),
            _claiming(self.legs, details),
            openings_in(self.openings),
            held_in(self.held),
        )


def _of(contracts: DataFrame, rows: DataFrame) -> DataFrame:
    """Return the rows of some contracts."""
    return rows.join(contracts, on="conid", how="semi", maintain_order="left")


def _claiming(
    memberships: DataFrame, details: Mapping[int, ContractDetails]
) -> list[ActiveContract]:
    """Return the legs that claim something: not those whose description is of another contract."""
    legs = records_of(ActiveContract, memberships)
    return [leg for leg in legs if not contract_mismatch(leg, details.get(leg.conid))]


@lru_cache(maxsize=2)
def _remembered(_lake: MoneyLake) -> dict[int, tuple[int, list[Posting]]]:
    """Return the postings that were made last, and of what content, by group of contracts."""
    return {}


def part_rows(parts: Iterable[Posting]) -> DataFrame:
    """Return a row for each part."""
    return DataFrame([*map(_PART, parts)], PART_COLUMNS, orient="row")


def owned_at(
    held: DataFrame,
    parts: DataFrame,
    legs: Iterable[ActiveContract],
    at: datetime | None = None,
) -> DataFrame:
    """Return how much each owner has of holdings at a moment, UNATTRIBUTED among them; pure.

    It is what the parts say. By what a holding differs from them is unexplained: it belongs to
    those that claim it.

    Args:
        held: The quantities at the moment: account, conid and position.
        parts: The parts of all movements until then.
        legs: The legs that claim what nothing explains.
        at: Legs that ended before claim nothing; None: when the last leg was added.

    Returns:
        Rows with account, conid, strategy_id and `by`.
    """
    owned = _summed(parts.join(held, on=KEY, how="semi"))
    whole = owned.group_by(KEY).agg(whole=col.by.sum())
    quantities = held.join(whole, on=KEY, how="left").select(
        *KEY,
        "whole",
        strategy_id=lit(UNATTRIBUTED),
        by=col.position - col.whole.fill_null(0.0),
    )
    differs = col.by.abs() >= QUANTITY_ROUNDING

    differing = set(quantities.filter(differs)["conid"])
    legs_of = grouped(attrgetter("conid"), (leg for leg in legs if leg.conid in differing))
    is_of_nobody = col.whole.is_null() & ~one_of("conid", legs_of)
    of_nobody = quantities.filter(is_of_nobody, differs)
    # Of a claim on all accounts those have a part in which nothing differs.
    of_somebody = quantities.filter(~is_of_nobody, differs.any().over("conid"))
    has_of = owned.join(of_somebody, on=KEY, how="semi").rows_by_key(KEY)

    unexplained: list[tuple[str, int, str, float]] = []
    of_somebody = of_somebody.select("conid", "account", "by")
    for conid, of_contract in of_somebody.rows_by_key("conid").items():
        claiming = tuple(legs_of[conid])
        seen_at = at or max((leg.added_at for leg in claiming), default=NEVER)
        differences = tuple((account, by, *has_of[account, conid]) for account, by in of_contract)
        unexplained += _unexplained(conid, claiming, differences, seen_at)
    claimed = DataFrame(unexplained, owned.schema, orient="row")
    return _summed(concat([owned, of_nobody.select(owned.columns), claimed]))


@lru_cache(maxsize=50_000)
def _unexplained(
    conid: int, legs: tuple[ActiveContract, ...], differences: tuple[Any, ...], at: datetime
) -> list[tuple[str, int, str, float]]:
    """Return whose it is by what holdings of a contract differ: account, conid, owner, quantity.

    Args:
        differences: Of each account its name, by how much it differs, and what each owner has.
    """
    parts = unexplained_parts(conid, legs, differences, at)
    return [(*part.key, part.owner, part.quantity) for part in parts]


def _summed(owned: DataFrame) -> DataFrame:
    """Return how much each owner has of each holding."""
    sums = owned.group_by(OWNED, maintain_order=True).agg(col.by.sum())
    return sums.filter(col.by.abs() >= QUANTITY_ROUNDING)
