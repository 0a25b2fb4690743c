"""Whose holdings and movements are, in columns: what `attributed` says of the tables."""

from collections.abc import Collection, Iterable, Mapping
from datetime import date, datetime
from functools import lru_cache
from itertools import chain
from operator import attrgetter
from typing import Any

import polars as pl
from polars import col

from position_sync_dagster.domain.clock import NEVER
from position_sync_dagster.domain.contract_match import contract_mismatch
from position_sync_dagster.domain.holding import KEY, QUANTITY_ROUNDING, Key, grouped
from position_sync_dagster.domain.leg import UNATTRIBUTED, ActiveContract
from position_sync_dagster.lake.schema import legs_of, records_of
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.attribution import attributed, unexplained_parts
from position_sync_dagster.money.past.closes import SLACK
from position_sync_dagster.money.past.movements import (
    DELIVERY_KINDS,
    Movement,
    MovementKind,
    MovementSource,
    Section,
)
from position_sync_dagster.money.past.opening import Opening
from position_sync_dagster.money.past.postings import Posting

# By how much a part changed what its owner has, and which part of the movement's money is its.
PART_COLUMNS: dict[str, Any] = {
    "movement_id": pl.String, "account": pl.String, "conid": pl.Int64, "strategy_id": pl.String,
    "by": pl.Float64, "fraction": pl.Float64, "is_prior": pl.Boolean,
    "at": pl.Datetime("us", "UTC"),
}  # fmt: skip


def legs_ever(lake: MoneyLake) -> list[ActiveContract]:
    """Return the legs of strategies whose contract is known, also those that were removed.

    A leg whose description does not match the contract of its conid claims nothing.
    """
    history = legs_of(lake.registry.sync.history())
    resolved = [leg for leg in history if isinstance(leg, ActiveContract)]
    contracts = lake.contracts.get({leg.conid for leg in resolved})
    return [leg for leg in resolved if not contract_mismatch(leg, contracts.get(leg.conid))]


def contracts_of_strategies(movements: pl.DataFrame, legs: Iterable[ActiveContract]) -> set[int]:
    """Return the contracts that strategies can have: of legs, delivered ones, and those of actions.

    Args:
        movements: All rows of `movements`.
        legs: All legs that strategies have or had.
    """
    delivered = _deliveries(movements)["delivered"].drop_nulls()
    return {leg.conid for leg in legs} | _acted(movements) | set(delivered)


def deciding_movements(
    movements: pl.DataFrame, conids: Collection[int], legs: Iterable[ActiveContract]
) -> pl.DataFrame:
    """Return the movements that decide whose some contracts are; pure.

    These are those of the contracts, of options that delivered one of them, of contracts that had
    a corporate action, and of what the orders traded that traded what several strategies share.
    """
    wanted = _acted(movements) | set(conids)
    options = _deliveries(movements).filter(col.delivered.is_in(wanted))["option"]
    together = _traded_together(movements, wanted & _shared(legs)).explode("conid")["conid"]
    return movements.filter(col.conid.is_in(wanted.union(options, together)))


def _shared(legs: Iterable[ActiveContract]) -> set[int]:
    """Return the contracts that several strategies have or had."""
    strategies = grouped(attrgetter("conid"), legs)
    return {
        conid
        for conid, of_contract in strategies.items()
        if len({leg.strategy_id for leg in of_contract}) > 1
    }


def _traded_together(movements: pl.DataFrame, conids: Collection[int]) -> pl.DataFrame:
    """Return what each order traded that traded one of these contracts."""
    orders = movements.filter(col.conid.is_in(conids))["order_id"].drop_nulls()
    of_orders = movements.filter(col.order_id.is_in(orders.implode())).drop_nulls("conid")
    return of_orders.group_by("account", "order_id").agg("conid")


def _acted(movements: pl.DataFrame) -> set[int]:
    return set(movements.filter(kind=MovementKind.CORPORATE_ACTION)["conid"].drop_nulls())


def _deliveries(movements: pl.DataFrame) -> pl.DataFrame:
    """Return the options that ended by delivery, with what they delivered."""
    is_end = col.kind.is_in(DELIVERY_KINDS) & col.right.is_not_null()
    movements = movements.filter(is_end)
    return movements.select(
        option="conid", delivered=pl.coalesce("counter_conid", "underlying_conid")
    )


def part_rows(parts: Iterable[Posting]) -> pl.DataFrame:
    """Return a row for each part."""
    return pl.DataFrame([*map(_row_of, parts)], PART_COLUMNS, orient="row")


class RememberedParts:
    """The parts of movements, made again only of contracts of which something changed."""

    def __init__(self) -> None:
        self._made: dict[tuple[object, ...], list[Posting]] = {}

    def parts_of(
        self,
        movements: pl.DataFrame,
        legs: Iterable[ActiveContract],
        openings: Mapping[Key, Opening],
        unexplained: Iterable[Movement] = (),
    ) -> list[Posting]:
        """Return what `attributed` says of these movements, and of ends without a cause."""
        by_conid = movements.select("conid", print=movements.hash_rows()).group_by("conid")
        print_of_contract = col.print.sort().implode().hash()
        prints = dict(by_conid.agg(print_of_contract).iter_rows())
        legs = [*legs]
        legs_of = grouped(attrgetter("conid"), legs)
        openings_of = grouped(lambda opened: opened[0][1], openings.items())
        ends_of = grouped(attrgetter("conid"), unexplained)
        conids = prints.keys() | openings_of.keys() | ends_of.keys()

        # What the parts of contracts that belong together follow from.
        facts_of_groups: list[tuple[Any, ...]] = [
            tuple(
                (conid, prints.get(conid), *legs_of[conid], *openings_of[conid], *ends_of[conid])
                for conid in connected
            )
            for connected in _connected(movements, conids, _shared(legs))
        ]
        changed = {
            conid
            for facts in facts_of_groups
            if facts not in self._made
            for conid, *_facts in facts
        }
        records = records_of(Movement, movements.filter(col.conid.is_in(changed)))
        concerned = [leg for conid in changed for leg in legs_of[conid]]
        opened = dict(chain.from_iterable(openings_of[conid] for conid in changed))
        records += chain.from_iterable(ends_of[conid] for conid in changed)
        parts = grouped(lambda part: part.key[1], attributed(records, concerned, opened))

        made: dict[tuple[object, ...], list[Posting]] = {}
        for facts in facts_of_groups:
            new = chain.from_iterable(parts[conid] for conid, *_facts in facts)
            made[facts] = self._made.get(facts) or sorted(new, key=attrgetter("at"))
        self._made = made
        return list(chain.from_iterable(made.values()))


@lru_cache(maxsize=2)
def remembered_parts(_lake: MoneyLake) -> RememberedParts:
    """Return what is remembered of a lake in this process."""
    return RememberedParts()


class Groups:
    """Numbers that are joined to groups."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._group_of = {number: [number] for number in numbers}

    def join(self, number: int, partner: int) -> None:
        """Make two numbers members of one group."""
        group = self._group_of[number]
        joined = self._group_of[partner]
        if group is not joined:
            group += joined
            for member in joined:
                self._group_of[member] = group

    def members(self) -> list[list[int]]:
        """Return the numbers of each group."""
        groups = {id(group): group for group in self._group_of.values()}
        return list(map(sorted, groups.values()))


def _connected(
    movements: pl.DataFrame, all_conids: Collection[int], shared: Collection[int]
) -> list[list[int]]:
    """Return the contracts in groups: options with what they delivered, and those of one action.

    With what an action brought are those that its words name first. Orders that traded what several
    strategies share join what they traded.
    """
    groups = Groups(sorted(all_conids))
    for option, other in _deliveries(movements).iter_rows():
        if other in all_conids:
            groups.join(option, other)

    actions = movements.filter(kind=MovementKind.CORPORATE_ACTION)
    by_day = actions.group_by("account", "day", "type").agg("conid")["conid"]
    with_id = actions.drop_nulls("action_id")
    by_id = with_id.group_by("account", "action_id").agg("conid")["conid"]
    symbol = col.description.str.split("(").list.first().str.strip_chars()
    named = actions.select("account", symbol=symbol, child="conid")
    origins = movements.select("account", "symbol", "conid").join(named, on=["account", "symbol"])
    by_words = origins.select(conids=pl.concat_list("conid", "child")).unique()["conids"]
    by_order = _traded_together(movements, shared)["conid"]
    for conids in (*by_day, *by_id, *by_words, *by_order):
        for conid in conids:
            groups.join(conids[0], conid)
    return groups.members()


def _row_of(part: Posting) -> tuple[object, ...]:
    movement_id = part.movement.movement_id
    owned = (part.owner, part.quantity, part.fraction)
    return movement_id, *part.key, *owned, part.is_prior, part.at


def counting_legs(legs: Iterable[ActiveContract], at: datetime) -> tuple[ActiveContract, ...]:
    """Return the legs that had been added by a moment, or count since an earlier day."""
    return tuple(
        leg for leg in legs if leg.added_at <= at + SLACK or (leg.since or date.max) <= at.date()
    )


def owned_at(
    held: pl.DataFrame,
    parts: pl.DataFrame,
    legs: Iterable[ActiveContract],
    at: datetime | None = None,
) -> pl.DataFrame:
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
    columns = (*_OWNED, "by")
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
    claimed = pl.DataFrame(unexplained, owned.schema, orient="row")
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
    parts = unexplained_parts(
        [difference(account, conid, by, at) for account, by in differences],
        legs,
        {(account, conid): dict(owners) for account, *owners in has},
    )
    return [(*part.key, part.owner, part.quantity) for part in parts]


def _summed(owned: pl.DataFrame) -> pl.DataFrame:
    """Return how much each owner has of each holding."""
    sums = owned.group_by(_OWNED, maintain_order=True).agg(col.by.sum())
    return sums.filter(col.by.abs() >= QUANTITY_ROUNDING)


# The part of a holding that belongs to one owner.
_OWNED = [*KEY, "strategy_id"]


def difference(account: str, conid: int, by: float, at: datetime) -> Movement:
    """Return a movement of which nothing but the quantity is known."""
    return Movement(
        movement_id=account,
        kind=MovementKind.TRADE,
        section=Section.TRADES,
        source=MovementSource.INFERRED,
        account=account,
        day=at.date(),
        session_date=at.date(),
        at=at,
        conid=conid,
        quantity=by,
    )
