"""Values of single positions without a line: reqPnLSingle, about one a second."""

from collections.abc import Iterable

from ib_async import IB, PnLSingle

from position_sync_dagster.domain.routing import Key
from position_sync_dagster.gateway.holdings import HoldingsBook
from position_sync_dagster.gateway.translate import known


class PnlSubscriptions:
    """Keep the account feed's values of some holdings about a second old, without a line.

    The gateway sends nothing for a conid that is not held, and DBL_MAX for what it does not
    know (recorded: ibkr-go pnl_single.txt). ib_async refuses a second call with the same key
    until the first is cancelled, hence the set.
    """

    def __init__(self, ib: IB, book: HoldingsBook) -> None:
        self._ib = ib
        self._book = book
        self._keys: frozenset[Key] = frozenset()
        self._wanted: dict[object, frozenset[Key]] = {}
        self.fresh = False
        ib.pnlSingleEvent += self._on_pnl

    @property
    def keys(self) -> frozenset[Key]:
        """Give the (account, conid) that are subscribed."""
        return frozenset(self._keys)

    def keep(self, owner: object, keys: Iterable[Key]) -> None:
        """Subscribe to these holdings for an owner, and to those of the other owners."""
        self._wanted[owner] = frozenset(keys)
        wanted = frozenset().union(*self._wanted.values())
        for account, conid in sorted(self._keys - wanted):
            self._ib.cancelPnLSingle(account, "", conid)
            self._book.clear_daily_pnl((account, conid))
        for account, conid in sorted(wanted - self._keys):
            self._ib.reqPnLSingle(account, "", conid)
        self._keys = wanted

    def release(self, owner: object) -> None:
        """End what only this owner wanted."""
        if self._wanted.pop(owner, None) and self._ib.isConnected():
            self.keep(self, ())

    def resubscribe(self) -> None:
        """Ask for all of them anew: the gateway dropped them (code 1101)."""
        for account, conid in sorted(self._keys):
            self._ib.cancelPnLSingle(account, "", conid)
            self._ib.reqPnLSingle(account, "", conid)

    def take_fresh(self) -> bool:
        """Tell whether a value came since the last call."""
        fresh, self.fresh = self.fresh, False
        return fresh

    def _on_pnl(self, pnl: PnLSingle) -> None:
        value = known(pnl.value)
        if value is None:
            return
        taken = self._book.put_pnl(
            (pnl.account, pnl.conId),
            position=float(pnl.position),
            market_value=value,
            unrealized_pnl=known(pnl.unrealizedPnL),
            realized_pnl=known(pnl.realizedPnL),
            daily_pnl=known(pnl.dailyPnL),
        )
        self.fresh = self.fresh or taken
