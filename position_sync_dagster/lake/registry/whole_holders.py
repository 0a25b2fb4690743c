"""Who holds the whole of a leg: at most one strategy in an account."""

from position_sync_dagster.domain.leg import ActiveContract


class WholeHolders:
    """The strategies that hold the whole of a leg, by conid and account.

    Each leg is compared with the one holder that counts, so that reading n legs takes n steps.
    """

    def __init__(self) -> None:
        self._by_conid: dict[int, dict[str | None, ActiveContract]] = {}

    def add(self, leg: ActiveContract) -> ActiveContract | None:
        """Add a leg; return an earlier one that holds the whole of the same leg, if there is one.

        A leg without an account holds in every account. A leg with a quantity holds a part, and is
        in nobody's way.
        """
        if leg.quantity is not None:
            return None
        holders = self._by_conid.setdefault(leg.conid, {})
        rivals = holders.values() if leg.account is None else _both(holders, leg.account)
        for other in rivals:
            if other.strategy_id != leg.strategy_id:
                return other
        holders.setdefault(leg.account, leg)
        return None


def _both(holders: dict[str | None, ActiveContract], account: str) -> tuple[ActiveContract, ...]:
    """Return the holder in the account, and the one in every account."""
    return tuple(holders[key] for key in (account, None) if key in holders)
