"""Whose holdings and movements are, in columns: what `attributed` says of the tables."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from operator import attrgetter
from typing import Any

import polars as pl
from polars import DataFrame, Float64, String, coalesce, col

from position_sync_dagster.domain.clock import NEVER
from position_sync_dagster.domain.contract_match import contract_mismatch
from position_sync_dagster.domain.holding import KEY, QUANTITY_ROUNDING, grouped
from position_sync_dagster.domain.instrument import OPTION_TYPES
from position_sync_dagster.domain.leg import UNATTRIBUTED, ActiveContract
from position_sync_dagster.lake.schema import legs_of, moment, records_of
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.attribution import attributed, unexplained_parts
from position_sync_dagster.money.past.movement_sources import unexplained_ends
from position_sync_dagster.money.past.movements import (
    DELIVERY_KINDS,
    Movement,
    MovementKind,
    MovementSource,
    Section,
)
from position_sync_dagster.money.past.opening import read_openings
from position_sync_dagster.money.past.postings import Posting

# The part of a holding that belongs to one owner.
OWNED = (*KEY, "strategy_id")

# By how much a part changed what its owner has, and which part of the movement's money is its.
PART_COLUMNS: dict[str, Any] = {
    "movement_id": String, "account": String, "conid": pl.Int64, "strategy_id": String,
    "by": Float64, "fraction": Float64, "is_prior": pl.Boolean,
}  # fmt: skip


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
        """The legs of strategies whose contract is known, also those that were removed.

        A leg whose description does not match the contract of its conid claims nothing.
        """
        history = legs_of(self.lake.registry.sync.history())
        resolved = [leg for leg in history if isinstance(leg, ActiveContract)]
        contracts = self.lake.contracts.get({leg.conid for leg in resolved})
        return [leg for leg in resolved if not contract_mismatch(leg, contracts.get(leg.conid))]

    @cached_property
    def movements(self) -> DataFrame:
        """The rows of `movements`."""
        movements = self.lake.movements.rows()
        if self.until is None:
            return movements
        has_been = col.at <= moment(self.until)
        return movements.filter(coalesce(has_been, col.day < self.until.date()))

    @cached_property
    def closures(self) -> DataFrame:
        """The causes of closes that count, the oldest first."""
        are_known = None
        if self.until is not None:
            are_known = coalesce("judged_at", "closed_at") <= moment(self.until)
        return self.lake.closures.current_rows(are_known)

    @property
    def of_strategies(self) -> set[int]:
        """The contracts that strategies can have: of legs, delivered ones, and those of actions."""
        delivered = _deliveries(self.movements)["delivered"].drop_nulls()
        return {leg.conid for leg in self.legs} | _acted(self.movements) | set(delivered)

    def postings(self, conids: Collection[int] | None = None) -> list[Posting]:
        """Return whose the movements are, in order of time.

        Args:
            conids: Only what decides whose these contracts are; None: all.
        """
        movements = self.movements
        claimed = {leg.conid for leg in self.legs}
        ends = unexplained_ends(self.closures)
        if conids is not None:
            movements = deciding_movements(movements, conids, self.legs)
            claimed &= set(conids)
            concerned = claimed.union(movements["conid"])
            ends = [end for end in ends if end.conid in concerned]
        openings = read_openings(self.lake, movements, claimed, self.until)
        return attributed([*records_of(Movement, movements), *ends], self.legs, openings)


def deciding_movements(
    movements: DataFrame, conids: Collection[int], legs: Iterable[ActiveContract]
) -> DataFrame:
    """Return the movements that decide whose some contracts are; pure.

    These are those of the contracts, of options that delivered one of them, and of what they
    delivered, of contracts that had a corporate action, or that its words name first, and of what
    the orders traded that traded what several strategies share.
    """
    wanted = _acted(movements) | _named_by_actions(movements) | set(conids)
    is_wanted = pl.any_horizontal(pl.all().is_in(wanted))
    delivered = _deliveries(movements).filter(is_wanted)
    orders = movements.filter(col.conid.is_in(wanted & _shared(legs)))["order_id"].drop_nulls()
    together = movements.filter(col.order_id.is_in(orders.implode()))["conid"]
    return movements.filter(col.conid.is_in(wanted.union(*delivered, together)))


def _shared(legs: Iterable[ActiveContract]) -> set[int]:
    """Return the contracts that several strategies have or had."""
    strategies = grouped(attrgetter("conid"), legs)
    return {
        conid
        for conid, of_contract in strategies.items()
        if len({leg.strategy_id for leg in of_contract}) > 1
    }


def _acted(movements: DataFrame) -> set[int]:
    return set(movements.filter(kind=MovementKind.CORPORATE_ACTION)["conid"].drop_nulls())


def _named_by_actions(movements: DataFrame) -> set[int]:
    """Return the contracts that the words of corporate actions begin with: those of a spin-off."""
    symbol = col.description.str.split("(").list.first().str.strip_chars()
    named = movements.filter(kind=MovementKind.CORPORATE_ACTION).select("account", symbol=symbol)
    parents = movements.join(named, on=["account", "symbol"], how="semi")
    return set(parents["conid"].drop_nulls())


def _deliveries(movements: DataFrame) -> DataFrame:
    """Return the options that ended by delivery, with what they delivered."""
    ends = movements.filter(col.kind.is_in(DELIVERY_KINDS), col.sec_type.is_in(OPTION_TYPES))
    return ends.select(option="conid", delivered=coalesce("counter_conid", "underlying_conid"))


def part_rows(parts: Iterable[Posting]) -> DataFrame:
    """Return a row for each part."""
    rows = []
    for part in parts:
        of_movement = (part.movement.movement_id, *part.key)
        rows.append((*of_movement, part.owner, part.quantity, part.fraction, part.is_prior))
    return DataFrame(rows, PART_COLUMNS, orient="row")


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
    columns = (*OWNED, "by")
    owned = parts.join(held, on=KEY, how="semi").select(columns)
    whole = owned.group_by(KEY).agg(whole=col.by.sum())
    quantities = held.select(*KEY, "position").join(whole, on=KEY, how="left")
    quantities = quantities.with_columns(by=col.position - col.whole.fill_null(0.0))
    differs = col.by.abs() >= QUANTITY_ROUNDING

    legs_of = grouped(attrgetter("conid"), legs)
    is_of_nobody = col.whole.is_null() & ~col.conid.is_in([*legs_of])
    nobody = pl.lit(UNATTRIBUTED).alias("strategy_id")
    of_nobody = quantities.filter(is_of_nobody, differs).with_columns(nobody)
    # Of a claim on all accounts those have a part in which nothing differs.
    of_somebody = quantities.filter(~is_of_nobody, differs.any().over("conid"))
    of_somebody = of_somebody.select("conid", "account", "by")
    summed = _summed(owned.join(of_somebody, on=KEY, how="semi"))
    has_of = summed.rows_by_key(KEY)

    unexplained: list[tuple[str, int, str, float]] = []
    for conid, differences in of_somebody.rows_by_key("conid").items():
        claiming = tuple(legs_of[conid])
        seen_at = at or max((leg.added_at for leg in claiming), default=NEVER)
        has = tuple((account, *has_of[account, conid]) for account, _by in differences)
        unexplained += _unexplained(conid, claiming, tuple(differences), has, seen_at)
    claimed = DataFrame(unexplained, owned.schema, orient="row")
    return _summed(pl.concat([owned, of_nobody.select(columns), claimed]))


# How much each account holds, and after its name how much each owner has of it.
_Quantities = tuple[tuple[str, float], ...]
_Owned = tuple[tuple[Any, ...], ...]


@lru_cache(maxsize=50_000)
def _unexplained(
    conid: int,
    legs: tuple[ActiveContract, ...],
    differences: _Quantities,
    has: _Owned,
    at: datetime,
) -> list[tuple[str, int, str, float]]:
    """Return whose it is by what holdings of a contract differ: account, conid, owner, quantity."""
    # Of what differs nothing but the quantity is known.
    day = at.date()
    differing = [
        Movement(
            movement_id=account,
            kind=MovementKind.TRADE,
            section=Section.TRADES,
            source=MovementSource.INFERRED,
            account=account,
            day=day,
            session_date=day,
            at=at,
            conid=conid,
            quantity=by,
        )
        for account, by in differences
    ]
    owned = {(account, conid): dict(owners) for account, *owners in has}
    parts = unexplained_parts(differing, legs, owned)
    return [(*part.key, part.owner, part.quantity) for part in parts]


def _summed(owned: DataFrame) -> DataFrame:
    """Return how much each owner has of each holding."""
    sums = owned.group_by(OWNED, maintain_order=True).agg(col.by.sum())
    return sums.filter(col.by.abs() >= QUANTITY_ROUNDING)
