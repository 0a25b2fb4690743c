"""Which contracts are attributed together: what moved one may say whose another one is; pure."""

from collections.abc import Iterable

from polars import DataFrame, Int64, coalesce, col, concat

from position_sync_dagster.domain.instrument import OPTION_TYPES
from position_sync_dagster.money.past.movements import DELIVERY_KINDS, MovementKind


class Groups:
    """Numbers that are joined to groups."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._group_of = {number: [number] for number in numbers}

    def join(self, number: int, partner: int) -> None:
        """Make two numbers members of one group."""
        group = self._group_of[number]
        joined = self._group_of[partner]
        if len(group) < len(joined):
            group, joined = joined, group
        if group is not joined:
            group += joined
            for member in joined:
                self._group_of[member] = group

    def members(self) -> list[list[int]]:
        """Return the numbers of each group."""
        groups = {id(group): group for group in self._group_of.values()}
        return list(map(sorted, groups.values()))


def connected_contracts(movements: DataFrame, legs: DataFrame) -> DataFrame:
    """Return the `group` of each contract, named by its first contract.

    In one group are an option and what it delivered, what one order traded, and all contracts of
    which corporate actions speak.

    Args:
        movements: Rows of `movements`.
        legs: Rows of `active_strategies`.
    """
    ends = movements.filter(col.kind.is_in(DELIVERY_KINDS), col.sec_type.is_in(OPTION_TYPES))
    delivered = ends.select("conid", partner=coalesce("counter_conid", "underlying_conid"))
    orders = movements.drop_nulls("order_id")
    of_orders = orders.select("conid", partner=col.conid.first().over("order_id"))
    of_actions = _of_actions(movements, legs).select("conid", partner=col.conid.first())
    pairs = concat([delivered, of_orders, of_actions]).drop_nulls().unique()

    conids = [movements["conid"], legs["conid"], pairs["partner"]]
    groups = Groups(concat(conids).drop_nulls())
    for conid, partner in pairs.filter(col.conid != col.partner).iter_rows():
        groups.join(conid, partner)
    rows = [(conid, members[0]) for members in groups.members() for conid in members]
    return DataFrame(rows, {"conid": Int64, "group": Int64}, orient="row")


def _of_actions(movements: DataFrame, legs: DataFrame) -> DataFrame:
    """Return the contracts that corporate actions moved, or that their words begin with."""
    moved = movements.filter(kind=MovementKind.CORPORATE_ACTION)
    symbol = col.description.str.split("(").list.first().str.strip_chars()
    contracts = concat([rows.select("conid", "symbol") for rows in (movements, legs)])
    parents = contracts.join(moved.select(symbol=symbol), on="symbol", how="semi")
    return concat([moved.select("conid"), parents.select("conid")]).drop_nulls().sort("conid")
