"""PnLSingle subscriptions: values of single holdings without a market data line."""

from collections.abc import Iterable

from ib_async import IB

from position_sync_dagster.domain.broker_position import Key, key_of
from position_sync_dagster.gateway.accounts.holdings import HoldingsBook
from position_sync_dagster.gateway.changes import ChangeNotifier, PendingChanges
from position_sync_dagster.gateway.ib_async_internals.holdings import PNL_SINGLE, pnl_request
from position_sync_dagster.gateway.ib_async_internals.requests import (
    forget_pnl_single,
    pnl_single_request,
)


class PnlSubscriptions:
    """Keeps the values of some holdings about a second old, without a line.

    The gateway sends nothing for a conid that is not held, and DBL_MAX for a value that it does
    not know (recorded: ibkr-go pnl_single.txt). ib_async refuses a second subscription of the same
    key until the first is cancelled: hence the set.

    Args:
        ib: The connection.
        book: Gets the values.
    """

    def __init__(self, ib: IB, book: HoldingsBook) -> None:
        self._ib = ib
        self._book = book
        self._requests: dict[bytes, Key] = {}
        self._keys: frozenset[Key] = frozenset()
        self._wanted: dict[object, frozenset[Key]] = {}
        self._fresh = False
        self._valued: ChangeNotifier[Key, None] = ChangeNotifier()

    @property
    def keys(self) -> frozenset[Key]:
        """Return the (account, conid) that are subscribed: the same object until it changes."""
        return self._keys

    def keep(self, owner: object, keys: Iterable[Key]) -> None:
        """Subscribe to exactly these holdings for an owner, besides those of other owners."""
        self._wanted[owner] = frozenset(keys)
        wanted = frozenset().union(*self._wanted.values())
        if wanted == self._keys:
            return
        ended = self._keys - wanted
        if ended:
            self._requests = {sent: key for sent, key in self._requests.items() if key in wanted}
        for account, conid in sorted(ended):
            self._ib.cancelPnLSingle(account, "", conid)
            self._book.clear_daily_pnl((account, conid))
        for account, conid in sorted(wanted - self._keys):
            self._ib.reqPnLSingle(account, "", conid)
            request = pnl_single_request(self._ib, account, conid)
            self._requests[str(request).encode()] = key_of(account, conid)
        self._keys = wanted

    def release(self, owner: object) -> None:
        """Cancel the subscriptions that only this owner wanted."""
        if self._wanted.pop(owner, None) and self._ib.isConnected():
            self.keep(self, ())

    def dropped(self) -> None:
        """Forget all of them: the gateway dropped them (code 1101).

        Nothing is sent. Positions and lines come first, and `keep` requests them again.
        """
        for account, conid in self._keys:
            forget_pnl_single(self._ib, account, conid)
            self._book.clear_daily_pnl((account, conid))
        self._keys, self._requests = frozenset(), {}

    def watch(self) -> PendingChanges[Key, None]:
        """Collect from now on which holdings get a new profit or value."""
        return self._valued.watch()

    def take_fresh(self) -> bool:
        """Return whether a message came since the last call."""
        fresh, self._fresh = self._fresh, False
        return fresh

    def keep_message(self, message: bytes) -> bool:
        """Keep a message of a subscription, as sent, until somebody looks at its holding.

        Returns:
            Whether it is one.
        """
        if not message.startswith(PNL_SINGLE):
            return False
        key = self._requests.get(pnl_request(message))
        if key is None:
            return False
        self._fresh = True
        if self._book.put_pnl(key, message):
            self._valued.note(key, None)
        return True
