"""Whose holdings and movements are, in columns: what `attributed` says of the tables."""

from collections.abc import Collection, Iterable, Mapping

import polars as pl
from polars import col

from position_sync_dagster.domain.attribution import OwnedPart, attributed
from position_sync_dagster.domain.holding import KEY, QUANTITY_ROUNDING, Key
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.domain.movements import DELIVERIES, Movement, MovementKind
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.schema import legs_of, records_of

# By how much a part changed what its owner has, and which part of the movement's money is its.
_PART = {
    "movement_id": pl.String, "account": pl.String, "conid": pl.Int64, "strategy_id": pl.String,
    "by": pl.Float64, "fraction": pl.Float64, "is_prior": pl.Boolean, "whose": pl.String,
}  # fmt: skip


def legs_ever(lake: Lake) -> list[ActiveContract]:
    """Return the legs of strategies whose contract is known, also those that were removed."""
    history = legs_of(lake.registry.sync.history())
    return [leg for leg in history if isinstance(leg, ActiveContract)]


def deciding_movements(
    movements: pl.DataFrame, legs: Iterable[ActiveContract], conids: Collection[int]
) -> pl.DataFrame:
    """Return the movements that decide whose some contracts are; pure.

    These are those of the contracts, of options that delivered one of them, and of what corporate
    actions took for one. Contracts that no strategy can have are left out.

    Args:
        movements: All rows of `movements`.
        legs: All legs that strategies have or had.
        conids: The contracts.
    """
    acted = set(movements.filter(kind=MovementKind.CORPORATE_ACTION)["conid"])
    is_end = col.kind.is_in(DELIVERIES) & col.right.is_not_null()
    delivered = pl.coalesce("counter_conid", "underlying_conid")
    ends = movements.filter(is_end).select(option="conid", delivered=delivered)

    of_strategies = {leg.conid for leg in legs} | acted | set(ends["delivered"])
    wanted = acted | (of_strategies & set(conids))
    options = ends.filter(col.delivered.is_in(wanted))["option"]
    return movements.filter(col.conid.is_in(wanted | set(options)))


def owned_parts(
    movements: pl.DataFrame, legs: Iterable[ActiveContract], held_before: Mapping[Key, float]
) -> pl.DataFrame:
    """Return a row for each part of some movements, as `attributed`."""
    parts = attributed(records_of(Movement, movements), legs, held_before)
    rows = [(*_row_of(part), part.whose_is_unclear) for part in parts]
    return pl.DataFrame(rows, _PART, orient="row")


def _row_of(part: OwnedPart) -> tuple[object, ...]:
    movement_id = part.movement.movement_id
    return movement_id, *part.key, part.owner, part.quantity, part.fraction, part.is_prior


def shares_of(parts: pl.DataFrame, held: pl.DataFrame) -> pl.DataFrame:
    """Return the share of each owner in holdings; those that the parts do not explain are left out.

    Args:
        parts: The parts of all movements until a moment.
        held: The quantities then: account, conid and position.
    """
    owned = parts.group_by(*KEY, "strategy_id").agg(col.by.sum())
    whole = owned.group_by(KEY).agg(whole=col.by.sum())
    explained = held.select(*KEY, "position").join(whole, on=KEY)
    is_explained = (col.whole - col.position).abs() < QUANTITY_ROUNDING
    of_owners = explained.filter(is_explained, col.position != 0).join(owned, on=KEY)
    with_shares = of_owners.select(*KEY, "strategy_id", share=col.by / col.position)
    return with_shares.filter(col.share.abs() > QUANTITY_ROUNDING)
