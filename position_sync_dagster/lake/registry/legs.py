"""The rules for legs of active strategies; pure.

A membership is one leg in one strategy, from the time it is added until it is removed.
"""

from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations

from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.errors import AmbiguousRemovalError, InvalidLegError, UnknownLegError


class LegIndex:
    """The active legs, indexed by conid."""

    def __init__(self, legs: Iterable[ActiveContract] = ()) -> None:
        self.legs = tuple(sorted(legs, key=leg_order))
        self._accounts: dict[int, set[str | None]] = {}
        for leg in self.legs:
            self._accounts.setdefault(leg.conid, set()).add(leg.account)

    def is_active(self, conid: int, account: str | None = None) -> bool:
        """Return whether a strategy has the leg; without an account, in any account."""
        accounts = self._accounts.get(conid)
        if accounts is None:
            return False
        return account is None or account in accounts or None in accounts


def leg_order(leg: ActiveContract) -> tuple[int, str, str]:
    """Return the sort key of a leg: conid, account and strategy."""
    return (leg.conid, leg.account or "", leg.strategy_id)


def is_unchanged(before: ActiveContract | None, leg: ActiveContract) -> bool:
    """Return whether a leg equals the active membership, apart from the time it was added."""
    return before is not None and replace(leg, added_at=before.added_at) == before


def distinct_legs(legs: Iterable[ActiveContract]) -> list[ActiveContract]:
    """Return the legs without repeats.

    Raises:
        InvalidLegError: A strategy has one leg twice, with different values.
    """
    distinct: dict[tuple[str, str | None, int], ActiveContract] = {}
    for leg in legs:
        if leg.key in distinct and not is_unchanged(distinct[leg.key], leg):
            raise InvalidLegError(
                f"The strategy {leg.strategy_id!r} names the leg {leg.conid} twice, with different "
                "values.",
                remedy="Keep one of them.",
            )
        distinct.setdefault(leg.key, leg)
    return list(distinct.values())


def both_hold_the_whole(one: ActiveContract, other: ActiveContract) -> bool:
    """Return whether two strategies would each hold the whole of a leg in the same account."""
    return (
        one.quantity is None
        and other.quantity is None
        and one.conid == other.conid
        and one.strategy_id != other.strategy_id
        and (one.account == other.account or None in (one.account, other.account))
    )


def refuse_two_whole_holders(legs: Iterable[ActiveContract]) -> None:
    """Check that no two strategies each hold the whole of a leg in one account.

    Raises:
        InvalidLegError: Two strategies do; the message names them.
    """
    holders: dict[int, list[ActiveContract]] = {}
    for leg in legs:
        if leg.quantity is None:
            holders.setdefault(leg.conid, []).append(leg)
    for conid, whole in holders.items():
        for one, other in combinations(whole, 2):
            if both_hold_the_whole(one, other):
                raise InvalidLegError(
                    f"The strategies {one.strategy_id!r} and {other.strategy_id!r} would both "
                    f"hold the whole of leg {conid} in "
                    f"{one.account or other.account or 'any account'}.",
                    remedy="Set the quantity (signed contracts) that each has of the leg.",
                )


def find_membership(
    legs: Iterable[ActiveContract],
    conid: int,
    strategy_id: int | str | None,
    account: str | None,
) -> ActiveContract:
    """Return the one membership that matches; None matches every strategy or account.

    Raises:
        UnknownLegError: None matches.
        AmbiguousRemovalError: Several match; the message names them.
    """
    found = [
        leg
        for leg in legs
        if leg.conid == conid
        and (strategy_id is None or leg.strategy_id == str(strategy_id))
        and (account is None or leg.account == account)
    ]
    if not found:
        of = "" if strategy_id is None else f" of strategy {str(strategy_id)!r}"
        raise UnknownLegError(
            f"No active leg{of} has the conid {conid}"
            + (f" in account {account!r}." if account else "."),
            remedy="List the active legs and take conid, strategy and account from there.",
        )
    if len(found) > 1:
        names = ", ".join(
            f"{leg.strategy_id!r} ({leg.account or 'any account'})"
            for leg in sorted(found, key=leg_order)
        )
        raise AmbiguousRemovalError(
            f"The leg {conid} has several holders: {names}.",
            remedy="Name one with strategy_id, and with account if needed.",
        )
    return found[0]
