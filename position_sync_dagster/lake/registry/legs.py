"""Rules on the legs of active strategies; pure."""

from collections.abc import Iterable
from dataclasses import replace

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
        """Tell whether a strategy holds the leg; without an account, in any account."""
        accounts = self._accounts.get(conid)
        if accounts is None:
            return False
        return account is None or account in accounts or None in accounts


def leg_order(leg: ActiveContract) -> tuple[int, str, str]:
    """Order legs by conid, account and strategy."""
    return (leg.conid, leg.account or "", leg.strategy_id)


def same_leg(before: ActiveContract | None, leg: ActiveContract) -> bool:
    """Tell whether a leg is the active stay, whenever it was added."""
    return before is not None and replace(leg, added_at=before.added_at) == before


def distinct_legs(legs: Iterable[ActiveContract]) -> list[ActiveContract]:
    """Drop repeats of a leg; refuse one leg of a strategy with different values."""
    asked: dict[tuple[str, str | None, int], ActiveContract] = {}
    for leg in legs:
        if leg.key in asked and not same_leg(asked[leg.key], leg):
            raise InvalidLegError(
                f"The strategy {leg.strategy_id!r} names the leg {leg.conid} twice, differently.",
                remedy="Keep one of them.",
            )
        asked.setdefault(leg.key, leg)
    return list(asked.values())


def refuse_two_whole_holders(legs: Iterable[ActiveContract]) -> None:
    """Refuse two strategies that each hold the whole of a leg in one account."""
    holders: dict[int, list[ActiveContract]] = {}
    for leg in legs:
        if leg.quantity is None:
            holders.setdefault(leg.conid, []).append(leg)
    for conid, whole in holders.items():
        for one in whole:
            for other in whole:
                apart = one.strategy_id == other.strategy_id or (
                    one.account != other.account and None not in (one.account, other.account)
                )
                if not apart:
                    raise InvalidLegError(
                        f"The strategies {one.strategy_id!r} and {other.strategy_id!r} would both "
                        f"hold the whole of leg {conid} in "
                        f"{one.account or other.account or 'any account'}.",
                        remedy="Give each its quantity (signed contracts) of the leg.",
                    )


def chosen_leg(
    legs: Iterable[ActiveContract],
    conid: int,
    strategy_id: int | str | None,
    account: str | None,
) -> ActiveContract:
    """Find the one stay that a removal means."""
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
            remedy="Say which with strategy_id, and account if needed.",
        )
    return found[0]
